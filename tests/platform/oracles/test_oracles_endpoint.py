"""Settings of an endpoint, its key, and what its answers and headers say."""

from __future__ import annotations

import asyncio
import json
import time
import traceback
from dataclasses import asdict
from email.utils import formatdate

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fake_endpoint import Behaviour, running_endpoint
from modicum.errors import InputError
from modicum.oracles.endpoint.budget import Budget
from modicum.oracles.endpoint.messages import Answer, Reply, Request
from modicum.oracles.endpoint.oracle import EndpointOracle
from modicum.oracles.endpoint.responses import (
    NoCompletionError,
    parse_duration,
    read_completion,
    retry_after,
    wait_until_reset,
)
from modicum.oracles.endpoint.settings import OPENAI, Endpoint
from modicum.oracles.endpoint.workers import Worker, read_key, without_key
from modicum.oracles.protocol import Pair
from modicum.oracles.questions import read_verdict

KEYS = [
    "sk-proj-Ab3dEf6hIj9kLm2nOp5qRs8tUv1wXy4z",
    "gsk_Ab3dEf6hIj9kLm2nOp5qRs8tUv1wXy4zAb3dEf6hIj9kLm2nOp5qR",  # A name by its characters.
    "hf_AbCdEfGhIjKlMnOpQrStUvWxYzAbCdEfGh",
    "0123456789abcdef0123456789abcdef",
]


def said(error: BaseException) -> str:
    """Everything that a user might see or a log keep of it."""
    return "".join(traceback.format_exception(error)) + repr(error)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"budget": {"calls": 0}}, "budget.calls"),
        ({"budget": {"dollars": 0}}, "budget.dollars"),
        ({"limits": {"requests_per_minute": 0}}, "limits.requests_per_minute"),
        ({"limits": {"tokens_per_minute": -1}}, "limits.tokens_per_minute"),
        ({"limits": {"concurrent_requests": 0}}, "limits.concurrent_requests"),
        ({"limits": {"request_per_minute": 5}}, "requests_per_minute"),
        ({"prices": {"m": {"input": -1, "output": 0}}}, "prices.m.input"),
        ({"prices": {"m": {"input": 1}}}, "prices.m.output"),
        ({"timeout": float("nan")}, "timeout"),
        ({"workers": 0}, "workers"),
        ({"attempts": 0}, "attempts"),
        ({"lease": 0}, "lease"),
        ({"completion_limit": "most"}, "completion_limit"),
        ({"base_url": "localhost:8000/v1"}, "http://"),
        ({"base_url": "ftp://host/v1"}, "http://"),
        ({"base_url": "http://"}, "http://"),
        ({"base_url": "http://[::1/v1"}, "base_url"),
        ({"base_url": "http://host:99999/v1"}, "port"),
        ({"base_url": "http://host:some/v1"}, "port"),
        ({"key_variable": "KEY", "key_file": "key.txt"}, "key_variable and key_file"),
    ],
)
def test_settings_that_are_not_allowed(given, says):
    with pytest.raises(InputError) as raised:
        Endpoint(**given)
    assert says in str(raised.value)


@pytest.mark.parametrize("key", KEYS)
def test_a_key_in_the_wrong_place_is_not_quoted(key):
    for settings_ in (
        {"key_variable": key},
        {"key_variable": f"  {key}"},
        {"base_url": f"https://user:{key}@host/v1"},
        {"base_url": f"https://{key}@host/v1"},
        {"base_url": f"https://host/v1?key={key}"},
        {"base_url": f"https://host/v1?api_key={key}#x"},
        {"api_key": key},
        {"key": key},
    ):
        with pytest.raises(InputError) as raised:
            Endpoint(**settings_)
        assert key not in said(raised.value)
        assert key[4:16] not in said(raised.value)


def test_names_and_places():
    assert Endpoint().key_name == "OPENAI_API_KEY"
    assert Endpoint(base_url=f"{OPENAI}/").key_name == "OPENAI_API_KEY"
    assert Endpoint(base_url="http://localhost:8000/v1").key_name is None
    assert Endpoint(base_url="http://localhost:8000/v1", key_variable="MY_KEY").key_name == "MY_KEY"
    assert Endpoint(key_file="key").key_name is None
    assert Endpoint().limit_parameter == "max_completion_tokens"
    assert Endpoint(base_url="http://localhost:8000/v1").limit_parameter == "max_tokens"
    one, two = Endpoint(base_url="http://a-b/v1"), Endpoint(base_url="http://a/b/v1")
    assert one.ledger_file != two.ledger_file  # Though both become the same words.


def test_ledgers_lie_where_they_are_told(tmp_path, monkeypatch):
    monkeypatch.setenv("MODICUM_LEDGERS", str(tmp_path))
    assert Endpoint().ledger_file.parent == tmp_path
    monkeypatch.chdir(tmp_path)
    assert Endpoint(ledger="mine.sqlite").ledger_file == tmp_path / "mine.sqlite"


def test_keys(tmp_path, monkeypatch):
    path = tmp_path / "key"
    path.write_text(f"{KEYS[0]}\n")
    assert read_key(Endpoint(key_file=path)) == KEYS[0]
    monkeypatch.setenv("MODICUM_TEST_KEY", f" {KEYS[1]} ")
    assert read_key(Endpoint(key_variable="MODICUM_TEST_KEY")) == KEYS[1]
    assert read_key(Endpoint(base_url="http://localhost/v1")) is None


@pytest.mark.parametrize(
    "content", ["", " \n", f"{KEYS[0]} {KEYS[1]}", f"{KEYS[0]}é", f"{KEYS[0]}\0x"]
)
def test_what_is_no_key(tmp_path, monkeypatch, content):
    """Nothing that a header cannot hold: the client would fail on it at every request."""
    path = tmp_path / "key"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"key_file: .* must hold one key") as raised:
        read_key(Endpoint(key_file=path))
    assert KEYS[0][:8] not in said(raised.value)
    if "\0" not in content:
        monkeypatch.setenv("MODICUM_TEST_KEY", content)
        with pytest.raises(InputError, match="key_variable: MODICUM_TEST_KEY") as raised:
            read_key(Endpoint(key_variable="MODICUM_TEST_KEY"))
        assert KEYS[0][:8] not in said(raised.value)


def test_missing_keys_are_named(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(InputError, match="OPENAI_API_KEY is not set"):
        read_key(Endpoint())
    with pytest.raises(InputError, match=r"key_file: the file cannot be read \(No such"):
        read_key(Endpoint(key_file=tmp_path / "none"))
    with pytest.raises(InputError, match=r"key_file: .* cannot be read"):
        read_key(Endpoint(key_file=tmp_path))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"key_file: .* cannot be read"):
        read_key(Endpoint(key_file=tmp_path / "binary"))


def test_settings_from_files(tmp_path):
    path = tmp_path / "endpoint.yaml"
    path.write_text("base_url: http://localhost:1/v1\nlimits: {requests_per_minute: 60}\n")
    assert Endpoint.load(path).limits.requests_per_minute == 60
    for content in (b"- a", b"base_url: \xff", b"base_url: [", b"base_uri: http://x"):
        path.write_bytes(content)
        with pytest.raises(InputError):
            Endpoint.load(path)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1.5", 1.5),
        ("0", 0),
        ("6m0s", 360),
        ("1h2m3.5s", 3723.5),
        ("250ms", 0.25),
        ("1s250ms", 1.25),
        ("2m", 120),
        ("1h", 3600),
        (" 7s ", 7),
        ("", None),
        (None, None),
        ("soon", None),
        ("-1", None),
        ("-1s", None),
        ("nan", None),
        ("inf", None),
        ("1.2.3s", None),
        (".s", None),
        ("5s3m", None),
        (f"{'9' * 400}h", None),
    ],
)
def test_durations(text, seconds):
    assert parse_duration(text) == (None if seconds is None else pytest.approx(seconds))


@given(st.text(alphabet="0123456789.hms -+e", max_size=12) | st.text(max_size=8))
@settings(max_examples=120, deadline=None)
@example("1.2.3s")
@example("..ms")
def test_durations_never_raise(text):
    seconds = parse_duration(text)
    assert seconds is None or 0 <= seconds < float("inf")
    headers = {"retry-after": text, "retry-after-ms": text, "x-ratelimit-reset-tokens": text}
    for header in (retry_after({"retry-after": text}), retry_after(headers)):
        assert header is None or 0 <= header < float("inf")
    wait_until_reset(headers | {"x-ratelimit-remaining-tokens": "0"})


def testretry_after():
    assert retry_after({}) is None
    assert retry_after({"retry-after": "3"}) == 3
    assert retry_after({"retry-after": "0.25"}) == 0.25
    assert retry_after({"retry-after": "3", "retry-after-ms": "1250"}) == 1.25
    then = formatdate(time.time() + 30, usegmt=True)
    assert 28 <= retry_after({"retry-after": then}) <= 30
    assert retry_after({"retry-after": formatdate(time.time() - 30, usegmt=True)}) == 0
    assert retry_after({"retry-after": "in a while"}) is None


def test_limits_of_which_nothing_remains():
    empty = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m30s"}
    assert wait_until_reset(empty) == 90
    assert wait_until_reset(empty | {"x-ratelimit-remaining-requests": "1"}) is None
    both = {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "2m"}
    assert wait_until_reset(empty | both) == 120
    assert wait_until_reset({"x-ratelimit-remaining-requests": "0"}) is None
    assert wait_until_reset({}) is None


def test_budgets_that_cannot_be_kept():
    for where in ({"budget": {"dollars": 1.0}}, {}):
        with pytest.raises(InputError, match="prices"):
            EndpointOracle(
                "judge",
                "summarisation",
                endpoint=Endpoint(**where),
                run="mine",
                budget=Budget(dollars=1.0),
            )
    with pytest.raises(InputError, match="run: name the run"):
        EndpointOracle("judge", "summarisation", budget=Budget(calls=1))


class Parrot:
    """Takes the place of the connection to a gate: each question has the same answer."""

    def ask(self, questions, template, max_tokens):
        return {
            question.key: Answer(letter="A", dollars=1.0, latency=2.0) for question in questions
        }


def test_a_judge_that_always_says_a():
    """Of 500 pairs, 250 +- 4 x 11.2 have the first as their winner, and none is consistent."""
    oracle = EndpointOracle("judge", "summarisation", both_orders=True)
    oracle._connection = Parrot()
    given = [Pair(f"post {n}", "fine", "poor") for n in range(500)]
    answers = oracle.judge([*given, given[0]])
    assert abs([each.winner for each in answers[:500]].count("first") - 250) <= 45
    assert {each.consistent for each in answers} == {False}
    assert {(each.cost, each.latency, each.cached) for each in answers[:500]} == {(2.0, 2.0, False)}
    # The same pair once more costs nothing.
    assert (answers[500].cost, answers[500].latency, answers[500].cached) == (0.0, 0.0, True)


def completion(content="A", finish="stop", **more) -> dict:
    return {"choices": [{"message": {"content": content}, "finish_reason": finish}], **more}


def test_completions():
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    read = read_completion(json.dumps(completion(usage=usage)).encode())
    assert read == ("A", True, {"prompt_tokens": 5, "completion_tokens": 2})
    assert read_completion(json.dumps(completion(finish="length")).encode()) == ("A", False, {})
    assert read_completion(json.dumps(completion(content=None)).encode()) == ("", True, {})
    assert read_completion(json.dumps(completion(usage=None)).encode()) == ("A", True, {})
    text, _, _ = read_completion(json.dumps(completion(content="x\ud800y")).encode())
    assert text.encode("utf-8") == b"x?y"


MALFORMED = [
    *(b"", b"null", b"[]", b"{}", b"3", b'"text"', b"\xff\xfe", b'{"choices": []}', b"<html>"),
    *(b'{"choices": [null]}', b'{"choices": [{}]}', b'{"choices": [{"message": null}]}'),
    *(b'{"choices": [{"message": {}}]}', b'{"choices": {"0": {"message": {"content": "A"}}}}'),
    json.dumps(completion())[:-5].encode(),
    json.dumps(completion(content=["A"])).encode(),
    json.dumps(completion(content={"text": "A"})).encode(),
    json.dumps(completion(content=5)).encode(),
    json.dumps(completion(usage={"prompt_tokens": -1})).encode(),
    json.dumps(completion(usage={"prompt_tokens": "many"})).encode(),
    json.dumps(completion(usage={"prompt_tokens": None})).encode(),
    json.dumps(completion(usage={"prompt_tokens": float("inf")})).encode(),
    json.dumps(completion(usage={"prompt_tokens": float("nan")})).encode(),
    json.dumps(completion(usage={"prompt_tokens": 10**30})).encode(),
    json.dumps(completion(usage=5)).encode(),
    b"[" * 100_000,
]


@pytest.mark.parametrize("body", MALFORMED, ids=lambda body: repr(body[:40]))
def test_bodies_that_are_no_completion(body):
    with pytest.raises(NoCompletionError):
        read_completion(body)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "message", "content", "usage", "prompt_tokens"]), inner
        )
    ),
    max_leaves=8,
)


@given(values)
@settings(max_examples=80, deadline=None)
def test_bodies_at_random_are_read_or_refused(value):
    try:
        text, complete, counts = read_completion(json.dumps(value).encode())
    except NoCompletionError:
        return
    assert isinstance(text, str)
    assert isinstance(complete, bool)
    assert all(isinstance(count, int) and count >= 0 for count in counts.values())


def reply(endpoint: Endpoint, *, model: str = "judge", text: str = "quality=1 quality=0") -> Reply:
    """A worker's reply to one request."""

    async def ask() -> Reply:
        worker = Worker(endpoint, None)
        await worker.open()
        asked = await worker.ask(Request(7, model, "system", text, 0.0, 50, True))
        await worker._client.close()
        return asked

    return asyncio.run(ask())


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/v1", "http://no-such-host.invalid/v1"])
def test_what_was_never_sent_is_not_charged(url):
    """Refused connections and unknown hosts, whatever the transport calls them."""
    got = reply(Endpoint(base_url=url, timeout=20))
    assert (got.outcome, got.message) == ("unreachable", f"base_url: nothing answers at {url}")


@pytest.fixture(scope="module")
def server():
    with running_endpoint() as running:
        yield running


@pytest.mark.parametrize(
    ("behaviour", "asked", "outcome", "says"),
    [
        ({}, {}, "answered", ""),
        ({"script": ["rate_limited"]}, {}, "throttled", "429"),
        ({"script": ["server_error"]}, {}, "failed", "500"),
        ({"script": ["unavailable"]}, {}, "failed", "503"),
        ({"script": ["dropped"]}, {}, "lost", "the connection broke"),
        ({"script": ["dropped_midway"]}, {}, "lost", "the connection broke"),
        ({"script": ["malformed"]}, {}, "lost", "the answer is no chat completion"),
        ({"script": ["hang"]}, {}, "lost", "no answer within 0.5 s"),
        ({"script": ["insufficient_quota"]}, {}, "fatal", "the account has no credit left"),
        ({"api_key": "another"}, {}, "fatal", "does not accept the key (401; key: there is none)"),
        ({}, {"model": "jugde"}, "fatal", "no such model, or no such address at"),
        ({"response_format": False}, {}, "unstructured", "response_format"),
        ({"context_characters": 10}, {}, "too_long", "context"),
        ({"filtered": "BAD"}, {"text": "BAD quality=1 quality=0"}, "rejected", "filtered"),
    ],
)
def test_what_replies_mean(server, behaviour, asked, outcome, says):
    server.set(**asdict(Behaviour()) | behaviour)
    got = reply(Endpoint(base_url=server.base_url, timeout=0.5), **asked)
    assert (got.number, got.outcome, got.wait) == (7, outcome, None)
    assert says in got.message


@pytest.mark.parametrize("fault", ["empty", "missing_verdict", "ambiguous_verdict", "length"])
def test_answers_without_a_verdict(server, fault):
    server.set(**asdict(Behaviour()) | {"script": [fault]})
    got = reply(Endpoint(base_url=server.base_url))
    assert got.outcome == "answered"
    assert read_verdict(got.text) is None or not got.complete
    assert got.prompt_tokens == 3  # The system message and the two markers.


def test_tokens_that_are_not_counted(server):
    server.set(**asdict(Behaviour()) | {"usage": False})
    got = reply(Endpoint(base_url=server.base_url))
    assert (got.outcome, got.prompt_tokens, got.completion_tokens) == ("answered", None, None)
    assert read_verdict(got.text).letter == "A"


def test_waits_that_an_endpoint_asks_for(server):
    endpoint = Endpoint(base_url=server.base_url)
    server.set(**asdict(Behaviour()) | {"script": ["rate_limited_retry_after"], "retry_after": 7})
    got = reply(endpoint)
    assert (got.outcome, got.wait) == ("throttled", 7)
    server.set(retry_after=7200)
    server.reset()  # The script begins again.
    got = reply(endpoint)
    assert got.outcome == "fatal"
    assert "asks to wait 2.0 hours" in got.message
    reset = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1s200ms"}
    server.set(script=[], headers=reset)
    got = reply(endpoint)
    assert (got.outcome, got.wait) == ("answered", pytest.approx(1.2))


def test_wrong_addresses(server):
    got = reply(Endpoint(base_url=f"{server.url}/v2"))
    assert got.outcome == "fatal"
    assert "no such address" in got.message


def test_keys_are_taken_out_of_texts():
    key = KEYS[0]
    assert without_key(f"bad key {key}.", key) == "bad key [key]."
    assert without_key(f"{key}{key}", key) == "[key]"
    assert without_key(f"<{key[5:13]}> {key[:7]}", key) == f"<[key]> {key[:7]}"
    assert without_key("nothing", key) == "nothing"
    assert without_key("short secret", "short") == "short secret"
    assert without_key("", "") == ""


@given(st.integers(0, 40), st.integers(0, 40), st.text("skproj-Ab3dEf6 ", max_size=20))
@settings(max_examples=80, deadline=None)
def test_no_part_of_a_key_is_left(start, end, around):
    key = KEYS[0]
    cleaned = without_key(f"{around}{key[start:end]}{around}", key)
    for at in range(len(key) - 7):
        assert key[at : at + 8] not in cleaned
