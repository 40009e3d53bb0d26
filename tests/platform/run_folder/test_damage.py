"""Damaged files of a run folder: named and left out by results, set aside and run again."""

import json
import shutil
import sys
import warnings
from typing import ClassVar

import numpy as np
import pytest

import modicum as md
from modicum.cli import main as cli
from modicum.monitoring.run_reader import RunReader
from modicum.report.document import report_document
from modicum.results.layout import report_layout
from modicum.results.store import load_records
from toys import Answers, Descent


def half(content):
    return content[: len(content) // 2]


def garbled(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0x55]) + content[middle + 1 :]


# Kinds of damage, each to a trial of its own: a file and its new contents, None for none.
TRIALS = [
    ("trial.json", lambda content: b""),
    ("trial.json", half),
    ("trial.json", lambda content: b"\xff\xfe" + content),
    ("trial.json", lambda content: b"[]"),
    ("trial.json", lambda content: b"{}"),
    ("records.jsonl", lambda content: b""),
    ("records.jsonl", half),
    ("records.jsonl", lambda content: content.splitlines(keepends=True)[0]),
    ("records.jsonl", lambda content: b"\x80" + content),
    ("records.jsonl", lambda content: b"\x00" * len(content)),
    ("records.jsonl", lambda content: content.replace(b'"seconds"', b'"second"')),
    ("records.jsonl", None),
]
OUTCOMES = [("outcomes.npz", change) for change in (lambda content: b"", half, garbled)]
KINDS = TRIALS + OUTCOMES


def study():
    space = {"method": md.grid("good", "bad"), "told": "first"}
    report = {"rows": "method", "metrics": "accuracy"}
    return md.Study(Answers, space, seeds=9, name="answers", report=report)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run folder of 18 trials, each with two records and outcomes."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    study().run(folder, runner="local", quiet=True)
    return folder


@pytest.fixture
def run(whole, tmp_path):
    """A copy of the run folder, to be damaged."""
    return shutil.copytree(whole, tmp_path / "run")


def ids(folder):
    return [trial["id"] for trial in json.loads((folder / "plan.json").read_text())["trials"]]


def damage(path, change):
    """Damage a file, and return what it holds then."""
    if change is None:
        path.unlink()
        return None
    path.write_bytes(change(path.read_bytes()))
    return path.read_bytes()


def frame_of(folder, without=()):
    frame = load_records(folder).frame.drop(columns=["seconds"])
    return frame[~frame["trial_id"].isin(without)].reset_index(drop=True)


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


def test_damaged_trials_run_again_to_the_same_results_and_are_kept(run, whole):
    hit = dict(zip(ids(run), KINDS, strict=False))
    spoiled = {
        trial_id: damage(run / "trials" / trial_id / name, change)
        for trial_id, (name, change) in hit.items()
    }
    with pytest.warns(UserWarning, match="runs again") as warned:
        study().run(run, runner="local", quiet=True)
    said = [str(warning.message) for warning in warned]
    for trial_id, (name, _) in hit.items():
        (sentence,) = (line for line in said if trial_id in line)
        kept = run / "damaged" / f"{trial_id}-0"
        assert str(kept) in sentence
        assert (kept / "log.txt").exists()
        file = kept / name
        assert (file.read_bytes() if file.exists() else None) == spoiled[trial_id]
    assert frame_of(run).equals(frame_of(whole))
    assert summary(run) == summary(whole)
    # The others did not run again.
    for trial_id in ids(run)[len(KINDS) :]:
        place = ("trials", trial_id, "trial.json")
        assert run.joinpath(*place).read_bytes() == whole.joinpath(*place).read_bytes()


def test_a_second_damage_of_a_trial_is_kept_beside_the_first(run):
    first = ids(run)[0]
    for _ in range(2):
        (run / "trials" / first / "trial.json").write_bytes(b"")
        with pytest.warns(UserWarning, match=first):
            study().run(run, runner="local", quiet=True)
    assert {path.name for path in (run / "damaged").iterdir()} == {f"{first}-0", f"{first}-1"}


def test_results_name_damaged_trials_and_show_the_others(run, whole):
    hit = dict(zip(ids(run), TRIALS, strict=False))
    for trial_id, (name, change) in hit.items():
        damage(run / "trials" / trial_id / name, change)
    with pytest.warns(UserWarning, match="left out") as warned:
        results = md.load_results(run)
    said = " ".join(str(warning.message) for warning in warned)
    assert all(trial_id in said for trial_id in hit)
    counts = results.records.status_counts()
    assert (counts["pending"], counts["finished"]) == (len(TRIALS), 18 - len(TRIALS))
    shown = results.frame.drop(columns=["seconds"])
    assert shown.equals(frame_of(whole, without=hit))
    notes = report_document(report_layout(results.records))["notes"]
    assert all(any(trial_id in note for note in notes) for trial_id in hit)
    reader = RunReader(str(run))
    assert all(trial_id in reader.view()["trouble"] for trial_id in hit)
    assert reader.view()["counts"] == {"pending": len(TRIALS), "finished": 18 - len(TRIALS)}
    assert any(next(iter(hit)) in note for note in reader.document()["notes"])


def test_values_stay_where_only_outcomes_of_test_rows_are_damaged(tmp_path):
    folder = tmp_path / "run"
    report = {"rows": "method", "metrics": "accuracy"}
    one = md.Study(Answers, {"method": "good"}, seeds=3, report=report)
    before = one.run(folder, runner="local", quiet=True).table("method").cells[("good",), ()]
    assert before.summary.rows is not None
    for trial_id, (_, change) in zip(ids(folder), OUTCOMES, strict=True):
        damage(folder / "trials" / trial_id / "outcomes.npz", change)
        results = md.load_results(folder)
        with pytest.warns(UserWarning, match=rf"{trial_id}.*intervals do without"):
            table = results.table("method")
        cell = table.cells[("good",), ()]
        assert (cell.summary.mean, cell.summary.rows) == (before.summary.mean, None)
        notes = report_document(report_layout(results.records))["notes"]
        assert any(trial_id in note for note in notes)


def test_checkpoints_of_a_damaged_trial_are_kept_with_it(tmp_path):
    one = md.Study(Descent, {"rate": 0.5, "checkpoints": True}, seeds=2)
    whole = one.run(tmp_path / "whole", runner="local", quiet=True)
    one.run(tmp_path / "run", runner="local", quiet=True)
    first, second = ids(tmp_path / "run")
    (tmp_path / "run" / "trials" / first / "trial.json").write_bytes(b"")
    with pytest.warns(UserWarning, match=first):
        again = one.run(tmp_path / "run", runner="local", quiet=True)
    kept = tmp_path / "run" / "damaged" / f"{first}-0" / "checkpoints" / f"{first}-0"
    assert list(kept.glob("*/state.json"))
    assert {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()} == {
        f"{first}-0",
        f"{second}-0",
    }
    columns = ["seconds"]
    assert again.frame.drop(columns=columns).equals(whole.frame.drop(columns=columns))


@pytest.mark.parametrize("content", [b"", b"\xff{}", b'{"packages": [1]}'])
def test_a_damaged_provenance_is_left_out_and_set_aside(run, content, capsys):
    (run / "provenance.json").write_bytes(content)
    sys.argv = ["modicum", "report", str(run)]
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 0
    assert capsys.readouterr().err.startswith(f"warning: {run}/provenance.json: broken provenance")
    assert "provenance.json: broken provenance" in (run / "report.html").read_text()
    with pytest.warns(UserWarning, match="moved to"):
        study().run(run, runner="local", quiet=True)
    assert (run / "damaged" / "provenance.json-0").read_bytes() == content
    assert "seconds" in json.loads((run / "provenance.json").read_text())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plan.json", b""),
        ("plan.json", b"\xff"),
        ("plan.json", b"[]"),
        ("plan.json", b'{"experiment": {}, "trials": []}'),
        ("study.yaml", b""),
        ("study.yaml", b"\xff\xff"),
        ("study.yaml", b"[1]"),
        ("study.yaml", b"a: ["),
    ],
)
def test_a_damaged_plan_or_study_is_an_error_in_a_sentence_and_written_again(
    run, whole, name, content, capsys
):
    (run / name).write_bytes(content)
    sys.argv = ["modicum", "report", str(run)]
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert name in line
    if name == "study.yaml":
        assert RunReader(str(run)).view()["counts"] == {"finished": 18}
    if content == b"":
        study().run(run, runner="local", quiet=True)
        assert frame_of(run).equals(frame_of(whole))


def test_a_trial_in_the_plan_that_is_none_is_an_error_in_a_sentence(run):
    plan = json.loads((run / "plan.json").read_text())
    del plan["trials"][3]["seed"]
    (run / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(md.InputError, match=r"plan\.json: no plan \(trials\.3\.seed"):
        md.load_results(run)


@pytest.mark.parametrize(
    "change", [lambda content: b"", half, lambda content: content[:300] + b"U" + content[301:]]
)
def test_a_damaged_table_of_results_is_gathered_again_from_the_trials(run, whole, change):
    damage(run / "results.parquet", change)
    assert frame_of(run).equals(frame_of(whole))


def test_a_traceback_that_is_no_text_is_shown_as_far_as_it_is(tmp_path):
    failing = md.Study(Descent, {"rate": 0.5, "fail_seed": 0}, seeds=1)
    failing.run(tmp_path / "run", runner="local", quiet=True)
    (trace,) = (tmp_path / "run").glob("trials/*/error.txt")
    trace.write_bytes(b"first\xff\nlast")
    (failure,) = report_document(report_layout(load_records(tmp_path / "run")))["failures"]
    assert failure["trace"] == "first\ufffd\nlast"


# --- values that results cannot hold ----------------------------------------------------------


class NoConfig(md.Config):
    pass


class Reports(md.Experiment[NoConfig]):
    """Reports one value, chosen by the seed."""

    name, version, budget_unit, Config = "reports", "1", "samples", NoConfig
    metrics: ClassVar = {"size": md.Metric("Any value."), "per/*": md.Metric("By name.")}
    records: ClassVar[list[dict]] = []

    def run(self, config, trial):
        yield md.Record(budget=1, metrics=self.records[trial.seed])


def reported(folder, *records):
    class Now(Reports):
        pass

    Now.records = list(records)
    return md.Study(Now, {}, seeds=len(records)).run(folder, runner="local", quiet=True)


def test_values_that_results_cannot_hold_fail_their_trial_and_are_named(tmp_path):
    refused = [2**70, 2**63, -(2**63), 10**5000, np.uint64(2**64 - 1), "\udcff", 1j, [1]]
    results = reported(
        tmp_path / "run", *({"size": value} for value in refused), {"per/\udcff": 1.0}, {"size": 1}
    )
    assert [trial.status for trial in results.trials] == ["failed"] * 9 + ["finished"]
    assert all("metric 'size' must" in trial.error for trial in results.failed[:8])
    assert "2**63 - 1" in results.failed[0].error
    (tmp_path / "run" / "results.parquet").unlink()
    assert len(md.load_results(tmp_path / "run").failed) == 9


def test_values_that_are_recorded_are_read_as_they_were(tmp_path):
    values = [2**63 - 1, -(2**63) + 1, 2.0**70, True, None, "é\u2028\x85", -5, 1e-320]
    values += [float("nan"), float("inf"), -float("inf")]
    first = reported(tmp_path / "run", *({"size": value} for value in values))
    assert first.records.status_counts()["finished"] == len(values)
    # Read again from the trials, and taken over by another run, without a warning of damage.
    (tmp_path / "run" / "results.parquet").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert md.load_results(tmp_path / "run").records.damaged == {}
        reported(tmp_path / "run", *({"size": value} for value in values))
    for folder in (tmp_path / "run" / "trials").iterdir():
        seed = json.loads((folder / "trial.json").read_text())["seed"]
        (line,) = (folder / "records.jsonl").read_text().splitlines()
        assert repr(json.loads(line)["size"]) == repr(values[seed])
    assert len(md.load_results(tmp_path / "run").frame) == len(values)


@pytest.mark.parametrize("name", ["seed", "status", "trial_id", "record", "config/rate"])
def test_a_metric_does_not_take_the_name_of_another_column(tmp_path, name):
    class Named(Reports):
        metrics: ClassVar = {name: md.Metric("Named as a column.")}
        records: ClassVar = [{name: 1}]

    (trial,) = md.Study(Named, {}, seeds=1).run(tmp_path, runner="local", quiet=True).trials
    assert f"the name {name!r} is taken" in trial.error


def test_settings_and_seeds_beyond_64_bits_are_tabled(tmp_path):
    """A column of Parquet holds 64 bits; such a column is text."""

    class Sized(md.Config):
        size: int = md.setting(description="Any number.")

    class Large(Reports):
        Config = Sized

        def run(self, config, trial):
            yield md.Record(budget=1, metrics={"size": 1})

    large = md.Study(Large, {"size": md.grid(1, 2**70)}, seeds=[0, 2**70])
    results = large.run(tmp_path / "run", runner="local", quiet=True)
    assert results.records.status_counts()["finished"] == 4
    assert set(md.load_results(tmp_path / "run").frame["config/size"]) == {"1", str(2**70)}


def test_an_error_with_a_file_name_that_is_no_text_is_kept(tmp_path):
    class Opens(Reports):
        def run(self, config, trial):
            open("gone-\udcff")  # noqa: SIM115
            yield

    results = md.Study(Opens, {}, seeds=1).run(tmp_path / "run", runner="local", quiet=True)
    assert r"gone-\udcff" in results.failed[0].error.replace("\\\\", "\\")
    assert "FileNotFoundError" in (tmp_path / "run" / "report.html").read_text()
