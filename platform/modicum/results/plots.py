"""Curves and box plots by matplotlib, without its global state: safe in threads and notebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from modicum.results.curves import CurvePoint
from modicum.results.svg import INK

# Okabe and Ito's palette: colour-blind readers can tell it apart, on light and dark grounds.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8C8C8C", "#B8A800")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

_SIZE = (6.4, 3.8)
# Entries of a legend that lies among the curves; a longer one stands beside them.
_MOST_INSIDE = 4
_MOST_MARKERS = 30


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
    """Draw a line with markers and a shaded 95% interval for each curve.

    Intervals that reach far beyond all means are cut off at the edge.

    Args:
        curves: Points by label.
        metric: Name of the vertical axis.
        axis: Name of the horizontal axis.
        logarithmic: Make the horizontal axis logarithmic if it spans more than a factor of 20.
    """
    crowded = len(curves) > _MOST_INSIDE
    figure, axes = _axes(_SIZE[0] + 1.4 if crowded else None)
    for index, (label, points) in enumerate(curves.items()):
        _draw_curve(axes, index, label, points)
    every = [point for points in curves.values() for point in points]
    _limit(axes, [point.summary.mean for point in every])
    if logarithmic:
        _scale(axes, [point.budget for point in every])
    _name_axes(axes, axis, metric)
    if curves:
        _legend(axes, len(curves))
    return figure


def _draw_curve(axes: Axes, index: int, label: str, points: Sequence[CurvePoint]) -> None:
    x = [point.budget for point in points]
    colour = COLOURS[index % len(COLOURS)]
    axes.plot(
        x,
        [point.summary.mean for point in points],
        color=colour,
        marker=None if len(x) > _MOST_MARKERS else MARKERS[index % len(MARKERS)],
        markersize=5,
        linewidth=1.6,
        label=label,
    )
    low = [p.summary.mean if p.summary.low is None else p.summary.low for p in points]
    high = [p.summary.mean if p.summary.high is None else p.summary.high for p in points]
    axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)


def _scale(axes: Axes, budgets: Sequence[float]) -> None:
    """Make the horizontal axis logarithmic if the budgets span more than a factor of 20."""
    positive = [budget for budget in budgets if budget > 0]
    if not positive or max(budgets) <= 20 * min(positive):
        return
    if min(budgets) > 0:
        axes.set_xscale("log")
    else:
        axes.set_xscale("symlog", linthresh=min(positive))
        # By default the axis would reach far below zero, where no budget is.
        axes.set_xlim(-0.2 * min(positive), 1.3 * max(budgets))


def _legend(axes: Axes, entries: int) -> None:
    """Add a legend; a long one stands beside the curves, which it would cover."""
    outside: Any = {"loc": "upper left", "bbox_to_anchor": (1.01, 1)}
    legend = axes.legend(
        frameon=False, fontsize="small", **(outside if entries > _MOST_INSIDE else {})
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _name_axes(axes: Axes, across: str, up: str) -> None:
    """Name the axes; dollar signs in a name start no formula."""
    axes.set_xlabel(across, parse_math=False)
    axes.set_ylabel(up, parse_math=False)


def _limit(axes: Axes, means: Sequence[float]) -> None:
    """Cut off wide intervals of few seeds, which would flatten the curves."""
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
    """Draw box plots over seeds, with every seed as a dot.

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
        shift = (index - (len(present) - 1) / 2) * step
        places = [
            (place + shift, samples[row, column])
            for place, column in enumerate(shown)
            if (row, column) in samples
        ]
        _draw_boxes(axes, row, places, COLOURS[index % len(COLOURS)], width=step * 0.8)
    axes.set_xticks(range(len(shown)), shown, parse_math=False)
    _name_axes(axes, column_title, metric)
    if len(present) > 1:
        _legend(axes, len(present))
    return figure


def _draw_boxes(
    axes: Axes,
    label: str,
    places: Sequence[tuple[float, Sequence[float]]],
    colour: str,
    width: float,
) -> None:
    """Draw a box and dots for each sample, at its place on the horizontal axis."""
    boxes = axes.boxplot(
        [list(values) for _, values in places],
        positions=[x for x, _ in places],
        widths=width,
        manage_ticks=False,
        patch_artist=True,
        showfliers=False,
        medianprops={"color": INK, "linewidth": 1.2},
        whiskerprops={"color": colour},
        capprops={"color": colour},
    )
    for box in boxes["boxes"]:
        box.set(facecolor=colour, alpha=0.45, edgecolor=colour)
    boxes["boxes"][0].set_label(label)
    for x, values in places:
        axes.plot([x] * len(values), list(values), ".", color=colour, markersize=4)
