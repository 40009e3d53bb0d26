"""Benchmarks that `make bench` alone runs still fit the code that they measure."""

import importlib.util
import math
import re
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{name}_benchmark", BENCHMARKS / f"{name}.py")
    benchmark = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = benchmark  # Dataclasses look their module up.
    spec.loader.exec_module(benchmark)
    return benchmark


def test_steps_of_integrated_weak_learning_equal_the_loop(capsys):
    benchmark = load("weak")
    benchmark.STEPS = 1
    benchmark.integrated_steps(repeats=1)
    before = re.findall(r"losses differ by (\S+) before", capsys.readouterr().out)
    assert [float(value) for value in before] == pytest.approx([0, 0], abs=1e-3)


def test_contenders_for_an_endpoint_ask_each_question_once():
    benchmark = load("oracles")
    benchmark.WARM_UP = 3
    twice = {"one": benchmark.bare_client, "other": benchmark.bare_client}
    turns = benchmark.measure(twice, requests=12, concurrency=4, repeats=2, delay=0.05)
    assert {name: len(each) for name, each in turns.items()} == {"one": 2, "other": 2}
    for turn in turns["one"] + turns["other"]:
        # Three rounds of four, of which the last arrives after two delays.
        assert 0 < turn.rate < 11 / (2 * 0.05)


@pytest.fixture
def preference(monkeypatch):
    """The benchmark beside TRL, with five pairs in three batches."""
    benchmark = load("preference_trl")
    tiny = replace(
        benchmark.WORKLOADS["short"], pairs=5, batch=2, model=partial(benchmark.small_gpt2, 64)
    )
    monkeypatch.setitem(benchmark.WORKLOADS, "short", tiny)
    return benchmark


def test_our_side_of_preference_learning_trains_on_every_pair(preference):
    turns = preference.take_turns(preference.WORKLOADS["short"], "bf16", 1, [preference.OURS])
    outcome = turns[preference.OURS][0]
    # Before the first update, p_θ is p_θ0.
    assert outcome.losses[0] == pytest.approx(math.log(2), abs=1e-2)
    assert (len(outcome.losses), outcome.passes) == (3, 10)
    assert preference.memory_of(preference.OURS, "short", "fp32")["loaded"] > 0


def test_growing_data_costs_each_reference_pass_once(preference):
    assert preference.passes_by_round(preference.OURS, (2, 3, 5)) == [4, 2, 4]


@pytest.mark.parametrize("precomputed", [False, True])
def test_our_losses_are_those_of_trl(preference, precomputed):
    pytest.importorskip("trl")
    side = preference.PRECOMPUTED if precomputed else preference.ON_THE_FLY
    turns = preference.take_turns(preference.WORKLOADS["short"], "fp32", 1, [preference.OURS, side])
    ours, theirs = (each[0] for each in turns.values())
    assert theirs.losses == pytest.approx(ours.losses, abs=1e-4)
    assert theirs.passes == ours.passes == 10
    assert preference.passes_by_round(side, (2, 3)) == [4, 6]


def test_both_samplers_keep_no_more_tokens_than_requested():
    benchmark = load("generation")
    tiny = replace(
        benchmark.WORKLOADS["short"], requests=5, batch=2, model=partial(benchmark.small_gpt2, 64)
    )
    asked = sum(request.tokens for request in benchmark.random_requests(tiny, 64))
    turns = benchmark.take_turns(tiny, "bf16", repeats=1)
    assert set(turns) == {"ours", "transformers"}
    assert all(5 <= turn.tokens <= asked for each in turns.values() for turn in each)
    assert re.fullmatch(
        r"[\d,]+ \| [\d,]+ \| .* in processor time .*", benchmark.row(*turns.values())
    )


@pytest.fixture(scope="module")
def intervals():
    return load("intervals")


@pytest.mark.parametrize(
    ("samples", "points"), [(400, 0.035), pytest.param(3000, 0.02, marks=pytest.mark.slow)]
)
def test_printed_intervals_cover_what_they_state(intervals, samples, points):
    """The standard error of a share of 95% is 1.1 points in 400 samples, 0.4 in 3,000."""
    for found in intervals.printed_intervals(samples):
        assert found.found == pytest.approx(found.stated, abs=points), found.name


def test_verdicts_err_no_more_often_than_they_state(intervals):
    """A difference as large as the margin matches in 5% of samples at most, and none differs in 5%.

    Three standard errors of 5% in 1,000 samples are 2.1 points.
    """
    for margin in (1.0, 2.0):
        assert intervals.verdicts(margin, margin, 1000).get("matches", 0) < 0.071
        assert intervals.verdicts(0.0, margin, 1000).get("differs", 0) < 0.071
    # Neither is for want of decisions: five seeds tell 0 from 4 standard deviations.
    assert intervals.verdicts(0.0, 2.0, 300)["matches"] > 0.6
    assert intervals.verdicts(4.0, 2.0, 300)["differs"] > 0.95


@pytest.mark.slow
def test_directions_are_as_probable_as_they_state(intervals):
    """The first band, 0.5 to 0.8, holds a tenth of the samples: a standard error of 2 points."""
    for said, right in intervals.calibration(6000):
        assert right == pytest.approx(said, abs=0.06)


def test_holm_keeps_false_claims_below_five_per_cent_of_tables(intervals):
    plain, corrected = intervals.false_claims(20, 300)
    assert plain > 0.3
    assert corrected < 0.09
