"""Loads on the oracles' gate: pairs with a known truth, drivers that get killed, and what to check.

`pacing` and `faults` each run one load on a two-node cluster (cluster/two_nodes.py) against an
endpoint (tests/support/fake_endpoint), measure, and say what is wrong. The benchmark runs them at
full size, a test at a small one.
"""

from oracle_load.questions import better, pairs

__all__ = ["better", "pairs"]
