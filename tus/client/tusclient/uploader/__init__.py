"""The uploaders of tuspy."""

from tus.client.tusclient.uploader.uploader import AsyncUploader, Uploader

__all__ = ["AsyncUploader", "Uploader"]
