"""The ledger on real files, with real processes that hold it, write it and are killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from modicum.errors import InputError
from modicum.oracles.ledger import database
from modicum.oracles.ledger.database import open_to_read, recall
from modicum.oracles.ledger.ledger import Ledger, LedgerWriter
from modicum.oracles.ledger.records import Amount, Remembered, Reservation, Settlement
from modicum.oracles.questions import Question

MOST = Amount(1, 100, 0.5)


def question(number: int, **changes) -> Question:
    given = {
        "prompt": f"post {number}",
        "first": "one",
        "second": "two",
        "order": "given",
        "model": "judge",
        "temperature": 0.0,
        "template": "0123456789abcdef",
    }
    return Question(**given | changes)


def reservation(number: int, run: str = "a", most: Amount = MOST) -> Reservation:
    return Reservation(question(number), run, most)


def answered(request: int, verdict: str = "A", **more) -> Settlement:
    used = {"prompt_tokens": 30, "completion_tokens": 5, "dollars": 0.125} | more
    return Settlement(request=request, state="answered", verdict=verdict, **used)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    opened = Ledger(path)
    yield opened
    opened.close()


def states(path: Path) -> list[str]:
    with contextlib.closing(open_to_read(path)) as connection:
        return [state for (state,) in connection.execute("SELECT state FROM requests ORDER BY id")]


def test_spent_by_state(ledger):
    """What each state counts, by hand: calls, tokens, dollars."""
    numbers = ledger.write([reservation(n) for n in range(6)], [])
    assert numbers == [1, 2, 3, 4, 5, 6]
    assert ledger.spent() == Amount(6, 600, 3.0)
    ledger.write(
        [],
        [
            answered(1),
            Settlement(request=2, state="unreadable", prompt_tokens=10, dollars=0.25),
            Settlement(request=3, state="refused", error="429"),
            Settlement(request=4, state="lost", error="dropped"),
            answered(5),
        ],
    )
    expected = {"answered": (35, 0.125), "unreadable": (10, 0.25), "lost": (100, 0.5)}
    expected["reserved"] = (100, 0.5)
    counted = ["answered", "unreadable", "lost", "answered", "reserved"]
    total = Amount(
        5,
        sum(expected[state][0] for state in counted),
        sum(expected[state][1] for state in counted),
    )
    assert ledger.spent() == total
    # Taking an answer back does not take back what it cost.
    assert ledger.withdraw(question(4).key)
    assert not ledger.withdraw(question(4).key)
    assert not ledger.withdraw(question(3).key)
    assert ledger.spent() == total


def test_spent_by_run(ledger):
    ledger.write([reservation(1, "a"), reservation(2, "b"), reservation(3, "a")], [])
    assert ledger.spent("a") == Amount(2, 200, 1.0)
    assert ledger.spent("b") == Amount(1, 100, 0.5)
    assert ledger.spent("c") == Amount()
    assert ledger.spent() == Amount(3, 300, 1.5)


def test_recall(ledger):
    ledger.write([reservation(n) for n in (0, 1, 2, 2, 3, 3, 4, 5)], [])
    ledger.write(
        [],
        [
            answered(1, "B", rationale="because"),
            Settlement(request=2, state="refused"),
            Settlement(request=3, state="unreadable"),
            answered(4, "A"),
            Settlement(request=5, state="unreadable"),
            Settlement(request=6, state="unreadable"),
            Settlement(request=7, state="lost"),
        ],
    )
    keys = [question(n).key for n in range(7)]
    assert ledger.recall(keys) == {
        keys[0]: Remembered("B", "because", 0),
        keys[2]: Remembered("A", None, 1),
        keys[3]: Remembered(None, None, 2),
    }
    ledger.withdraw(keys[0])
    assert keys[0] not in ledger.recall(keys)


def test_recall_of_many(ledger):
    """More keys than SQLite binds in one statement."""
    ledger.write([reservation(n) for n in range(1203)], [])
    ledger.write([], [answered(n + 1, "AB"[n % 2]) for n in range(1203)])
    found = ledger.recall(question(n).key for n in range(3000))
    assert found == {question(n).key: Remembered("AB"[n % 2], None, 0) for n in range(1203)}


def test_one_answer_for_a_question(ledger, path):
    """A second one is refused, and with it everything in its transaction."""
    ledger.write([reservation(1), reservation(1), reservation(2)], [])
    ledger.write([], [answered(1)])
    with pytest.raises(sqlite3.IntegrityError):
        ledger.write([reservation(3)], [answered(3), answered(2, "B")])
    assert states(path) == ["answered", "reserved", "reserved"]
    ledger.write([], [answered(3), Settlement(request=2, state="unreadable")])
    ledger.withdraw(question(1).key)
    ledger.write([reservation(1)], [])
    ledger.write([], [answered(4, "B")])
    assert ledger.recall([question(1).key])[question(1).key].verdict == "B"


@pytest.mark.parametrize(
    "settlement",
    [
        Settlement(request=1, state="answered"),
        Settlement(request=1, state="answered", verdict="C"),
        Settlement(request=1, state="done"),
    ],
)
def test_what_is_no_settlement(ledger, path, settlement):
    ledger.write([reservation(1)], [])
    with pytest.raises(sqlite3.IntegrityError):
        ledger.write([], [settlement])
    assert states(path) == ["reserved"]


def test_questions_are_kept_as_they_were_asked(ledger, path):
    asked = question(1, prompt="a\0b\n\u2028ü🧑‍🚀", first="", temperature=0.7, repeat=3)
    ledger.write([Reservation(asked, "a", MOST)] * 2, [])
    with contextlib.closing(open_to_read(path)) as connection:
        rows = connection.execute("SELECT * FROM questions").fetchall()
    key, *fields = rows[0]
    assert len(rows) == 1
    assert key == asked.key == Question(*fields[:4], *fields[4:]).key


def test_a_second_holder_in_one_process(ledger, path):
    with pytest.raises(InputError, match=f"in use by process {os.getpid()} on"):
        Ledger(path)
    ledger.write([reservation(1)], [])


HOLD = """
import sys, time
from pathlib import Path
from modicum.oracles.ledger.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""
WRITE = """
import itertools, sys
from pathlib import Path
from modicum.oracles.endpoint.budget import Amount
from modicum.oracles.ledger.ledger import Ledger, Reservation, Settlement
from modicum.oracles.questions import Question
ledger = Ledger(Path(sys.argv[1]))
under_way = []
for n in itertools.count(ledger.spent().calls):
    question = Question(f"post {n}", "one", "two", "given", "judge", 0.0, "t")
    settle = under_way.pop(0) if len(under_way) > 3 else None
    done = [] if settle is None else [
        Settlement(request=settle, state="answered", verdict="A", prompt_tokens=7)
    ]
    (number,) = ledger.write([Reservation(question, "a", Amount(1, 100, 0.5))], done)
    under_way.append(number)
    print(number, settle or 0, flush=True)
"""


@contextlib.contextmanager
def running(program: str, path: Path) -> Iterator[subprocess.Popen]:
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_another_process_that_holds_it_is_named(path):
    with running(HOLD, path) as process:
        assert process.stdout.readline() == "held\n"
        link = path.parent / "link.sqlite"
        link.symlink_to(path.name)
        for name in (path, link, path.parent / ".." / path.parent.name / path.name):
            with pytest.raises(InputError, match=f"in use by process {process.pid} on"):
                Ledger(name)
        assert states(path) == []  # Reading is allowed.
    Ledger(path).close()  # A lock dies with its holder.


def test_killed_in_the_middle_of_writing(path):
    """Whatever was said to be written is there; what was under way is lost; three times over."""
    settled: set[int] = set()
    reserved = 0
    for _ in range(3):
        with running(WRITE, path) as process:
            for _ in range(25):
                number, done = map(int, process.stdout.readline().split())
                reserved = max(reserved, number)
                settled |= {done} - {0}
            process.send_signal(signal.SIGKILL)
            process.wait()
            for line in process.stdout.read().splitlines(keepends=True):
                if line.endswith("\n"):  # Said before it died.
                    number, done = map(int, line.split())
                    reserved = max(reserved, number)
                    settled |= {done} - {0}
    ledger = Ledger(path)
    found = states(path)
    assert ledger.orphans in (4, 5)  # Four under way; a fifth may be written and not yet said.
    assert "reserved" not in found
    assert reserved <= len(found) <= reserved + 1
    assert all(found[number - 1] == "answered" for number in settled)
    lost = found.count("lost")
    assert found.count("answered") + lost == len(found)
    assert ledger.spent() == Amount(len(found), 7 * (len(found) - lost) + 100 * lost, lost * 0.5)
    ledger.close()
    assert Ledger(path).orphans == 0


def filled(path: Path, rows: int = 300) -> None:
    ledger = Ledger(path)
    ledger.write([reservation(n) for n in range(rows)], [])
    ledger.write([], [answered(n + 1) for n in range(rows)])
    ledger._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    ledger.close()


def overwritten(path: Path) -> None:
    with path.open("r+b") as file:
        size = path.stat().st_size
        file.seek(size // 3)
        file.write(os.urandom(size // 3))


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size * 2 // 3 + 17)


def not_sqlite(path: Path) -> None:
    path.write_text("pair,winner\n" * 1000)


def first_page_gone(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"\0" * 100)


@pytest.mark.parametrize("damage", [overwritten, truncated, not_sqlite, first_page_gone])
def test_damaged_files_are_refused_and_left(path, damage):
    filled(path)
    damage(path)
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"is damaged \(.*\); it was left unchanged"):
        Ledger(path)
    assert path.read_bytes() == before
    # The lock is free again, for whoever mends it.
    with pytest.raises(InputError, match="is damaged"):
        Ledger(path)


def other_database(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE customers (name TEXT)")
        connection.execute("INSERT INTO customers VALUES ('Ann')")
        connection.commit()


def test_other_databases_are_refused_and_left(path):
    path.parent.mkdir()
    other_database(path)
    before = path.read_bytes()
    for opening in (Ledger, open_to_read):
        with pytest.raises(InputError, match="is not a ledger of judgements"):
            opening(path)
    assert path.read_bytes() == before  # Not even its journal's mode was changed.


def test_newer_formats_are_refused(path):
    filled(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE meta SET value = '2' WHERE name = 'format'")
        connection.commit()
    for opening in (Ledger, open_to_read):
        with pytest.raises(InputError, match="has format 2, this version of modicum reads"):
            opening(path)


def test_a_file_that_was_begun_and_never_filled(path):
    """Killed between making the file and its tables."""
    path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA user_version = 0")
    assert path.stat().st_size > 0
    ledger = Ledger(path)
    assert ledger.write([reservation(1)], []) == [1]
    ledger.close()
    path.unlink()
    path.touch()
    Ledger(path).close()
    assert states(path) == []


def test_locked_by_another_program(path, monkeypatch):
    monkeypatch.setattr(database, "_BUSY_SECONDS", 0.2)
    filled(path)
    program = (
        "import sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connection.execute('PRAGMA locking_mode = EXCLUSIVE')\n"
        "connection.execute('BEGIN EXCLUSIVE')\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with running(program, path) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="is locked by another program"):
            Ledger(path)
    ledger = Ledger(path)
    # A transaction that begins while it is open fails that write, and nothing else.
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            ledger.write([reservation(1000)], [])
        other.execute("ROLLBACK")
    assert ledger.write([reservation(1000)], []) == [301]
    ledger.close()


def test_written_meanwhile_by_another_program_at_opening(path, monkeypatch):
    monkeypatch.setattr(database, "_BUSY_SECONDS", 0.2)
    filled(path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(InputError, match=r"cannot be written \(database is locked\)"):
            Ledger(path)
        other.execute("ROLLBACK")
    Ledger(path).close()


@pytest.mark.parametrize("place", ["/proc/none/ledger.sqlite", "/dev/null/ledger.sqlite"])
def test_places_that_cannot_be_written(place):
    with pytest.raises(InputError, match="cannot be written"):
        Ledger(Path(place))


def test_folders_in_the_place_of_a_file(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        Ledger(tmp_path)
    with pytest.raises(InputError, match="no file at"):
        open_to_read(tmp_path)
    with pytest.raises(InputError, match="no file at"):
        open_to_read(tmp_path / "none.sqlite")


def test_no_room_is_left(path):
    """A full disk fails the write and leaves the ledger usable."""
    ledger = Ledger(path)
    ledger.write([reservation(1)], [])
    (pages,) = ledger._connection.execute("PRAGMA page_count").fetchone()
    ledger._connection.execute(f"PRAGMA max_page_count = {pages + 1}")
    long = Reservation(question(2, prompt="x" * 100_000), "a", MOST)
    with pytest.raises(sqlite3.OperationalError, match="full"):
        ledger.write([long], [answered(1)])
    assert states(path) == ["reserved"]
    ledger._connection.execute(f"PRAGMA max_page_count = {pages + 1000}")
    ledger.write([long], [answered(1)])
    assert states(path) == ["answered", "reserved"]
    ledger.close()


def test_readers_while_it_is_written(ledger, path):
    """A reader sees whole transactions, each of which has the same number in two places."""
    over = threading.Event()
    seen: list[int] = []
    wrong: list[tuple[int, int]] = []

    def read() -> None:
        with contextlib.closing(open_to_read(path)) as connection:
            while not over.is_set():
                requests, questions = connection.execute(
                    "SELECT (SELECT COUNT(*) FROM requests), (SELECT COUNT(*) FROM questions)"
                ).fetchone()
                seen.append(requests)
                if requests != questions or requests % 10:
                    wrong.append((requests, questions))
                recall(connection, [question(0).key])

    reader = threading.Thread(target=read)
    reader.start()
    for start in range(0, 300, 10):
        ledger.write([reservation(n) for n in range(start, start + 10)], [])
    over.set()
    reader.join()
    assert not wrong
    assert seen == sorted(seen)


def test_a_copy_of_a_closed_ledger_is_whole(path, tmp_path):
    filled(path)
    copy = tmp_path / "copy.sqlite"
    shutil.copy(path, copy)
    assert states(copy) == ["answered"] * 300


# The writer of an event loop.


def test_group_commit_gives_everybody_their_own_numbers(path):
    async def main() -> tuple[dict[int, list[int]], int]:
        writer = LedgerWriter(path)
        commits = 0
        write = writer._ledger.write

        def counted(*arguments):
            nonlocal commits
            commits += 1
            return write(*arguments)

        writer._ledger.write = counted
        got: dict[int, list[int]] = {}

        async def client(name: int) -> None:
            size = name % 3 + 1
            mine = [reservation(1000 * name + n, run=str(name)) for n in range(size)]
            got[name] = await writer.reserve(mine)
            await asyncio.sleep(0.001 * (name % 5))
            await writer.settle([answered(n, completion_tokens=name) for n in got[name]])

        await asyncio.gather(*(client(name) for name in range(150)))
        writer.close()
        return got, commits

    got, commits = asyncio.run(main())
    numbers = [number for each in got.values() for number in each]
    assert sorted(numbers) == list(range(1, len(numbers) + 1))
    assert commits < 150  # Of 300 changes.
    with contextlib.closing(open_to_read(path)) as connection:
        rows = connection.execute("SELECT id, run, state, completion_tokens FROM requests")
        owner = {number: name for name, each in got.items() for number in each}
        for number, run, state, tokens in rows.fetchall():
            assert (int(run), state, tokens) == (owner[number], "answered", owner[number])


def test_one_failure_hangs_nobody(path):
    async def main() -> None:
        writer = LedgerWriter(path)
        (first,) = await writer.reserve([reservation(1)])
        twice = [writer.settle([answered(first)]), writer.settle([answered(first + 5000)])]
        await asyncio.gather(*twice)  # The second is about a request that there is not.
        (again,) = await writer.reserve([reservation(1)])
        blocked = asyncio.Event()

        async def good(n: int) -> object:
            await blocked.wait()
            return await writer.reserve([reservation(n)])

        async def bad() -> object:
            await blocked.wait()
            return await writer.settle([answered(again, "B")])

        waiting = [asyncio.ensure_future(each) for each in (good(2), bad(), good(3))]
        blocked.set()
        results = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 10)
        assert any(isinstance(result, sqlite3.IntegrityError) for result in results)
        # Whoever was in the failed transaction knows it; the next goes on as if nothing was.
        numbers = await asyncio.wait_for(writer.reserve([reservation(4)]), 10)
        assert len(numbers) == 1
        assert await writer.run(lambda ledger: len(ledger.recall([question(1).key]))) == 1
        writer.close()

    asyncio.run(main())
    assert states(path)[0] == "answered"
    assert states(path).count("answered") == 1


def test_closing_frees_the_file(path):
    async def main() -> None:
        writer = LedgerWriter(path)
        with pytest.raises(InputError, match="in use"):
            LedgerWriter(path)
        await writer.reserve([reservation(1)])
        writer.close()
        second = LedgerWriter(path)
        assert second.orphans == 1
        second.close()

    started = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - started < 5
