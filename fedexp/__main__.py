"""`python -m fedexp`."""

from fedexp.commands.cli import main

if __name__ == "__main__":
    main()
