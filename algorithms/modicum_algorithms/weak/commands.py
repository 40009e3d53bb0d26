"""`modicum weak …`: commands of this family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import modicum as md

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from modicum_algorithms.weak.datasets import Split

app = typer.Typer(help="Commands of weak learning.", no_args_is_help=True)

_FORMATS = (".png", ".svg")


@app.callback()
def weak() -> None:
    """Commands of weak learning."""


@app.command()
def transitions(
    model: Annotated[
        str,
        typer.Argument(
            help="Folder of a saved model, or a run folder: its first finished trial of iwld "
            "with a checkpoint.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Picture to write (.png or .svg).")] = Path(
        "transitions.png"
    ),
    functions: Annotated[
        int,
        typer.Option(
            help="Labeling functions: those that vote most often for every class in turn.", min=1
        ),
    ] = 6,
    points: Annotated[int, typer.Option(help="Test points: of every class in turn.", min=1)] = 4,
) -> None:
    """Draw a saved model's transition matrices: labeling functions by data points (figure A.2)."""
    if out.suffix not in _FORMATS:
        raise md.InputError(f"--out: expected a file that ends in .png or .svg, got {str(out)!r}")
    figure = _picture(model, functions, points)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, dpi=200)
    except OSError as error:
        raise md.InputError(f"--out: {str(out)!r} cannot be written ({error})") from error
    print(f"picture: {out}")


def _picture(model: str, functions: int, points: int) -> Figure:
    from modicum_algorithms.weak import datasets
    from modicum_algorithms.weak.pictures import transitions_figure
    from modicum_algorithms.weak.saved_transitions import find_model, read_transitions

    saved = read_transitions(find_model(model))
    config = saved.config
    data = datasets.load(config["dataset"], config["features"])
    shown = most_voting(data.train.votes_NK, functions)
    rows = of_every_class(data.test, points)
    transitions_MVKC = saved.at(data.test.features_ND[rows], data.train.votes_NK.shape[1])
    return transitions_figure(
        transitions_MVKC[:, :, shown],
        classes=saved.classes,
        functions=[f"LF {k}" for k in shown],
        points=[f"row {row}\n{saved.classes[data.test.labels_N[row]]}" for row in rows],
        votes_MK=data.test.votes_NK[rows][:, shown],
        title=_title(config),
    )


def _title(config: Mapping[str, Any]) -> str:
    title = f"{config['method']} on {config['dataset']}"
    # A model of active labels has no fraction.
    fraction = config.get("strong_fraction")
    return title if fraction is None else f"{title}, {fraction:.0%} strong labels"


def most_voting(votes_NK: np.ndarray, count: int) -> list[int]:
    """Numbers of labeling functions: the one that votes most often of those that mostly vote for
    class 0, then of those for class 1, and so on, then the second ones.

    Functions that never vote come last.
    """
    import numpy as np

    classes = range(int(votes_NK.max(initial=0)) + 1)
    counts_KC = np.stack([(votes_NK == c).sum(0) for c in classes], axis=1)
    order = np.argsort(-counts_KC.sum(1), kind="stable")
    voting = [k for k in order.tolist() if counts_KC[k].any()]
    silent = [k for k in order.tolist() if not counts_KC[k].any()]
    groups = [[k for k in voting if counts_KC[k].argmax() == c] for c in classes]
    return [*_in_turn(groups), *silent][:count]


def of_every_class(split: Split, count: int) -> list[int]:
    """Row numbers: the first row of every class, then the second of every class, and so on."""
    import numpy as np

    groups = [np.flatnonzero(split.labels_N == c).tolist() for c in np.unique(split.labels_N)]
    return _in_turn(groups)[:count]


def _in_turn(groups: Sequence[Sequence[int]]) -> list[int]:
    """The first of every group, then the second of every group, and so on."""
    longest = max(map(len, groups))
    return [group[place] for place in range(longest) for group in groups if place < len(group)]
