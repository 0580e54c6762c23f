"""The picture of the page: each server's speed as a ratio to tusd, or to the C sink if tusd is not here."""

from __future__ import annotations

from pathlib import Path

from benchmarks.rows import ROWS
from benchmarks.servers import BY_NAME, LIMIT, OURS
from benchmarks.targets import Medians

SHOWN = ("1 GiB", "8 MiB", "1 MiB", "16 at once", "small", "small 32", "whole", "head")
COLOURS = {OURS: "#1f6f8b", LIMIT: "#b8b8b8"}
OTHERS = "#d9a441"


def draw(medians: Medians, titles: dict[str, str], path: Path) -> bool:
    """Draw the picture; return False if there is no matplotlib, or nothing to draw."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import NullLocator, StrMethodFormatter
        from PIL import Image
    except ImportError:
        return False
    base = "tusd" if "tusd" in medians.servers(ROWS[0].name) else "sink"
    rows = [row for row in ROWS if row.name in SHOWN and base in medians.servers(row.name)]
    if not rows:
        return False
    height = (len(rows) + 1) // 2
    figure = Figure(figsize=(11, 3.2 * height), layout="constrained")
    for place, row in enumerate(rows):
        axes = figure.add_subplot(height, 2, place + 1)
        ratios = {server: medians.ratio((row.name, server, "value"), (row.name, base, "value")) for server in titles}
        names = sorted((name for name in ratios if ratios[name]), key=ratios.__getitem__)
        colours = [COLOURS.get(BY_NAME[name].kind, OTHERS) for name in names]
        bars = axes.barh([plain(titles[name]) for name in names], [ratios[name] for name in names], color=colours)
        axes.bar_label(bars, [f" {ratios[name]:.2f}" for name in names], fontsize=8)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.axvline(1, color="black", linewidth=0.7)
        axes.set_title(f"{row.title}, x {base}", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.margins(x=0.15)
    figure.savefig(path, dpi=90)
    with Image.open(path) as image:  # a palette makes the file a third as large
        image.convert("RGB").quantize(32).save(path, optimize=True)
    return True


def plain(title: str) -> str:
    return title.replace("*", "").replace("``", "")
