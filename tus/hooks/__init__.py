"""Hooks: code that is called at each step of an upload's life, with the names and powers of tusd's hooks."""
