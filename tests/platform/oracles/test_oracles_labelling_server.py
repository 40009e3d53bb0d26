"""The server of the labelling page over real HTTP, the human as an oracle, and the command."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys

import aiohttp
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from labelling import PAIRS, fill_up, session_on, write
from modicum.cli.oracle import label
from modicum.errors import InputError
from modicum.oracles.labelling.human import Human
from modicum.oracles.labelling.server import serve
from modicum.oracles.ledger.database import default_ledger, open_to_read
from modicum.oracles.ledger.ledger import Ledger
from modicum.oracles.protocol import Oracle, Pair
from modicum.web_guard import TOKEN_HEADER

COMMAND = "import typer; from modicum.cli.oracle import label; typer.run(label)"


@pytest.fixture
def ledger(tmp_path):
    opened = Ledger(tmp_path / "ledger.sqlite")
    yield opened
    opened.close()


class Visitor:
    """What a page does: requests to a server at the address that it printed."""

    def __init__(self, client, url):
        self.client = client
        self.url = url
        self.base, self.token = url.split("/?token=")

    async def get(self, path="/api/state", **headers):
        headers = {TOKEN_HEADER: self.token} | headers
        async with self.client.get(f"{self.base}{path}", headers=headers) as answer:
            return answer.status, await answer.json()

    async def post(self, path, **body):
        headers = {TOKEN_HEADER: self.token, "Origin": self.base}
        async with self.client.post(f"{self.base}{path}", json=body, headers=headers) as answer:
            return answer.status, await answer.json()


@contextlib.asynccontextmanager
async def visiting(session, port=0):
    url = asyncio.get_running_loop().create_future()
    server = asyncio.ensure_future(serve(session, port, url.set_result))
    await asyncio.wait([url, server], return_when=asyncio.FIRST_COMPLETED)
    if server.done():
        server.result()
    async with aiohttp.ClientSession() as client:
        try:
            yield Visitor(client, await url)
        finally:
            server.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await server


def test_a_page_asks_judges_and_finishes(ledger):
    async def scenario():
        session = session_on(ledger, PAIRS[:2])
        url = asyncio.get_running_loop().create_future()
        server = asyncio.ensure_future(serve(session, 0, url.set_result))
        async with aiohttp.ClientSession() as client:
            visitor = Visitor(client, await url)
            assert visitor.base.startswith("http://127.0.0.1:")
            assert len(visitor.token) >= 32
            async with client.get(visitor.url) as page:
                assert page.status == 200
                policy = page.headers["Content-Security-Policy"]
                assert policy.startswith("default-src 'none'; script-src 'sha256-")
                assert page.headers["Cache-Control"] == "no-store"
                text = await page.text()
                # Whatever the address needs, the page itself holds neither pairs nor token.
                assert "prompt 0" not in text
                assert visitor.token not in text
            status, state = await visitor.get()
            for i in range(2):
                question = state["question"]
                pair = PAIRS[i]
                shown = (pair.first, pair.second)
                if pair.order == "swapped":
                    shown = (pair.second, pair.first)
                assert (question["A"], question["B"]) == shown
                assert (state["answered"], state["total"]) == (i, 2)
                letter = "A" if question["A"].startswith("good") else "B"
                status, state = await visitor.post(
                    "/api/judge", key=question["key"], letter=letter, rationale="why"
                )
                assert status == 200
                # Durable before the page shows the next: another reader sees it already.
                count = "SELECT COUNT(*) FROM requests WHERE state = 'answered'"
                assert open_to_read(ledger.path).execute(count).fetchone()[0] == i + 1
            assert state["question"] is None
            assert not server.done()
            status, _ = await visitor.post("/api/finish")
            assert status == 200
            await asyncio.wait_for(server, 10)
        assert [(j.winner, j.rationale) for j in session.judgements()] == [("first", "why")] * 2
        assert all(j.latency > 0 for j in session.judgements())

    asyncio.run(scenario())


def test_only_this_page_is_answered(ledger):
    async def scenario():
        session = session_on(ledger)
        async with visiting(session) as visitor:
            key = session.show().key
            port = visitor.base.rsplit(":", 1)[1]
            refused = [
                {TOKEN_HEADER: ""},
                {TOKEN_HEADER: visitor.token[:-1]},
                {TOKEN_HEADER: "é"},
                {"Origin": "http://example.org"},
                {"Origin": "null"},
                {"Origin": f"http://127.0.0.1:{int(port) + 1}"},
                {"Host": f"attacker.example:{port}", "Origin": f"http://attacker.example:{port}"},
                {"Host": "127.0.0.1.attacker.example"},
                {"Host": "127.0.0.1@attacker.example"},
                {"Host": ""},
            ]
            for headers in refused:
                status, answer = await visitor.get(**headers)
                assert (status, list(answer)) == (403, ["error"]), headers
                body = {"key": key, "letter": "A"}
                sent = {TOKEN_HEADER: visitor.token} | headers
                async with visitor.client.post(
                    f"{visitor.base}/api/judge", json=body, headers=sent
                ) as response:
                    assert response.status == 403, headers
            for address in ("/", "/?token=", f"/?token={visitor.token}x"):
                async with visitor.client.get(visitor.base + address) as response:
                    assert response.status == 403
                    assert "<script" not in await response.text()
            assert session.progress.answered == 0
            # Through a tunnel, the port in the address is another one.
            for host in ("localhost:9999", "127.0.0.1:9999"):
                status, _ = await visitor.get(Host=host, Origin=f"http://{host}")
                assert status == 200
            # Of this machine, the loopback interface alone is listened on.
            with open("/proc/net/tcp") as sockets:
                rows = [line.split()[1] for line in sockets if f":{int(port):04X} " in line]
            assert rows
            assert {row.split(":")[0] for row in rows} == {"0100007F"}

    asyncio.run(scenario())


def test_of_many_answers_at_once_one_counts(ledger):
    async def scenario():
        session = session_on(ledger)
        async with visiting(session) as visitor:
            _, state = await visitor.get()
            key = state["question"]["key"]
            answers = await asyncio.gather(
                *(visitor.post("/api/judge", key=key, letter="AB"[i % 2]) for i in range(20))
            )
            statuses = [status for status, _ in answers]
            assert sorted(statuses) == [200] + [409] * 19
            # Whoever came late is told where to go on.
            assert {answer["question"]["prompt"] for _, answer in answers} == {"prompt 1"}
            assert {answer["answered"] for _, answer in answers} == {1}
            kept = ledger.recall([key])[key].verdict
            assert kept == "AB"[statuses.index(200) % 2]
            status, state = await visitor.post("/api/skip", key=key)
            assert status == 409
            undos = await asyncio.gather(
                *(visitor.post("/api/undo", key=state["last"]) for _ in range(5))
            )
            assert sorted(status for status, _ in undos) == [200] + [409] * 4
            assert ledger.recall([key]) == {}

    asyncio.run(scenario())


def test_a_restarted_server_goes_on(tmp_path):
    async def answer(session, count):
        async with visiting(session) as visitor:
            _, state = await visitor.get()
            before = state["answered"]
            for _ in range(count):
                question = state["question"]
                letter = "A" if question["A"].startswith("good") else "B"
                _, state = await visitor.post("/api/judge", key=question["key"], letter=letter)
            return before, state

    human = Human("ada", tmp_path / "deep" / "ledger.sqlite")
    for expected in (0, 2, 4):
        with human.session(PAIRS) as session:
            before, state = asyncio.run(answer(session, 2))
            assert before == expected
    assert state["question"] is None
    # All is answered, so nothing is asked and no page is served.
    judgements = human.judge(PAIRS)
    assert [(j.winner, j.cached, j.oracle) for j in judgements] == [
        ("first", True, "human:ada")
    ] * 6


def test_undo_tells_what_was_chosen(ledger):
    async def scenario():
        async with visiting(session_on(ledger)) as visitor:
            _, state = await visitor.get()
            first = state["question"]
            await visitor.post("/api/judge", key=first["key"], letter="B", rationale="so")
            status, state = await visitor.post("/api/undo", key=first["key"])
            assert status == 200
            assert state["question"] == first
            assert state["taken_back"] == {"letter": "B", "rationale": "so"}
            assert state["last"] is None
            status, _ = await visitor.post("/api/undo", key=None)
            assert status == 409

    asyncio.run(scenario())


def test_requests_that_say_nothing_sensible_change_nothing(ledger):
    async def scenario():
        session = session_on(ledger)
        async with visiting(session) as visitor:
            key = session.show().key
            for body in (
                {"key": key},
                {"key": key, "letter": "C"},
                {"key": key, "letter": ["A"]},
                {"key": key, "letter": "A", "rationale": 5},
            ):
                assert (await visitor.post("/api/judge", **body))[0] == 400
            assert (await visitor.post("/api/judge", key="?", letter="A"))[0] == 404
            assert (await visitor.post("/api/skip"))[0] == 404
            assert (await visitor.get("/api/none"))[0] == 404
            headers = {TOKEN_HEADER: visitor.token}
            for data in ("{", "[]", b"\xff"):
                async with visitor.client.post(
                    f"{visitor.base}/api/judge",
                    data=data,
                    headers=headers | {"Content-Type": "application/json"},
                ) as response:
                    assert response.status == 400
            async with visitor.client.post(
                f"{visitor.base}/api/judge",
                data=json.dumps({"key": key, "letter": "A"}),
                headers=headers | {"Content-Type": "text/plain"},
            ) as response:
                assert response.status == 400
            assert session.progress.answered == 0

    asyncio.run(scenario())


def test_a_full_disk_is_told_and_the_pair_stays(ledger):
    async def scenario():
        session = session_on(ledger, [Pair("p" * 20_000, "good", "bad")])
        async with visiting(session) as visitor:
            key = session.show().key
            fill_up(ledger)
            status, answer = await visitor.post("/api/judge", key=key, letter="A")
            assert status == 500
            assert "full" in answer["error"]
            _, state = await visitor.get()
            assert (state["answered"], state["question"]["key"]) == (0, key)

    asyncio.run(scenario())


def test_a_taken_port_is_named(ledger):
    async def scenario():
        session = session_on(ledger)
        async with visiting(session) as visitor:
            port = int(visitor.base.rsplit(":", 1)[1])
            with pytest.raises(InputError, match=f"--port: {port} cannot be used"):
                await serve(session, port, lambda url: None)

    asyncio.run(scenario())


def test_a_human_is_an_oracle_with_an_identity(monkeypatch, tmp_path):
    monkeypatch.setenv("MODICUM_LEDGERS", str(tmp_path))
    human = Human("Ada Lovelace")
    assert isinstance(human, Oracle)
    assert human.name == "human:Ada Lovelace"
    assert human.version != Human("Ada Lovelace", wording="Which is sadder?").version
    assert human.ledger.parent == tmp_path
    assert default_ledger("../x", "human-") != default_ledger("x", "human-")
    assert default_ledger("../x", "human-").parent == tmp_path
    for name, wording in ((" ", "?"), ("ada", "")):
        with pytest.raises(InputError, match="must not be empty"):
            Human(name, wording=wording)


def test_the_command_in_a_terminal(tmp_path):
    pairs = write(
        tmp_path / "pairs.csv",
        [{"prompt": p.prompt, "first": p.first, "second": p.second} for p in PAIRS[:3]],
    )
    common = (pairs, "--name", "ada", "--ledger", tmp_path / "ledger.sqlite", "--terminal")
    out = tmp_path / "out.jsonl"
    app = typer.Typer()
    app.command()(label)
    done = CliRunner().invoke(app, [*map(str, common), "--out", str(out)], input="a\nb\n")
    assert done.exit_code == 0, done.output
    assert f"2 of 3 answered, in {tmp_path / 'ledger.sqlite'}" in done.output
    assert len(out.read_text().splitlines()) == 2
    done = CliRunner().invoke(app, [*map(str, common), "--out", str(tmp_path / "o.txt")])
    assert isinstance(done.exception, InputError)


def test_ctrl_c_ends_the_server_with_what_was_saved(tmp_path):
    rows = [{"prompt": p.prompt, "first": p.first, "second": p.second} for p in PAIRS[:2]]
    pairs = write(tmp_path / "pairs.jsonl", rows)
    ledger, out = tmp_path / "ledger.sqlite", tmp_path / "out.parquet"
    arguments = (pairs, "--name", "ada", "--ledger", ledger, "--no-open", "--out", out)
    started = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": ""},
        # Programs that are started in the background inherit that SIGINT is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        url = started.stdout.readline().removeprefix("label at ").strip()

        async def answer():
            async with aiohttp.ClientSession() as client:
                visitor = Visitor(client, url)
                _, state = await visitor.get()
                return await visitor.post(
                    "/api/judge", key=state["question"]["key"], letter="B", rationale="kept"
                )

        assert asyncio.run(answer())[0] == 200
        with pytest.raises(InputError, match=f"in use by process {started.pid}"):
            Ledger(ledger)
        started.send_signal(signal.SIGINT)
        stdout, stderr = started.communicate(timeout=30)
    finally:
        started.kill()
    assert started.returncode == 130, stderr
    assert "1 of 2 answered" in stdout
    assert "run the same command again" in stderr
    assert "Traceback" not in stderr
    [row] = pq.read_table(out).to_pylist()
    assert (row["prompt"], row["rationale"]) == ("prompt 0", "kept")
    assert row["winner"] == ("second" if PAIRS[0].order == "given" else "first")
