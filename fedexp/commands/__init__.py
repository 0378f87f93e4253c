"""The command line: `fedexp COMMAND` is the module of that name."""
