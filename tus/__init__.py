"""Resumable uploads for Python web applications: tus 1.0.0, and Resumable Uploads for HTTP of the IETF."""

from tus.adapters.webob import WebobAdapter
from tus.adapters.zope import Zope2RequestAdapter
from tus.errors import Rejected, TusException
from tus.filter import Filter
from tus.handover.finished import FinishedUpload
from tus.handover.spool import SpoolEmpty, spool
from tus.models import HookEvent, HookReply, Upload
from tus.options import Options
from tus.server.service import Service
from tus.server.sync import Tus
from tus.stores import open_store, register_store
from tus.version import __version__

__all__ = [
    "Filter",
    "FinishedUpload",
    "HookEvent",
    "HookReply",
    "Options",
    "Rejected",
    "Service",
    "SpoolEmpty",
    "Tus",
    "TusException",
    "Upload",
    "WebobAdapter",
    "Zope2RequestAdapter",
    "__version__",
    "open_store",
    "register_store",
    "spool",
]
