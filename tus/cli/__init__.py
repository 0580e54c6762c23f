"""The command ``tus``: :mod:`tus.cli.main` has the table of its commands, and each command has a module."""
