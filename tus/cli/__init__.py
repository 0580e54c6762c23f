"""The commands for operators, one room for each matter. Each has ``add_commands()``, which the parser calls."""
