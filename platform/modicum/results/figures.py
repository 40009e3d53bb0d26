"""Figures of a study, without matplotlib's global state: safe in threads and notebooks."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from modicum.results.curves import CurvePoint, curves_by_row, progress_by_row, steps_by_row
from modicum.results.formatting import show
from modicum.results.layout import Objective
from modicum.results.ranking import by_time
from modicum.results.records import Key, StudyRecords, Where, values_by_seed

# Placeholder for the text colour of the page, until the SVG is written.
INK = "#010203"
# Style rule at the start of every SVG by matplotlib, and attributes of equal effect.
_RULES = """ <defs>
  <style type="text/css">*{stroke-linejoin: round; stroke-linecap: butt}</style>
 </defs>
"""
_INHERITED = 'stroke-linejoin="round" stroke-linecap="butt"'
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8C8C8C", "#B8A800")
"""Okabe and Ito's palette: colour-blind readers can tell it apart, on light and dark grounds."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
WIDTH, _HEIGHT = 6.4, 3.8  # inches
# Entries of a legend that lies among the curves; a longer one stands beside them.
_MOST_INSIDE = 4
_MOST_MARKERS = 30
# More points of a line than the pixels of a screen show nothing more.
_MOST_POINTS = 1000
# Budgets that get a tick each, and the room that a label needs, as a share of the axis.
_MOST_TICKS, _TICK_ROOM = 15, 0.075


def to_svg(figure: Figure) -> str:
    """Write a figure as transparent SVG, whose text takes the colour of the page."""
    style: Any = {
        "svg.fonttype": "none",
        # Identifiers in the SVG derive from the salt; without it they differ from run to run.
        "svg.hashsalt": "modicum",
        "font.family": "sans-serif",
    }
    for axes in figure.axes:
        axes.tick_params(which="both", color=INK, labelcolor=INK)
        for spine in axes.spines.values():
            spine.set_color(INK)
        for text in (axes.xaxis.label, axes.yaxis.label, *_texts(axes)):
            text.set_color(INK)
    stream = io.StringIO()
    with matplotlib.rc_context(style):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    svg = stream.getvalue().replace(INK, "currentColor")
    # The rule would apply to the whole page, and a content policy may forbid it.
    svg = svg.replace(_RULES, "", 1).replace("<svg", f"<svg {_INHERITED}", 1)
    return svg[svg.index("<svg") :]


def _texts(axes: Axes) -> Sequence[Text]:
    legend = axes.get_legend()
    return [] if legend is None else [legend.get_title(), *legend.get_texts()]


def new_axes(across: str, up: str, width: float) -> tuple[Figure, Axes]:
    """Make a figure of a width in inches, with the names of its axes."""
    figure = Figure(figsize=(width, _HEIGHT), layout="constrained")
    axes = figure.add_subplot()
    # Dollar signs in a name start no formula.
    axes.set_xlabel(across, parse_math=False)
    axes.set_ylabel(up, parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


@dataclass(frozen=True)
class Lines:
    """Curves of one picture.

    Attributes:
        curves: Points of each line, by the line's label.
        across: Name of the horizontal axis.
        up: Name of the vertical axis.
        legend: Names of the settings whose values are the labels.
        budget: True if the horizontal axis is a budget: its ticks are the budgets that were used,
            and it is logarithmic where they span more than a factor of 20.
    """

    curves: Mapping[str, Sequence[CurvePoint]]
    across: str
    up: str
    legend: str = ""
    budget: bool = True


def curves_figure(lines: Lines) -> Figure:
    """Draw a line with markers and a shaded 95% interval for each curve.

    Intervals that reach far beyond all means are cut off at the edge.
    """
    curves = {label: thinned(points) for label, points in lines.curves.items()}
    beside = len(curves) > _MOST_INSIDE
    figure, axes = new_axes(lines.across, lines.up, WIDTH + 1.4 if beside else WIDTH)
    for index, (label, points) in enumerate(curves.items()):
        _draw_curve(axes, index, label, points)
    every = [point for points in curves.values() for point in points]
    means = [point.summary.mean for point in every]
    if means and min(means) != max(means):
        # Wide intervals of few seeds would flatten the curves.
        span = max(means) - min(means)
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, min(means) - span), min(high, max(means) + span))
    if lines.budget:
        budgets = sorted({point.budget for point in every})
        _scale(axes, budgets)
        _ticks(axes, budgets)
    if curves:
        add_legend(axes, len(curves), lines.legend)
    return figure


def thinned(points: Sequence[CurvePoint], most: int = _MOST_POINTS) -> Sequence[CurvePoint]:
    """Points of a curve, about `most` of them: the smallest and the largest mean of each stretch.

    The first and the last point stay.
    """
    if len(points) <= most:
        return points
    stretch = math.ceil(2 * len(points) / most)
    kept = {0, len(points) - 1}
    for start in range(0, len(points), stretch):
        part = range(start, min(start + stretch, len(points)))
        kept |= {extreme(part, key=lambda i: points[i].summary.mean) for extreme in (min, max)}
    return [points[index] for index in sorted(kept)]


def logarithmic(budgets: Sequence[float]) -> bool:
    """Tell whether budgets span more than a factor of 20."""
    positive = [budget for budget in budgets if budget > 0]
    return bool(positive) and max(budgets) > 20 * min(positive)


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
    """Make the horizontal axis logarithmic if the budgets span much."""
    if not logarithmic(budgets):
        return
    if min(budgets) > 0:
        axes.set_xscale("log")
    else:
        positive = [budget for budget in budgets if budget > 0]
        axes.set_xscale("symlog", linthresh=min(positive))
        # By default the axis would reach far below zero, where no budget is.
        axes.set_xlim(-0.2 * min(positive), 1.3 * max(budgets))


def _ticks(axes: Axes, budgets: Sequence[float]) -> None:
    """Put ticks at the budgets that were used, as far as their labels have room."""
    if not 1 < len(budgets) <= _MOST_TICKS:
        return
    to_axes = axes.transScale + axes.transLimits
    places = [float(to_axes.transform((budget, axes.get_ylim()[0]))[0]) for budget in budgets]
    shown = [len(budgets) - 1]
    for index in range(len(budgets) - 2, -1, -1):
        if places[shown[-1]] - places[index] > _TICK_ROOM:
            shown.append(index)
    axes.set_xticks([budgets[i] for i in shown], [f"{budgets[i]:g}" for i in shown])
    axes.minorticks_off()


def add_legend(axes: Axes, entries: int, title: str = "") -> None:
    """Add a legend; a long one stands beside the curves, which it would cover."""
    outside: Any = {"loc": "upper left", "bbox_to_anchor": (1.01, 1)}
    legend = axes.legend(
        frameon=False,
        fontsize="small",
        title=title or None,
        title_fontsize="small",
        alignment="left",
        **(outside if entries > _MOST_INSIDE else {}),
    )
    for text in (legend.get_title(), *legend.get_texts()):
        text.set_parse_math(False)


def plot_boxes(
    records: StudyRecords,
    metric: str,
    rows: Sequence[str],
    columns: Sequence[str],
    where: Where = None,
) -> Figure:
    """Draw box plots over seeds: a group per column, a box per row, every seed as a dot."""
    cells = values_by_seed(records, metric, [*rows, *columns], where)
    samples = {
        (_label(key[: len(rows)]), _label(key[len(rows) :])): list(seeds.values())
        for key, seeds in cells.items()
    }
    filled = [{label[side] for label in samples} for side in (0, 1)]
    present = [label for key in records.keys(rows) if (label := _label(key)) in filled[0]]
    shown = [label for key in records.keys(columns) if (label := _label(key)) in filled[1]]
    width = min(14.0, max(WIDTH, 0.32 * len(present) * len(shown) + 2.4))
    figure, axes = new_axes(", ".join(columns), metric, width)
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
    if len(present) > 1:
        add_legend(axes, len(present), ", ".join(rows))
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


def budget_lines(
    records: StudyRecords, metric: str, rows: Sequence[str], where: Where = None
) -> Lines:
    """Metric against budget: a line per row."""
    curves = curves_by_row(records, metric, rows, where)
    return Lines(_labelled(curves), f"budget ({records.budget_words})", metric, ", ".join(rows))


def plot_search(
    records: StudyRecords, names: Sequence[str], objective: Objective, where: Where = None
) -> Figure:
    """Draw an objective by the order in which configurations ended, with the best finished so far.

    Args:
        records: The study.
        names: Settings that make a configuration.
        objective: Metric and goal; the best so far needs a goal.
        where: Settings of the trials to take.
    """
    cells = by_time(records, names, objective, where)
    figure, axes = new_axes("configurations, in the order of their ends", objective.metric, WIDTH)
    places = [(place, cell.summary.mean, cell.ended_at) for place, cell in enumerate(cells, 1)]
    finished = [(place, value) for place, value, ended in places if ended is None]
    early = [(place, value) for place, value, ended in places if ended is not None]
    for points, label, face in ((finished, "finished", COLOURS[0]), (early, "ended early", "none")):
        if points:
            axes.plot(*zip(*points, strict=True), "o", label=label, color=COLOURS[0], mfc=face)
    if finished and objective.goal is not None:
        better = max if objective.goal == "max" else min
        best = list(accumulate((value for _, value in finished), better))
        steps = [*(place for place, _ in finished), len(cells)]
        axes.step(steps, [*best, best[-1]], where="post", color=COLOURS[1], label="best so far")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    add_legend(axes, 3)
    return figure


def step_lines(
    records: StudyRecords, metric: str, rows: Sequence[str], where: Where = None
) -> Lines:
    """Metric against the number of the record, where the budget stands still: a line per row."""
    curves = steps_by_row(records, metric, rows, where)
    return Lines(_labelled(curves), "step", metric, ", ".join(rows), budget=False)


def progress_lines(
    records: StudyRecords,
    against: str,
    metrics: Sequence[str],
    rows: Sequence[str],
    where: Where = None,
) -> Lines:
    """Metrics against another metric: a line per row and metric."""
    lines = {}
    for metric in metrics:
        for key, points in progress_by_row(records, against, metric, rows, where).items():
            parts = [_label(key)] if any(part is not None for part in key) else []
            lines[", ".join(parts + ([metric] if len(metrics) > 1 else []))] = points
    units = {records.metric_info(metric).get("unit") for metric in metrics}
    unit = units.pop() if len(units) == 1 else None
    title = metrics[0] if len(metrics) == 1 else unit or "value"
    return Lines(lines, against, title, ", ".join(rows), budget=False)


def _labelled(curves: Mapping[Key, Sequence[CurvePoint]]) -> dict[str, Sequence[CurvePoint]]:
    return {_label(key): points for key, points in curves.items()}


def _label(key: Key) -> str:
    return ", ".join(show(value) for value in key if value is not None) or "all"
