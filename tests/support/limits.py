"""What the directory store counts for its limits."""

import json

COUNTS = ".tus-counts"


def counts(directory):
    return json.loads((directory / COUNTS).read_text())
