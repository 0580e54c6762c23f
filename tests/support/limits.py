"""What the directory store counts for its limits."""

import json
import os

COUNTS = f".tus-counts-{os.geteuid()}"


def counts(directory):
    return json.loads((directory / COUNTS).read_text())
