"""The view under Zope's own test case, in a process of its own: ``python -m unittest tests.support.zope_case``."""

import atexit
import os
import shutil
import tempfile
from io import BytesIO

import Products.Five
from OFS.interfaces import IFolder
from Testing import ZopeTestCase
from Testing.ZopeTestCase.layer import ZopeLite
from zope.component import provideAdapter
from zope.publisher.interfaces.browser import IBrowserRequest
from Zope2.App import zcml

import tus.zope
from tests.support.zope_site import Receiver
from tus.zope.interfaces import IUploadReceiver

os.environ["TUS_TMP_FILE_DIR"] = tempfile.mkdtemp(prefix="tus-zope-case-")
atexit.register(shutil.rmtree, os.environ["TUS_TMP_FILE_DIR"])
OCTETS = {"CONTENT_TYPE": "application/offset+octet-stream"}


class TestUploads(ZopeTestCase.FunctionalTestCase):
    @classmethod
    def setUpClass(cls):
        ZopeLite.setUp()

    def afterSetUp(self):  # noqa: N802 - Zope's name
        zcml.load_config("meta.zcml", Products.Five)
        zcml.load_config("configure.zcml", tus.zope)
        provideAdapter(Receiver, (IFolder, IBrowserRequest), IUploadReceiver)

    def send(self, method, path, body=b"", **environ):
        environ = {"HTTP_TUS_RESUMABLE": "1.0.0", "CONTENT_LENGTH": str(len(body))} | environ
        basic = f"{ZopeTestCase.user_name}:{ZopeTestCase.user_password}"
        return self.publish(path, basic, env=environ, request_method=method, stdin=BytesIO(body))

    def test_an_upload(self):
        self.setRoles(["Manager"])
        base = f"/{ZopeTestCase.folder_name}/tus"
        reply = self.send("POST", base, HTTP_UPLOAD_LENGTH="5", HTTP_UPLOAD_METADATA="filename aGVsbG8=")
        self.assertEqual(reply.getStatus(), 201)
        path = base + "/" + reply.getHeader("Location").rpartition("/")[2]
        reply = self.send("PATCH", path, b"hel", HTTP_UPLOAD_OFFSET="0", **OCTETS)
        self.assertEqual((reply.getStatus(), reply.getHeader("Upload-Offset")), (204, "3"))
        reply = self.send("HEAD", path)
        self.assertEqual((reply.getStatus(), reply.getHeader("Upload-Offset"), reply.getBody()), (200, "3", b""))
        reply = self.send("PATCH", path, b"lo", HTTP_UPLOAD_OFFSET="3", **OCTETS)
        self.assertEqual((reply.getStatus(), reply.getHeader("Upload-Offset")), (204, "5"))
        self.assertEqual(bytes(self.folder["hello"].data), b"hello")
        self.assertEqual(self.send("OPTIONS", base).getHeader("Tus-Version"), "1.0.0")

    def test_whoever_lacks_the_permission(self):
        self.setRoles(["Member"])
        self.assertEqual(self.send("POST", f"/{ZopeTestCase.folder_name}/tus", HTTP_UPLOAD_LENGTH="5").getStatus(), 403)
