"""Files of pairs and of judgements."""

import json

import pyarrow.parquet as pq
import pytest

from labelling import PAIRS, letter_of, session_on, write
from modicum.errors import InputError
from modicum.oracles.ledger.ledger import Ledger
from modicum.oracles.pair_files import check_output, read_pairs, write_judgements
from modicum.oracles.protocol import Pair


@pytest.fixture
def ledger(tmp_path):
    opened = Ledger(tmp_path / "ledger.sqlite")
    yield opened
    opened.close()


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
