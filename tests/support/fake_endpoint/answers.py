"""Answers to requests: verdicts, texts, errors as OpenAI writes them, and tokens."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from fake_endpoint.behaviour import Behaviour

QUALITY = re.compile(r"quality=(-?\d+(?:\.\d+)?)")
REASONS = {
    "A": "B is shorter, but A says what matters.",
    "B": "A is shorter, but B says what matters.",
}


@dataclass(frozen=True)
class Answer:
    """An answer and its entry in the account.

    Attributes:
        status: HTTP status.
        body: JSON, or the remains of it after a fault.
        outcome: "answered", a fault, or the name of an error.
        headers: Headers beside those of every answer.
        prompt_tokens: Tokens charged for reading.
        completion_tokens: Tokens charged for writing.
        verdict: The letter in the content, or None.
    """

    status: int
    body: bytes
    outcome: str
    headers: dict[str, str] = field(default_factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    verdict: str | None = None


@dataclass(frozen=True)
class Question:
    """The relevant parts of a request's body."""

    model: str
    system: str
    user: str
    temperature: float | None
    response_format: dict[str, Any] | None
    most_tokens: int | None

    @property
    def tokens(self) -> int:
        """Number of words in both messages."""
        return len(self.system.split()) + len(self.user.split())


def read_question(body: bytes) -> Question | None:
    """The question in a request's body; None if the body is no question."""
    try:
        given = json.loads(body)
        texts = {"system": "", "user": ""}
        for message in given["messages"]:
            role = "system" if message["role"] == "developer" else message["role"]
            texts[role] += message["content"]
        return Question(
            model=given["model"],
            system=texts["system"],
            user=texts["user"],
            temperature=given.get("temperature"),
            response_format=given.get("response_format"),
            most_tokens=given.get("max_completion_tokens") or given.get("max_tokens"),
        )
    except (ValueError, TypeError, KeyError):
        return None


def error(
    status: int, outcome: str, message: str, kind: str, code: str | None, param: str | None = None
) -> Answer:
    """An error in OpenAI's format."""
    said = {"message": message, "type": kind, "param": param, "code": code}
    return Answer(status, json.dumps({"error": said}, indent=4).encode(), outcome)


def bad_request(message: str) -> Answer:
    """400, for a body that is no question or that breaks the endpoint's rules."""
    return error(400, "bad_request", message, "invalid_request_error", None)


def wrong_key(behaviour: Behaviour, key: str | None) -> Answer | None:
    """401, unless the key is accepted."""
    if behaviour.api_key is None or key == behaviour.api_key:
        return None
    if not key:
        said = "You didn't provide an API key. You need to provide your API key in an "
        said += "Authorization header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY)."
        return error(401, "missing_key", said, "invalid_request_error", None)
    echo = key if behaviour.key_echo == "all" else f"{key[:7]}{'*' * 8}{key[-4:]}"
    said = f"Incorrect API key provided: {echo}. You can find your API key in your settings."
    return error(401, "invalid_api_key", said, "invalid_request_error", "invalid_api_key")


def refusal(behaviour: Behaviour, question: Question) -> Answer | None:
    """An error that the question itself causes, however often it is asked."""
    kind = "invalid_request_error"
    if question.model not in behaviour.models:
        said = f"The model `{question.model}` does not exist or you do not have access to it."
        return error(404, "model_not_found", said, kind, "model_not_found")
    if question.response_format is not None and not behaviour.response_format:
        wanted = question.response_format.get("type")
        said = f"Invalid parameter: 'response_format' of type '{wanted}' is not supported with "
        return error(400, "unsupported", said + "this model.", kind, None, "response_format")
    most = behaviour.context_characters
    if most is not None and len(question.system) + len(question.user) > most:
        said = f"This model's maximum context length is {most} tokens. However, your messages "
        said += f"resulted in {len(question.system) + len(question.user)} tokens. Please reduce "
        said += "the length of the messages."
        return error(400, "too_long", said, kind, "context_length_exceeded", "messages")
    if behaviour.filtered is not None and behaviour.filtered in question.user:
        said = "The response was filtered due to the prompt triggering the content management "
        said += "policy. Please modify your prompt and retry."
        return error(400, "content_filter", said, kind, "content_filter", "prompt")
    if behaviour.verdict == "truth" and len(QUALITY.findall(question.user)) != 2:
        return bad_request("Two completions marked as in quality=0.731 are needed to know better.")
    return None


def letter(behaviour: Behaviour, question: Question) -> str:
    """The verdict on the completions in the order in which they are shown."""
    if behaviour.verdict != "truth":
        return behaviour.verdict
    first, second = map(float, QUALITY.findall(question.user))
    return "A" if first > second else "B"


def chosen_fault(behaviour: Behaviour, draw: float) -> str:
    """The fault in whose share of [0, 1) a uniform draw falls, or "answered"."""
    reached = 0.0
    for name, probability in behaviour.faults.items():
        reached += probability
        if draw < reached:
            return name
    return "answered"


def refused_by_fault(behaviour: Behaviour, fault: str) -> Answer | None:
    """The error of a fault in which nothing is generated; None for other faults."""
    if fault == "rate_limited_retry_after":
        headers = {"retry-after": f"{behaviour.retry_after:g}"}
        return rate_limited(fault, headers)
    if fault == "rate_limited":
        return rate_limited(fault, {})
    if fault == "insufficient_quota":
        said = "You exceeded your current quota, please check your plan and billing details."
        return error(429, fault, said, "insufficient_quota", "insufficient_quota")
    if fault == "server_error":
        said = "The server had an error while processing your request. Sorry about that!"
        return error(500, fault, said, "server_error", None)
    if fault == "unavailable":
        said = "The engine is currently overloaded, please try again later."
        return error(503, fault, said, "server_error", None)
    if fault == "dropped":
        return Answer(0, b"", fault)
    return None


def rate_limited(outcome: str, headers: dict[str, str]) -> Answer:
    """429."""
    said = "Rate limit reached for requests. Please try again later."
    answer = error(429, outcome, said, "requests", "rate_limit_exceeded")
    return Answer(429, answer.body, outcome, headers)


def content(verdict: str, fault: str, response_format: dict[str, Any] | None) -> str:
    """The model's text, in the format of the thesis (figure 6.1) or as JSON by the schema."""
    if fault == "empty":
        return ""
    reason = REASONS[verdict]
    said: str | None = verdict
    if fault == "missing_verdict":
        said = None
    elif fault == "ambiguous_verdict":
        said = "A or B"
    if response_format is None or response_format["type"] == "text":
        text = f"Comparison: {reason}" + ("" if said is None else f'\nPreferred: "{said}"')
    else:
        schema = response_format.get("json_schema", {}).get("schema", {})
        fields = schema.get("properties", {"comparison": {}, "preferred": {"enum": ["A", "B"]}})
        written = {
            name: said if "enum" in rules else reason
            for name, rules in fields.items()
            if said is not None or "enum" not in rules
        }
        text = json.dumps(written)
    return text[: len("Comparison: B is")] if fault == "length" else text


def generate(
    behaviour: Behaviour, question: Question, fault: str, verdict: str, number: int, now: int
) -> Answer:
    """A generated answer, possibly with a fault.

    Args:
        behaviour: The endpoint's behaviour.
        question: The question.
        fault: A fault that is charged, or "answered".
        verdict: A or B.
        number: Number of the request, for the answer's id.
        now: Seconds since 1970.
    """
    text = content(verdict, fault, question.response_format)
    words = text.split()
    cut = question.most_tokens is not None and len(words) > question.most_tokens
    if cut:
        words = words[: question.most_tokens]
        text = " ".join(words)
    outcome = "length" if cut and fault == "answered" else fault
    completion = {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": now,
        "model": question.model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, "refusal": None},
                "logprobs": None,
                "finish_reason": "length" if cut or fault == "length" else "stop",
            }
        ],
    }
    prompt_tokens, completion_tokens = question.tokens, len(words)
    if behaviour.usage:
        completion["usage"] = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        }
    body = json.dumps(completion).encode()
    if fault == "malformed":
        body = body[: len(body) // 2]
    return Answer(
        200,
        body,
        outcome,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        verdict=verdict if outcome == "answered" else None,
    )
