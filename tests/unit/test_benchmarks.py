"""Benchmarks that `make bench` alone runs still fit the code that they measure."""

import importlib.util
import re
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def test_steps_of_integrated_weak_learning_equal_the_loop(capsys):
    spec = importlib.util.spec_from_file_location("weak_benchmark", BENCHMARKS / "weak.py")
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    benchmark.STEPS = 1
    benchmark.integrated_steps(repeats=1)
    before = re.findall(r"losses differ by (\S+) before", capsys.readouterr().out)
    assert [float(value) for value in before] == pytest.approx([0, 0], abs=1e-3)
