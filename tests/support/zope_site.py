"""A real Zope in memory, with ``tus.zope`` and a receiver that makes file objects.

There is one Zope in a process. ``python -m tests.support.zope_site SERVER PORT DIRECTORY`` serves it.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

CONF = """\
%define INSTANCE {directory}
instancehome $INSTANCE
<zodb_db main>
  <filestorage>
    path $INSTANCE/Data.fs
    blob-dir $INSTANCE/blobs
  </filestorage>
  mount-point /
</zodb_db>
<product-config tus>
  tmp_file_dir {directory}/uploads
  download true
  keep_finished true
</product-config>
"""
ZCML = """\
<configure xmlns="http://namespaces.zope.org/zope" xmlns:meta="http://namespaces.zope.org/meta">
  <include package="Products.Five"/>
  <meta:redefinePermission from="zope2.Public" to="zope.Public"/>
  <securityPolicy component="AccessControl.security.SecurityPolicy"/>
  <include package="tus.zope"/>
  <adapter
      for="OFS.interfaces.IFolder zope.publisher.interfaces.browser.IBrowserRequest"
      provides="tus.zope.interfaces.IUploadReceiver"
      factory="tests.support.zope_site.Receiver"
      />
</configure>
"""

#: How often each upload was received; the receiver looks at ``do`` in its metadata.
attempts: dict[str, int] = {}


class Receiver:
    """Makes a file object in the folder, or what the metadata asks for."""

    def __init__(self, context, request):
        self.context, self.request = context, request

    def receive(self, upload, file):
        import transaction
        from OFS.Image import manage_addFile
        from ZODB.blob import Blob
        from ZODB.POSException import ConflictError

        attempts[upload.id] = attempts.get(upload.id, 0) + 1
        what = upload.text_metadata.get("do")
        if what == "raise":
            raise RuntimeError("the receiver does not want it")
        manage_addFile(self.context, upload.filename, file.read())
        if what is not None:
            blob = Blob()
            blob.consumeFile(file.name)
            setattr(self.context, f"blob-{upload.id}", blob)
        if what == "conflict for real" and attempts[upload.id] == 1:
            _write_beside_us(self.context.getPhysicalPath())
        if what == "conflict" and attempts[upload.id] == 1:
            raise ConflictError("provoked in the view")
        if what == "conflict at commit" and attempts[upload.id] <= 2:
            transaction.get().addBeforeCommitHook(_conflict)
        if what == "abort":
            transaction.doom()
        return self.context[upload.filename].absolute_url()


def _write_beside_us(path):
    """Commit a change of the folder in another transaction than that of this thread."""
    import Zope2
    from transaction import TransactionManager

    manager = TransactionManager()
    connection = Zope2.DB.open(manager)
    folder = connection.root()["Application"].unrestrictedTraverse(path)
    folder.title = str(int(folder.title or 0) + 1)
    manager.commit()
    connection.close()


def _conflict():
    from ZODB.POSException import ConflictError

    raise ConflictError("provoked at the commit")


def make(directory: Path):
    """The WSGI application; once in a process."""
    (directory / "etc").mkdir(parents=True)
    (directory / "zope.conf").write_text(CONF.format(directory=directory))
    (directory / "etc" / "site.zcml").write_text(ZCML)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transaction
        import Zope2
        from Zope2.Startup.run import make_wsgi_app
        from ZPublisher.httpexceptions import HTTPExceptionHandler
        from ZPublisher.HTTPRequest import HTTPRequest

        HTTPRequest.delay_retry = lambda self: None  # it sleeps for up to a second
        app = make_wsgi_app({}, str(directory / "zope.conf"))
        root = Zope2.app()
        root.manage_addFolder("f")
        root.acl_users.userFolderAddUser("ann", "secret", ["Manager"], [])
        root.acl_users.userFolderAddUser("bob", "secret", ["Manager"], [])
        root.acl_users.userFolderAddUser("eve", "secret", [], [])
        from Products.SiteAccess.VirtualHostMonster import manage_addVirtualHostMonster

        if "virtual_hosting" not in root.objectIds():
            manage_addVirtualHostMonster(root, "virtual_hosting")
        transaction.commit()
        root._p_jar.close()
    return HTTPExceptionHandler(app)


@functools.cache
def site():
    """The application of this process, and its directory."""
    directory = Path(tempfile.mkdtemp(prefix="tus-zope-"))
    atexit.register(shutil.rmtree, directory)
    return make(directory), directory


def contents(path="f"):
    """The file objects of a folder: names and data."""
    import Zope2

    root = Zope2.app()
    try:
        folder = root.unrestrictedTraverse(path)
        return {name: bytes(folder[name].data) for name in folder.objectIds("File")}
    finally:
        root._p_jar.close()


def blob_of(upload_id, path="f"):
    """The path of the blob that an upload has become."""
    import Zope2

    root = Zope2.app()
    try:
        return getattr(root.unrestrictedTraverse(path), f"blob-{upload_id}").committed()
    finally:
        root._p_jar.close()


def call_application(environ, start_response):
    return _served()(environ, start_response)


@functools.cache
def _served():
    return make(Path(os.environ["TUS_TEST_ZOPE"]))


def main(server: str, port: int, directory: str) -> None:
    os.environ["TUS_TEST_ZOPE"] = directory
    if server == "waitress":
        import waitress

        waitress.serve(call_application, host="127.0.0.1", port=port, threads=4)
    elif server == "gunicorn":
        arguments = [
            "-k",
            "gthread",
            "--threads",
            "4",
            "-b",
            f"127.0.0.1:{port}",
            "tests.support.zope_site:call_application",
        ]
        os.execv(sys.executable, [sys.executable, "-m", "gunicorn", *arguments])
    else:
        raise SystemExit(f"unknown server {server!r}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
