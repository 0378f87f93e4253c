"""`python -m fedexp`."""

import sys

from fedexp.commands.cli import main

if __name__ == "__main__":
    sys.exit(main())
