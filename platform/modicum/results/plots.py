"""Figures by matplotlib, without its global state: safe in threads and in notebooks."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from modicum.results.budget import CurvePoint

# Okabe and Ito's palette: told apart by colour-blind readers, on light and dark ground.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8C8C8C", "#B8A800")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

# Stands for the page's text colour until the SVG is written.
_INK = "#010203"
_SIZE = (6.4, 3.8)
# How matplotlib begins each SVG, and the same said by the picture's own element.
_RULES = """ <defs>
  <style type="text/css">*{stroke-linejoin: round; stroke-linecap: butt}</style>
 </defs>
"""
_INHERITED = 'stroke-linejoin="round" stroke-linecap="butt"'
# Entries of a legend that lies among the curves; a longer one stands beside them.
_MOST_INSIDE = 4


def _axes(width: float | None = None) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width or _SIZE[0], _SIZE[1]), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def curves_figure(
    curves: Mapping[str, Sequence[CurvePoint]], metric: str, axis: str, *, logarithmic: bool = True
) -> Figure:
    """A line with markers and a shaded 95% interval for each curve.

    Intervals that reach far beyond all means are cut off at the edge.

    Args:
        curves: Points by label.
        metric: Name of the vertical axis.
        axis: Name of the horizontal axis.
        logarithmic: Whether the horizontal axis is logarithmic where it spans more than a factor
            of 20.
    """
    crowded = len(curves) > _MOST_INSIDE
    figure, axes = _axes(_SIZE[0] + 1.4 if crowded else None)
    budgets = [point.budget for points in curves.values() for point in points]
    for index, (label, points) in enumerate(curves.items()):
        x = [point.budget for point in points]
        colour = COLOURS[index % len(COLOURS)]
        many = len(x) > 30
        axes.plot(
            x,
            [point.summary.mean for point in points],
            color=colour,
            marker=None if many else MARKERS[index % len(MARKERS)],
            markersize=5,
            linewidth=1.6,
            label=label,
        )
        low = [p.summary.mean if p.summary.low is None else p.summary.low for p in points]
        high = [p.summary.mean if p.summary.high is None else p.summary.high for p in points]
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    _limit(axes, [point.summary.mean for points in curves.values() for point in points])
    positive = [budget for budget in budgets if budget > 0]
    if logarithmic and positive and max(budgets) > 20 * min(positive):
        if min(budgets) > 0:
            axes.set_xscale("log")
        else:
            axes.set_xscale("symlog", linthresh=min(positive))
            # Left to itself the axis would reach far below zero, where no budget is.
            axes.set_xlim(-0.2 * min(positive), 1.3 * max(budgets))
    _name_axes(axes, axis, metric)
    if curves:
        _legend(axes, len(curves))
    return figure


def _legend(axes: Axes, entries: int) -> None:
    """A legend where there is room: a long one would lie on what it explains."""
    outside: Any = {"loc": "upper left", "bbox_to_anchor": (1.01, 1)}
    legend = axes.legend(
        frameon=False, fontsize="small", **(outside if entries > _MOST_INSIDE else {})
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _name_axes(axes: Axes, across: str, up: str) -> None:
    """Names are what they are: dollar signs in them set no formula."""
    axes.set_xlabel(across, parse_math=False)
    axes.set_ylabel(up, parse_math=False)


def _limit(axes: Axes, means: Sequence[float]) -> None:
    """Keep wide intervals of few seeds from flattening the curves themselves."""
    if not means or min(means) == max(means):
        return
    span = max(means) - min(means)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, min(means) - span), min(high, max(means) + span))


def boxes_figure(
    samples: Mapping[tuple[str, str], Sequence[float]],
    rows: Sequence[str],
    columns: Sequence[str],
    metric: str,
    column_title: str,
) -> Figure:
    """Box plots over seeds with every seed as a dot.

    Args:
        samples: Values by (row label, column label).
        rows: Row labels, in order; a colour each.
        columns: Column labels, in order; a group of boxes each.
        metric: Name of the vertical axis.
        column_title: Name of the horizontal axis.
    """
    present = [row for row in rows if any((row, column) in samples for column in columns)]
    shown = [column for column in columns if any((row, column) in samples for row in rows)]
    figure, axes = _axes(min(14.0, max(_SIZE[0], 0.32 * len(present) * len(shown) + 2.4)))
    step = 0.8 / max(1, len(present))
    for index, row in enumerate(present):
        colour = COLOURS[index % len(COLOURS)]
        places = [
            (place + (index - (len(present) - 1) / 2) * step, samples[row, column])
            for place, column in enumerate(shown)
            if (row, column) in samples
        ]
        boxes = axes.boxplot(
            [list(values) for _, values in places],
            positions=[x for x, _ in places],
            widths=step * 0.8,
            manage_ticks=False,
            patch_artist=True,
            showfliers=False,
            medianprops={"color": _INK, "linewidth": 1.2},
            whiskerprops={"color": colour},
            capprops={"color": colour},
        )
        for box in boxes["boxes"]:
            box.set(facecolor=colour, alpha=0.45, edgecolor=colour)
        boxes["boxes"][0].set_label(row)
        for x, values in places:
            axes.plot([x] * len(values), list(values), ".", color=colour, markersize=4)
    axes.set_xticks(range(len(shown)), shown, parse_math=False)
    _name_axes(axes, column_title, metric)
    if len(present) > 1:
        _legend(axes, len(present))
    return figure


def to_svg(figure: Figure) -> str:
    """A figure as SVG for a page: transparent, its text in the page's own colour."""
    style: Any = {
        "svg.fonttype": "none",
        # Ids in the SVG derive from this; without it they differ from run to run.
        "svg.hashsalt": "modicum",
        "font.family": "sans-serif",
    }
    for axes in figure.axes:
        _ink(axes)
    stream = io.StringIO()
    with matplotlib.rc_context(style):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue().replace(_INK, "currentColor")
    # A rule for all elements would hold for the whole page, and a page may allow no such rules.
    text = text.replace(_RULES, "", 1).replace("<svg", f"<svg {_INHERITED}", 1)
    return text[text.index("<svg") :]


def _ink(axes: Axes) -> None:
    axes.tick_params(which="both", color=_INK, labelcolor=_INK)
    axes.xaxis.label.set_color(_INK)
    axes.yaxis.label.set_color(_INK)
    for spine in axes.spines.values():
        spine.set_color(_INK)
    legend = axes.get_legend()
    if legend is not None:
        for text in legend.get_texts():
            text.set_color(_INK)
