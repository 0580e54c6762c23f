"""Hooks: code that is asked, or told, about each step of an upload's life, with the names and powers of tusd's."""
