"""The tables in docs/conformance.rst, made from the profiles of the package and from its tests.

``python -m tests.conformance_table`` writes them again.
"""

from __future__ import annotations

from dataclasses import fields
from enum import Enum

from tests.conformance import test_ietf, test_tus1
from tests.support.ietf import ALL, VERSIONS
from tests.support.serving import ROOT
from tus.protocols.ietf.profiles import PROFILES, Profile

DOCUMENT = ROOT / "docs" / "conformance.rst"

#: The words for each attribute of a profile.
ASPECTS = {
    "drafts": "draft-ietf-httpbis-resumable-upload",
    "is_inverted": "``Upload-Incomplete`` reports completeness, inverted",
    "missing": "an append that does not say whether it completes the upload",
    "needs_media_type": "an append must be ``application/partial-upload`` (415)",
    "completes_at_length": "reaching the length always completes the upload",
    "appended_status": "status of an append that does not complete the upload",
    "reports_progress": "interim responses report the offset",
    "forbids_state": "HEAD and DELETE must not have fields of the upload's state (400)",
    "hides_gone": "a removed upload gets 404, and not 410",
    "refuses_completed": "an append to a completed upload is refused, and does not get the response again",
    "overrun_invalidates": "more bytes than the length end the upload",
    "lifetime_key": "key of the lifetime in ``Upload-Limit``",
    "reports_length": "the reply to HEAD has ``Upload-Length`` before the application has accepted the file",
    "has_problems": "refusals are ``application/problem+json``",
    "keeps_location": "``Location`` in the completing reply to a creation is the upload's URL",
}

#: Words in the names of tests that are written in another way.
SPELLED = {word: word.upper() for word in ("delete", "get", "head", "ietf", "options", "patch", "post", "put", "url")}


def list_table(header, rows, widths):
    lines = [".. list-table::", "   :header-rows: 1", f"   :widths: {' '.join(map(str, widths))}", ""]
    for row in (header, *rows):
        for number, cell in enumerate(row):
            lines.append(f"   {'*' if number == 0 else ' '} - {cell}".rstrip())
    return "\n".join(lines)


def _cell(value):
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Enum):
        return value.value
    return f"``{value}``" if value and isinstance(value, str) and value[0] != "-" else value or "\u2013"


def profiles():
    assert {field.name for field in fields(Profile)} == {"version", *ASPECTS}, "an aspect without words"
    header = ["", *(str(version) for version in PROFILES)]
    rows = [[words, *(_cell(getattr(p, name)) for p in PROFILES.values())] for name, words in ASPECTS.items()]
    return list_table(header, rows, [40, *[10] * len(PROFILES)])


def _words(function):
    words = function.__name__.replace("_", " ").replace(" s ", "'s ")
    return " ".join(SPELLED.get(word, word) for word in words.split())


def _range(versions):
    """Versions in words, such as "3 to 6"."""
    if versions == ALL:
        return "all"
    known = [version for version in versions if version in VERSIONS]
    runs = []
    for version in known:
        if runs and runs[-1][-1] == version - 1:
            runs[-1].append(version)
        else:
            runs.append([version])
    parts = [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]
    return ", ".join(parts + (["no known version"] if len(known) < len(versions) else []))


def ietf():
    rows = [(_words(function), _range(versions), ", ".join(ids)) for function, ids, versions, *_ in _rows()]
    return list_table(("Rule", "Versions", "Requirements"), rows, (50, 20, 30))


def _rows():
    return test_ietf.ROWS


def tus():
    rows = []
    for row in test_tus1.ROWS:
        ids = row.id.removesuffix(f"-{row.values[0].__name__}").split("+")
        rows.append((_words(row.values[0]), ", ".join(ids)))
    return list_table(("Rule", "Requirements"), rows, (60, 40))


TABLES = {"profiles": profiles, "ietf": ietf, "tus": tus}


def rewritten(text):
    """Return the document with new tables."""
    for name, make in TABLES.items():
        before, begin, rest = text.partition(f".. begin {name}\n")
        _, end, after = rest.partition(f".. end {name}\n")
        assert begin and end, name
        text = f"{before}{begin}\n{make()}\n\n{end}{after}"
    return text


if __name__ == "__main__":
    DOCUMENT.write_text(rewritten(DOCUMENT.read_text()))
