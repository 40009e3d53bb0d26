"""The endpoint that tests of oracles talk to does what it says, seen by the official client."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI

from conftest import SUPPORT
from fake_endpoint import (
    Behaviour,
    Endpoint,
    Log,
    busiest,
    question_digest,
    running_endpoint,
)

KEY = "sk-test-0123456789abcdef"
BETTER, WORSE = "clear quality=0.9", "vague quality=0.2"
SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "preference",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {
                "reason": {"type": "string"},
                "choice": {"type": "string", "enum": ["A", "B"]},
            },
            "required": ["reason", "choice"],
            "additionalProperties": False,
        },
    },
}
T = TypeVar("T")


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def process() -> Iterator[Endpoint]:
    with running_endpoint() as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def shared_client(process: Endpoint, runner: asyncio.Runner) -> Iterator[AsyncOpenAI]:
    client = AsyncOpenAI(base_url=process.base_url, api_key=KEY, max_retries=0)
    yield client
    runner.run(client.close())


class Asker:
    """Asks the endpoint through the official client."""

    def __init__(self, client: AsyncOpenAI, runner: asyncio.Runner):
        self.client = client
        self.run = runner.run

    def __call__(self, text: str | None = None, *, key: str = KEY, **more: Any) -> Any:
        messages = [
            {"role": "system", "content": "You compare."},
            {"role": "user", "content": user() if text is None else text},
        ]
        client = self.client if key == KEY else self.client.with_options(api_key=key)
        return self.run(
            client.chat.completions.create(**{"model": "judge", "messages": messages} | more)
        )

    def fails(self, kind: type[T], text: str | None = None, **more: Any) -> T:
        """The error that it raises."""
        with pytest.raises(kind) as caught:
            self(text, **more)
        assert type(caught.value) is kind
        return caught.value


@pytest.fixture
def ask(shared_client: AsyncOpenAI, runner: asyncio.Runner) -> Asker:
    return Asker(shared_client, runner)


@pytest.fixture
def endpoint(process: Endpoint) -> Endpoint:
    process.set(**asdict(Behaviour()))
    process.reset()
    return process


def user(first: str = BETTER, second: str = WORSE, number: int = 0) -> str:
    return f"Which is better ({number})?\n\nA:\n{first}\n\nB:\n{second}"


def ask_many(
    endpoint: Endpoint,
    texts: list[str],
    pauses: Sequence[float] = (),
    **more: Any,
) -> Log:
    """Ask by plain HTTP, all at once or with a pause after each, and read the log."""

    async def work() -> None:
        url = f"{endpoint.base_url}/chat/completions"

        async def one(text: str) -> None:
            body = {"model": "judge", "messages": [{"role": "user", "content": text}], **more}
            async with session.post(url, json=body) as response:
                await response.read()

        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
            for text, pause in itertools.zip_longest(texts, pauses, fillvalue=0.0):
                group.create_task(one(text))
                await asyncio.sleep(pause)

    asyncio.run(work())
    return endpoint.log()


def letter(completion: Any) -> str:
    _, preferred = completion.choices[0].message.content.split("\nPreferred: ")
    return json.loads(preferred)


# Who wins.


def test_the_truth_follows_the_markers_in_the_order_shown(ask, endpoint):
    assert letter(ask(user(BETTER, WORSE))) == "A"
    assert letter(ask(user(WORSE, BETTER))) == "B"
    assert letter(ask(user("quality=-2", "quality=-1.5"))) == "B"
    assert endpoint.log().verdict == ["A", "B", "B"]


def test_the_truth_needs_two_markers(ask, endpoint):
    error = ask.fails(openai.BadRequestError, text="quality=0.5 against nothing")
    assert "quality" in error.message
    assert endpoint.log().outcome == ["bad_request"]


@pytest.mark.parametrize("always", ["A", "B"])
def test_one_letter_always(ask, endpoint, always):
    endpoint.set(verdict=always)
    assert letter(ask(user(BETTER, WORSE))) == always
    assert letter(ask(user(WORSE, BETTER))) == always
    assert letter(ask("no markers at all")) == always


# How it is said.


def test_text_has_the_thesis_format_and_usage_counts_words(ask, endpoint):
    answer = ask(user())
    content = answer.choices[0].message.content
    assert content.startswith("Comparison: ")
    assert content.endswith('\nPreferred: "A"')
    assert answer.choices[0].finish_reason == "stop"
    # "You compare." and "Which is better (0)? A: clear quality=0.9 B: vague quality=0.2".
    assert answer.usage.prompt_tokens == 2 + 10
    # Comparison: B is shorter, but A says what matters. Preferred: "A"
    assert answer.usage.completion_tokens == 11
    assert answer.usage.total_tokens == 23
    assert endpoint.log().tokens == (12, 11)


def test_json_follows_the_schema(ask, endpoint):
    answer = ask(user(WORSE, BETTER), response_format=SCHEMA)
    written = json.loads(answer.choices[0].message.content)
    assert set(written) == {"reason", "choice"}
    assert written["choice"] == "B"
    endpoint.set(script=["missing_verdict", "ambiguous_verdict", "length"])
    missing, ambiguous, short = (ask(response_format=SCHEMA) for _ in range(3))
    assert set(json.loads(missing.choices[0].message.content)) == {"reason"}
    assert json.loads(ambiguous.choices[0].message.content)["choice"] == "A or B"
    with pytest.raises(ValueError, match=r"."):
        json.loads(short.choices[0].message.content)


def test_json_may_not_be_supported(ask, endpoint):
    endpoint.set(response_format=False)
    error = ask.fails(openai.BadRequestError, response_format=SCHEMA)
    assert error.param == "response_format"
    assert "not supported" in error.message
    assert letter(ask()) == "A"


def test_most_tokens_cut_the_answer(ask, endpoint):
    answer = ask(max_completion_tokens=4)
    assert answer.choices[0].message.content == "Comparison: B is shorter,"
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 4
    log = endpoint.log()
    assert (log.outcome, log.verdict) == (["length"], [None])


def test_usage_may_be_kept_quiet_but_is_charged(ask, endpoint):
    endpoint.set(usage=False)
    assert ask().usage is None
    assert endpoint.log().tokens == (12, 11)


# Faults.


@pytest.mark.parametrize(
    ("fault", "kind", "status", "code"),
    [
        ("rate_limited_retry_after", openai.RateLimitError, 429, "rate_limit_exceeded"),
        ("rate_limited", openai.RateLimitError, 429, "rate_limit_exceeded"),
        ("insufficient_quota", openai.RateLimitError, 429, "insufficient_quota"),
        ("server_error", openai.InternalServerError, 500, None),
        ("unavailable", openai.InternalServerError, 503, None),
    ],
)
def test_faults_with_a_status_are_not_charged(ask, endpoint, fault, kind, status, code):
    endpoint.set(script=[fault], retry_after=7)
    error = ask.fails(kind)
    assert (error.status_code, error.code) == (status, code)
    said = error.response.headers.get("retry-after")
    assert said == ("7" if fault == "rate_limited_retry_after" else None)
    assert letter(ask()) == "A"
    log = endpoint.log()
    assert log.outcome == [fault, "answered"]
    assert log.status == [status, 200]
    assert log.prompt_tokens == [0, 12]


@pytest.mark.parametrize("fault", ["dropped", "dropped_midway"])
def test_dropped_connections(ask, endpoint, fault):
    endpoint.set(script=[fault])
    ask.fails(openai.APIConnectionError)
    log = endpoint.log()
    assert log.outcome == [fault]
    # Half an answer was an answer.
    assert log.tokens == ((0, 0) if fault == "dropped" else (12, 11))


def test_hang_outlasts_the_client_and_is_charged(ask, endpoint):
    endpoint.set(script=["hang"])
    ask.fails(openai.APITimeoutError, timeout=0.2)
    wait_until_idle(endpoint)
    log = endpoint.log()
    assert (log.outcome, log.status, log.tokens) == (["hang"], [0], (12, 11))


def test_hang_ends_by_itself(ask, endpoint):
    endpoint.set(script=["hang"], hang_seconds=0.1)
    ask.fails(openai.APIConnectionError)
    log = endpoint.log()
    assert 0.099 < log.finished[0] - log.arrived[0] < 5


def test_malformed_body_is_a_whole_answer_that_is_not_json(ask, endpoint):
    endpoint.set(script=["malformed"])
    # The client raises the error of its JSON parser here.
    with pytest.raises(ValueError, match=r"."):
        ask()
    assert endpoint.log().status == [200]
    assert endpoint.log().tokens == (12, 11)


def test_contents_without_a_verdict(ask, endpoint):
    endpoint.set(script=["empty", "missing_verdict", "ambiguous_verdict", "length"])
    answers = [ask() for _ in range(4)]
    empty, missing, ambiguous, short = (answer.choices[0].message.content for answer in answers)
    assert empty == ""
    assert missing.startswith("Comparison: ")
    assert "Preferred" not in missing
    assert ambiguous.endswith('Preferred: "A or B"')
    assert "Preferred" not in short
    assert [answer.choices[0].finish_reason for answer in answers] == ["stop"] * 3 + ["length"]
    log = endpoint.log()
    assert log.verdict == [None] * 4
    assert log.completion_tokens[0] == 0
    assert min(log.prompt_tokens) == 12


def test_faults_come_with_their_probabilities_and_the_same_again_in_any_order(endpoint):
    faults = {"server_error": 0.2, "rate_limited": 0.1, "ambiguous_verdict": 0.3}
    endpoint.set(faults=faults, seed=5)
    texts = [user(number=number) for number in range(300)]

    def fates(order: list[str]) -> dict[str, str]:
        endpoint.reset()
        log = ask_many(endpoint, order)
        return dict(zip(log.question, log.outcome, strict=True))

    first = fates(texts)
    counts = endpoint.log().outcomes
    for name, probability in {**faults, "answered": 0.4}.items():
        deviation = math.sqrt(len(texts) * probability * (1 - probability))
        assert abs(counts[name] - len(texts) * probability) < 4 * deviation
    shuffled = random.Random(0).sample(texts, len(texts))
    assert fates(shuffled) == first
    endpoint.set(seed=6)
    assert fates(texts) != first


def test_all_faults_are_known_and_probabilities_possible(ask, endpoint):
    for wrong in ({"no_such": 0.1}, {"dropped": 0.6, "hang": 0.6}, {"dropped": -0.1}):
        with pytest.raises(ValueError, match="faults"):
            endpoint.set(faults=wrong)
    with pytest.raises(ValueError, match="script"):
        endpoint.set(script=["no_such"])
    with pytest.raises(ValueError, match="verdict"):
        endpoint.set(verdict="C")
    with pytest.raises(ValueError, match="patience"):
        endpoint.set(patience=1)


# Delays and concurrency.


def wait_until_idle(endpoint: Endpoint) -> None:
    deadline = time.monotonic() + 5
    while endpoint.counters()["in_flight"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_fixed_delay_and_concurrency(endpoint):
    endpoint.set(delay=0.25)
    log = ask_many(endpoint, [user(number=number) for number in range(9)])
    taken = [end - start for start, end in zip(log.arrived, log.finished, strict=True)]
    assert min(taken) >= 0.249
    assert log.maximum_concurrency == 9
    assert endpoint.counters()["in_flight"] == 0


def test_clients_that_go_are_charged_all_the_same(ask, endpoint):
    endpoint.set(delay=10)
    ask.fails(openai.APITimeoutError, timeout=0.2)
    wait_until_idle(endpoint)
    log = endpoint.log()
    assert (log.outcome, log.status, log.tokens) == (["abandoned"], [0], (12, 11))
    assert log.verdict == [None]
    assert log.finished[0] - log.arrived[0] < 5


def test_headers_are_added_to_every_answer(ask, endpoint):
    endpoint.set(headers={"x-ratelimit-remaining-requests": "0"})
    create = ask.client.chat.completions.with_raw_response.create
    messages = [{"role": "user", "content": user()}]
    headers = ask.run(create(model="judge", messages=messages)).headers
    assert headers["x-ratelimit-remaining-requests"] == "0"


# Errors on demand.


@pytest.mark.parametrize("echo", ["part", "all"])
def test_wrong_keys_come_back_in_the_error(ask, endpoint, echo):
    endpoint.set(api_key="sk-the-right-one", key_echo=echo)
    error = ask.fails(openai.AuthenticationError)
    assert error.code == "invalid_api_key"
    assert (KEY in error.message) == (echo == "all")
    assert KEY[:7] in error.message
    assert KEY[-4:] in error.message
    assert letter(ask(key="sk-the-right-one")) == "A"
    log = endpoint.log()
    assert log.outcome == ["invalid_api_key", "answered"]
    assert log.prompt_tokens[0] == 0


def test_models(ask, endpoint):
    endpoint.set(models=["small", "large"])
    error = ask.fails(openai.NotFoundError, model="medium")
    assert error.code == "model_not_found"
    assert "medium" in error.message
    assert ask(model="large").model == "large"


def test_questions_longer_than_the_context(ask, endpoint):
    text = user()
    endpoint.set(context_characters=len("You compare.") + len(text))
    assert letter(ask(text)) == "A"
    error = ask.fails(openai.BadRequestError, text=text + ".")
    assert (error.code, error.param) == ("context_length_exceeded", "messages")
    assert endpoint.log().outcome == ["answered", "too_long"]


def test_content_filter(ask, endpoint):
    endpoint.set(filtered="forbidden")
    error = ask.fails(openai.BadRequestError, text=user(BETTER, WORSE + " forbidden"))
    assert error.code == "content_filter"
    assert letter(ask()) == "A"


def test_what_is_not_a_question(ask, endpoint):
    with pytest.raises(openai.BadRequestError):
        ask.run(ask.client.post("/chat/completions", cast_to=object, body={"model": "judge"}))
    with pytest.raises(openai.NotFoundError):
        ask.run(ask.client.embeddings.create(input="x", model="judge"))
    assert endpoint.log().outcome == ["bad_request"]


# The account.


def test_log_tells_questions_apart(ask, endpoint):
    before, wall = time.monotonic(), time.time()
    for text, more in [
        (user(), {}),
        (user(), {"temperature": 0}),
        (user(), {"temperature": 0.0}),
        (user(number=1), {}),
        (user(), {}),
    ]:
        ask(text, **more)
    log = endpoint.log()
    plain, cold = (question_digest(user(), "judge", given) for given in (None, 0))
    other = question_digest(user(number=1), "judge", None)
    assert log.question == [plain, cold, cold, other, plain]
    assert log.asked() == {plain: 2, cold: 2, other: 1}
    assert log.repeats() == 2
    assert log.repeats("server_error") == 0
    assert before <= log.arrived[0] <= log.arrived[-1] <= time.monotonic()
    assert wall - 0.01 <= log.wall[0] <= time.time() + 0.01
    assert log.rate == pytest.approx(4 / (log.arrived[-1] - log.arrived[0]))
    endpoint.reset()
    assert len(endpoint.log()) == 0


def test_reset_during_a_request(ask, endpoint):
    async def work() -> None:
        endpoint.set(delay=0.2)
        waiting = asyncio.ensure_future(ask.client.post("/chat/completions", **request))
        while endpoint.counters()["in_flight"] == 0:
            await asyncio.sleep(0.01)
        endpoint.reset()
        await waiting

    body = {"model": "judge", "messages": [{"role": "user", "content": user()}]}
    request = {"cast_to": object, "body": body}
    ask.run(work())
    assert len(endpoint.log()) == 0
    assert endpoint.counters()["in_flight"] == 0


@pytest.mark.parametrize("seed", range(5))
def test_busiest_window_against_brute_force(seed):
    draws = random.Random(seed)
    # Sixteenths are exact, so that arrivals exactly a window apart occur, and count as two windows.
    times = sorted(draws.randrange(400) / 16 for _ in range(60))
    for seconds in (0.0625, 0.5, 1.0, 10.0, 60.0):
        brute = max(sum(start <= t < start + seconds for t in times) for start in times)
        assert busiest(times, seconds) == brute
    assert busiest([], 1.0) == 0


# The process.


def test_it_ends_with_its_parent():
    program = (
        "import os, sys; from fake_endpoint import running_endpoint\n"
        "with running_endpoint() as endpoint:\n"
        "    print(endpoint.pid, flush=True); os.kill(os.getpid(), 9)\n"
    )
    here = SUPPORT
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=here, capture_output=True, text=True, check=False
    )
    assert ran.returncode == -9
    pid = int(ran.stdout)
    deadline = time.monotonic() + 10
    while is_running(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """Whether there is such a process that is not merely waiting to be collected."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_it_costs_little_processor_time(endpoint):
    before = endpoint.counters()["cpu_seconds"]
    ask_many(endpoint, [user() + " word" * 400] * 500)
    # Far above what it takes, for a busy machine; still a fraction of what a client takes.
    assert (endpoint.counters()["cpu_seconds"] - before) / 500 < 0.001
