"""The live page: reading a run folder, and answering requests over real HTTP."""

import asyncio
import json
import shutil
import subprocess
import sys
from contextlib import asynccontextmanager, suppress

import aiohttp
import pytest

import modicum as md
from modicum.execution.recorder import Recorder
from modicum.monitoring.dashboard.server import Dashboard, serve
from modicum.monitoring.run_reader import RunReader
from modicum.planning.trial_plan import TrialPlan
from modicum.storage import StorageFolder
from modicum.web_guard import TOKEN_HEADER
from toys import Descent

SECURITY = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def study(**space):
    chosen = {"method": md.grid("fast", "slow"), "rate": md.grid(0.25, 0.5), **space}
    return md.Study(Descent, chosen, seeds=2, tracking={"tensorboard": False})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of eight trials, four of which failed."""
    out = tmp_path_factory.mktemp("run") / "run"
    chosen = study(fail_seed=1, method="fast", rate=md.grid(0.25, 0.5, 0.75, 1.0))
    chosen.run(out, runner="local", quiet=True)
    return out


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the finished run."""
    return shutil.copytree(finished, tmp_path / "run")


def change(run, trial_id, **fields):
    """Change fields of `trial.json`, in an atomic write as the recorder's."""
    folder = StorageFolder(run)
    state = folder.read_json("trials", trial_id, "trial.json") | fields
    folder.write_json(state, "trials", trial_id, "trial.json")


def ids(run):
    return [entry["id"] for entry in json.loads((run / "plan.json").read_text())["trials"]]


# --- reading ----------------------------------------------------------------------------------


def test_only_what_has_changed_is_read_again(run):
    reader = RunReader(str(run))
    assert reader.reads == 8
    version = reader.version
    assert (reader.refresh(), reader.reads, reader.version) == (False, 8, version)
    change(run, ids(run)[0], status="running", ended=None)
    assert (reader.refresh(), reader.reads, reader.version) == (True, 9, version + 1)
    assert reader.view()["counts"] == {"finished": 3, "failed": 4, "running": 1}


def test_a_trial_file_that_is_half_there_stands_in_no_others_way(run):
    first, second = ids(run)[:2]
    whole = (run / "trials" / first / "trial.json").read_text()
    (run / "trials" / first / "trial.json").write_text(whole[:40])
    reader = RunReader(str(run))
    view = reader.view()
    assert view["counts"] == {"pending": 1, "finished": 3, "failed": 4}
    assert first in view["trouble"]
    change(run, second, status="running")
    assert reader.refresh()
    assert reader.view()["counts"]["running"] == 1
    (run / "trials" / first / "trial.json").write_text(whole)
    assert reader.refresh()
    assert reader.view()["counts"] == {"running": 1, "finished": 4, "failed": 3}
    assert reader.view()["trouble"] is None


def test_a_folder_without_a_status_is_shown_and_one_without_a_run_is_refused(run, tmp_path):
    (run / "status.json").unlink()
    reader = RunReader(str(run))
    assert reader.view()["status"] is None
    assert reader.view()["total"] == 8
    for broken in ("{", "[]", "\xff", "[" * 100_000):
        (run / "status.json").write_text(broken, encoding="latin-1")
        reader.refresh()
        assert reader.view()["status"] is None
    with pytest.raises(md.InputError, match="no run here"):
        RunReader(str(tmp_path / "elsewhere"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("total", "many"),
        ("total", -1),
        ("links", [1]),
        ("nodes", {}),
        ("notes", "no"),
        ("state", 1),
    ],
)
def test_a_status_with_a_field_of_another_kind_is_none(run, field, value):
    said = json.loads((run / "status.json").read_text())
    assert RunReader(str(run)).view()["status"] == said
    (run / "status.json").write_text(json.dumps(said | {field: value}))
    assert RunReader(str(run)).view()["status"] is None
    (run / "status.json").write_text(json.dumps(said | {"of a later version": value}))
    assert RunReader(str(run)).view()["status"] == said


def test_the_command_waits_for_a_run_to_begin(finished, tmp_path):
    command = [sys.executable, "-m", "modicum", "dashboard", tmp_path / "run"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as server:
        try:
            assert "no run here yet; waiting for one" in server.stderr.readline()
            shutil.copytree(finished, tmp_path / "run")
            assert server.stdout.readline().startswith("dashboard: http://127.0.0.1:")
        finally:
            server.kill()


def test_the_metric_is_the_reports_first_as_in_the_line_of_the_terminal(run):
    reader = RunReader(str(run))
    assert reader.view()["metric"] == study().main_metric == "test/loss"
    asked = {"report": {"metrics": ["start", "test/loss"]}, "name": "named"}
    (run / "study.yaml").write_text(json.dumps(asked))
    reader = RunReader(str(run))
    assert reader.view()["metric"] == "start"
    assert reader.title == "named"
    (run / "study.yaml").write_text("{")
    assert RunReader(str(run)).view()["metric"] == "test/loss"
    assert RunReader(str(run)).title == "run"


def test_trials_that_come_back_into_the_plan_are_as_they_were(run):
    reader = RunReader(str(run))
    before = reader.view()["counts"]
    recorder = Recorder(StorageFolder(run), Descent())
    recorder.add([])
    reader.refresh()
    assert reader.view()["counts"] == {}
    plans = [
        TrialPlan.from_json(StorageFolder(run).read_json("trials", name, "trial.json"), Descent())
        for name in sorted(path.name for path in (run / "trials").iterdir())
    ]
    recorder.add(plans)
    reader.refresh()
    assert reader.view()["counts"] == before


def test_what_was_spent_is_the_sum_of_last_budgets(run):
    """Finished trials have records at 10, 20, 30 and 40 samples; failed trials have none."""
    view = RunReader(str(run)).view()
    assert (view["spent"], view["unit"]) == (4 * 40, "samples")


def test_the_list_has_what_runs_first_and_finds_words_in_any_order(run):
    names = ids(run)
    running, late, early = names[0], names[2], names[4]
    change(run, running, status="running", started=1.0, ended=None)
    change(run, late, ended=9e9)
    change(run, early, ended=1.0)
    listed = RunReader(str(run)).trials()
    states = [row["status"] for row in listed["trials"]]
    assert states == ["running", *["failed"] * 4, *["finished"] * 3]
    order = [row["id"] for row in listed["trials"]]
    assert (order[0], order[5], order[-1]) == (running, late, early)
    assert listed["settings"] == ["rate"]
    reader = RunReader(str(run))
    found = reader.trials("RATE=0.5 failed")
    assert [(row["settings"], row["seed"]) for row in found["trials"]] == [(["0.5"], 1)]
    assert [row["id"] for row in reader.trials(late[:8])["trials"]] == [late]
    some = reader.trials("failed", limit=3)
    assert (some["found"], len(some["trials"])) == (4, 3)
    assert reader.trials("nowhere")["trials"] == []


def test_a_log_ends_with_the_traceback_and_belongs_to_a_trial(run):
    reader = RunReader(str(run))
    failed = next(row for row in reader.trials("failed")["trials"])
    log = reader.log(failed["id"])
    assert log.index("about to fail") < log.index("ZeroDivisionError")
    file = run / "trials" / failed["id"] / "log.txt"
    file.write_text("early" + "x" * 300_000)
    log = reader.log(failed["id"])
    assert log.startswith("x" * 200_000 + "\n")
    assert "ZeroDivisionError" in log
    assert "early" not in log
    file.unlink()
    file.symlink_to("/etc/passwd")
    with pytest.raises(md.InputError, match=r"log\.txt: the link leads out of the run folder"):
        reader.log(failed["id"])
    for name in ("../../run", "..", "/etc/passwd", "", "0" * 12):
        with pytest.raises(md.InputError, match="trial"):
            reader.log(name)
        with pytest.raises(md.InputError, match="trial"):
            reader.stop(name)
    assert not (run / "control").exists() or not list((run / "control").iterdir())


# --- serving ----------------------------------------------------------------------------------


class Visitor:
    """Somebody who has the page's address."""

    def __init__(self, client, url):
        self.client, self.url = client, url
        self.base, self.token = url.split("/?token=")

    async def get(self, path, **headers):
        """Status, headers and text of an answer."""
        async with self.client.get(
            self.base + path, headers={TOKEN_HEADER: self.token} | headers
        ) as answer:
            return answer.status, answer.headers, await answer.text()

    async def post(self, path, body, **headers):
        """Status and body of an answer."""
        async with self.client.post(
            self.base + path, json=body, headers={TOKEN_HEADER: self.token} | headers
        ) as answer:
            return answer.status, await answer.json()

    async def drawn(self):
        """The first view with a report."""
        for _ in range(600):
            view = json.loads((await self.get("/api/view"))[2])
            if view["drawn"] >= 0:
                return view
            await asyncio.sleep(0.05)
        raise AssertionError("no report was drawn")


@asynccontextmanager
async def visiting(source, title="a study"):
    url = asyncio.get_running_loop().create_future()
    server = asyncio.ensure_future(
        serve(Dashboard(source, title), port=0, host="127.0.0.1", on_start=url.set_result)
    )
    await asyncio.wait([url, server], return_when=asyncio.FIRST_COMPLETED)
    async with aiohttp.ClientSession() as client:
        try:
            yield Visitor(client, await url)
        finally:
            server.cancel()
            with suppress(asyncio.CancelledError):
                await server


def test_strangers_are_refused(run):
    async def scenario():
        async with visiting(RunReader(str(run))) as visitor:
            port = visitor.base.rsplit(":", 1)[1]
            assert len(visitor.token) >= 32
            refused = [
                {TOKEN_HEADER: ""},
                {TOKEN_HEADER: visitor.token[:-1]},
                {"Origin": "http://example.org"},
                {"Origin": "null"},
                {"Host": f"attacker.example:{port}", "Origin": f"http://attacker.example:{port}"},
                {"Host": "127.0.0.1.attacker.example"},
            ]
            for headers in refused:
                for path in ("/api/view", "/api/trials", "/api/report", "/api/log?trial=x"):
                    status, answered, text = await visitor.get(path, **headers)
                    assert status == 403, (path, headers)
                    assert list(json.loads(text)) == ["error"]
                    assert SECURITY.items() <= dict(answered).items()
                assert (await visitor.post("/api/stop", {}, **headers))[0] == 403
            for path in ("/", "/?token=", f"/?token={visitor.token}x"):
                assert (await visitor.get(path))[0] == 403
            # In the address, the token opens the page and nothing else.
            path = f"/api/view?token={visitor.token}"
            assert (await visitor.get(path, **{TOKEN_HEADER: ""}))[0] == 403
            assert not (run / "control").exists() or not list((run / "control").iterdir())
            # Through a tunnel, the port in the address is another one.
            host = {"Host": "localhost:9999", "Origin": "http://localhost:9999"}
            assert (await visitor.get("/api/view", **host))[0] == 200

    asyncio.run(scenario())


def test_the_page_the_report_and_what_may_be_asked(run):
    async def scenario():
        names = ids(run)
        async with visiting(RunReader(str(run)), "<b>a study</b>") as visitor:
            status, headers, page = await visitor.get(f"/?token={visitor.token}")
            assert status == 200
            assert SECURITY.items() <= dict(headers).items()
            policy = headers["Content-Security-Policy"]
            nonce = policy.split("'nonce-")[1].split("'")[0]
            assert policy.startswith("default-src 'none'; script-src 'nonce-")
            assert "frame-ancestors 'none'" in policy
            assert page.count("<script") == page.count(f'<script nonce="{nonce}">') == 2
            assert visitor.token not in page
            assert "&lt;b&gt;a study" in page
            assert nonce not in (await visitor.get(f"/?token={visitor.token}"))[2]

            view = await visitor.drawn()
            assert (view["total"], view["counts"]) == (8, {"finished": 4, "failed": 4})
            status, headers, report = await visitor.get("/api/report?version=")
            assert (status, headers["X-Modicum-Version"]) == (200, str(view["drawn"]))
            assert "Failed trials" in report
            assert "<script" not in report
            assert (await visitor.get(f"/api/report?version={view['drawn']}"))[0] == 204

            for limit in ("0", "501", "-1", "1e2", "", "x", "000000001999", "9" * 5000):
                assert (await visitor.get(f"/api/trials?limit={limit}"))[0] == 400, limit
            rows = json.loads((await visitor.get("/api/trials?limit=2&query=failed"))[2])
            assert (rows["found"], len(rows["trials"])) == (4, 2)

            status, headers, log = await visitor.get(f"/api/log?trial={names[1]}")
            assert (status, headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
            assert "ZeroDivisionError" in log
            for name in ("", "0" * 12, "..%2F..%2Fplan.json", "%2Fetc%2Fpasswd"):
                assert (await visitor.get(f"/api/log?trial={name}"))[0] == 404
            for trial in ("0" * 12, "../../plan", ""):
                assert (await visitor.post("/api/stop", {"trial": trial}))[0] == 409
            for body in ([], "x", {"trial": 3}, {"trial": names[0], "path": "/"}, {"trails": 1}):
                assert (await visitor.post("/api/stop", body))[0] == 400
            assert not (run / "control").exists() or not list((run / "control").iterdir())
            status, answer = await visitor.post("/api/stop", {"trial": names[0]})
            assert status == 200
            left = json.loads((run / "control" / f"{answer['asked']}.json").read_text())
            assert left == {"action": "stop_trial", "trial": names[0]}
            assert (await visitor.get("/api/stop"))[0] == 405
            assert (await visitor.get("/nowhere"))[0] == 404

    asyncio.run(scenario())


def test_numbers_that_json_lacks_and_folders_that_vanish_do_not_stop_the_page(run):
    def refuse(name):
        raise AssertionError(name)

    async def scenario():
        first = ids(run)[0]
        records = run / "trials" / first / "records.jsonl"
        kept = records.read_text().splitlines(keepends=True)[:-1]
        records.write_text("".join(kept) + '{"budget": 10, "seconds": 1, "test/loss": NaN}\n')
        async with visiting(RunReader(str(run))) as visitor:
            await visitor.drawn()
            text = (await visitor.get(f"/api/trials?query={first}"))[2]
            assert json.loads(text, parse_constant=refuse)["trials"][0]["value"] is None
            run.rename(run.with_name("moved"))
            for _ in range(100):
                view = json.loads((await visitor.get("/api/view"))[2])
                if view["trouble"]:
                    break
                await asyncio.sleep(0.05)
            assert view["trouble"]
            assert view["counts"] == {"finished": 4, "failed": 4}
            run.with_name("moved").rename(run)
            for _ in range(100):
                view = json.loads((await visitor.get("/api/view"))[2])
                if not view["trouble"]:
                    break
                await asyncio.sleep(0.05)
            assert view["trouble"] is None

    asyncio.run(scenario())


class Bug(RunReader):
    """Fails in a way that nobody foresaw."""

    def document(self):
        raise KeyError("a column")


def test_a_bug_in_drawing_is_told_on_the_page_and_keeps_its_traceback(run, capsys):
    async def scenario():
        async with visiting(Bug(str(run))) as visitor:
            for _ in range(100):
                view = json.loads((await visitor.get("/api/view"))[2])
                if view["trouble"]:
                    break
                await asyncio.sleep(0.05)
            assert "KeyError" in view["trouble"]
            await asyncio.sleep(1.2)
            assert (await visitor.get("/api/trials"))[0] == 200

    asyncio.run(scenario())
    assert capsys.readouterr().err.count("Traceback") == 1


def test_the_application_needs_its_token_even_where_it_listens_everywhere(run):
    """Other host names are allowed then, such as a proxy's."""

    async def scenario():
        from aiohttp.test_utils import TestClient, TestServer

        application = Dashboard(RunReader(str(run)), "t").application("s" * 32, loopback=False)
        async with TestClient(TestServer(application)) as client:
            headers = {"Host": "lab.example", "Origin": "http://lab.example"}
            assert (await client.get("/api/view", headers=headers)).status == 403
            headers[TOKEN_HEADER] = "s" * 32
            assert (await client.get("/api/view", headers=headers)).status == 200

    asyncio.run(scenario())
