"""The command line, with a module for each group of commands. Each has ``add_commands()``, which the parser calls."""
