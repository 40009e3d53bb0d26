"""Figures and tables of active preference learning, without matplotlib's global state.

`python -m modicum_algorithms.preference.plots RUN_FOLDER OUT_FOLDER` draws those of a run.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import modicum as md
from modicum_algorithms.preference.inspection import (
    BINS,
    Convergence,
    Histogram,
    TrialRows,
    convergence,
    histogram,
    last_judged,
    mean_curve,
    read_trials,
    winner_probabilities,
)
from modicum_algorithms.preference.tables import (
    WinRate,
    example_table,
    prompts_table,
    win_rate_table,
)

WIN_RATE = "evaluation/win_rate"
_ACQUISITION = "acquisition"
_EPOCHS = "epochs"
_WRONG, _RIGHT = "#C8302C", "#1B8A4B"
_SMALL = 8  # points
_DOTS_PER_INCH = 160
_PANELS = 4  # in a row
_PROMPTS = 4
_EXAMPLES = 2  # of each acquisition
_INTERVALS = "means over seeds with 95% intervals of the mean (Student's t)"


def win_rate_figure(results: md.Results, where: Mapping[str, Any]) -> Figure:
    """Win-rate against budget, a line for each acquisition (figures 6.3 and D.2).

    Means over seeds have 95% intervals; the thesis has standard errors. `where` holds the settings
    that the trials have in common, except the acquisition.

    Raises:
        InputError: The run has no win-rates or no acquisitions, or mixes other settings.
    """
    figure = results.plot_curves(WIN_RATE, _ACQUISITION, where)
    (axes,) = figure.axes
    axes.axhline(0.5, color="black", linewidth=0.8, linestyle=":")
    axes.set_ylabel("win-rate")
    axes.set_title(_titled(_INTERVALS, where), fontsize=_SMALL + 1)
    return figure


def bradley_terry_figure(histograms: Mapping[str, Histogram], title: str = "") -> Figure:
    """Probabilities of acquired preferences before the model learned them (figure 6.4).

    There is a panel for each acquisition, at least one.
    """
    columns = min(_PANELS, len(histograms))
    rows = -(-len(histograms) // columns)
    figure = Figure(figsize=(max(4.6, 2.5 * columns + 0.5), 2.3 * rows + 0.9), layout="constrained")
    panels: Any = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    width = 1 / BINS
    colours = [_WRONG] * (BINS // 2) + [_RIGHT] * (BINS // 2)
    for axes, (name, drawn) in zip(panels.flat, histograms.items(), strict=False):
        left = np.arange(BINS) * width
        axes.bar(left, drawn.shares_K, width * 0.94, align="edge", color=colours)
        axes.axvline(0.5, color="black", linewidth=0.8)
        text = f"{drawn.pairs:,} pairs, {drawn.wrong:.0%} wrong"
        if drawn.undecided > 0:
            text += f", {drawn.undecided:.1%} at ½"
        axes.set_title(f"{name}\n{text}", fontsize=_SMALL + 1)
        axes.set_xticks(np.linspace(0, 1, 6))
        axes.tick_params(labelsize=_SMALL, labelbottom=True)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels.flat[len(histograms) :]:
        axes.set_visible(False)
    figure.supxlabel(
        "probability of the oracle's preference before training on it\n"
        "(red: the model was wrong, green: it was right)",
        fontsize=_SMALL + 1,
    )
    figure.supylabel("share of pairs", fontsize=_SMALL + 1)
    if title:
        figure.suptitle(title, fontsize=_SMALL + 2)
    return figure


def convergence_figure(rounds: Mapping[str, Sequence[Convergence]], title: str = "") -> Figure:
    """Loss and win-rate by epoch of the last rounds, means over trials (figure D.1)."""
    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    for index, (name, trials) in enumerate(rounds.items()):
        colour = md.COLOURS[index % len(md.COLOURS)]
        losses = mean_curve(trial.losses for trial in trials)
        rates = mean_curve(trial.win_rates for trial in trials)
        above.plot(list(losses), list(losses.values()), color=colour, linewidth=1.6, label=name)
        below.plot(
            list(rates), list(rates.values()), color=colour, marker="o", markersize=4, label=name
        )
    below.axhline(0.5, color="black", linewidth=0.8, linestyle=":")
    above.set_ylabel("loss", fontsize=_SMALL + 1)
    below.set_ylabel("win-rate", fontsize=_SMALL + 1)
    below.set_xlabel("epoch", fontsize=_SMALL + 1)
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (above, below):
        axes.tick_params(labelsize=_SMALL)
        axes.grid(True, alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    above.legend(fontsize=_SMALL, frameon=False)
    if title:
        figure.suptitle(title, fontsize=_SMALL + 2)
    return figure


def tables(results: md.Results, where: Mapping[str, Any], trials: Sequence[TrialRows]) -> str:
    """Tables 6.3 and D.1 to D.4 of a group of trials with the settings `where`, in Markdown."""
    rates = {
        str(name): {
            point.budget: WinRate(
                point.summary.mean, point.summary.low, point.summary.high, point.summary.n
            )
            for point in points
        }
        for (name,), points in results.curves(WIN_RATE, _ACQUISITION, where).items()
    }
    unit = results.budget_unit.replace("_", " ")
    parts = [
        _titled("# Win-rates", where),
        f"By {unit} spent: {_INTERVALS}, number of seeds in brackets. The best mean is bold.",
        win_rate_table(rates, unit),
    ]
    evaluations = [row for trial in trials for row in trial.evaluations]
    if evaluations:
        parts += ["# Prompts", prompts_table(evaluations, _PROMPTS)]
        parts += ["# Examples", "Drawn at random from the last evaluations of all seeds."]
    for name, group in by_acquisition(trials).items():
        examples = last_judged(group, _EXAMPLES)
        parts += [f"## {name}"] if examples else []
        parts += [example_table(row, number) for number, row in enumerate(examples, 1)]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def by_acquisition(trials: Sequence[TrialRows]) -> dict[str, list[TrialRows]]:
    """Trials of each acquisition, in the order in which they first appear."""
    groups: dict[str, list[TrialRows]] = {}
    for trial in trials:
        groups.setdefault(str(trial.settings[_ACQUISITION]), []).append(trial)
    return groups


def draw_all(location: str, folder: Path) -> list[Path]:
    """Write the figures and tables of a run, for each group of trials with the same settings.

    Trials that differ in the number of epochs share one picture of convergence. Returns the paths.

    Raises:
        InputError: There is no run, or it has no win-rates of finished trials.
    """
    results = md.load_results(location)
    if not results.values(WIN_RATE):
        raise md.InputError(f"run: {location!r} has no finished trial with {WIN_RATE}")
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    others = [name for name in results.varied if name != _ACQUISITION]
    for where, suffix in _groups(results, others):
        trials = read_trials(results, where)
        if trials:
            figures = {"win_rate": win_rate_figure(results, where)}
            histograms = _histograms(trials)
            if histograms:
                figures["bradley_terry"] = bradley_terry_figure(histograms, _titled("", where))
            written += _saved(figures, folder, suffix)
            path = folder / f"tables{suffix}.md"
            path.write_text(tables(results, where, trials), encoding="utf-8")
            written.append(path)
    for where, suffix in _groups(results, [n for n in others if n.rpartition(".")[2] != _EPOCHS]):
        rounds = {
            name: [found for found in map(convergence, group) if found is not None]
            for name, group in by_acquisition(read_trials(results, where)).items()
        }
        rounds = {name: found for name, found in rounds.items() if found}
        if rounds:
            figure = convergence_figure(rounds, _titled("", where))
            written += _saved({"convergence": figure}, folder, suffix)
    return written


def _histograms(trials: Sequence[TrialRows]) -> dict[str, Histogram]:
    found = {}
    for name, group in by_acquisition(trials).items():
        pairs = winner_probabilities(row for trial in group for row in trial.acquired)
        if len(pairs):
            found[name] = histogram(pairs)
    return found


def _groups(results: md.Results, names: Sequence[str]) -> Iterator[tuple[dict[str, Any], str]]:
    """Combinations of settings that trials have, each with a suffix for file names."""
    keys = dict.fromkeys(
        tuple(trial.columns.get(name) for name in names) for trial in results.trials
    )
    taken: set[str] = set()
    for number, key in enumerate(keys, 1):
        plain = [re.sub(r"[^0-9A-Za-z.]+", "-", str(value))[:40].strip("-") for value in key]
        suffix = "".join(f"-{text}" for text in plain)
        suffix = f"{suffix}-{number}" if suffix in taken else suffix
        taken.add(suffix)
        yield dict(zip(names, key, strict=True)), suffix


def _saved(figures: Mapping[str, Figure], folder: Path, suffix: str) -> list[Path]:
    paths = {name: folder / f"{name}{suffix}.png" for name in figures}
    for name, figure in figures.items():
        figure.savefig(paths[name], dpi=_DOTS_PER_INCH)
    return list(paths.values())


def _titled(text: str, where: Mapping[str, Any]) -> str:
    common = ", ".join(f"{name} = {value}" for name, value in where.items())
    return "; ".join(filter(None, (text, common)))


def main(arguments: Sequence[str]) -> int:
    """Draw the figures and tables of a run; returns the exit code."""
    usage = "python -m modicum_algorithms.preference.plots RUN_FOLDER OUT_FOLDER"
    return md.drawing_command(usage, draw_all, arguments, said="written")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
