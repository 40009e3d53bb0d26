"""Seeds for one iteration or one episode, so that no random state has to be stored.

RLlib's checkpoints leave out random states: those of environments, of the replay buffer, and of
torch. Here everything random is seeded anew from the algorithm's seed and a counter that is
stored, so an algorithm that was restored goes on exactly as one that was never stopped.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators for a block, and leave them afterwards as they were before."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        seed_everything(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
