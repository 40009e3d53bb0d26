"""Comparison of runs whose values are made by hand."""

import math

import pytest

import modicum as md
from modicum.cli import main as cli
from modicum.execution.messages import EndMessage, RecordMessage
from modicum.execution.recorder import Recorder
from modicum.storage import StorageFolder
from modicum.study_results import Results
from modicum.yaml_io import dump_yaml
from toys import Descent

# 97.5% quantiles of Student's t, from a printed table.
T_2, T_4 = 4.303, 2.776


def run_of(place, values, *, settings=None, experiment=Descent, failed=(), provenance=None):
    """A run folder as if a study had reported these losses: {rate: {seed: loss}}."""
    rates = list(values)
    seeds = sorted({seed for by_seed in values.values() for seed in by_seed})
    study = md.Study(experiment, {"rate": md.grid(rates), **(settings or {})}, seeds=seeds)
    folder = StorageFolder(place)
    recorder = Recorder(folder, study.experiment, commit="abc")
    folder.write_text(dump_yaml(study.resolved()), "study.yaml")
    folder.write_json(
        provenance or {"python": "3.11.1", "packages": {"numpy": "2"}}, "provenance.json"
    )
    plans = [p for p in study.trials if p.seed in values[p.columns["rate"]]]
    recorder.add(plans)
    for plan in plans:
        loss = values[plan.columns["rate"]][plan.seed]
        recorder.start(plan.id)
        recorder.record(plan.id, RecordMessage(0, 10.0, {"test/loss": loss}, 0.1, b""))
        status = "failed" if (plan.columns["rate"], plan.seed) in failed else "finished"
        recorder.end(plan.id, EndMessage(status, error="boom" if status == "failed" else ""))
    Results.consolidate(folder)
    return str(place)


def test_cells_with_shared_seeds_are_paired(tmp_path):
    """Differences −1, −2, −3: mean −2, sd 1, half-width t₂ · 1/√3; less loss is better."""
    one = run_of(tmp_path / "1", {0.1: {0: 2.0, 1: 4.0, 2: 6.0}})
    two = run_of(tmp_path / "2", {0.1: {0: 1.0, 1: 2.0, 2: 3.0, 9: 50.0}})
    (difference,) = md.compare_runs(one, two).differences
    (cell,) = difference.cells
    half = T_2 / math.sqrt(3)
    assert cell.paired
    assert (cell.difference.n, cell.difference.mean) == (3, -2.0)
    assert cell.difference.low == pytest.approx(-2 - half, abs=1e-3)
    assert cell.difference.high == pytest.approx(-2 + half, abs=1e-3)
    assert cell.better is None  # −2 ± 2.48 contains 0
    assert cell.shared == 3
    assert (cell.first.mean, cell.other.mean, cell.other.n) == (4.0, 14.0, 4)


def test_cells_without_shared_seeds_have_welchs_interval(tmp_path):
    """1, 2, 3 against 11, 12, 13: both variances 1, standard error √(2/3), 4 degrees of freedom."""
    one = run_of(tmp_path / "1", {0.1: {0: 1.0, 1: 2.0, 2: 3.0}})
    two = run_of(tmp_path / "2", {0.1: {5: 11.0, 6: 12.0, 7: 13.0}})
    (cell,) = md.compare_runs(one, two).differences[0].cells
    half = T_4 * math.sqrt(2 / 3)
    assert not cell.paired
    assert cell.difference.mean == 10.0
    assert cell.difference.low == pytest.approx(10 - half, abs=1e-3)
    assert cell.difference.high == pytest.approx(10 + half, abs=1e-3)
    assert cell.better is False


def test_two_shared_seeds_are_not_paired(tmp_path):
    """Pairs of two seeds have no interval; the means of three and four seeds do."""
    one = run_of(tmp_path / "1", {0.1: {0: 1.0, 1: 2.0, 2: 3.0}})
    two = run_of(tmp_path / "2", {0.1: {1: 12.0, 2: 13.0, 3: 11.0, 4: 12.0}})
    (cell,) = md.compare_runs(one, two).differences[0].cells
    assert (cell.shared, cell.paired, cell.difference.mean) == (2, False, 10.0)
    assert cell.difference.low is not None
    few = run_of(tmp_path / "3", {0.1: {1: 12.0, 2: 13.0}})
    (cell,) = md.compare_runs(one, few).differences[0].cells
    assert (cell.difference.low, cell.difference.p, cell.better) == (None, None, None)


def test_cells_have_the_same_mean_only_if_their_means_agree(tmp_path):
    """At 0.1 the shared seeds agree and the means do not; at 0.2 the means agree, by rounding."""
    one = run_of(tmp_path / "1", {0.1: {0: 1.0, 1: 2.0, 2: 3.0}, 0.2: {0: 0.1, 1: 0.2, 2: 0.3}})
    two = run_of(
        tmp_path / "2",
        {0.1: {0: 1.0, 1: 2.0, 2: 3.0, 3: 50.0}, 0.2: {0: 0.3, 1: 0.2, 2: 0.1}},
    )
    found = md.compare_runs(one, two)
    first, second = found.differences[0].cells
    assert (first.difference.mean, first.same_mean, second.same_mean) == (0.0, False, True)
    assert "1 of 2 cells have the same mean; intervals cover other seeds" in found.to_text()


def test_claims_of_a_comparison_are_corrected_for_their_number(tmp_path):
    """Differences 1, 2, 2 of four cells: t = 5 on 2 degrees of freedom, p = 0.0377, times 4 is no
    claim; alone it is one.
    """
    losses = {seed: float(seed) for seed in range(3)}
    worse = {0: 1.0, 1: 3.0, 2: 4.0}
    rates = (0.1, 0.2, 0.3, 0.4)
    one = run_of(tmp_path / "1", dict.fromkeys(rates, losses))
    two = run_of(tmp_path / "2", dict.fromkeys(rates, worse))
    cells = md.compare_runs(one, two).differences[0].cells
    assert [cell.difference.p for cell in cells] == pytest.approx([0.0377] * 4, abs=1e-4)
    assert [cell.corrected for cell in cells] == pytest.approx([4 * 0.0377] * 4, abs=1e-3)
    assert {cell.better for cell in cells} == {None}
    one, two = (run_of(tmp_path / k, {0.1: v}) for k, v in (("3", losses), ("4", worse)))
    assert md.compare_runs(one, two).differences[0].cells[0].better is False


def test_one_seed_has_a_difference_and_no_interval(tmp_path):
    one = run_of(tmp_path / "1", {0.1: {0: 1.0, 1: 2.0}})
    two = run_of(tmp_path / "2", {0.1: {0: 0.5}})
    (cell,) = md.compare_runs(one, two).differences[0].cells
    assert (cell.difference.mean, cell.difference.low, cell.better) == (-1.0, None, None)


def test_a_setting_fixed_in_each_run_is_what_they_are_compared_on(tmp_path):
    """`steps` differs between the runs and varies in none: the rate alone tells cells apart."""
    one = run_of(tmp_path / "1", {0.1: {0: 1.0}, 0.2: {0: 2.0}}, settings={"steps": 4})
    two = run_of(tmp_path / "2", {0.1: {0: 3.0}, 0.3: {0: 4.0}}, settings={"steps": 8})
    found = md.compare_runs(one, two)
    (difference,) = found.differences
    assert [cell.where for cell in difference.cells] == [{"rate": 0.1}]
    assert (difference.only_first, difference.only_other) == ([{"rate": 0.2}], [{"rate": 0.3}])
    assert found.settings["steps"] == ["4", "8"]
    assert found.settings["rate"] == ["0.1, 0.2", "0.1, 0.3"]
    assert "method" not in found.settings


def test_versions_that_differ_and_failures(tmp_path):
    one = run_of(tmp_path / "1", {0.1: {0: 1.0, 1: 1.0}})
    newer = {
        "python": "3.11.1",
        "packages": {"numpy": "3"},
        "seconds": 60.0,
        "earlier": [{"seconds": 15.0, "started": "2026-01-01"}],
    }
    two = run_of(tmp_path / "2", {0.1: {0: 1.0, 1: 1.0}}, failed={(0.1, 1)}, provenance=newer)
    found = md.compare_runs(one, two)
    assert found.versions == {"numpy": ["2", "3"]}
    assert [run["trials"] for run in found.runs] == ["2 finished", "1 finished, 1 failed"]
    assert found.runs[1]["wall time"] == "1 min 15 s"
    assert found.runs[1]["budget of all trials (samples)"] == "10"
    text = found.to_text()
    assert "boom" in text
    assert "1 of 1 cells have the same mean" in text


class Other(Descent):
    name = "ascent"


def test_different_experiments_show_settings_and_no_results(tmp_path):
    one = run_of(tmp_path / "1", {0.1: {0: 1.0}})
    two = run_of(tmp_path / "2", {0.2: {0: 1.0}}, experiment=Other)
    found = md.compare_runs(one, two)
    assert found.differences[0].cells == []
    assert "descent and ascent are different experiments" in found.to_text()
    assert found.settings["rate"] == ["0.1", "0.2"]
    assert found.versions["experiment"] == ["descent", "ascent"]


def test_three_runs_as_markdown_through_a_uri(tmp_path, monkeypatch, capsys):
    places = [run_of(tmp_path / str(n), {0.1: {0: n, 1: n + 0.5}}) for n in (1, 2, 3)]
    places[1] = f"file://{places[1]}"
    page = tmp_path / "page.md"
    arguments = ["modicum", "compare", *places, "--metric", "test/loss", "--markdown", str(page)]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert not left.value.code
    row = "| 1.2500 ± 0.3536 (2) | 3.2500 ± 0.3536 (2) | 2 | +2.0000 | – | – | – | – |"
    assert row in page.read_text()
    assert "Results: 3 minus 1, test/loss" in capsys.readouterr().out


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return run_of(tmp_path_factory.mktemp("one") / "1", {0.1: {0: 1.0}})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{one}"], "two runs or more"),
        (["{one}", "{one}/nothing"], "no run here"),
        (["{one}", "{one}", "--metric", "test/lost"], "did you mean 'test/loss'"),
        (["{one}", "{one}", "--markdown", "page.txt"], "ends in .md"),
    ],
)
def test_mistakes_are_one_sentence(one, monkeypatch, capsys, arguments, words):
    monkeypatch.setattr("sys.argv", ["modicum", "compare", *(a.format(one=one) for a in arguments)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert words in message
    assert message.count("\n") == 1
