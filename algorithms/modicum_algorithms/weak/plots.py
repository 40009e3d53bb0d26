"""Pictures of label models, drawn by matplotlib without its global state.

Shapes: M points, K labeling functions, C classes, V outcomes of a vote.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

_COLOURS = "viridis"
_OUTLINE = "#F0402C"  # stands out from every colour of the scale
_CELL = 0.23  # size of a matrix entry in inches
_TEXT = 0.085  # width of a character of a tick label in inches
_SMALL = 8  # points


def transitions_figure(
    transitions_MVKC: np.ndarray,
    classes: Sequence[str],
    functions: Sequence[str],
    points: Sequence[str],
    votes_MK: np.ndarray | None = None,
    title: str = "",
) -> Figure:
    """Heat maps of φ_k(ỹ|y): a row for each point, a column for each labeling function (A.2).

    All matrices share one colour scale from 0 to 1. Columns of a matrix are true classes and sum to
    one; rows are outcomes of the vote, with abstain last if it is an outcome.

    Args:
        transitions_MVKC: Transition probabilities at each point.
        classes: Names of the classes.
        functions: Names of the labeling functions.
        points: Names of the points.
        votes_MK: Votes at the points, -1 is an abstain; the row of the vote is outlined.
        title: Title of the figure.
    """
    rows, outcomes, columns, width = transitions_MVKC.shape
    assert (rows, columns, width) == (len(points), len(functions), len(classes))
    names = [*classes, "abstain"][:outcomes]
    margin = _TEXT * max(map(len, names))
    size = (
        columns * (width * _CELL + 0.15) + margin + 2.0,
        rows * (outcomes * _CELL + 0.12) + margin + 1.3,
    )
    figure = Figure(figsize=size, layout="constrained")
    grid: Any = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    scale = Normalize(0, 1)
    for m, k in np.ndindex(rows, columns):
        axes = grid[m, k]
        axes.imshow(transitions_MVKC[m, :, k], cmap=_COLOURS, norm=scale, aspect="equal")
        axes.set_xticks(range(width), classes, rotation=90, fontsize=_SMALL)
        axes.set_yticks(range(outcomes), names, fontsize=_SMALL)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        if votes_MK is not None:
            voted = int(votes_MK[m, k])
            _outline(axes, voted if voted >= 0 else width, outcomes, width)
        if m == 0:
            axes.set_title(functions[k], fontsize=_SMALL + 1)
        if k == 0:
            axes.set_ylabel(points[m], fontsize=_SMALL + 1)
    bar = figure.colorbar(
        ScalarMappable(scale, _COLOURS), ax=grid, fraction=0.02, pad=0.02, aspect=30
    )
    bar.set_label("p(vote | true class)", fontsize=_SMALL + 1)
    bar.ax.tick_params(labelsize=_SMALL)
    outlined = "" if votes_MK is None else " (outlined: the one that was given)"
    figure.supxlabel(f"across: true class; down: vote{outlined}", fontsize=_SMALL + 1)
    if title:
        figure.suptitle(title, fontsize=_SMALL + 3)
    return figure


def _outline(axes: Axes, row: int, rows: int, width: int) -> None:
    """Frame a row of a heat map, if the heat map has it."""
    if row < rows:
        style: Any = {"edgecolor": _OUTLINE, "linewidth": 1.8}
        corner = (-0.5, row - 0.5)
        axes.add_patch(Rectangle(corner, width, 1, fill=False, clip_on=False, **style))


def most_voting(votes_NK: np.ndarray, count: int) -> list[int]:
    """Numbers of the most active labeling functions, of every class in turn.

    A function belongs to the class that it votes for most often. First come the most active
    function of class 0, that of class 1, and so on, then the second ones; functions that never vote
    come last.
    """
    classes = range(int(votes_NK.max(initial=0)) + 1)
    counts_KC = np.stack([(votes_NK == c).sum(0) for c in classes], axis=1)
    order = np.argsort(-counts_KC.sum(1), kind="stable")
    voting = [k for k in order.tolist() if counts_KC[k].any()]
    silent = [k for k in order.tolist() if not counts_KC[k].any()]
    groups = [[k for k in voting if counts_KC[k].argmax() == c] for c in classes]
    return [*_in_turn(groups), *silent][:count]


def of_every_class(labels_N: np.ndarray, count: int) -> list[int]:
    """Row numbers: the first row of every class, then the second of every class, and so on."""
    groups = [np.flatnonzero(labels_N == c).tolist() for c in np.unique(labels_N)]
    return _in_turn(groups)[:count]


def _in_turn(groups: Sequence[Sequence[int]]) -> list[int]:
    """The first of every group, then the second of every group, and so on."""
    longest = max(map(len, groups))
    return [group[place] for place in range(longest) for group in groups if place < len(group)]
