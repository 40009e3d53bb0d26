"""Experiments by the path of their class, without a registration."""

import shutil
import subprocess
import sys

import pandas as pd
import pytest

import modicum as md
from conftest import SUPPORT
from modicum.experiment.registry import get_experiment
from modicum.yaml_io import dump_yaml, read_yaml

STUDY = {"experiment": "my_coin:Coin", "space": {"estimator": "laplace"}, "seeds": 3}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, with the module `my_coin`."""
    shutil.copy(SUPPORT / "third_party/modicum_toy/coin.py", tmp_path / "my_coin.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    yield tmp_path
    sys.modules.pop("my_coin", None)


def test_a_class_in_the_working_folder(folder):
    experiment = get_experiment("my_coin:Coin")
    assert experiment.name == "coin"
    assert type(experiment).__module__ == "my_coin"


def test_a_study_file_names_a_class_and_so_does_its_copy(folder):
    (folder / "mine.yaml").write_text(dump_yaml(STUDY))

    def run(config):
        line = [sys.executable, "-m", "modicum", "run", config, "--local", "--out", "run"]
        return subprocess.run(line, capture_output=True, text=True, check=True)

    run("mine.yaml")
    assert len(pd.read_parquet(folder / "run/results.parquet")) == 3 * 6
    assert read_yaml(folder / "run/study.yaml")["name"] == "mine"
    assert "(3 earlier)" in run("run/study.yaml").stderr


def test_the_study_of_a_class_is_named_after_its_experiment(folder):
    assert md.Study("my_coin:Coin", {}).spec.name == "coin"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_coins:Coin", "experiment: no module 'my_coins' in the working folder or installed"),
        ("my_coin.a:Coin", "experiment: no module 'my_coin.a' in the working folder or installed"),
        ("my_coin:Dice", "experiment: the module 'my_coin' has no class 'Dice'"),
        ("my_coin:CoinConfig", "experiment: expected a name, an Experiment class or an instance"),
        (
            "my_coin.py:Coin",
            "experiment: no module 'my_coin.py' in the working folder or installed",
        ),
        ("./my_coin:Coin", "experiment: expected a registered name or module:Class"),
        ("my_coin:", "experiment: expected a registered name or module:Class"),
    ],
)
def test_mistakes_are_named(folder, name, message):
    with pytest.raises(md.InputError) as raised:
        get_experiment(name)
    assert str(raised.value).startswith(message)


def test_a_package_that_the_module_lacks_is_named(folder):
    (folder / "lacking.py").write_text("import not_installed_here\n")
    with pytest.raises(md.InputError, match="needs the package 'not_installed_here'"):
        get_experiment("lacking:Coin")


def test_a_bug_in_the_module_keeps_its_traceback(folder):
    (folder / "faulty.py").write_text("import math\nmath.nothing\n")
    with pytest.raises(AttributeError, match="nothing"):
        get_experiment("faulty:Coin")
