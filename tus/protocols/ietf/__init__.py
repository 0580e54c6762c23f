"""Resumable Uploads for HTTP (draft-ietf-httpbis-resumable-upload)."""
