"""Resumable uploads for Python web applications: tus 1.0.0, and Resumable Uploads for HTTP of the IETF.

The names of this package are imported when they are first used. So a program imports only what it needs, and a client
runs on systems that cannot run a server.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

from tus.version import __version__ as __version__

if TYPE_CHECKING:  # a test compares these with _MODULES
    from tus.adapters.webob import WebobAdapter as WebobAdapter
    from tus.adapters.zope import Zope2RequestAdapter as Zope2RequestAdapter
    from tus.errors import Rejected as Rejected
    from tus.errors import TusException as TusException
    from tus.filter import Filter as Filter
    from tus.handover.finished import FinishedUpload as FinishedUpload
    from tus.handover.spool import SpoolEmpty as SpoolEmpty
    from tus.handover.spool import spool as spool
    from tus.models import HookEvent as HookEvent
    from tus.models import HookReply as HookReply
    from tus.models import Upload as Upload
    from tus.options import Options as Options
    from tus.server.service import Service as Service
    from tus.server.sync import Tus as Tus
    from tus.stores import open_store as open_store
    from tus.stores import register_store as register_store

_MODULES = {
    "Filter": "tus.filter",
    "FinishedUpload": "tus.handover.finished",
    "HookEvent": "tus.models",
    "HookReply": "tus.models",
    "Options": "tus.options",
    "Rejected": "tus.errors",
    "Service": "tus.server.service",
    "SpoolEmpty": "tus.handover.spool",
    "Tus": "tus.server.sync",
    "TusException": "tus.errors",
    "Upload": "tus.models",
    "WebobAdapter": "tus.adapters.webob",
    "Zope2RequestAdapter": "tus.adapters.zope",
    "open_store": "tus.stores",
    "register_store": "tus.stores",
    "spool": "tus.handover.spool",
}
__all__ = [*_MODULES, "__version__"]


if not TYPE_CHECKING:  # a type checker that sees it takes every name for granted

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(_import_module(_MODULES[name]), name)
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
