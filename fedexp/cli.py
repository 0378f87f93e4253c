"""Where the entry point was in the first edition: environments of then still start here.

For one release. An editable install keeps the script that pip wrote, and pip looks at it only when
it installs anew; the command itself is `fedexp.commands.cli`.
"""

from fedexp.commands.cli import main

__all__ = ["main"]
