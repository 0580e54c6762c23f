"""Where uploads are kept. Nobody outside names a concrete store: :func:`open_store` picks one."""

from __future__ import annotations

from functools import lru_cache

from tus.options import Options
from tus.stores.interface import Store

__all__ = ["Store", "open_store"]


# Opening proves that the directory serves, which a ``Tus`` made for each request must not repeat.
@lru_cache(maxsize=64)
def open_store(options: Options) -> Store:
    """The store that the options ask for.

    Raises:
        OptionError: the directory does not serve.
    """
    from tus.stores.directory.quota import Limits
    from tus.stores.directory.store import DirectoryStore, prepare_directory

    return DirectoryStore(
        prepare_directory(options.tmp_file_dir),
        fsync=options.fsync,
        lifetime=options.upload_valid_duration,
        completed_keep=options.completed_keep,
        keep_finished=options.keep_finished,
        rejected_keep=options.rejected_keep,
        limits=Limits(
            options.max_uploads,
            options.max_total_size,
            options.max_uploads_per_principal,
            options.max_total_size_per_principal,
        ),
        keep_free=options.keep_free,
    )
