"""The blocks of the documents, and what stands for the reader's application in them."""

import re

import docutils.core
import docutils.nodes

from tests.support.serving import ROOT


def blocks(language, document="README.rst"):
    path = ROOT / document
    settings = {"report_level": 2, "halt_level": 2, "syntax_highlight": "none"}
    tree = docutils.core.publish_doctree(path.read_text(), source_path=str(path), settings_overrides=settings)
    return [node.astext() for node in tree.findall(docutils.nodes.literal_block) if language in node["classes"]]


def moved(code, directory):
    """Return the code of a document with its directories, which are relative, below another one."""
    return re.sub(r'"(uploads-?|arrived)"', rf'"{directory}/\1"', code)


handed = []


def application_factory(global_conf):
    """Stands for the reader's application."""

    def application(environ, start_response):
        if "tus.upload" in environ:
            handed.append(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"ok"]

    return application
