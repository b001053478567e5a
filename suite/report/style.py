"""What all figures share: the look, the methods' colours, and writing the same bytes twice."""

from __future__ import annotations

import html
import io
import re
import textwrap
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from PIL import Image

from suite.experiments.names import METHODS
from suite.experiments.recipe_book import SEVEN
from suite.records.files import write_atomically
from suite.records.result import BASE

# Okabe and Ito's colours without yellow, then Tol's muted ones: told apart by colour-blind readers, in this order.
PALETTE = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#D55E00",
    "#56B4E9",
    "#882255",
    "#999933",
    "#332288",
    "#AA4499",
    "#117733",
    "#6699CC",
    "#661100",
)
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)), (0, (3, 1, 1, 1, 1, 1)), (0, (2, 2)))
MARKERS = "osD^vP*Xph"
COLOURS = 128
"""Most colours of a PNG file."""
WIDTH, NARROW = 8.6, 4.3
"""Of a figure, in inches: on a page, and on a phone."""
SAID = "said: "
"""How the id of what can be read by pointing at it begins; the rest is what it says."""
INK, SOFT, GRID = "#222222", "#6b6b6b", "#e4e4e4"
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.labelsize": 9,
    "axes.titlelocation": "left",
    "axes.edgecolor": "#b0b0b0",
    "axes.linewidth": 0.8,
    "axes.labelcolor": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "text.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "figure.dpi": 160,
    "savefig.dpi": 160,
}
Colours = Mapping[str, str]


def style() -> AbstractContextManager[None]:
    """The look that all figures share, for the time of a `with` block."""
    return rc_context(STYLE)


def places(names: Iterable[str]) -> dict[str, int]:
    """A place in PALETTE, DASHES and MARKERS for every method; those of the demo have the same on every page.

    The suite's other methods have a place that they share with few; where it is taken, and for methods from elsewhere,
    the next free one is theirs.
    """
    order = [*sorted(SEVEN), *(name for name in METHODS if name not in SEVEN)]
    methods = sorted(set(names) - {BASE}, key=lambda name: (order.index(name) if name in METHODS else len(order), name))
    room, found = max(len(PALETTE), len(methods)), dict[str, int]()
    for name in methods:
        wished = order.index(name) if name in METHODS else len(SEVEN)
        free = (place % room for place in range(wished, wished + room) if place % room not in found.values())
        found[name] = next(free)
    return found


def method_colours(names: Iterable[str]) -> dict[str, str]:
    """A colour for every method, so that all figures agree. The base model is grey."""
    return {name: PALETTE[i % len(PALETTE)] for name, i in places(names).items()} | {BASE: SOFT}


def line_styles(names: Iterable[str]) -> dict[str, Any]:
    """A dash pattern for every method: what tells lines apart in grey print."""
    return {name: DASHES[i % len(DASHES)] for name, i in places(names).items()} | {BASE: "-"}


def markers(names: Iterable[str]) -> dict[str, str]:
    """A mark for every method, for the same reason."""
    return {name: MARKERS[i % len(MARKERS)] for name, i in places(names).items()} | {BASE: "o"}


def length_axis(axes: Axes, lengths: Iterable[float]) -> None:
    """A logarithmic axis of response lengths: ticks at powers of two, fewer where they would crowd; none of none.

    Lengths between two powers of two have ticks at their ends.
    """
    values = np.asarray(list(lengths), float)
    if not len(values):
        return
    first, last = int(np.ceil(np.log2(values.min()))), int(np.floor(np.log2(values.max())))
    step = 1 + max(0, last - first) // 5
    ticks = [float(2**e) for e in range(first, last + 1, step)] or [values.min(), values.max()]
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))


def save_figure(figure: Figure, folder: Path, name: str) -> None:
    """The figure as NAME.png, to look at, and as NAME.svg, to print: laid out once, which is half of the work."""
    save_png(figure, folder / f"{name}.png")
    figure.set_layout_engine("none")
    save_svg(figure, folder / f"{name}.svg")


def save_png(figure: Figure, path: Path) -> None:
    """Write the figure in one move, without the library's version in the file, in at most COLOURS colours.

    A figure has few of them, and their softened edges: a quarter of the bytes, and nothing that one sees is lost.
    """
    drawn, kept = io.BytesIO(), io.BytesIO()
    with style():
        FigureCanvasAgg(figure).print_png(drawn, metadata={"Software": None})
    Image.open(drawn).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(kept, "PNG", optimize=True)
    write_atomically(path, kept.getvalue())


def leave_out(grid: np.ndarray, row: int, column: int) -> None:
    """Switch off the panels of a grid from that row and column on; those above them get the labels of the axis."""
    for axes in grid[row:, column:].ravel() if column else ():
        axes.set_axis_off()
    for axes in grid[row - 1, column:] if row and column else ():
        axes.tick_params(labelbottom=True)


def wrapped(text: str, width: float) -> str:
    """The text in lines that fit a figure of so many inches."""
    return "\n".join(textwrap.wrap(text, int(width / 0.072)))


def below(figure: Figure, text: str) -> None:
    """Write under a figure what its marks are; no line is longer than the figure is wide."""
    figure.supxlabel(wrapped(text, figure.get_figwidth()), fontsize=8.5, color=SOFT)


def saying(text: str) -> str:
    """The id of a mark that says the text: without quotes, on which the one around it depends."""
    return SAID + html.escape(text)


def says(axes: Axes, x: float, y: float, text: str) -> None:
    """Make a point of the figure say something to whoever points at it, in SVG: a mark that nobody sees lies on it."""
    if np.isfinite(x) and np.isfinite(y):
        look: dict[str, Any] = {"marker": "o", "markersize": 9, "color": INK, "alpha": 0, "zorder": 9}
        mark = Line2D([x], [y], transform=axes.transData, gid=saying(text), **look)
        mark.set_in_layout(False)
        axes.figure.add_artist(mark)  # and not to the axes, whose limits and whose lines are those of the data


def svg(figure: Figure) -> str:
    """The figure as vector graphics: no date, no random ids, the same text every time; marks have their titles."""
    buffer = io.BytesIO()
    with style(), matplotlib.rc_context({"svg.hashsalt": "fspo"}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
    drawn = buffer.getvalue().decode()
    return re.sub(f'<g id="{SAID}([^"]*)">', lambda found: f"<g><title>{html.unescape(found[1])}</title>", drawn)


def save_svg(figure: Figure, path: Path) -> None:
    """Write the figure as vector graphics in one move."""
    write_atomically(path, svg(figure))
