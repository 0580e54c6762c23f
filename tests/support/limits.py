"""What the directory store counts for its limits."""

import json

COUNTS = ".tus-counts"


def counts(directory):
    fields = json.loads((directory / COUNTS).read_text())
    return {name: fields[name] for name in ("uploads", "size", "each")}
