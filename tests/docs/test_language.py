"""The documents and the code are plain English: no banned word, and in documents no long sentence and no long line.

Names in documents are exempt: literals and code blocks. In code only literals in double backquotes are exempt, so the
rules hold for names too. The limits are those of ``LONGEST_SENTENCE`` and ``LONGEST_LINE``.
"""

from __future__ import annotations

import re

import docutils.core
import docutils.nodes
import pytest

from tests.support.serving import ROOT

#: Every file below these is searched for banned words. A line here puts another part of the project under the rules.
ROOTS = (
    "README.rst",
    "CHANGES.rst",
    "docs",
    "examples",
    "paste_example.ini",
    "tus",
    "tests/conformance/legend.py",
    "tests/conformance_table.py",
)

LONGEST_SENTENCE = 35  # words; a literal is one
LONGEST_LINE = 100  # columns; code, tables and the targets of links may be longer

_GAP = r"[\s#]+"  # between two words, also at the end of a line of a comment

#: A pattern, and what to write in its place.
BANNED = (
    (r"(?i:\b(?:whoever|whomever|whosoever)\b)", "name the actor"),
    (r"(?i:\b(?:somebody|nobody|anybody)(?:'s)?\b)", "name the actor"),
    (r"(?i:\b(?:by{gap})?(?:himself|herself)\b)", "automatically, or name the actor"),
    (r"(?i:\b(?:hear|hears|heard)\b)", "gets, learns, is notified"),
    (r"(?i:\btold\b)", "gets, is notified, is reported"),
    (r"(?i:\btak(?:e|es|en|ing){gap}down\b)", "record"),
    (r"(?i:\bd(?:ie|ies|ied|ying){gap}over\b)", "crashes during"),
    (r"(?i:\bthose{gap}that\b)", "name the things"),
    (r"(?i:\b(?:is|are|be|was|were|while|somebody){gap}at{gap}it\b)", "say what the actor does"),
    (r"\bWhat{gap}(?:is|are|was|were|has|have)\b", "name the thing"),
    (r"(?i:\b(?:is|are|was|were){gap}(?:yet{gap}|still{gap})?to{gap}be\b)", "must be, will be"),
    (r"(?i:\bput(?:s|ting)?{gap}aside\b)", "set aside"),
)

BANNED = tuple((re.compile(pattern.replace("{gap}", _GAP)), advice) for pattern, advice in BANNED)

_CODE = re.compile(r"^( *)(?:\.\. code-block::.*|(?!\.\. ).*::)$")
_BORDER = re.compile(r" *=+(?: +=+)+ *$")
_LITERAL = re.compile(r"``(?:[^`\n]|`(?!`)|\n(?!\s*\n))+``")


def files(roots):
    paths = [
        path for root in roots for path in ([ROOT / root] if (ROOT / root).is_file() else (ROOT / root).rglob("*"))
    ]
    text = sorted(path for path in paths if path.suffix in {".rst", ".py", ".ini", ".html", ".zcml"})
    return [str(path.relative_to(ROOT)) for path in text]


SEARCHED = files(ROOTS)
DOCUMENTS = [name for name in SEARCHED if name.endswith(".rst")]


def code_lines(lines):
    """The numbers of the lines of code in a document, from 0 on."""
    found, indent = set(), None
    for number, line in enumerate(lines):
        depth = len(line) - len(line.lstrip())
        if indent is not None and line.strip() and depth <= indent:
            indent = None
        if indent is not None:
            found.add(number)
        elif match := _CODE.match(line):
            indent = len(match[1])
    return found


def table_lines(lines):
    """The numbers of the lines of simple tables, each of which has a head, so three borders."""
    found, borders = set(), 0
    for number, line in enumerate(lines):
        is_border = _BORDER.match(line) is not None
        borders += is_border
        if is_border or borders % 3:
            found.add(number)
    assert borders % 3 == 0, "a table without a head"
    return found


def prose(name):
    """The text of a file, of the same length, with spaces in the place of code that is not to be judged."""
    text = (ROOT / name).read_text()
    if name.endswith(".rst"):
        lines = text.split("\n")
        code = code_lines(lines)
        text = "\n".join(" " * len(line) if number in code else line for number, line in enumerate(lines))
    return _LITERAL.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)


def banned_in(text):
    for pattern, advice in BANNED:
        for match in pattern.finditer(text):
            yield text.count("\n", 0, match.start()) + 1, " ".join(match[0].split()), advice


def sentences(name):
    """The sentences of a document, each with the line where its paragraph ends or begins."""
    path = ROOT / name
    settings = {"report_level": 2, "halt_level": 2, "syntax_highlight": "none", "file_insertion_enabled": False}
    tree = docutils.core.publish_doctree(
        re.sub(r"(?m)^\.\. include::.*$", "", path.read_text()), source_path=str(path), settings_overrides=settings
    )
    for paragraph in tree.findall(docutils.nodes.paragraph):
        for literal in list(paragraph.findall(docutils.nodes.literal)):
            literal.parent.replace(literal, docutils.nodes.Text("Literal"))
        text = " ".join(paragraph.astext().split())
        for sentence in re.split(r"(?<=[.!?])[\")]?\s+", text):
            yield paragraph.line, sentence


@pytest.mark.parametrize("name", SEARCHED)
def test_no_banned_word(name):
    found = [f"{name}:{line}: {words!r}: {advice}" for line, words, advice in sorted(banned_in(prose(name)))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_long_sentence(name):
    long = [(line, sentence) for line, sentence in sentences(name) if len(sentence.split()) > LONGEST_SENTENCE]
    assert not long, "\n".join(f"{name}:{line}: {len(text.split())} words: {text}" for line, text in long)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_long_line(name):
    lines = (ROOT / name).read_text().split("\n")
    exempt = code_lines(lines) | table_lines(lines)
    long = [
        number + 1
        for number, line in enumerate(lines)
        if len(line) > LONGEST_LINE and number not in exempt and not line.startswith(".. _")
    ]
    assert not long, f"{name}: lines {long}"


def test_the_search_finds_what_is_banned():
    """Each pattern, over the end of a line too, and with the number of the line."""
    text = (
        "Plain.\nWhoever has\n# those\n# that took it down, or takes down, is told. Nobody dies over it by himself.\n"
    )
    text += "What is there is at it, hears, and is to be put\naside.\n"
    found = [(line, words) for line, words, _ in banned_in(text)]
    assert len(found) == len(BANNED)
    assert {(2, "Whoever"), (3, "those # that"), (4, "told"), (5, "What is"), (5, "put aside")} <= set(found)


def test_the_search_passes_over_code(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "x.rst").write_text(
        "A name, ``told``::\n\n    somebody\n\nPlain.\n\n.. code-block:: ini\n\n  nobody\n\ntold\n"
    )
    assert [line for line, _, _ in banned_in(prose("x.rst"))] == [11]
    (tmp_path / "x.rst").write_text("Short. " + "word " * 36 + "end. ``one literal of words`` here.\n")
    assert [len(sentence.split()) for _, sentence in sentences("x.rst")] == [1, 37, 2]
