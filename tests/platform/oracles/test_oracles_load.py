"""Load tests of the gate at a small size; tests/benchmarks/oracles.py runs them at full size."""

import pytest

from oracle_load.faults import faults
from oracle_load.pacing import pacing

pytestmark = pytest.mark.slow


def test_a_limit_is_kept_to_from_two_nodes(tmp_path):
    found = pacing(tmp_path, count=330, limit=1800, workers=4)
    # Wider than the benchmark's: a busy machine holds arrivals up, and lets them in together.
    assert found.problems(off=0.1, over=0.05) == []


def test_nothing_is_lost_flipped_or_overspent_when_everything_goes_wrong(tmp_path):
    found = faults(tmp_path, count=300, limit=1800, workers=4)
    assert found.problems() == [], found
