"""Pacing against brute force: every window is counted."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.oracles.endpoint.pacing import SLACK, Pacer, Throttle


def run(throttle: Throttle, seconds: float, amounts=lambda: 1.0, late=lambda: 0.0):
    """Times and amounts of a greedy client that sleeps as told, and wakes up too late."""
    now, admitted = 0.0, []
    while now < seconds:
        wait = throttle.wait(now)
        if wait > 0:
            now += wait + late()
            continue
        amount = amounts()
        throttle.admit(amount, now)
        admitted.append((now, amount))
    return admitted


def busiest(admitted, window: float) -> float:
    """Most in any [t, t + window): one that starts at a request holds at least as much."""
    return max(
        sum(amount for time, amount in admitted if start <= time < start + window)
        for start, _ in admitted
    )


@pytest.mark.parametrize("per_minute", [60, 600, 3000])
@pytest.mark.parametrize("lateness", [0.0, 0.002, 0.02])
def test_no_window_of_requests_bursts(per_minute, lateness):
    draws = random.Random(per_minute)
    admitted = run(Throttle.of(per_minute, None), 25, late=lambda: draws.uniform(0, 2 * lateness))
    rate = per_minute / 60
    for window in (0.1, 1.0, 10.0):
        assert busiest(admitted, window) <= rate * (window + SLACK) + 1 + 1e-6
    # From the first to the last there are as many intervals as requests but one.
    measured = (len(admitted) - 1) / (admitted[-1][0] - admitted[0][0])
    # Slack makes good what waking up late lost.
    assert measured == pytest.approx(rate, rel=0.01)


def test_a_bucket_would_let_a_minute_out_at_once():
    """The mistake that pacing avoids: after a pause, nothing is made up for."""
    throttle = Throttle.of(600, None)
    before = run(throttle, 2)
    late, now = [], 60.0
    while now < 62:
        if (wait := throttle.wait(now)) > 0:
            now += wait
        else:
            throttle.admit(1, now)
            late.append((now, 1.0))
    assert len(late) <= len(before) + 1
    assert busiest(late, 1.0) <= 10 * (1 + SLACK) + 1


@given(
    st.lists(st.tuples(st.floats(0, 2), st.integers(1, 400)), min_size=1, max_size=60),
    st.sampled_from([600.0, 6000.0]),
)
@settings(max_examples=60, deadline=None)
def test_tokens_of_arrivals_at_random(arrivals, per_minute):
    """In any window: the rate's worth, slack's worth, and the one request that goes beyond."""
    pacer, now, admitted = Pacer(per_minute), 0.0, []
    for gap, tokens in arrivals:
        now += gap
        now += pacer.wait(now)
        pacer.admit(tokens, now)
        admitted.append((now, float(tokens)))
    largest = max(tokens for _, tokens in admitted)
    for window in (0.5, 5.0, 60.0):
        allowed = per_minute / 60 * (window + SLACK) + largest
        assert busiest(admitted, window) <= allowed * (1 + 1e-9)


@pytest.mark.parametrize("factor", [0.1, 1.0, 10.0])
def test_corrections_bring_the_true_rate_to_the_limit(factor):
    """Estimates are a tenth or ten times of what is used; answers come half a second later."""
    draws = random.Random(0)
    throttle, now, used, under_way = Throttle.of(None, 6000), 0.0, [], []
    while now < 300:
        while under_way and under_way[0][0] <= now:
            throttle.settle(*under_way.pop(0)[1:])
        wait = throttle.wait(now)
        if wait > 0:
            now = min([now + wait, *(answered for answered, _, _ in under_way[:1])])
            continue
        actual = draws.uniform(50, 150)
        throttle.admit(actual * factor, now)
        used.append((now, actual))
        under_way.append((now + 0.5, actual * factor, actual))
    tokens = sum(actual for _, actual in used[:-1])
    assert tokens / (used[-1][0] - used[0][0]) == pytest.approx(100, rel=0.03)


def test_a_correction_by_hand():
    pacer = Pacer(60)
    pacer.admit(10, now=100.0)
    assert pacer.wait(100.0) == pytest.approx(10 - SLACK)
    pacer.correct(-4)
    assert pacer.wait(100.0) == pytest.approx(6 - SLACK)
    pacer.correct(+2)
    assert pacer.wait(100.0) == pytest.approx(8 - SLACK)
    assert pacer.wait(108.0) == 0.0
    # Far too high an estimate leaves no credit behind.
    pacer.correct(-1000)
    pacer.admit(1, now=120.0)
    assert pacer.wait(120.0) == pytest.approx(1 - SLACK)


def test_pauses():
    throttle = Throttle.of(None, None)
    assert throttle.wait(0.0) == 0.0
    throttle.pause(5.0, now=10.0)
    assert throttle.wait(10.0) == 5.0
    throttle.pause(2.0, now=11.0)  # A shorter one does not end it.
    assert throttle.wait(11.0) == 4.0
    throttle.pause(10.0, now=12.0)
    assert throttle.wait(12.0) == 10.0
    assert throttle.wait(22.0) == 0.0


def test_the_slower_of_two_limits_decides():
    throttle = Throttle.of(60, 6000)
    throttle.admit(50, now=0.0)  # 1 s of requests, 0.5 s of tokens.
    assert throttle.wait(0.0) == pytest.approx(1 - SLACK)
    throttle = Throttle.of(60, 6000)
    throttle.admit(300, now=0.0)  # 1 s of requests, 3 s of tokens.
    assert throttle.wait(0.0) == pytest.approx(3 - SLACK)
    assert math.isclose(throttle.wait(2.5), 0.5 - SLACK)
