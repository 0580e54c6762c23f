"""WSGI applications and filters of this package's own: downloads, the upload page, operations."""
