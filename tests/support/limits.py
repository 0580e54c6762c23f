"""What the directory store counts for its limits."""

import json

from tus.filesystem.ownership import Ownership
from tus.stores.directory.principals import open_principals

COUNTS = ".tus-counts"
EACH = ".tus-counts-each"
PRINCIPALS = ("ann", "bob", "eve")


def counts(directory):
    """The counts, with those of the principals that have something."""
    fields = json.loads((directory / COUNTS).read_text())
    each = {}
    if fields["each"]:
        with open_principals(str(directory / EACH), Ownership()) as principals:
            pairs = {principal: list(principals.get(principal)) for principal in PRINCIPALS}
        each = {principal: pair for principal, pair in pairs.items() if pair != [0, 0]}
    return {"uploads": fields["uploads"], "size": fields["size"], "each": each}


def set_counts(directory, uploads, size, **each):
    """Write counts as a crash may leave them; only these principals change."""
    (directory / COUNTS).write_text(json.dumps({"uploads": uploads, "size": size, "each": True}))
    with open_principals(str(directory / EACH), Ownership()) as principals:
        for principal, pair in each.items():
            principals.set(principal, pair)
