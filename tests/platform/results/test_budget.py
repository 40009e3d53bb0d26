import math

from modicum.results.curves import budget_to_target, complete_seeds, curve


def test_curve_takes_the_last_value_at_or_before_each_budget():
    """Seeds spend different budgets; only 20 to 30 is covered by both.

    At 20: seed 0 has 0.2 (at 20), seed 1 has 0.1 (at 20). At 25: 0.2 and 0.3. At 30: 0.4, 0.3.
    """
    points = {0: [(10, 0.0), (20, 0.2), (30, 0.4)], 1: [(20, 0.1), (25, 0.3), (40, 0.9)]}
    assert [(p.budget, round(p.summary.mean, 3)) for p in curve(points)] == [
        (20, 0.15),
        (25, 0.25),
        (30, 0.35),
    ]


def test_curve_of_nothing_is_empty():
    assert curve({}) == []
    assert curve({0: []}) == []


def test_budget_to_target_by_hand():
    """Seed 0 reaches 0.8 at 100, seed 1 at 10, seed 2 never: median 100."""
    points = {
        0: [(10, 0.5), (100, 0.8)],
        1: [(10, 0.9), (100, 0.7)],
        2: [(10, 0.1), (100, 0.79)],
    }
    needed = budget_to_target(points, 0.8, "max")
    assert (needed.n, needed.reached, needed.median, needed.largest) == (3, 2, 100, 100)
    # All three miss the median on one side with probability 2/8.
    assert (needed.low, needed.high, needed.coverage) == (10, math.inf, 0.75)
    assert str(needed) == "100 [10 to > 100, 75%] (2 of 3 seeds)"


def test_two_seeds_and_seeds_that_agree_have_no_interval():
    two = budget_to_target({0: [(10, 0.9)], 1: [(10, 0.1), (20, 0.9)]}, 0.8, "max")
    assert (two.low, two.high, two.coverage) == (None, None, None)
    assert str(two) == "20 (2 of 2 seeds)"
    same = budget_to_target({seed: [(10, 0.9)] for seed in range(6)}, 0.8, "max")
    assert str(same) == "10 (6 of 6 seeds)"


def test_a_target_nobody_reached_is_censored():
    needed = budget_to_target({0: [(5, 0.1)], 1: [(7, 0.2)]}, 0.5, "max")
    assert str(needed) == "> 7 (0 of 2 seeds)"


def test_small_targets_are_reached_from_above():
    needed = budget_to_target({0: [(1, 3.0), (2, 1.0)]}, 1.0, "min")
    assert (needed.median, str(needed)) == (2, "2 (1 of 1 seeds)")


def test_across_trials_a_missing_one_is_neither_carried_nor_a_miss():
    """Seed 1 has no trial at 34: its value at 3 must not stand for it."""
    points = {0: [(3, 0.5), (34, 0.9), (341, 0.95)], 1: [(3, 0.6), (341, 0.97)]}
    summaries = [(p.budget, p.summary.n, p.summary.mean) for p in curve(points, carry=False)]
    assert summaries == [(3, 2, 0.55), (34, 1, 0.9), (341, 2, 0.96)]
    assert list(complete_seeds(points)) == [0]
    needed = budget_to_target(complete_seeds({1: [(3, 0.1)], 2: []}), 0.5, "max")
    assert str(needed) == "> 3 (0 of 1 seeds)"
