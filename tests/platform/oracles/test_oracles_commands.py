"""`modicum oracle` and the page about it, against an endpoint of its own process."""

import json
import os
import re
import sqlite3
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import modicum as md
from conftest import ROOT
from fake_endpoint import running_endpoint
from modicum.cli.oracle import app
from modicum.oracles.ledger import report as ledger_report
from modicum.oracles.ledger.database import open_to_read

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]
MODICUM = (sys.executable, "-m", "modicum")


@pytest.fixture(scope="module")
def endpoint():
    with running_endpoint(models=["gpt-4o-mini"]) as running:
        yield running


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, endpoint):
    """Twelve pairs, of which the completion with the higher number is the better one."""
    folder = tmp_path_factory.mktemp("oracle")
    rows = [
        {"prompt": f"post {n}", "first": f"quality=0.{n + 10}", "second": f"quality=0.{33 - n}"}
        for n in range(12)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "endpoint.yaml").write_text(
        f"base_url: {endpoint.base_url}\n"
        "limits: {requests_per_minute: 1200}\n"
        "prices: {gpt-4o-mini: {input: 2, output: 10}}\n"
        "ledger: ledger.sqlite\n"
    )
    return folder


def type_in(folder, *arguments, code=0):
    done = subprocess.run(
        [*MODICUM, *arguments],
        cwd=folder,
        env={**os.environ, "MODICUM_LEDGERS": str(folder / "ledgers")},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def oracle_here(workplace, monkeypatch):
    """Run `modicum oracle` in this process, for commands that need no Ray."""
    monkeypatch.setenv("MODICUM_LEDGERS", str(workplace / "ledgers"))

    def run(*arguments, code=0, folder=workplace):
        monkeypatch.chdir(folder)
        done = CliRunner().invoke(app, arguments)
        mistake = isinstance(done.exception, md.InputError)
        assert (2 if mistake else done.exit_code) == code, done.output
        return f"{done.output}{done.exception if mistake else ''}"

    return run


def asking(command, *more):
    given = ("--model", "gpt-4o-mini", "--endpoint", "endpoint.yaml")
    return (command, "pairs.jsonl", *given, *more)


def test_from_the_estimate_to_the_ledger(workplace, endpoint, oracle_here):
    """Twelve requests at 1,200 a minute are 0.01 min; what the ledger says they cost lies between
    nothing and the bound; the second time nothing is sent; what is exported names the winners.
    """
    estimate = oracle_here(*asking("estimate"))
    assert re.search(r"^requests +12 \(0 more", estimate, flags=re.MULTILINE)
    assert "0.0 min at the endpoint's limits" in estimate
    bound = float(re.search(r"never above \$([\d.]+)", estimate)[1])
    assert endpoint.counters()["requests"] == 0

    said = type_in(workplace, "oracle", *asking("judge", "--run", "pilot", "--out", "judged.jsonl"))
    assert "12 of 12 judged, 0 from the ledger" in said
    judged = [json.loads(line) for line in (workplace / "judged.jsonl").read_text().splitlines()]
    assert [row["winner"] for row in judged] == ["second"] * 12
    assert {row["order_shown"] for row in judged} == {"given", "swapped"}

    again = type_in(workplace, "oracle", *asking("judge", "--out", "again.parquet"))
    assert "12 of 12 judged, 12 from the ledger, $0.0000" in again
    assert endpoint.counters()["requests"] == 12
    assert "requests        0 (12 more are in the ledger)" in oracle_here(*asking("estimate"))

    shown = oracle_here("ledger", "ledger.sqlite", "--verify", "--export", "requests.parquet")
    assert "pilot" in shown
    assert "verified: no errors found" in shown
    [spent] = ledger_report.spending(workplace / "ledger.sqlite")
    assert (spent.run, spent.judgements, spent.calls) == ("pilot", 12, 12)
    assert 0 < spent.dollars <= bound + 0.01
    table = pq.read_table(workplace / "requests.parquet").to_pylist()
    assert [row["winner"] for row in table] == ["second"] * 12
    assert {row["model"] for row in table} == {"gpt-4o-mini"}


def test_a_changed_ledger_is_found_out(workplace, tmp_path, oracle_here):
    """A verdict, a text and an answer, each changed in a copy; the fourth copy is cut in half."""
    original = workplace / "ledger.sqlite"
    changes = {
        "does not say B": "UPDATE requests SET verdict = 'B' WHERE verdict = 'A'",
        "does not match the texts": "UPDATE questions SET prompt = prompt || '!'",
        "does not say": "UPDATE requests SET answer = 'Preferred: A or B'",
    }
    for number, (found, change) in enumerate(changes.items()):
        copy = tmp_path / f"{number}.sqlite"
        with sqlite3.connect(copy) as connection:
            open_to_read(original).backup(connection)
            connection.execute(change)
        assert found in oracle_here("ledger", copy.name, "--verify", code=1, folder=tmp_path)
    cut = tmp_path / "cut.sqlite"
    cut.write_bytes((tmp_path / "0.sqlite").read_bytes()[:9000])
    assert "malformed" in type_in(tmp_path, "oracle", "ledger", cut.name, "--verify", code=2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("judge", "nowhere.jsonl", "--model", "m", "--out", "o.jsonl"), "no file at 'nowhere"),
        (("judge", "pairs.jsonl", "--model", "m", "--out", "o.txt"), "--out: expected a file"),
        (("estimate", "pairs.jsonl", "--model", "m", "--template", "x"), "unknown template 'x'"),
        (
            ("estimate", "pairs.jsonl", "--model", "m", "--endpoint", "x.yaml"),
            "no file at 'x.yaml'",
        ),
        (("ledger",), "no ledgers in"),
        (("ledger", "pairs.jsonl"), "ledger: pairs.jsonl"),
    ],
)
def test_mistakes_are_one_sentence(oracle_here, arguments, said):
    printed = oracle_here(*arguments, code=2)
    assert said in printed
    assert "\n" not in printed


def test_the_page_about_oracles(tmp_path, endpoint):
    """Its Python, in order and in one program, with this endpoint in the place of OpenAI's."""
    page = (ROOT / "docs" / "oracles.md").read_text()
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL))
    code = code.replace("https://api.openai.com/v1", endpoint.base_url)
    endpoint.set(verdict="A")
    (tmp_path / "page.py").write_text(code + "\nprint(answers, verdicts.accuracy)\n")
    done = subprocess.run(
        [sys.executable, "page.py"],
        cwd=tmp_path,
        env={**os.environ, "MODICUM_LEDGERS": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("first")


def test_a_study_asks_an_endpoint(workplace, endpoint):
    """The endpoint knows the truth, so judgements agree with it and with each other; both trials
    of the same seed and pairs ask what is in the ledger already.
    """
    endpoint.set(verdict="truth")
    rows = [json.loads(line) for line in (workplace / "pairs.jsonl").read_text().splitlines()]
    known = [row | {"preferred": "second"} for row in rows]
    (workplace / "known.jsonl").write_text("".join(json.dumps(row) + "\n" for row in known))
    (workplace / "study.yaml").write_text(
        "name: asked\nexperiment: oracle_agreement\nseeds: 2\n"
        "space: {oracle: endpoint, model: gpt-4o-mini, pairs: ./known.jsonl, count: 12,\n"
        f"  endpoint: {{base_url: {endpoint.base_url}, ledger: {workplace}/study.sqlite}}}}\n"
    )
    before = endpoint.counters()["requests"]
    type_in(workplace, "run", "study.yaml", "--out", "asked", "--quiet")
    results = md.load_results(workplace / "asked")
    assert [value for _, value in results.values("agreement")] == [1.0, 1.0]
    assert endpoint.counters()["requests"] == before + 12
