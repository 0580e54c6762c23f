"""Stores of uploads, opened by URL. Only this module names concrete stores."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Final

from tus.converters import suggestion
from tus.errors import OptionError
from tus.options import Options
from tus.stores.interface import Limits, Store

__all__ = ["Store", "open_store", "register_store"]

#: The group of entry points. Their names are schemes of URLs, and their values are factories.
ENTRY_POINTS: Final = "tus.stores"

#: Makes a store from its URL and the options.
StoreFactory = Callable[[str, Options], Store]

_factories: dict[str, StoreFactory] = {}


def register_store(scheme: str, factory: StoreFactory) -> None:
    """Register the factory that opens URLs of a scheme in this process; packages use an entry point ``tus.stores``.

    Args:
        scheme: the scheme without the colon, such as ``s3``.
        factory: is called with the URL and the options, and returns the store.
    """
    _factories[scheme] = factory


def open_store(url: str, options: Options | None = None, *, probes: bool = True) -> Store:
    """Open a store by its URL.

    Args:
        url: a path, or ``file:`` and a path, for a directory; ``memory:`` for a store that ends with the process; or a
            URL with a scheme from another package.
        options: lifetimes, limits and so on; by default the defaults of :class:`tus.Options`.
        probes: whether a directory is created if it is missing, and is written to prove that it can be used. False is
            for tools, which look at uploads and remove them also on a full or a read-only disk.

    Raises:
        OptionError: no store has this scheme, or the store cannot be used.
    """
    scheme, colon, rest = url.partition(":")
    if not colon or "/" in scheme:
        scheme, rest = "file", url
    if options is None:
        options = Options.build(tmp_file_dir=rest) if scheme == "file" else Options.build(store=url)
    if scheme == "file":
        return _open_directory(rest, options, probes)
    if scheme == "memory":
        return _open_memory(options)
    return _factory_of(scheme)(url, options)


def _open_directory(path: str, options: Options, probes: bool) -> Store:
    from tus.filesystem.ownership import Ownership
    from tus.stores.directory.preparation import prepare_directory
    from tus.stores.directory.store import DirectoryStore

    ownership = Ownership(options.trusted_group)
    return DirectoryStore(
        prepare_directory(path, ownership, probes),
        fsync=options.fsync,
        lifetime=options.upload_valid_duration,
        completed_keep=options.completed_keep,
        keep_finished=options.keep_finished,
        rejected_keep=options.rejected_keep,
        limits=_limits_of(options),
        keep_free=options.keep_free,
        ownership=ownership,
    )


def _open_memory(options: Options) -> Store:
    from tus.stores.memory import MemoryStore

    if options.keep_free:
        raise OptionError("keep_free", "works only with a directory, not with memory:")
    return MemoryStore(
        lifetime=options.upload_valid_duration,
        completed_keep=options.completed_keep,
        keep_finished=options.keep_finished,
        rejected_keep=options.rejected_keep,
        limits=_limits_of(options),
    )


def _limits_of(options: Options) -> Limits:
    return Limits(
        options.max_uploads,
        options.max_total_size,
        options.max_uploads_per_principal,
        options.max_total_size_per_principal,
    )


def _factory_of(scheme: str) -> StoreFactory:
    if scheme in _factories:
        return _factories[scheme]
    found = entry_points(group=ENTRY_POINTS)
    for entry_point in found:
        if entry_point.name == scheme:
            factory: StoreFactory = entry_point.load()
            return factory
    known = sorted({"file", "memory", *_factories, *found.names})
    near = suggestion(scheme, known)
    raise OptionError("store", f"must be a path, or a URL of one of {', '.join(known)}; no store has {scheme!r}{near}")
