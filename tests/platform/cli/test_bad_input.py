"""What users get wrong: exit code 2, one line that names the field, nothing started."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import modicum as md
from modicum.cli import main as cli
from modicum.yaml_io import dump_yaml

GOOD = {
    "experiment": "weak",
    "space": {"method": {"grid": ["majority_vote", "labels_only"]}, "strong_fraction": 0.5},
    "seeds": 2,
}


@pytest.fixture
def modicum(monkeypatch, capsys, tmp_path):
    """Call the command line in this process; returns exit code and what stands on stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MODICUM_DATA", raising=False)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["modicum", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        return code, capsys.readouterr().err.strip()

    return call


def study(**changes):
    """A study file; `...` leaves a field out."""
    return dump_yaml({k: v for k, v in {**GOOD, **changes}.items() if v is not ...})


def space(**settings):
    return study(space={**GOOD["space"], **settings})


def rows(count=3, votes=(0, 1), label=0, data=None):
    row = {"label": label, "weak_labels": list(votes), "data": data or {"feature": [0.5, 1.0]}}
    return {str(i): row for i in range(count)}


def wrench(folder: Path, **files):
    """A small correct WRENCH folder, with some files replaced (None removes one)."""
    folder.mkdir()
    content = {"label": {"0": "no", "1": "yes"}} | {s: rows() for s in ("train", "valid", "test")}
    for name, value in (content | files).items():
        if value is not None:
            text = value if isinstance(value, str) else json.dumps(value)
            (folder / f"{name}.json").write_text(text)


STUDIES = {
    "broken YAML": ("experiment: [weak", "broken YAML in line"),
    "not a mapping": ("- weak", "expected settings by name"),
    "repeated key": ("experiment: weak\nexperiment: weak\nspace: {}", "'experiment' stands twice"),
    "unknown field": (study(spase={}), "unknown field 'spase'; did you mean 'space'"),
    "no experiment": (study(experiment=...), "'experiment' is missing"),
    "negative retries": (study(retries=-1), "retries: .*greater than or equal to 0"),
    "no space": (study(space=...), "'space' is missing"),
    "unknown experiment": (study(experiment="week"), "unknown experiment 'week'; did you mean"),
    "unknown setting": (space(methd="iwl"), "unknown setting 'methd'; did you mean 'method'"),
    "wrong type": (space(strong_fraction="many"), "strong_fraction: .*number.*'many'"),
    "out of range": (space(strong_fraction=1.5), "strong_fraction: .*less than or equal to 1"),
    "out of range in a grid": (space(batch_size={"grid": [0, 8]}), "batch_size: .*equal to 1"),
    "not a number": (space(learning_rate=float("nan")), "learning_rate: .*finite|greater"),
    "number or word": (space(lambda_strong="valid"), "lambda_strong: .*number.*'validated'"),
    "list for a grid": (
        space(method=["iwl", "snorkel"]),
        r"method: .*\['iwl', 'snorkel'\]; to try each of them, write {grid: \[…\]}\)",
    ),
    "unknown method": (space(method="snorkle"), "method: .*'majority_vote'"),
    "impossible method": (space(strong_fraction=0.0), "strong_fraction: labels_only learns"),
    "impossible features": (space(features="tfidf"), "features: breast_cancer carries its own"),
    "data folder missing": (space(dataset="./nowhere"), "dataset: no folder at './nowhere'"),
    "data variable unset": (space(dataset="trec"), "dataset: 'trec'.*MODICUM_DATA"),
    "empty choice": (space(method={"choice": []}), "space.method: the choice is empty"),
    "empty grid": (space(method={"grid": []}), "space.method: the grid is empty"),
    "repeated grid value": (space(hidden_layers={"grid": [1, 1]}), "hidden_layers.*repeats"),
    "sampler misused": (space(learning_rate={"uniform": [1]}), "learning_rate: ray.tune.uniform"),
    "duplicate seeds": (study(seeds=[0, 1, 1]), "seeds: .*1 more than once"),
    "no seeds": (study(seeds=0), "seeds: a number of seeds must be 1"),
    "negative seed": (study(seeds=[-1]), "seeds must not be negative"),
    "seeds as text": (study(seeds="five"), "seeds.*five"),
    "fractional seeds": (study(seeds=1.5), "seeds: .*(1.5)"),
    "empty seeds": ("experiment: weak\nspace: {method: iwl}\nseeds:\n", "seeds: .*None"),
    "space is a number": (study(space=5), "space: expected settings by name"),
    "empty space": ("experiment: weak\nspace:\n", "space: expected settings by name"),
    "exclude is a mapping": (study(exclude={"method": "iwl"}), "exclude: .*list"),
    "exclude is a number": (study(exclude=5), "exclude: .*list"),
    "empty exclude": ("experiment: weak\nspace: {method: iwl}\nexclude:\n", "exclude: .*None"),
    "a list as a key": ("? [a, b]\n: 1\n", "a key must be a name"),
    "search as a name": (study(search="optuna"), "search: .*'optuna'"),
    "a pattern as a metric": (study(report={"metrics": "test/*"}), "name one metric"),
    "bad name": (study(name="a/b"), "name: .*pattern"),
    "draws without domain": (study(draws=3), "draws: .*random domain"),
    "excluded all": (study(exclude=[{"strong_fraction": 0.5}]), "exclude: nothing is left"),
    "unknown exclude": (study(exclude=[{"fraction": 0.5}]), "exclude: unknown setting"),
    "unknown metric": (study(report={"metrics": "test/acc"}), "report.metrics: unknown metric"),
    "unknown target": (
        study(report={"targets": [{"metric": "accuracy", "value": 1}]}),
        "report.targets: unknown metric",
    ),
    "unknown row": (study(report={"rows": "mthd"}), "report.rows: unknown setting 'mthd'"),
    "unknown report field": (study(report={"row": "method"}), "unknown setting 'report.row'"),
    "baseline not a row": (
        study(report={"rows": "method", "baseline": {"strong_fraction": 0.5}}),
        "report.baseline: 'strong_fraction' is not among the rows",
    ),
    "baseline by value without a single row setting": (
        study(report={"baseline": ["majority_vote"]}),
        "report.baseline: .*without a single setting in rows",
    ),
    "baseline that is not run": (
        study(report={"rows": "method", "baseline": {"method": "iwl"}}),
        "report.baseline: .*names 0",
    ),
    "reference missing": (study(report={"reference": "r.yaml"}), "r.yaml: no such file"),
    "unknown searcher": (
        study(
            space={"method": {"choice": ["iwl"]}},
            search={"name": "optima", "metric": "test/f1", "samples": 2},
        ),
        "search.name: unknown searcher 'optima'; did you mean 'optuna'",
    ),
    "searcher over a grid": (
        study(search={"name": "optuna", "metric": "test/f1", "samples": 2}),
        "space.method: a searcher cannot walk a grid",
    ),
    "searcher without goal": (
        study(search={"name": "optuna", "metric": "train/coverage", "samples": 2}),
        "search.metric: say whether",
    ),
    "unknown searcher option": (
        study(
            space={"method": {"choice": ["iwl"]}},
            search={
                "name": "optuna",
                "metric": "test/f1",
                "samples": 2,
                "options": {"sampling": 1},
            },
        ),
        "search.options: unknown option 'sampling'",
    ),
    "early stopping with several seeds": (
        study(scheduler={"name": "hyperband", "metric": "test/f1"}),
        "scheduler: with several seeds only asha decides on their mean",
    ),
    "scheduler that changes settings": (
        study(seeds=1, scheduler={"name": "pbt", "metric": "test/f1"}),
        "scheduler.name: unknown scheduler 'pbt'",
    ),
    "unknown scheduler option": (
        study(seeds=1, scheduler={"name": "asha", "metric": "test/f1", "options": {"grce": 1}}),
        "scheduler.options: unknown option 'grce'",
    ),
}


@pytest.mark.parametrize(("text", "message"), STUDIES.values(), ids=STUDIES.keys())
def test_wrong_study_files(modicum, tmp_path, text, message):
    (tmp_path / "study.yaml").write_text(text)
    for command in (["run", "study.yaml", "--out", "out"], ["validate", "study.yaml"]):
        code, error = modicum(*command)
        assert code == 2
        assert len(error.splitlines()) == 1, error
        assert "error: " in error
        assert re.search(message, error), error
    assert not (tmp_path / "out").exists()


DATA = {
    "missing split": ({"valid": None}, "no valid.json"),
    "broken JSON": ({"train": '{"0": '}, "train.json is not readable JSON"),
    "empty split": ({"test": {}}, "test.json holds no rows"),
    "vote outside the classes": ({"train": rows(votes=(0, 2))}, "vote 2 of labeling function 1"),
    "vote below abstain": ({"train": rows(votes=(-2, 0))}, "vote -2 of labeling function 0"),
    "fractional votes": ({"train": rows(votes=(0.5, 1))}, "votes must be whole numbers"),
    "ragged votes": ({"train": {**rows(2), "9": rows(1, (0,))["0"]}}, "row '9': weak_labels"),
    "no votes at all": ({"train": rows(votes=())}, "weak_labels must be a list"),
    "other width": ({"test": rows(votes=(0, 1, 0))}, "splits differ in labeling functions"),
    "features with NaN": (
        {"valid": rows(data={"feature": [float("nan"), 1.0]})},
        "features must be finite",
    ),
    "features too large": (
        {"train": rows(data={"feature": [1e300, 1.0]})},
        "features must be finite",
    ),
    "ragged features": (
        {"train": {**rows(1), "9": rows(1, data={"feature": [1.0]})["0"]}},
        "features must be lists of equal length",
    ),
    "neither text nor features": ({"train": rows(data={"x": 1})}, "needs a text, or every one"),
    "label outside the classes": ({"train": rows(label=7)}, "label 7 is not a class"),
    "one class": ({"label": {"0": "only"}}, "names 1 class"),
    "classes not numbered": ({"label": {"a": "no", "b": "yes"}}, "must map 0, 1"),
    "training labels unknown": ({"train": rows(label=-1)}, "strong_fraction: must be 0"),
    "test labels unknown": ({"test": rows(label=-1)}, "every row of test needs a label"),
    "every function abstains": ({"train": rows(votes=(-1, -1))}, "abstains on all 3"),
}


@pytest.mark.parametrize(("files", "message"), DATA.values(), ids=DATA.keys())
def test_wrong_data(modicum, tmp_path, files, message):
    wrench(tmp_path / "set", **files)
    (tmp_path / "study.yaml").write_text(space(dataset="./set"))
    code, error = modicum("run", "study.yaml", "--out", "out")
    assert (code, len(error.splitlines())) == (2, 1), error
    assert message in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"train": (3, 2), "valid": (3, 2)}, "must hold arrays train, valid and test"),
        ({"train": (3, 2), "valid": (3, 2), "test": (4, 2)}, "has 4 rows for test"),
        ({"train": (3, 2), "valid": (3, 1), "test": (3, 2)}, "equally wide"),
        ({"train": (3, 2), "valid": (3, 2), "test": np.full((3, 2), 1e300)}, "not finite"),
        (b"", "must hold arrays train, valid and test"),
        (b"not a zip", "must hold arrays train, valid and test"),
        (b"PK\x03\x04 cut off", "must hold arrays train, valid and test"),
        (None, "features: no file"),
    ],
)
def test_wrong_feature_files(modicum, tmp_path, arrays, message):
    wrench(tmp_path / "set")
    if isinstance(arrays, bytes):
        (tmp_path / "set" / "f.npz").write_bytes(arrays)
    elif arrays is not None:
        filled = {k: v if isinstance(v, np.ndarray) else np.zeros(v) for k, v in arrays.items()}
        np.savez(tmp_path / "set" / "f.npz", **filled)
    (tmp_path / "study.yaml").write_text(space(dataset="./set", features="f.npz"))
    code, error = modicum("run", "study.yaml", "--out", "out")
    assert (code, len(error.splitlines())) == (2, 1), error
    assert message in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["run", "study.yaml", "--set", "method"], "--set: expected key=value"),
        (["run", "study.yaml", "--set", "methd=iwl"], "unknown setting 'methd'"),
        (["run", "study.yaml", "--seeds", "0"], "seeds: a number of seeds must be 1"),
        (["run", "study.yaml", "--tables", "html"], "--tables: expected text"),
        (["run", "study.yaml", "--out", "taken"], "taken': the folder cannot be written"),
        (["run", "study.yaml", "--out", "gopher://x/y"], "--out 'gopher://x/y'"),
        (["run", "study.yaml", "--out", ""], "--out: expected a path or URI of the run folder"),
        (["run", "study.yaml", "--local", "--address", "h:1"], "address: the local runner"),
        (["run", "study.yaml", "--wait-for-resources", "soon"], "a time such as 90s or 10m, got"),
        (
            ["run", "study.yaml", "--local", "--wait-for-resources", "10m"],
            "wait_for_resources: the local runner",
        ),
        (
            ["run", "study.yaml", "--address", "http://127.0.0.1:8265"],
            "address: expected host:port",
        ),
        (["report", "."], "no run here"),
        (["describe", "weka"], "unknown experiment 'weka'; did you mean 'weak'"),
    ],
)
def test_wrong_command_lines(modicum, tmp_path, arguments, message):
    (tmp_path / "study.yaml").write_text(study())
    (tmp_path / "taken").write_text("a file")
    code, error = modicum(*arguments)
    assert (code, len(error.splitlines())) == (2, 1), error
    assert message in error
    assert not (tmp_path / "runs").exists()


def test_a_study_that_needs_ray_is_refused_locally(tmp_path):
    from toys import NeedsRay

    with pytest.raises(md.InputError, match="'needs_ray' needs Ray"):
        md.Study(NeedsRay, {"rate": 0.5}).run(tmp_path / "out", runner="local")
    searched = md.Study(
        "weak",
        {"method": "iwl", "learning_rate": {"loguniform": [1e-4, 1e-2]}},
        search={"name": "optuna", "metric": "test/f1", "samples": 2},
    )
    with pytest.raises(md.InputError, match="search: the local runner"):
        searched.run(tmp_path / "out", runner="local")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("seeds", [range(2, 4), (2, 3), iter([2, 3]), np.array([2, 3])])
def test_seeds_from_any_iterable(seeds):
    study = md.Study("weak", {"method": "iwl"}, seeds=seeds)
    assert study.spec.seed_list == [2, 3]


def test_ignored_settings_warn(modicum, tmp_path):
    text = study(space={"method": "labels_only", "strong_fraction": 0.5, "abstain": "missing"})
    (tmp_path / "study.yaml").write_text(text)
    code, error = modicum("validate", "study.yaml")
    assert code == 0
    assert "warning: the setting 'abstain' is ignored" in error


def test_a_seed_of_no_draws_warns(modicum, tmp_path):
    """`seed` is most often a slip for `seeds`."""
    (tmp_path / "study.yaml").write_text(study(seed=3))
    code, error = modicum("validate", "study.yaml")
    assert code == 0
    assert "seed: 3 has no effect, since nothing is drawn; `seeds`" in error
    drawn = {**GOOD["space"], "learning_rate": {"loguniform": [1e-4, 1e-2]}}
    (tmp_path / "study.yaml").write_text(study(seed=3, space=drawn))
    assert modicum("validate", "study.yaml") == (0, "")


def test_validate_reports_every_wrong_file(modicum, tmp_path):
    (tmp_path / "good.yaml").write_text(study())
    (tmp_path / "bad.yaml").write_text(study(seeds=0))
    (tmp_path / "worse.yaml").write_text("[")
    code, error = modicum("validate", "bad.yaml", "good.yaml", "worse.yaml")
    assert code == 2
    assert [line.split(":")[0] for line in error.splitlines()] == ["bad.yaml", "worse.yaml"]


def test_a_broken_third_party_command_leaves_the_others_alone(modicum, monkeypatch):
    from importlib.metadata import EntryPoint

    broken = EntryPoint("broken", "no_such_module_anywhere:app", "modicum.commands")
    monkeypatch.setattr(cli, "added_commands", lambda: {"broken": broken})
    code, error = modicum("list")
    assert code == 0
    assert error.startswith("warning: the command 'broken' cannot be loaded")
