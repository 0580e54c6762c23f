"""The command ``tus``: :mod:`tus.cli.main` parses ``tus serve``, and each other group of commands has a module."""
