"""WSGI applications and filters of this package: finished files, the upload page, operations."""
