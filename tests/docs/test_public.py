"""docs/public.rst names what exists, and everything that ``tus`` exports."""

import importlib
import inspect
import re
import tomllib

import pytest

import tus
from tests.support.serving import ROOT

DOCUMENT = (ROOT / "docs/public.rst").read_text()
LOGGERS = {"tus.uploads", "tus.requests"}
KEYS = {"tus.upload", "tus.handover", "tus.path_values", "tus.intent", "tus.about"}
NAMES = sorted(set(re.findall(r"``(tus(?:\.\w+)+)``", DOCUMENT)) - LOGGERS - KEYS)


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_exists(name):
    found, attributes = None, name.split(".")
    for number in range(len(attributes), 0, -1):
        try:
            found = importlib.import_module(".".join(attributes[:number]))
        except ModuleNotFoundError:
            continue
        attributes = attributes[number:]
        break
    for attribute in attributes:
        found = getattr(found, attribute)


def test_every_export_is_public():
    assert {f"tus.{name}" for name in tus.__all__} <= set(NAMES)


def test_every_entry_point_and_extra_is_public():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for group in project["entry-points"].values():
        for name in group:
            assert f"``egg:tus#{name}``" in DOCUMENT
    for name in set(project["optional-dependencies"]) - {"test", "lint", "browser"}:
        assert f"``{name}``" in DOCUMENT


@pytest.mark.parametrize("kind", ["Service", "Tus", "Upload", "Options"])
def test_the_attributes_of_a_public_class_exist(kind):
    named = getattr(tus, kind)
    (text,) = re.findall(rf"^``tus\.{kind}``\n((?:    .*\n)+)", DOCUMENT, re.MULTILINE)
    for name in re.findall(r"``(\w+)(?:\(\))?``", text):
        assert name == "with" or hasattr(named, name) or f"self.{name} = " in inspect.getsource(named)
