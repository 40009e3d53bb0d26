"""Forecasts of the budget that a target needs, on curves whose course is known."""

import math

import numpy as np
import pytest

import modicum as md
from modicum.cli import main as cli
from modicum.results.forecast import forecast
from toys import Descent

BUDGETS = (10, 20, 40, 80, 160, 320)


def seeds_of(curve, noise, seeds=5, budgets=BUDGETS, seed=0):
    """Points of seeds that lie above and below a curve by a level and noise of their own."""
    draw = np.random.default_rng(seed)
    levels = draw.normal(0, 0.005, seeds)
    return {
        k: [(b, curve(b) + levels[k] + float(draw.normal(0, noise))) for b in budgets]
        for k in range(seeds)
    }


def power(budget):
    return 0.95 - 0.6 * budget**-0.5


def exponential(budget):
    return 0.9 - 0.5 * math.exp(-budget / 150)


def logarithm(budget):
    return 0.5 + 0.06 * math.log(budget)


@pytest.mark.parametrize(
    ("curve", "name", "needed"),
    [(power, "power law", 900), (exponential, "exponential", 450), (logarithm, "logarithm", 900)],
)
def test_each_curve_is_recognised_and_solved(curve, name, needed):
    """Without noise but the seeds' levels, the curve itself gives the budget."""
    found = forecast(seeds_of(curve, 1e-6), curve(needed), "max")
    assert found.curve == name
    # The levels move the curve by 0.005/√5 or so.
    assert found.low < needed < found.high
    turned = {k: [(b, -v) for b, v in points] for k, points in seeds_of(curve, 1e-6).items()}
    assert forecast(turned, -curve(needed), "min").budget == pytest.approx(found.budget)


def test_exact_curves_are_solved_exactly():
    exact = {seed: [(b, power(b)) for b in BUDGETS] for seed in range(3)}
    assert forecast(exact, power(1000), "max").budget == pytest.approx(1000, rel=0.05)


@pytest.mark.parametrize(
    ("points", "target", "words"),
    [
        (seeds_of(power, 0.001, seeds=2), 0.93, "needs 3 seeds"),
        (seeds_of(power, 0.001, budgets=BUDGETS[:4]), 0.93, "needs 5 budgets, and has 4"),
        (seeds_of(power, 0.001), 0.8, "within the budgets tried"),
        (seeds_of(power, 0.001), 0.99, "level off"),
        (seeds_of(lambda b: 0.5, 0.01), 0.6, "level off"),
        (seeds_of(logarithm, 0.001), logarithm(20_000), "10 times the largest budget"),
        ({}, 0.5, "needs 3 seeds"),
    ],
    ids=["two seeds", "four budgets", "reached", "plateau", "flat", "far", "nothing"],
)
def test_a_forecast_is_refused_where_the_data_cannot_say(points, target, words):
    found = forecast(points, target, "max")
    assert found.budget is found.low is found.high is None
    assert words in str(found)


def test_intervals_cover_the_true_budget_where_a_forecast_is_made():
    """Forty samples: three standard errors of 95% are 10 points."""
    found = [forecast(seeds_of(power, 0.002, 4, seed=k), power(900), "max") for k in range(40)]
    made = [each for each in found if each.budget is not None]
    assert len(made) > 35
    assert np.mean([each.low < 900 < each.high for each in made]) > 0.85


def test_forecasts_on_the_command_line(tmp_path, monkeypatch, capsys):
    """Descent halves its loss at every step: 10 samples, exp(−0.069 b) to 0."""
    study = md.Study(Descent, {"steps": 6, "method": md.grid("fast", "slow")}, seeds=3)
    run = str(tmp_path / "run")
    study.run(run, runner="local", quiet=True)

    def report(option):
        monkeypatch.setattr("sys.argv", ["modicum", "report", run, "--forecast", option])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return left.value.code, capsys.readouterr()

    code, said = report("test/loss=0.005")
    assert not code
    assert "Forecast of samples for test/loss = 0.005" in said.out
    (line,) = [line for line in said.out.splitlines() if "method = fast:" in line]
    assert "exponential, 3 seeds" in line
    for option in ("test/loss", "test/loss=", "=3", "test/loss=much", "test/loss=nan"):
        code, said = report(option)
        assert (code, said.err.startswith("error: --forecast: expected METRIC=NUMBER")) == (2, True)
