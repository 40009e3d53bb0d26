"""A human as an oracle: files of pairs, the session, the server over real HTTP, the command."""

import asyncio
import contextlib
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys

import aiohttp
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from modicum.cli.label import label
from modicum.errors import InputError
from modicum.oracles.judgements_file import check_output, write_judgements
from modicum.oracles.labelling.human import Human
from modicum.oracles.labelling.server import serve
from modicum.oracles.labelling.session import Asking, Session
from modicum.oracles.labelling.terminal import label_at_terminal
from modicum.oracles.ledger.database import open_to_read
from modicum.oracles.ledger.ledger import Ledger
from modicum.oracles.ledger.locations import default_ledger
from modicum.oracles.pairs_file import read_pairs
from modicum.oracles.protocol import Failure, Oracle, Pair
from modicum.web_guard import TOKEN_HEADER

# Both orders occur; a test below says so.
PAIRS = [Pair(f"prompt {i}", f"good {i}", f"bad {i}") for i in range(6)]
COMMAND = "import typer; from modicum.cli.label import label; typer.run(label)"


@pytest.fixture
def ledger(tmp_path):
    opened = Ledger(tmp_path / "ledger.sqlite")
    yield opened
    opened.close()


def session_on(ledger, pairs=PAIRS, **asking):
    return Session(pairs, ledger, Asking("ada", **asking))


def letter_of(question, word):
    """The letter under which a text that starts with a word is shown."""
    return "AB"[[text.startswith(word) for text in question.shown].index(True)]


def answer_all(session, word="good"):
    while (question := session.show()) is not None:
        assert session.judge(question.key, letter_of(question, word))


# --- files of pairs ---------------------------------------------------------------------------


def write(path, rows):
    """A file of pairs in the format of its ending."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        quoted = [
            [str("" if v is None else v).replace('"', '""') for v in r.values()] for r in rows
        ]
        lines = [",".join(rows[0]), *(",".join(f'"{v}"' for v in values) for values in quoted)]
        path.write_text("\r\n".join(lines) + "\r\n")
    return path


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet"])
def test_every_format_gives_the_same_pairs(tmp_path, suffix):
    rows = [
        {"prompt": "two\nlines", "first": 'a "quoted", text', "second": "5", "seed": 7, "x": "."},
        {"prompt": "", "first": "null", "second": "naïve 🙂", "seed": None, "x": "."},
    ]
    assert read_pairs(write(tmp_path / f"pairs.{suffix}", rows)) == [
        Pair("two\nlines", 'a "quoted", text', "5", 7),
        Pair("", "null", "naïve 🙂", None),
    ]


def test_a_byte_order_mark_is_no_part_of_a_column_name(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_bytes(b"\xef\xbb\xbfprompt,first,second\np,a,b\n")
    assert read_pairs(path) == [Pair("p", "a", "b")]


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("p.txt", "", ["expected a file .jsonl", "p.txt"]),
        ("p.jsonl", "", ["p.jsonl holds no pairs"]),
        ("p.csv", "prompt,first,second\n", ["p.csv holds no pairs"]),
        ("p.jsonl", '{"prompt": "", "first": "a"', ["p.jsonl", "line 1"]),
        ("p.jsonl", '\n["a"]', ["p.jsonl", "line 2", "expected an object"]),
        ("p.jsonl", '{"prompt": "", "first": "a"}', ["line 1", "second is missing", "first"]),
        (
            "p.jsonl",
            '{"prompt": "", "first": "a", "second": "b"}\n\n{"prompt": "", "first": 5}',
            ["line 3", "first must be text, got 5"],
        ),
        ("p.json", '{"prompt": ""}', ["p.json", "list of objects"]),
        (
            "p.json",
            '[{"prompt": null, "first": "", "second": ""}]',
            ["row 1", "prompt must be text"],
        ),
        (
            "p.json",
            '[{"prompt": "", "first": "\\ud83d", "second": ""}]',
            ["row 1", "first", "surrogate"],
        ),
        ("p.csv", "prompt,first\np,a\n", ["row 1", "second is missing"]),
        ("p.csv", "prompt,first,second\np,a,b\np,a\n", ["row 2 has 2 values"]),
        ("p.csv", "prompt,first,first,second\n", ["'first' occurs twice"]),
        ("p.csv", "prompt,first,second,seed\np,a,b,one\n", ["row 1", "seed", "'one'"]),
        ("p.csv", f"prompt,first,second,seed\np,a,b,{2**63}\n", ["row 1", "seed", "64 bits"]),
        ("p.csv", 'prompt,first,second\np,"a', ["not readable csv"]),
        ("p.csv", b"prompt,first,second\np,\xff,b\n", ["not readable csv", "utf-8"]),
        ("p.parquet", "no table", ["not readable parquet"]),
        ("p.jsonl", '{"prompt":"","first":"","second":"","seed":true}', ["seed", "got True"]),
        ("p.jsonl", '{"prompt":"","first":"","second":"","seed":1.5}', ["seed", "got 1.5"]),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path, name, content, parts):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as caught:
        read_pairs(path)
    message = str(caught.value)
    assert all(part in message for part in [*parts, name]), message
    assert "\n" not in message


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no file at .*none\.csv"):
        read_pairs(tmp_path / "none.csv")


# --- session ----------------------------------------------------------------------------------


def test_the_winner_is_what_the_letter_stood_for_in_either_order(ledger):
    assert {pair.order for pair in PAIRS} == {"given", "swapped"}
    session = session_on(ledger)
    answer_all(session, "good")
    assert [judgement.winner for judgement in session.judgements()] == ["first"] * 6
    again = session_on(ledger, repeat=1)
    answer_all(again, "bad")
    assert [judgement.winner for judgement in again.judgements()] == ["second"] * 6


def test_always_a_wins_as_often_as_the_order_says(ledger):
    session = session_on(ledger)
    while (question := session.show()) is not None:
        session.judge(question.key, "A")
    for pair, judgement in zip(PAIRS, session.judgements(), strict=True):
        assert judgement.order_shown == pair.order
        assert judgement.winner == ("first" if pair.order == "given" else "second")


def test_an_answer_counts_once(ledger):
    session = session_on(ledger)
    question = session.show()
    assert session.judge(question.key, "A")
    assert not session.judge(question.key, "B")
    assert not session.skip(question.key)
    assert session.progress.answered == 1
    assert ledger.recall([question.key])[question.key].verdict == "A"
    with pytest.raises(KeyError):
        session.judge("no such key", "A")


def test_a_new_session_goes_on_where_the_last_one_stopped(ledger):
    first = session_on(ledger)
    for _ in range(2):
        question = first.show()
        first.judge(question.key, letter_of(question, "bad"), "  because \ud83d ")
    second = session_on(ledger)
    assert second.progress.answered == 2
    assert second.show().prompt == "prompt 2"
    assert second.last is None
    assert second.undo() is None
    kinds = [getattr(judgement, "winner", None) for judgement in second.judgements()]
    assert kinds == ["second"] * 2 + [None] * 4
    assert second.judgements()[0].cached
    assert second.judgements()[0].rationale == "because ?"
    assert second.judgements()[2] == Failure(
        reason="unavailable",
        message="ada has not answered",
        oracle="human:ada",
        version=second.asking.version,
    )


def test_names_questions_and_repeats_are_kept_apart(ledger):
    answer_all(session_on(ledger))
    assert session_on(ledger).progress.finished
    assert session_on(ledger, wording="Which is sadder?").progress.answered == 0
    assert session_on(ledger, repeat=1).progress.answered == 0
    assert Session(PAIRS, ledger, Asking("bob")).progress.answered == 0


def test_undo_goes_back_to_the_start_and_nothing_is_left_in_the_store(ledger):
    session = session_on(ledger)
    answer_all(session)
    for i in reversed(range(6)):
        assert session.undo().question.prompt == f"prompt {i}"
        assert session.show().prompt == f"prompt {i}"
        assert session.progress.answered == i
    assert session.undo() is None
    assert session_on(ledger).progress.answered == 0
    answer_all(session, "bad")
    assert {judgement.winner for judgement in session_on(ledger).judgements()} == {"second"}


def test_what_is_skipped_comes_last_and_undo_brings_it_back(ledger):
    session = session_on(ledger, PAIRS[:3])
    session.skip(session.show().key)
    assert session.show().prompt == "prompt 1"
    session.judge(session.show().key, "A")
    session.judge(session.show().key, "A")
    assert session.show().prompt == "prompt 0"
    assert [session.undo().verdict is None for _ in range(3)] == [False, False, True]
    assert session.show().prompt == "prompt 0"
    assert session.progress.answered == 0
    answer_all(session)
    assert session.progress.finished


def test_time_runs_from_when_a_pair_is_first_shown(ledger):
    now = 100.0
    session = Session(PAIRS[:2], ledger, Asking("ada"), clock=lambda: now)
    session.show()
    now = 103.0
    key = session.show().key
    now = 104.5
    session.judge(key, "A")
    session.show()
    now = 110.0
    session.undo()
    now = 120.0
    key = session.show().key
    now = 122.0
    session.judge(key, "A")
    now = 130.0
    # Its time began when it was shown, before the other was shown once more.
    session.judge(session.show().key, "B")
    assert [judgement.latency for judgement in session.judgements()] == [2.0, 25.5]


def test_both_orders_ask_twice_and_tell_who_contradicts_himself(ledger):
    session = session_on(ledger, PAIRS[:4], both_orders=True)
    assert session.progress.total == 8
    orders = []
    while (question := session.show()) is not None:
        orders.append((question.prompt, question.order))
        # The first two by their text, the others by their place.
        sure = question.prompt in {"prompt 0", "prompt 1"}
        session.judge(question.key, letter_of(question, "good") if sure else "A")
    assert len(set(orders)) == 8
    assert [order for _, order in orders[:4]] == [pair.order for pair in PAIRS[:4]]
    judgements = session.judgements()
    assert [judgement.consistent for judgement in judgements] == [True, True, False, False]
    assert [judgement.winner for judgement in judgements[:2]] == ["first"] * 2
    assert session_on(ledger, PAIRS[:4]).judgements()[0].consistent is None


def test_equal_pairs_are_asked_about_once(ledger):
    session = session_on(ledger, [PAIRS[0], PAIRS[1], PAIRS[0]])
    assert session.progress.total == 2
    answer_all(session)
    assert [judgement.winner for judgement in session.judgements()] == ["first"] * 3


def fill_up(ledger):
    """Let the ledger's file grow no further, as a full disk would."""
    connection = ledger._connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")


def test_what_cannot_be_kept_is_still_open(ledger):
    long = [Pair("p" * 20_000, "good", "bad"), PAIRS[1]]
    session = session_on(ledger, long)
    question = session.show()
    fill_up(ledger)
    with pytest.raises(sqlite3.OperationalError, match="full"):
        session.judge(question.key, "A")
    assert session.show() is question
    assert session.progress.answered == 0
    assert session.last is None
    ledger._connection.execute("PRAGMA max_page_count = 100000")
    assert session.judge(question.key, "A")


# --- server -----------------------------------------------------------------------------------


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


# --- terminal ---------------------------------------------------------------------------------


def at_terminal(session, lines):
    """What the terminal shows for some lines of input."""
    given = iter(lines)

    def read(prompt):
        try:
            return next(given)
        except StopIteration:
            raise EOFError from None

    out = io.StringIO()
    label_at_terminal(session, Console(file=out, width=80), read)
    return out.getvalue()


def test_the_terminal_keeps_the_same_answers(ledger):
    session = session_on(ledger, PAIRS[:3])
    shown = at_terminal(session, ["x", "u", "A because so", "s", "b", "u", " a", "B", "u", "b", ""])
    winners = {"A": ("given", "swapped"), "B": ("swapped", "given")}
    expected = [
        "first" if winners[letter][0] == pair.order else "second"
        for letter, pair in zip("ABA", PAIRS[:3], strict=True)
    ]
    assert [judgement.winner for judgement in session.judgements()] == expected
    assert session.judgements()[0].rationale == "because so"
    assert "nothing to take back" in shown
    assert "taken back: B" in shown
    assert "all 3 answered" in shown


def test_the_terminal_stops_at_q_and_at_the_end_of_the_input(ledger):
    session = session_on(ledger)
    at_terminal(session, ["a", "q", "a"])
    assert session.progress.answered == 1
    at_terminal(session, ["b"])
    assert session.progress.answered == 2


def test_texts_do_not_steer_the_terminal(ledger):
    text = "\x1b]0;owned\x07[red]not red[/red] :smile: \x9b2J"
    shown = at_terminal(session_on(ledger, [Pair("", text, "\r\nplain\ttext\n")]), [])
    assert "\x1b]" not in shown
    assert not {"\x07", "\x9b", "\r"} & set(shown)
    assert "[red]not red[/red] :smile:" in shown
    assert "plain" in shown


# --- what is written and the command ------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_judgements_are_written_with_their_pairs(tmp_path, ledger, suffix):
    session = session_on(ledger, [*PAIRS[:2], Pair("naïve", "good", "bad", 5)])
    for _ in range(2):
        question = session.show()
        session.judge(question.key, letter_of(question, "good"))
    session.skip(session.show().key)
    path = tmp_path / f"out.{suffix}"
    assert write_judgements(path, session.pairs, session.judgements()) == 2
    if suffix == "jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    else:
        rows = pq.read_table(path).to_pylist()
    assert [(row["prompt"], row["winner"], row["seed"]) for row in rows] == [
        ("prompt 0", "first", None),
        ("prompt 1", "first", None),
    ]
    assert set(rows[0]) == {
        *("prompt", "first", "second", "seed", "winner", "rationale", "oracle", "version"),
        *("order_shown", "prompt_tokens", "completion_tokens", "cost", "latency", "cached"),
        "consistent",
    }
    assert [path.name for path in tmp_path.glob("*out*")] == [path.name]
    # The file is one of pairs, too.
    assert read_pairs(path) == PAIRS[:2]


def test_a_file_that_could_not_be_written_is_refused_first(tmp_path):
    with pytest.raises(InputError, match=r"--out: expected a file \.jsonl or \.parquet"):
        check_output(tmp_path / "out.csv")
    with pytest.raises(InputError, match="--out: no folder"):
        check_output(tmp_path / "none" / "out.jsonl")


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
