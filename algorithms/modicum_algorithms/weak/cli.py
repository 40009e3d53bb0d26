"""The commands `modicum weak ...`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import modicum as md

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
            help="Folder of a saved model, or a run folder, of which the best finished trial of "
            "iwld with a checkpoint is taken.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Picture to write (.png or .svg).")] = Path(
        "transitions.png"
    ),
    functions: Annotated[
        int,
        typer.Option(
            help="Number of labeling functions: the most active one of every class in turn.", min=1
        ),
    ] = 6,
    points: Annotated[
        int, typer.Option(help="Number of test points, of every class in turn.", min=1)
    ] = 4,
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
    from modicum_algorithms.weak.checkpoints import find_model, load_model, study_config
    from modicum_algorithms.weak.data import datasets
    from modicum_algorithms.weak.estimators import IntegratedWeakLearner
    from modicum_algorithms.weak.plots import most_voting, of_every_class, transitions_figure

    folder = find_model(model)
    config, estimator = study_config(folder), load_model(folder)
    if not isinstance(estimator, IntegratedWeakLearner):
        raise md.InputError(
            f"model: {config['method']} has no transition matrices (allowed: iwl, iwld)"
        )
    data = datasets.load(config["dataset"], config["features"])
    of_model = (estimator.n_features_in_, len(estimator.label_model_.names))
    if of_model != (data.train.features_ND.shape[1], data.train.votes_NK.shape[1]):
        raise md.InputError(
            "model: it was trained on other features or labeling functions than those of "
            f"{config['dataset']!r}"
        )
    shown = most_voting(data.train.votes_NK, functions)
    rows = of_every_class(data.test.labels_N, points)
    transitions_MVKC = estimator.transitions_at(data.test.features_ND[rows])
    classes = estimator.classes_.tolist()
    title = f"{config['method']} on {config['dataset']}"
    if "strong_fraction" in config:  # a model of active labels has none
        title += f", {config['strong_fraction']:.0%} strong labels"
    return transitions_figure(
        transitions_MVKC[:, :, shown],
        classes=classes,
        functions=[f"LF {k}" for k in shown],
        points=[f"row {row}\n{classes[data.test.labels_N[row]]}" for row in rows],
        votes_MK=data.test.votes_NK[rows][:, shown],
        title=title,
    )
