"""Pictures of what networks have learned, drawn without matplotlib's global state.

`python -m modicum_algorithms.solipsistic.plots CHECKPOINT FOLDER` draws the pictures of a
checkpoint.

Shapes: N observations, T time steps, F filters, H height, W width, C channels.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import modicum as md
from modicum_algorithms.solipsistic.checkpoints import load_agent
from modicum_algorithms.solipsistic.config import MNIST_GAME, PIXEL_CART_POLE
from modicum_algorithms.solipsistic.evaluation import digit_observations
from modicum_algorithms.solipsistic.inspection import (
    RIGHT,
    DigitsInMarkovModel,
    Projection,
    digits_in_markov_model,
    falls,
    first_layer_activations,
    networks,
    projected,
    recognised,
    scaled_rows,
    scripted_observations,
)
from modicum_algorithms.solipsistic.methods.solipsistic.models import MarkovModel, MemoryModel
from modicum_algorithms.solipsistic.networks import Recognition

_COLOURS = ("#D55E00", "#E69F00", "#0072B2")
_SMALL = 8  # points
_DOTS_PER_INCH = 200
_PUSHES = (1, 5, 10, 15)  # time steps of figure 5.6
_SHOWN = (1, 10, 20, 30, 40, 50)  # time steps of figure 5.7
_MAP_INCHES = 0.85
_LABELLED = 20  # most states that figure 5.4 labels one by one
_NETWORKS = {
    "recognition": "Recognition network of solipsistic reinforcement learning",
    "policy": "PPO's policy network",
    "value": "PPO's value network",
    "q": "DQN's Q-network",
}


def markov_model_figure(digits: DigitsInMarkovModel) -> Figure:
    """State assignment, rewards and values of the digits in the MNIST game (figure 5.4).

    Values are scaled to the range from 0 to 1 within each time step.
    """
    figure = Figure(figsize=(9.6, 3.3), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    number, states = digits.states_NS.shape
    probabilities = left.imshow(
        digits.states_NS.T, cmap="Blues", vmin=0, vmax=1, interpolation="nearest", aspect="auto"
    )
    left.set_box_aspect(1)
    left.set_title("(a) p(s|x)", fontsize=_SMALL + 1)
    left.set_ylabel("state s", fontsize=_SMALL)
    left.set_yticks(range(0, states, 1 if states <= _LABELLED else 5))
    middle.bar(range(number), digits.rewards_N, color=_COLOURS[2])
    middle.set_ylim(0, max(1.0, float(digits.rewards_N.max())))
    middle.set_title("(b) predicted reward", fontsize=_SMALL + 1)
    middle.set_box_aspect(1)
    middle.spines[["top", "right"]].set_visible(False)
    values = right.imshow(
        scaled_rows(digits.values_TN), cmap="Blues", vmin=0, vmax=1, interpolation="nearest"
    )
    right.set_title("(c) value, scaled within each step", fontsize=_SMALL + 1)
    right.set_ylabel("time step t", fontsize=_SMALL)
    right.set_yticks(range(len(digits.values_TN)), range(1, len(digits.values_TN) + 1))
    for axes, drawn in ((left, probabilities), (right, values)):
        bar = figure.colorbar(drawn, ax=axes, fraction=0.046, pad=0.03, ticks=[0, 0.5, 1])
        bar.ax.tick_params(labelsize=_SMALL)
    for axes in (left, middle, right):
        axes.set_xticks(range(number))
        axes.set_xlabel("digit in the image x", fontsize=_SMALL)
        axes.tick_params(labelsize=_SMALL, length=2)
    return figure


def activations_figure(
    observations_NHWC: np.ndarray[Any, Any],
    activations_NFHW: np.ndarray[Any, Any],
    times: Sequence[int],
    title: str = "",
) -> Figure:
    """Frames and activation maps of observations, one observation a row (figures 5.6, C.2, C.3).

    Each filter has one grey scale, from its least to its greatest activation in all rows, so that
    changes down a column are changes of the observation.

    Args:
        observations_NHWC: Observations whose channels are frames, the newest first.
        activations_NFHW: Activation maps of the same observations.
        times: Time step of each observation.
        title: Title of the figure.
    """
    rows, frames, filters = len(times), observations_NHWC.shape[-1], activations_NFHW.shape[1]
    figure = Figure(
        figsize=((frames + filters) * _MAP_INCHES + 0.8, rows * _MAP_INCHES + 0.8),
        layout="constrained",
    )
    parts: Any = figure.subfigures(1, 2, width_ratios=[frames + 0.5, filters + 0.5])
    left, right = parts
    frame_axes: Any = left.subplots(rows, frames, squeeze=False)
    map_axes: Any = right.subplots(rows, filters, squeeze=False)
    for row, column in np.ndindex(rows, frames):
        _image(frame_axes[row, column], observations_NHWC[row, :, :, column], 0, 255)
    low_F, high_F = activations_NFHW.min((0, 2, 3)), activations_NFHW.max((0, 2, 3))
    for row, column in np.ndindex(rows, filters):
        image_HW = activations_NFHW[row, column]
        _image(map_axes[row, column], image_HW, low_F[column], high_F[column])
    for row, time in enumerate(times):
        _label_row(frame_axes[row, 0], f"t = {time}")
    for column, axes in enumerate(frame_axes[0]):
        axes.set_title("f(t)" if column == 0 else f"f(t−{column})", fontsize=_SMALL)
    for column, axes in enumerate(map_axes[0]):
        axes.set_title(f"filter {column + 1}", fontsize=_SMALL)
    if title:
        figure.suptitle(title, fontsize=_SMALL + 2)
    return figure


def trajectories_figure(
    frames: Mapping[str, np.ndarray[Any, Any]], times: Sequence[int], projection: Projection
) -> Figure:
    """Frames of trajectories, and their solipsistic states in the plane (figure 5.7).

    Args:
        frames: Newest frame of each observation in a trajectory, shape (T, H, W).
        times: Time steps to show, counted from 1.
        projection: Projection of the states of the same trajectories.
    """
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    parts: Any = figure.subfigures(1, 2, width_ratios=[1.35, 1])
    left, right = parts
    strips: Any = left.subplots(len(frames), len(times), squeeze=False)
    axes = right.subplots()
    for row, (name, images_THW) in enumerate(frames.items()):
        for column, time in enumerate(times):
            _image(strips[row, column], images_THW[time - 1], 0, 255)
            if row == 0:
                strips[row, column].set_title(f"t = {time}", fontsize=_SMALL)
        colour = _COLOURS[row % len(_COLOURS)]
        _label_row(strips[row, 0], name, color=colour)
        points_T2 = projection.points[name]
        axes.plot(*points_T2.T, color=colour, linewidth=1, marker="o", markersize=2.5, label=name)
        axes.plot(*points_T2[0], color=colour, marker="o", markersize=9, markerfacecolor="none")
        axes.plot(*points_T2[-1], color=colour, marker="s", markersize=7)
        last = len(points_T2)
    axes.set_title(f"states from t = 1 (ring) to t = {last} (square)", fontsize=_SMALL + 1)
    first, second = projection.explained
    axes.set_xlabel(f"first principal component ({first:.0%} of the variance)", fontsize=_SMALL)
    axes.set_ylabel(f"second ({second:.0%})", fontsize=_SMALL)
    axes.tick_params(labelsize=_SMALL)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=_SMALL, frameon=False)
    return figure


def _image(axes: Axes, image_HW: np.ndarray[Any, Any], low: float, high: float) -> None:
    axes.imshow(image_HW, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_linewidth(0.4)


def _label_row(axes: Axes, text: str, **style: Any) -> None:
    axes.set_ylabel(text, rotation=0, ha="right", va="center", fontsize=_SMALL, **style)


def draw_activations(network: Recognition, options: Mapping[str, Any], title: str = "") -> Figure:
    """Draw figure 5.6, C.2 or C.3: activation maps while the cart is pushed to the right."""
    pushed = scripted_observations(options, [RIGHT] * (max(_PUSHES) - 1))
    shown = pushed[[time - 1 for time in _PUSHES]]
    return activations_figure(shown, first_layer_activations(network, shown), _PUSHES, title)


def draw_trajectories(module: Any, options: Mapping[str, Any]) -> Figure:
    """Draw figure 5.7: states of three scripted trajectories of pixel CartPole.

    The module has a memory model whose states have at least two dimensions.
    """
    scripts = falls(max(_SHOWN) - 1)
    seen = {name: scripted_observations(options, script) for name, script in scripts.items()}
    frames = {name: observations[..., 0] for name, observations in seen.items()}
    return trajectories_figure(frames, _SHOWN, projected(recognised(module.averaged_model, seen)))


def draw_all(checkpoint: str, folder: Path) -> list[Path]:
    """Draw and write the pictures of a checkpoint (see `load_agent`); returns the files.

    Raises:
        InputError: There is no checkpoint, or it has no pictures. There are pictures of a Markov
            model in the MNIST game, and of all networks in pixel CartPole.
    """
    agent = load_agent(checkpoint)
    module, options = agent.module, agent.config.env_config
    environment = str(agent.config.env).rpartition(":")[2]
    model = getattr(module, "averaged_model", None)
    figures: dict[str, Figure] = {}
    if environment == MNIST_GAME and isinstance(model, MarkovModel):
        digits = digits_in_markov_model(model, digit_observations(options), module.options.horizon)
        figures["markov_model"] = markov_model_figure(digits)
    if environment == PIXEL_CART_POLE:
        for name, network in networks(module).items():
            figures[f"activations_{name}"] = draw_activations(network, options, _NETWORKS[name])
        if isinstance(model, MemoryModel) and model.options.state_size > 1:
            figures["trajectories"] = draw_trajectories(module, options)
    if not figures:
        raise md.InputError(
            "checkpoint: must be of a Markov model in the MNIST game or of networks in pixel "
            f"CartPole, got a {type(module).__name__} in {agent.config.env!r}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.png" for name in figures}
    for name, figure in figures.items():
        figure.savefig(paths[name], dpi=_DOTS_PER_INCH)
    return list(paths.values())


def main(arguments: Sequence[str]) -> int:
    """Draw the pictures of a checkpoint; returns the exit code."""
    usage = "python -m modicum_algorithms.solipsistic.plots CHECKPOINT FOLDER"
    return md.drawing_command(usage, draw_all, arguments)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
