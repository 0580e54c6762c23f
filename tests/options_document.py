"""docs/options.rst, made of the declarations in tus/options.py.

``python -m tests.options_document`` writes it anew.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from dataclasses import fields
from itertools import groupby, pairwise

from tests.support.serving import ROOT
from tus.options import Options

DOCUMENT = ROOT / "docs" / "options.rst"
WIDTH = 100

HEAD = """\
.. Generated from tus/options.py: python -m tests.options_document

=======
Options
=======
"""

INTRODUCTION = """
Each option is an argument of ``Filter`` and ``Tus`` and, as text, a line of an ini file. Sizes are in bytes; ``10M``
and ``2 GiB`` work too. Durations are in seconds; ``90m``, ``12h`` and ``7d`` work too. An option that says whether
to do something is ``true`` or ``false``. The items of a list are separated by blanks or commas. An unknown option or a
bad value fails at start-up.
"""

#: Paragraphs below a heading, about several of its options.
INTRODUCTIONS = {
    "Limits and timeouts": """
All limits except ``max_metadata_size`` and ``stall_timeout`` are off (0) by default. The counts of uploads and their
bytes are stored in a file in ``tmp_file_dir``, which the sweeper corrects after a crash.
""",
    "Authorization": """
An upload belongs to the principal that created it. For any other principal it does not exist (404), also as a part of
a concatenation. In a view, set the principal of the request with
``Tus(adapter, principal=request.authenticated_userid, ...)``.

A principal is a text that is not empty, or an int, which is stored as its decimal digits: ``7`` and ``"7"`` are the
same principal, and 0 is one. None means that no principal is known. False refuses the request (403). Anything else,
such as True or an empty text, is an error of the site: the client gets 500, the log says why, and nothing is allowed.
A principal can be named by ``authorize``, by the application (``ask_app``) and by ``principal=``. One that names none
leaves the name of the others; a request for which two name different principals is refused (403).
""",
    "Hand-over": """
Hand-over is described in handover.rst. In a view, ``spool``, ``webhook`` and ``handover = background`` need a
``tus.Service`` that is built once and passed as ``service=``.
""",
}


def descriptions():
    """The string below each field in the class."""
    (declared,) = ast.parse(inspect.getsource(Options)).body
    found = {}
    for statement, following in pairwise(declared.body):
        match statement, following:
            case ast.AnnAssign(ast.Name(name)), ast.Expr(ast.Constant(str(text))):
                found[name] = inspect.cleandoc(text)
    return found


def _wrapped(paragraph, indent=""):
    """A paragraph in lines; each literal stays in one, and code stays as it is."""
    if paragraph.startswith((" ", "..")):
        return textwrap.indent(paragraph, indent)
    whole = re.sub(r"``.+?``", lambda match: match[0].replace(" ", "\0"), " ".join(paragraph.split()))
    lines = textwrap.wrap(
        whole, WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(lines).replace("\0", " ")


def _entry(option, text):
    """The item of an option; its default follows the first paragraph."""
    default = option.metadata["default"]
    first, *others = text.split("\n\n")
    paragraphs = [f"{first} Default:\0{f'``{default}``' if default else 'none'}.", *others]
    return f"``{option.name}``\n" + "\n\n".join(_wrapped(paragraph, "    ") for paragraph in paragraphs)


def made():
    """The text of the document."""
    texts = descriptions()
    parts = [HEAD, _wrapped(INTRODUCTION)]
    for group, options in groupby(fields(Options), lambda option: option.metadata["group"]):
        parts.append(f"\n{group}\n{'=' * len(group)}\n")
        if group in INTRODUCTIONS:
            parts += [_wrapped(paragraph) + "\n" for paragraph in INTRODUCTIONS[group].split("\n\n")]
        parts += [_entry(option, texts[option.name]) for option in options]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(made())
