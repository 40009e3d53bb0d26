"""Experiments that ask oracles: what they count, and what they refuse."""

import json

import numpy as np
import pytest

import modicum as md
from modicum_algorithms.preference.config import OracleConfig
from modicum_algorithms.preference.data.judged_pairs import KnownWinners, read_known_winners
from modicum_algorithms.preference.experiments.agreement import OracleAgreement
from modicum_algorithms.preference.experiments.consistency import OracleConsistency, consistency
from modicum_algorithms.preference.experiments.judged_pairs import answer_metrics
from modicum_algorithms.preference.oracles import check_oracle


def judgement(winner, order="given", **more):
    return md.oracles.Judgement(winner=winner, oracle="o", version="1", order_shown=order, **more)


FAILURE = md.oracles.Failure(reason="tie", message="", oracle="o", version="1")


def test_consistency_by_hand():
    """Of four pairs one failed once; of the other three, two have one winner every time."""
    first, second = judgement("first"), judgement("second")
    opinions = [[first, second, first, first], [first, second, second, FAILURE]]
    assert consistency(opinions) == (2 / 3, 3 / 4)
    assert consistency([[FAILURE], [first]]) == (None, 0.0)


def test_outcomes_by_hand():
    """Shown first and won: first as given, second as swapped; that is 2 of 4."""
    answers = [
        judgement("first", "given", consistent=True, cost=0.5),
        judgement("second", "swapped", consistent=False, cached=True),
        judgement("second", "given"),
        judgement("first", "swapped"),
        FAILURE,
    ]
    found = answer_metrics(answers)
    assert found == {
        "failures": pytest.approx(1 / 5),
        "cost": 0.5,
        "cached": 1 / 4,
        "first_shown_wins": 1 / 2,
        "order_consistency": 1 / 2,
    }
    assert set(answer_metrics([FAILURE])) == {"failures", "cost"}


@pytest.fixture
def pairs_file(tmp_path):
    """VADER finds "good" better than "bad"; the preferred ones of the first 30 of 40 are those."""
    path = tmp_path / "pairs.jsonl"
    rows = [
        {
            "prompt": f"Film {n} is ",
            "first": "good" if n % 2 else "bad, so bad",
            "second": "bad, so bad" if n % 2 else "good",
            "preferred": ("first" if n % 2 else "second") if n < 30 else "first",
        }
        for n in range(40)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(experiment, tmp_path, **space):
    study = md.Study(experiment, {name: md.grid(value) for name, value in space.items()}, seeds=2)
    return study.run(tmp_path / "run", runner="local", quiet=True)


def test_agreement_with_a_file(pairs_file, tmp_path):
    """The lexicon's winner is preferred in the first 30 rows and in every other of the last ten;
    the longer completion, the bad one, in the other five alone.
    """
    results = run(OracleAgreement, tmp_path, pairs=str(pairs_file), count=40)
    assert [value for _, value in results.values("agreement")] == [35 / 40] * 2
    assert [value for _, value in results.values("longer/agreement")] == [5 / 40] * 2
    assert set(results.frame["budget"]) == {40}


@pytest.mark.parametrize("rate", [0.0, 0.25])
def test_consistency_of_a_noisy_oracle(pairs_file, tmp_path, rate):
    """Two judgements that err independently at a rate e agree with probability e² + (1 - e)²."""
    results = run(
        OracleConsistency, tmp_path, pairs=str(pairs_file), count=40, opinions=2, error_rate=rate
    )
    values = [value for _, value in results.values("consistency")]
    expected = rate**2 + (1 - rate) ** 2
    error = np.sqrt(expected * (1 - expected) / 80)
    assert abs(np.mean(values) - expected) <= 3.5 * error


def test_pairs_are_drawn_without_replacement():
    known = KnownWinners([md.oracles.Pair("", str(n), "") for n in range(9)], ["first"] * 9)
    drawn = known.draw(5, np.random.default_rng(0))
    assert len({pair.first for pair in drawn.pairs}) == 5
    assert len(known.draw(99, np.random.default_rng(0)).pairs) == 9


def test_winners_of_a_file_are_checked(pairs_file):
    text = pairs_file.read_text().replace('"preferred": "second"', '"preferred": "B"')
    pairs_file.write_text(text)
    with pytest.raises(md.InputError, match=r"line 1: preferred must be first or second, got 'B'"):
        read_known_winners(str(pairs_file), 32)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"oracle": "endpoint"}, "model: oracle endpoint needs the name"),
        ({"oracle": "endpoint", "model": "m", "template": "poem"}, "unknown template 'poem'"),
        ({"oracle": "sentiment", "model": "./nowhere"}, "no folder of a saved sentiment oracle"),
        (
            {"oracle": "endpoint", "model": "m", "endpoint": {"budget": {"dollars": 1}}},
            "needs the price of 'm'",
        ),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_starts(settings, message):
    with pytest.raises(md.InputError, match=message):
        check_oracle(OracleConfig(**settings))


def test_limits_are_no_part_of_a_trials_identity(pairs_file):
    """A faster endpoint gives the same judgements; another address may not."""

    def identity(**endpoint):
        space = {"oracle": "endpoint", "model": "m", "pairs": str(pairs_file)}
        space |= {f"endpoint.{name}": value for name, value in endpoint.items()}
        return md.Study(OracleAgreement, space, seeds=1).trials[0].id

    base = identity()
    assert identity(workers=7) == base
    assert identity(base_url="http://localhost:1/v1") != base


@pytest.mark.slow
def test_imdb_extracts_have_their_reviews_winner():
    """A positive and a negative extract each, on either side about equally often."""
    if md.data.data_folder() is None:
        pytest.skip("MODICUM_DATA is unset")
    known = read_known_winners("imdb", 8)
    assert all(len(p.first.split()) <= 8 and len(p.second.split()) <= 8 for p in known.pairs)
    share = known.winners.count("first") / len(known.winners)
    assert abs(share - 0.5) < 4 * 0.5 / len(known.winners) ** 0.5
    assert len(known.pairs) > 10_000
