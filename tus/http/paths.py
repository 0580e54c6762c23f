"""The path of a URL (RFC 3986, section 3.3). Pure."""

from __future__ import annotations

import re
from typing import Final

#: What :func:`urllib.parse.quote` leaves in a path, beside letters, digits and ``_.-~``.
SAFE: Final = "/~:@!$&'()*+,;="

#: Matches a path that quoting leaves as it is, as nearly every path is.
PLAIN: Final = re.compile(r"[A-Za-z0-9/._-]*")
