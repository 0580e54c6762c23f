"""Resumable uploads for Python web applications: tus 1.0.0 with every extension."""

from tus.adapters.webob import WebobAdapter
from tus.adapters.zope import Zope2RequestAdapter
from tus.errors import Rejected, TusException
from tus.filter import Filter
from tus.handover.spool import spool
from tus.hooks.events import HookEvent, HookReply
from tus.models import Upload
from tus.options import Options
from tus.server.sync import Tus

__all__ = [
    "Filter",
    "HookEvent",
    "HookReply",
    "Options",
    "Rejected",
    "Tus",
    "TusException",
    "Upload",
    "WebobAdapter",
    "Zope2RequestAdapter",
    "spool",
]
__version__ = "2.0.0.dev0"
