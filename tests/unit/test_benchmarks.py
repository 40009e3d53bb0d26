"""Benchmarks that `make bench` alone runs still fit the code that they measure."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{name}_benchmark", BENCHMARKS / f"{name}.py")
    benchmark = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = benchmark  # Dataclasses look their module up.
    spec.loader.exec_module(benchmark)
    return benchmark


def test_steps_of_integrated_weak_learning_equal_the_loop(capsys):
    benchmark = load("weak")
    benchmark.STEPS = 1
    benchmark.integrated_steps(repeats=1)
    before = re.findall(r"losses differ by (\S+) before", capsys.readouterr().out)
    assert [float(value) for value in before] == pytest.approx([0, 0], abs=1e-3)


def test_contenders_for_an_endpoint_ask_each_question_once():
    benchmark = load("oracles")
    benchmark.WARM_UP = 3
    twice = {"one": benchmark.bare_client, "other": benchmark.bare_client}
    turns = benchmark.measure(twice, requests=12, concurrency=4, repeats=2, delay=0.05)
    assert {name: len(each) for name, each in turns.items()} == {"one": 2, "other": 2}
    for turn in turns["one"] + turns["other"]:
        # Three rounds of four, of which the last arrives after two delays.
        assert 0 < turn.rate < 11 / (2 * 0.05)
