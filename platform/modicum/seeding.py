"""Seeds for single purposes, and seeding of the global random generators."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext


def derive_seed(seed: int, purpose: str) -> int:
    """Derive a 32-bit seed for one purpose from a trial's seed.

    The result depends on the two arguments only, so methods compared under one trial seed share
    splits and initialisations.
    """
    import numpy as np

    key = zlib.crc32(purpose.encode())
    return int(np.random.SeedSequence([seed, key]).generate_state(1, np.uint32)[0])


@contextmanager
def seeded(seed: int, *, uses_torch: bool = True) -> Iterator[None]:
    """Seed the global generators of Python, NumPy and torch for a block, and restore them after it.

    Args:
        seed: Any integer; NumPy gets its lowest 32 bits.
        uses_torch: False leaves torch alone, which is then not imported.
    """
    import numpy as np

    python_state, numpy_state = random.getstate(), np.random.get_state()
    with _restored_torch() if uses_torch else nullcontext():
        random.seed(seed)
        np.random.seed(seed % 2**32)
        if uses_torch:
            import torch

            torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


@contextmanager
def _restored_torch() -> Iterator[None]:
    import torch

    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    gpus = range(torch.cuda.device_count()) if used else ()
    with torch.random.fork_rng(devices=gpus):
        yield
