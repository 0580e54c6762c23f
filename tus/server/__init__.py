"""Serve requests: the service, the runner, and reading request bodies."""
