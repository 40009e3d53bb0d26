"""Figures of a search: objectives against each other, and against the settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from modicum.results.figures import COLOURS, INK, WIDTH, add_legend, new_axes
from modicum.results.formatting import show
from modicum.results.importance import (
    Configurations,
    Importance,
    encoded,
    is_logarithmic,
    is_numeric,
)
from modicum.results.pareto import ParetoPoint

# More slices or axes cannot be read.
MOST_SETTINGS = 9
_MOST_TICKS = 8
_ACROSS = 3


def plot_pareto(points: Sequence[ParetoPoint], across: str, up: str) -> Figure:
    """Draw configurations by two objectives, the Pareto-optimal ones joined.

    Of more than two objectives, points that are optimal by all of them need not lie on a line, and
    are not joined.
    """
    figure, axes = new_axes(across, up, WIDTH)
    others = [p for p in points if not p.optimal]
    front = sorted((p for p in points if p.optimal), key=lambda p: p.values[across].mean)
    for chosen, label, face in (
        (others, "dominated", "none"),
        (front, "Pareto-optimal", COLOURS[1]),
    ):
        if chosen:
            places = [(p.values[across].mean, p.values[up].mean) for p in chosen]
            colour = COLOURS[1] if chosen is front else COLOURS[0]
            axes.plot(*zip(*places, strict=True), "o", label=label, color=colour, mfc=face)
    if len(front) > 1 and len(front[0].values) == 2:
        places = [(p.values[across].mean, p.values[up].mean) for p in front]
        axes.plot(*zip(*places, strict=True), color=COLOURS[1], linewidth=1.2)
    add_legend(axes, 2)
    return figure


def plot_importance(importance: Importance) -> Figure:
    """Draw the share of each setting as a bar, the largest on top."""
    shares = list(importance.shares.items())[::-1]
    figure, axes = new_axes(f"share of the variance ({importance.method})", "", WIDTH)
    axes.barh(range(len(shares)), [share for _, share in shares], color=COLOURS[0], height=0.6)
    axes.set_yticks(range(len(shares)), [name for name, _ in shares], parse_math=False)
    for place, (_, share) in enumerate(shares):
        axes.text(share, place, f" {share:.2f}", va="center", color=INK)
    axes.set_xlim(0, 1.1 * max(share for _, share in shares))
    return figure


def plot_slices(found: Configurations, metric: str, names: Sequence[str]) -> Figure:
    """Draw the objective against each of some settings: a small picture for each."""
    rows = math.ceil(len(names) / _ACROSS)
    across = min(len(names), _ACROSS)
    figure = Figure(figsize=(2.6 * across + 0.6, 2.4 * rows), layout="constrained")
    grid = figure.subplots(rows, across, sharey=True, squeeze=False)
    for index, place in enumerate(grid.flat):
        if index >= len(names):
            place.remove()
            continue
        name = names[index]
        column = found.column(name)
        kept = [(v, y) for v, y in zip(column, found.values, strict=True) if v is not None]
        place.plot(
            encoded([v for v, _ in kept]), [y for _, y in kept], "o", color=COLOURS[0], alpha=0.6
        )
        place.set_xlabel(name, parse_math=False)
        if index % across == 0:
            place.set_ylabel(metric, parse_math=False)
        place.spines[["top", "right"]].set_visible(False)
        place.grid(True, alpha=0.25, linewidth=0.6)
        _name_places(place, [v for v, _ in kept])
    return figure


def _name_places(axes: Axes, column: Sequence[Any]) -> None:
    """Write the values of a setting at the numbers that stand for them."""
    if is_numeric(column) and not is_logarithmic(column):
        axes.locator_params(axis="x", nbins=4)
        return
    if is_numeric(column):
        codes = encoded(column)
        ends = range(math.ceil(codes.min()), math.floor(codes.max()) + 1)
        axes.set_xticks(list(ends), [f"{10.0**end:g}" for end in ends])
        return
    texts = list(dict.fromkeys(map(show, column)))
    axes.set_xticks(range(len(texts)), texts, rotation=30, ha="right", parse_math=False)
    axes.set_xlim(-0.5, len(texts) - 0.5)


def plot_parallel(found: Configurations, metric: str, names: Sequence[str]) -> Figure:
    """Draw each configuration as a line across axes of its settings, coloured by the objective.

    A line leaves out a setting that has no effect in its configuration.
    """
    figure = Figure(figsize=(max(WIDTH, 1.3 * (len(names) + 1)), 4.0), layout="constrained")
    axes = figure.add_subplot()
    columns = [*(found.column(name) for name in names), list(found.values)]
    heights = [_heights(column) for column in columns]
    shade = Normalize(min(found.values), max(found.values))
    map_ = colormaps["viridis"]
    for index, value in enumerate(found.values):
        known = [(x, float(h[index])) for x, h in enumerate(heights) if not np.isnan(h[index])]
        for start, end in pairwise(known):
            axes.plot(*zip(start, end, strict=True), color=map_(shade(value)), alpha=0.6, lw=1.1)
    for x, column in enumerate(columns):
        axes.axvline(x, color=INK, linewidth=0.7)
        for height, text in _marks(column):
            axes.text(x + 0.03, height, text, color=INK, fontsize=7, va="center", parse_math=False)
    axes.set_xticks(range(len(columns)), [*names, metric], parse_math=False)
    axes.set_yticks([])
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
    bar = figure.colorbar(ScalarMappable(shade, map_), ax=axes, label="", pad=0.02)
    bar.ax.tick_params(color=INK, labelcolor=INK)
    return figure


def _heights(column: Sequence[Any]) -> np.ndarray:
    """Places of a setting's values on its axis, from 0 to 1; NaN where it has no effect."""
    known = np.array([value is not None for value in column])
    codes = encoded([value for value in column if value is not None])
    heights = np.full(len(column), np.nan)
    heights[known] = (codes - codes.min()) / (np.ptp(codes) or 1.0)
    return heights


def _marks(column: Sequence[Any]) -> list[tuple[float, str]]:
    """Heights and texts of the values that an axis names: the ends, or every text of a few."""
    known = [value for value in column if value is not None]
    heights = _heights(known)
    if is_numeric(known):
        order = np.argsort(heights)
        return [(float(heights[i]), f"{known[i]:.3g}") for i in (order[0], order[-1])]
    texts = dict(zip(map(show, known), heights.tolist(), strict=True))
    return [(height, text) for text, height in texts.items()][:_MOST_TICKS]
