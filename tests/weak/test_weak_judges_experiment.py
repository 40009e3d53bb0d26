"""The experiment of several oracles as judges: what it simulates, and what it counts."""

import itertools
import math

import numpy as np
import pytest

import modicum as md
from modicum.oracles import NoisyOracle, Oracle
from modicum_algorithms.weak.experiments.config import JudgesConfig
from modicum_algorithms.weak.experiments.judges import WeakJudges
from modicum_algorithms.weak.experiments.judges_run import (
    KnowingOracle,
    best_verdicts,
    judged_right,
    simulated_features,
    simulated_pairs,
)


def measure(folder, seed=0, **settings):
    """Budget and metrics of one trial."""
    experiment, config = WeakJudges(), JudgesConfig(**settings)
    experiment.check(config)
    (record,) = experiment.run(config, md.Trial(id="trial", seed=seed, scratch=folder))
    assert set(record.metrics) == set(WeakJudges.metrics)
    return {"budget": record.budget, **record.metrics}


class TestParts:
    def test_the_oracle_knows_the_truth(self):
        first_better_N = np.array([True, False, False, True])
        pairs = simulated_pairs(first_better_N)
        assert isinstance(KnowingOracle(), Oracle)
        winners = [answer.winner for answer in KnowingOracle().judge(pairs)]
        assert winners == ["first", "second", "second", "first"]
        assert len(set(pairs)) == 4  # noise is drawn anew for each

    def test_a_pair_without_a_verdict_is_half_right(self):
        right = judged_right(np.array([0.9, 0.5, 0.2, 0.1]), np.array([True, True, True, False]))
        assert right == (1 + 0.5 + 0 + 1) / 4

    def test_the_best_verdicts_are_bayes_rule(self):
        """Likelihoods multiplied out, for every vote of three oracles, with prior odds of 3."""
        accuracies = [0.9, 0.6, 0.3]
        votes_NK = np.array(list(itertools.product([0, 1], repeat=3)))
        expected = []
        for row in votes_NK:
            first = math.prod(a if v == 0 else 1 - a for a, v in zip(accuracies, row, strict=True))
            second = math.prod(a if v == 1 else 1 - a for a, v in zip(accuracies, row, strict=True))
            expected.append(3 * first / (3 * first + second))
        got = best_verdicts(votes_NK, accuracies, np.full(8, math.log(3)))
        assert got == pytest.approx(expected)

    def test_oracles_that_are_never_wrong_or_always(self):
        votes_NK = np.array([[0, 1, 1], [1, 0, 1]])
        assert best_verdicts(votes_NK, [1.0, 0.0, 0.7]).tolist() == [1.0, 0.0]

    @pytest.mark.parametrize("accuracy", [0.6, 0.89])
    def test_features_tell_the_winner_as_often_as_they_say(self, accuracy):
        rng = np.random.default_rng(0)
        first_better_N = rng.random(40_000) < 0.5
        drawn = simulated_features(first_better_N, 5, accuracy, rng)
        first_wins_N = 1 / (1 + np.exp(-drawn.log_odds_N))
        assert judged_right(first_wins_N, first_better_N) == pytest.approx(accuracy, abs=0.008)
        # The probabilities that they give are the frequencies that are found.
        sure = first_wins_N > 0.6
        assert first_better_N[sure].mean() == pytest.approx(first_wins_N[sure].mean(), abs=0.02)
        # No linear rule fitted to the truth itself does better.
        signs_N = np.where(first_better_N, 1.0, -1.0)
        weights_D = np.linalg.lstsq(drawn.features_ND, signs_N, rcond=None)[0]
        fitted = (drawn.features_ND @ weights_D > 0) == first_better_N
        assert fitted.mean() == pytest.approx(accuracy, abs=0.008)

    def test_features_of_no_use(self):
        first_better_N = np.array([True, False, True])
        drawn = simulated_features(first_better_N, 2, 0.5, np.random.default_rng(0))
        assert drawn.log_odds_N.tolist() == [0, 0, 0]

    def test_a_smaller_batch_is_the_beginning_of_a_larger_one(self):
        first_better_N = np.random.default_rng(0).random(50) < 0.5
        small, large = (
            simulated_features(first_better_N[:n], 3, 0.9, np.random.default_rng(1))
            for n in (20, 50)
        )
        assert np.array_equal(small.features_ND, large.features_ND[:20])


class TestExperiment:
    def test_majority_vote_against_counting(self, tmp_path):
        accuracies = [0.9, 0.6, 0.7]
        for seed in range(2):
            record = measure(
                tmp_path, seed, method="majority_vote", pairs=60, accuracies=accuracies
            )
            assert record["budget"] == 180
            generator = np.random.default_rng(md.derive_seed(seed, "winners"))
            pairs = simulated_pairs(generator.random(60) < 0.5)
            truth = [answer.winner for answer in KnowingOracle().judge(pairs)]
            right_KN = []
            for k, accuracy in enumerate(accuracies):
                noise = md.derive_seed(seed, f"oracle {k}")
                oracle = NoisyOracle(KnowingOracle(), 1 - accuracy, 1 - accuracy, seed=noise)
                answers = oracle.judge(pairs)
                right_KN.append([a.winner == t for a, t in zip(answers, truth, strict=True)])
            right_KN = np.array(right_KN)
            majority_N = right_KN.sum(0) >= 2
            assert record["accuracy"] == pytest.approx(majority_N.mean())
            assert record["best_oracle/accuracy"] == pytest.approx(right_KN[0].mean())
            # Counted against soft labels: the share of the votes that are on an oracle's side.
            share_N = right_KN.mean(0)
            estimated_K = np.where(right_KN, share_N, 1 - share_N).mean(1)
            assert record["best_oracle/estimated_accuracy"] == pytest.approx(estimated_K[0])
            error = np.abs(estimated_K - accuracies).mean()
            assert record["estimates/error"] == pytest.approx(error)
            assert record["failures"] == record["behind_majority_vote"] == 0

    def test_an_even_number_of_judges_ties(self, tmp_path):
        """Two judges are right together, wrong together, or tie: as good as either of them."""
        space = {"method": "majority_vote", "pairs": 2000, "accuracies": [0.8, 0.8]}
        study = md.Study(WeakJudges, space, seeds=1)
        results = study.run(tmp_path / "run", runner="local", quiet=True)
        (record,) = results.frame.to_dict("records")
        assert record["failures"] == pytest.approx(2 * 0.8 * 0.2, abs=0.05)
        assert record["accuracy"] == pytest.approx(0.8, abs=0.03)

    def test_methods_see_the_same_judgements(self, tmp_path):
        for seed in range(2):
            majority, *others = (
                measure(tmp_path, seed, method=method, pairs=600)
                for method in ("majority_vote", "label_model", "snorkel")
            )
            # The first oracle outweighs the others together: the best rule is to follow it.
            assert majority["best_possible/accuracy"] == majority["best_oracle/accuracy"]
            for other in others:
                for name in ("best_possible/accuracy", "best_oracle/accuracy"):
                    assert other[name] == majority[name]
                behind = other["accuracy"] < majority["accuracy"]
                assert other["behind_majority_vote"] == behind
            assert others[0]["accuracy"] > majority["accuracy"]
            assert others[0]["estimates/error"] < majority["estimates/error"]

    def test_harm_is_seen(self, tmp_path):
        """From few pairs a label model fastens on a wrong oracle now and then."""
        behind = []
        for seed in range(12):
            majority, other = (
                measure(tmp_path, seed, method=method, pairs=24)
                for method in ("majority_vote", "label_model")
            )
            behind.append(other["behind_majority_vote"])
            assert behind[-1] == (other["accuracy"] < majority["accuracy"])
        assert 0 < sum(behind) < 12

    @pytest.mark.slow
    def test_features_add_to_what_judges_say(self, tmp_path):
        without, with_features = (
            measure(tmp_path, method=method, pairs=600) for method in ("label_model", "iwl")
        )
        assert with_features["accuracy"] > without["accuracy"]
        assert with_features["best_possible/accuracy"] > without["best_possible/accuracy"]
        for record in (without, with_features):
            assert record["accuracy"] <= record["best_possible/accuracy"] + 0.02

    def test_accuracies_that_are_none(self, tmp_path):
        with pytest.raises(md.InputError, match=r"accuracies: each must be from 0 to 1, got 1\.2"):
            measure(tmp_path, method="snorkel", accuracies=[0.7, 1.2])
        with pytest.raises(md.InputError, match="accuracies"):
            md.Study(WeakJudges, {"method": "snorkel", "accuracies": []}).run(tmp_path / "run")
        assert not (tmp_path / "run").exists()
