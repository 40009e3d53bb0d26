"""Files from strangers: study files and run folders that mean harm run nothing and hang nothing."""

import json
import pickle
import re
import shutil
import sys

import numpy as np
import pytest

import modicum as md
from modicum.cli import main as cli
from modicum.report.document import report_document
from modicum.results.layout import report_layout
from modicum.results.store import load_records
from modicum.yaml_io import parse_yaml
from toys import Descent

ALIASES = "a0: &a0 [x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x: !!python/object/apply:os.mkdir ['ran']", "could not determine a constructor"),
        ("x: !!python/name:os.system", "could not determine a constructor"),
        (ALIASES, "at most 1,000,000 values"),
        ("x: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("x: " + "9" * 5000, "Exceeds the limit"),
        ("x: &x {y: *x}", "recursive"),
    ],
)
def test_yaml_runs_nothing_and_does_not_explode(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(md.InputError, match=message):
        parse_yaml(text)
    assert not list(tmp_path.iterdir())


def test_values_that_aliases_repeat_are_counted_as_often():
    """1,000 lists of 999 values: 1 + 1,000 + 999,000 are too many; with 998 they are not."""
    text = "[{}]\n".format(", ".join(["&x [{}]", *["*x"] * 999]))
    with pytest.raises(md.InputError, match="values"):
        parse_yaml(text.format(", ".join(["1"] * 999)))
    assert len(parse_yaml(text.format(", ".join(["1"] * 998)))) == 1000


def test_a_value_is_quoted_but_not_pages_of_it():
    study = md.Study(Descent, {"rate": ["x" * 10_000] * 10_000})
    with pytest.raises(md.InputError, match="rate") as raised:
        study.configurations  # noqa: B018
    assert len(str(raised.value)) < 10_000


@pytest.mark.parametrize(
    "space",
    [
        {name: md.grid(range(1, 1001)) for name in ("rate", "steps", "fail_seed")},
        {"rate": 0.5, "method": {"choice": [["fast", "slow"]]}},
    ],
)
def test_more_trials_than_anybody_can_run_are_refused_at_once(space):
    draws = 10**12 if "method" in space else 1
    with pytest.raises(md.InputError, match="1,000,000 trials at most"):
        md.Study(Descent, space, draws=draws).configurations  # noqa: B018


HTML = "<script>document.title='ran'</script><img src=x onerror=alert(1)>"


@pytest.fixture
def run(tmp_path):
    """A run folder with a failed trial, to be tampered with."""
    folder = tmp_path / "run"
    study = md.Study(Descent, {"rate": md.grid(0.25, 0.5), "fail_seed": 1}, seeds=2)
    study.run(folder, runner="local", quiet=True)
    (folder / "results.parquet").unlink()
    return folder


def change(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def rename_rates(run, name):
    """Give the setting `rate` other values, each made by a function of its own one."""
    plan = json.loads((run / "plan.json").read_text())
    for entry in plan["trials"]:
        entry["columns"]["rate"] = name(entry["columns"]["rate"])
        change(run / "trials" / entry["id"] / "trial.json", columns=entry["columns"])
    (run / "plan.json").write_text(json.dumps(plan))


def script_free(page):
    """Whether nothing of the stranger's is markup."""
    return "<script>document" not in page and "<img" not in page and "onerror" in page


def test_html_in_names_and_errors_is_text_on_the_page(run):
    study = (run / "study.yaml").read_text()
    (run / "study.yaml").write_text(
        study.replace("description: ''", f"description: {json.dumps(HTML)}")
    )
    for path in run.glob("trials/*/trial.json"):
        change(path, error=HTML, host=HTML, commit=HTML)
        (path.parent / "log.txt").write_text(HTML)
    text = (run / "plan.json").read_text().replace("test/loss", f"test/{HTML}")
    (run / "plan.json").write_text(text)
    for path in run.glob("trials/*/records.jsonl"):
        path.write_text(path.read_text().replace("test/loss", f"test/{HTML}"))
    md.load_results(run).report(run / "report.html")
    assert script_free((run / "report.html").read_text())


def test_settings_of_strangers_are_text_in_pictures(run):
    rename_rates(run, lambda rate: f"{HTML}{rate}")
    md.load_results(run).report(run / "report.html")
    page = (run / "report.html").read_text()
    assert "<svg" in page
    assert script_free(page)


def test_a_report_with_formulas_in_names_is_drawn_and_is_plain_json(run):
    """A dollar sign begins a formula in matplotlib, and this one is broken."""
    rename_rates(run, lambda rate: f"$\\frac{{${rate}")
    document = report_document(report_layout(load_records(run)))
    assert document["sections"][0]["pictures"]
    assert json.loads(json.dumps(document)) == document


@pytest.mark.parametrize("place", ["../../secret", "/etc", "..", "a/b", "a\x00b"])
def test_a_trial_that_names_another_place_is_refused(run, tmp_path, place):
    outside = tmp_path / "secret"
    trial = next(run.glob("trials/*"))
    shutil.copytree(trial, outside)
    plan = json.loads((run / "plan.json").read_text())
    plan["trials"][0]["id"] = place
    (run / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(md.InputError, match=r"plan\.json"):
        md.load_results(run)


@pytest.mark.parametrize(
    "line",
    [
        '{"budget": 1e999, "seconds": 1, "test/loss": 1}',
        '{"budget": 1, "seconds": 1, "test/loss": -1e999}',
        '{"budget": 1, "seconds": 1, "test/loss": ' + "9" * 400 + "}",
        '{"budget": 1, "seconds": 1, "test/loss": ' + "9" * 5000 + "}",
        '{"budget": 1, "seconds": 1, "test/loss": ' + "[" * 3000 + "]" * 3000 + "}",
        '{"budget": 1, "seconds": 1, "test/loss": NaN}',
        "[]",
        "{}",
        "\x00\x01",
    ],
)
def test_impossible_records_are_a_mistake_in_a_sentence_or_stand_as_they_are(run, line, capsys):
    for path in run.glob("trials/*/records.jsonl"):
        path.write_text(line + "\n")
    sys.argv = ["modicum", "report", str(run)]
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code in {0, 2}
    said = capsys.readouterr()
    assert "Traceback" not in said.err + said.out


def test_pickles_in_a_run_folder_are_not_loaded(run, tmp_path):
    mark = tmp_path / "ran"
    bomb = b"cos\nmkdir\n(V%b\ntR." % str(mark).encode()
    pickle.loads(bomb)
    mark.rmdir()  # It works, so what follows means something.
    for name in ("state.pkl", "searcher", "results.pkl", "checkpoint.pt"):
        for place in (run, *run.glob("trials/*")):
            (place / name).write_bytes(bomb)
    np.save(run / "array.npy", np.array([1]))
    md.load_results(run).report(run / "report.html")
    assert not mark.exists()


def test_control_characters_of_a_stranger_do_not_reach_the_terminal(run, capsys):
    """Escape sequences can rewrite what stands on a terminal."""
    for path in run.glob("trials/*/trial.json"):
        if json.loads(path.read_text())["status"] == "failed":
            change(path, error="\x1b[2J\x1b]0;owned\x07 gone")
    sys.argv = ["modicum", "report", str(run)]
    with pytest.raises(SystemExit):
        cli.main()
    said = capsys.readouterr()
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f]", said.out + said.err)
