import random
import subprocess
import sys

import numpy as np
import pytest
import torch

import modicum as md


def draws(uses_torch=True):
    return [random.random(), float(np.random.rand()), float(torch.rand(())) if uses_torch else None]


def set_seeds(seed):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def test_a_block_is_seeded_and_the_generators_go_on_where_they_were():
    set_seeds(5)
    expected = [draws(), draws()]
    set_seeds(5)
    before = draws()
    with md.seeded(7):
        inside = draws()
    assert [before, draws()] == expected
    set_seeds(7)
    assert draws() == inside


def test_an_exception_restores_the_generators_too():
    set_seeds(5)
    expected = draws()
    set_seeds(5)
    with pytest.raises(ZeroDivisionError), md.seeded(7):
        raise ZeroDivisionError
    assert draws() == expected


def test_numpy_gets_the_lowest_32_bits_of_a_seed():
    with md.seeded(2**32 + 3):
        wide = np.random.rand()
    with md.seeded(3):
        assert np.random.rand() == wide


def test_torch_is_left_alone_where_it_is_not_used():
    with md.seeded(7):
        _, _, seeded = draws()
    torch.manual_seed(5)
    expected = float(torch.rand(()))
    torch.manual_seed(5)
    with md.seeded(7, uses_torch=False):
        assert float(torch.rand(())) == expected != seeded
    code = (
        "import sys, modicum as md\n"
        "with md.seeded(7, uses_torch=False): pass\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_derived_seeds_depend_on_seed_and_purpose_only():
    assert md.derive_seed(1, "split") == md.derive_seed(1, "split")
    seeds = {md.derive_seed(s, p) for s in range(50) for p in ("split", "init", "batches")}
    assert len(seeds) == 150
