"""Load tests of the gate: pairs with known winners, drivers that get killed, and checks.

`pacing` and `faults` each put a load on a two-node cluster (cluster/two_nodes.py) against an
endpoint (tests/support/fake_endpoint), measure, and report problems. The benchmark runs them at
full size, a test at a small size.
"""

from oracle_load.questions import better, pairs

__all__ = ["better", "pairs"]
