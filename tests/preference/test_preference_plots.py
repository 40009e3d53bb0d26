"""Figures and tables of active preference learning: every number where it belongs."""

import json
import math

import numpy as np
import pytest
from matplotlib.image import imread

import modicum as md
from modicum_algorithms.preference.inspection import (
    Convergence,
    TrialRows,
    convergence,
    histogram,
    last_judged,
    parse_rows,
    read_trials,
    winner_probabilities,
)
from modicum_algorithms.preference.plots import (
    bradley_terry_figure,
    convergence_figure,
    draw_all,
    main,
    win_rate_figure,
)
from modicum_algorithms.preference.tables import (
    WinRate,
    escaped,
    example_table,
    prompts_table,
    win_rate_table,
)


def logit(p):
    return math.log(p / (1 - p))


def pair(p, winner="first", number=2):
    """A pair whose winner the model gave the probability p."""
    ahead = logit(p)
    rewards = (1 + ahead, 1.0) if winner == "first" else (1.0, 1 + ahead)
    return {
        "round": number,
        "winner": winner,
        "reward_first": rewards[0],
        "reward_second": rewards[1],
    }


# Numbers from rows.


def test_probabilities_are_of_the_completion_that_the_oracle_prefers():
    rows = [pair(0.9), pair(0.9, "second"), pair(0.2, "second", 3), pair(0.7, number=1)]
    np.testing.assert_allclose(winner_probabilities(rows), [0.9, 0.9, 0.2])
    np.testing.assert_allclose(winner_probabilities(rows, first_round=3), [0.2])


def test_a_histogram_knows_wrong_from_right_and_undecided():
    """Equal rewards are neither wrong nor right; a certainty of 1 is in the last bin."""
    rows = [pair(p) for p in (0.05, 0.05, 0.45, 0.55, 0.95, 0.5)]
    rows += [{"round": 2, "winner": "first", "reward_first": 999.0, "reward_second": -999.0}]
    rows += [{"round": 2, "winner": "second", "reward_first": 999.0, "reward_second": -999.0}]
    found = histogram(winner_probabilities(rows))
    np.testing.assert_allclose(found.shares_K * 8, [3, 0, 0, 0, 1, 1, 0, 0, 0, 2])
    assert found.pairs == 8
    assert found.wrong == pytest.approx(4 / 8)
    assert found.undecided == pytest.approx(1 / 8)


def judged(winner, budget, epoch=None, **more):
    row = {"winner": winner, "budget": budget, **more}
    return row if epoch is None else {**row, "epoch": epoch}


def test_convergence_is_of_the_last_round_alone():
    updates = [
        {"round": number, "epoch": epoch, "loss": loss}
        for number, epoch, loss in [(1, 1, 9.0), (2, 1, 0.6), (2, 1, 0.4), (2, 2, 0.3)]
    ]
    evaluations = [
        judged("opponent", 64),
        judged("model", 128, 1),
        judged("opponent", 128, 1),
        judged(None, 128, 1),
        judged("model", 128),
    ]
    found = convergence(TrialRows({}, 0, evaluations=evaluations, updates=updates))
    assert found.losses == pytest.approx({1: 0.5, 2: 0.3})
    assert found.win_rates == {1: 0.5, 2: 1.0}
    assert convergence(TrialRows({}, 0)) is None


def test_examples_come_from_the_last_budget_of_every_trial():
    """Trials that spent different budgets each have their own last one."""
    trials = [
        TrialRows({}, 0, evaluations=[judged("model", 64), judged("model", 128, name="a")]),
        TrialRows({}, 1, evaluations=[judged("opponent", 64, name="b"), judged(None, 64)]),
        TrialRows({}, 2),
    ]
    assert {row["name"] for row in last_judged(trials, 9)} == {"a", "b"}
    assert len(last_judged(trials, 1)) == 1
    assert last_judged(trials, 1) == last_judged(trials, 1)


def test_a_row_may_hold_characters_that_end_lines_elsewhere():
    rows = [{"prompt": "one\u2028two\x85three\nfour"}, {"prompt": "five"}]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    assert parse_rows(text) == rows
    assert parse_rows("") == []


# Figures.


def test_bars_are_red_below_one_half_and_green_above():
    histograms = {
        name: histogram(np.array(probabilities))
        for name, probabilities in {
            "random": [0.05, 0.65, 0.66, 0.99],
            "certainty": [0.01, 0.02, 0.5, 0.97],
        }.items()
    }
    figure = bradley_terry_figure(histograms)
    first, second = figure.axes
    heights = np.array([[bar.get_height() for bar in axes.patches] for axes in (first, second)])
    np.testing.assert_allclose(heights[0], [0.25, 0, 0, 0, 0, 0, 0.5, 0, 0, 0.25])
    np.testing.assert_allclose(heights[1], [0.5, 0, 0, 0, 0, 0, 0, 0, 0, 0.25])
    for place, bar in enumerate(first.patches):
        assert place / 10 <= bar.get_x() < bar.get_x() + bar.get_width() <= (place + 1) / 10
        red, green, _ = bar.get_facecolor()[:3]
        assert (red > green) == (place < 5)
    assert first.get_title() == "random\n4 pairs, 25% wrong"
    assert second.get_title() == "certainty\n4 pairs, 50% wrong, 25.0% at ½"


def test_convergence_shows_means_of_the_trials_that_got_so_far():
    figure = convergence_figure(
        {"certainty": [Convergence({1: 0.6, 2: 0.4}, {2: 0.8}), Convergence({1: 0.8}, {1: 0.6})]}
    )
    above, below = figure.axes
    np.testing.assert_allclose(above.lines[0].get_xydata(), [[1, 0.7], [2, 0.4]])
    np.testing.assert_allclose(below.lines[0].get_xydata(), [[1, 0.6], [2, 0.8]])


# Tables.


def test_the_best_of_each_size_is_bold():
    """Of random at 128 alone there is nothing to be better than."""
    rates = {
        "random": {64: WinRate(0.67, 0.65, 0.69, 9), 128: WinRate(0.76, None, None, 1)},
        "low_certainty": {64: WinRate(0.68, 0.66, 0.7, 9)},
    }
    assert win_rate_table(rates, "labels") == (
        "| labels | random | low\\_certainty |\n"
        "| --- | --- | --- |\n"
        "| 64 | 0.670 [0.650, 0.690] (9) | **0.680 [0.660, 0.700] (9)** |\n"
        "| 128 | 0.760 (1) | – |\n"
    )


EXAMPLE = {
    "prompt": "I paid $5 | and\n\n*what*  for",
    "completion": "<b>great</b>",
    "opponent": "dull",
    "winner": "model",
    "rationale": "Review A is better.",
}


def test_letters_are_those_that_the_oracle_saw():
    given = example_table({**EXAMPLE, "order": "given"}, 1)
    assert (
        "| A: Fine-tuned completion | &lt;b&gt;great&lt;/b&gt; |\n| B: Opponent | dull |" in given
    )
    assert "| Preference | A: Fine-tuned completion |" in given
    swapped = example_table({**EXAMPLE, "order": "swapped", "winner": "opponent"}, 1)
    assert "| A: Opponent | dull |\n| B: Fine-tuned completion |" in swapped
    assert "| Preference | A: Opponent |" in swapped
    assert "| Preference | Fine-tuned completion |" in example_table(EXAMPLE, 1)


def test_no_text_leaves_its_cell():
    assert escaped(EXAMPLE["prompt"]) == r"I paid \$5 \|" + r" and<br>\*what\* for"
    lines = example_table(EXAMPLE, 1).splitlines()
    assert len(lines) == 7
    assert all(line.replace(r"\|", "").count("|") == 3 for line in lines)


def test_prompts_are_shown_once_and_in_order():
    rows = [{**EXAMPLE, "prompt": prompt} for prompt in ("b", "a", "b", "c")]
    lines = prompts_table(rows, 2).splitlines()
    assert lines[2:] == ["| b | dull |", "| a | dull |"]


# From a run to files.


class MadeUpConfig(md.Config):
    acquisition: str = md.setting("random", description="Method.")
    dataset: str = md.setting("a", description="Data.")
    epochs: int = md.setting(5, description="Of training in a round.")
    keep: bool = md.setting(True, description="Save rows.", identity=False)


class MadeUp(md.Experiment[MadeUpConfig]):
    """Certainty learns more, and is wrong more often about what it acquires."""

    name = "made_up_preferences"
    version = "1"
    budget_unit = "labels"
    Config = MadeUpConfig
    metrics = {  # noqa: RUF012
        "evaluation/win_rate": md.Metric("Share of wins.", goal="max")
    }

    def saves_checkpoints(self, config):
        return config.keep

    def run(self, config, trial):
        generator = trial.generator("made up")
        certain = config.acquisition == "certainty"
        acquired, evaluation, training = [], [], []
        for number in range(1, 5):
            for _ in range(32):
                scale = 0.0 if number == 1 else 3.0 if certain else 1.0
                first, second = generator.normal(0, scale, 2)
                ahead = generator.random() < (0.45 if certain else 0.6)
                winner = "first" if (first > second) == ahead else "second"
                acquired.append(
                    {
                        "round": number,
                        "prompt": f"prompt {len(acquired)}",
                        "first": "good",
                        "second": "bad",
                        "winner": winner,
                        "rationale": None,
                        "reward_first": first,
                        "reward_second": second,
                        "order": "given",
                    }
                )
            for epoch in range(1, config.epochs + 1):
                loss = 0.69 * math.exp(-0.2 * epoch) + 0.01 * generator.random()
                training.append({"round": number, "update": epoch, "epoch": epoch, "loss": loss})
            level = 0.5 + (0.1 if certain else 0.08) * number
            wins = [bool(win) for win in generator.random(50) < level]
            evaluation += [
                {
                    "budget": 32 * number,
                    "prompt": f"The film {place} of {config.dataset}",
                    "completion": "was great.",
                    "opponent": "was a film.",
                    "winner": "model" if win else "opponent",
                    "rationale": "Review A is more positive.",
                    "order": "given",
                }
                for place, win in enumerate(wins)
            ]
            folder = None
            if config.keep:
                folder = trial.scratch / f"round{number}"
                folder.mkdir()
                for name, rows in [
                    ("acquired", acquired),
                    ("evaluation", evaluation),
                    ("training", training),
                ]:
                    text = "".join(json.dumps(row) + "\n" for row in rows)
                    (folder / f"{name}.jsonl").write_text(text)
            rate = sum(wins) / len(wins)
            yield md.Record(
                budget=32 * number, metrics={"evaluation/win_rate": rate}, checkpoint=folder
            )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("preference") / "run"
    space = {"acquisition": md.grid("random", "certainty"), "dataset": md.grid("a/x", "a-x")}
    md.Study(MadeUp, space, seeds=3).run(folder, runner="local", quiet=True)
    return folder


def test_rows_come_from_the_last_checkpoint_of_each_trial(run):
    trials = read_trials(md.load_results(run), {"dataset": "a/x"})
    assert sorted((t.settings["acquisition"], t.seed) for t in trials) == [
        (name, seed) for name in ("certainty", "random") for seed in range(3)
    ]
    assert {t.settings["dataset"] for t in trials} == {"a/x"}
    for trial in trials:
        assert [len(trial.acquired), len(trial.evaluations), len(trial.updates)] == [128, 200, 20]


def test_the_curves_are_the_win_rates_of_the_rows(run):
    where = {"dataset": "a-x"}
    results = md.load_results(run)
    (axes,) = win_rate_figure(results, where).axes
    for name, line in zip(("random", "certainty"), axes.lines, strict=False):
        assert line.get_label() == name
        trials = read_trials(results, {**where, "acquisition": name})
        expected = [
            np.mean([row["winner"] == "model" for t in trials for row in t.evaluations[s:][:50]])
            for s in range(0, 200, 50)
        ]
        np.testing.assert_allclose(line.get_xdata(), [32, 64, 96, 128])
        np.testing.assert_allclose(line.get_ydata(), expected)


def test_a_run_has_every_figure_and_table_for_each_data_set(run, tmp_path):
    """Data sets whose names differ only in what a file's name cannot hold do not meet."""
    paths = draw_all(str(run), tmp_path / "deep" / "out")
    names = sorted(path.name for path in paths)
    assert names == sorted(
        f"{name}-a-x{number}.{kind}"
        for number in ("", "-2")
        for name, kind in [
            ("win_rate", "png"),
            ("bradley_terry", "png"),
            ("convergence", "png"),
            ("tables", "md"),
        ]
    )
    for path in paths:
        if path.suffix == ".png":
            pixels = imread(path)[..., :3]
            assert min(pixels.shape[:2]) > 300
            assert (pixels == 1).all(-1).mean() > 0.5  # a light ground
            assert pixels.min() < 0.2
    text = (tmp_path / "deep" / "out" / "tables-a-x.md").read_text()
    for heading in ("# Win-rates; dataset = a/x", "# Prompts", "## random", "## certainty"):
        assert f"{heading}\n" in text
    assert text.count("| Rationale | Review A is more positive. |") == 4
    assert "The film 0 of a/x" in text
    (row,) = [line for line in text.splitlines() if line.startswith("| 128 |")]
    assert row.count("(3)") == 2


def test_a_run_without_checkpoints_still_has_win_rates(tmp_path, capsys):
    """By the command, which says what it wrote, or what was wrong."""
    md.Study(MadeUp, {"keep": False}, seeds=1).run(tmp_path / "run", runner="local", quiet=True)
    assert main([str(tmp_path / "run"), str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.count("written: ") == 2
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"win_rate.png", "tables.md"}
    assert "| 32 | 0." in (tmp_path / "out" / "tables.md").read_text()
    assert main([]) == 2
    assert "RUN_FOLDER OUT_FOLDER" in capsys.readouterr().out
    assert main([str(tmp_path), str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_runs_of_different_length_share_a_picture_of_convergence(tmp_path):
    study = md.Study(MadeUp, {"epochs": md.grid(2, 3)}, seeds=1)
    study.run(tmp_path / "run", runner="local", quiet=True)
    names = {path.name for path in draw_all(str(tmp_path / "run"), tmp_path / "out")}
    assert {"convergence.png", "win_rate-2.png", "win_rate-3.png"} <= names
    assert sum(name.startswith("convergence") for name in names) == 1
