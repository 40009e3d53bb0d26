"""Settings of the endpoint's behaviour."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Fault = Literal[
    "rate_limited_retry_after",  # 429 with Retry-After.
    "rate_limited",  # 429 without.
    "insufficient_quota",  # 429 that no waiting helps.
    "server_error",  # 500.
    "unavailable",  # 503.
    "dropped",  # The connection ends before an answer; none was generated.
    # From here on an answer was generated, and is charged.
    "dropped_midway",  # The connection ends in the middle of the body.
    "hang",  # Nothing is sent for `hang_seconds`, then the connection ends.
    "malformed",  # 200, but the body is not JSON.
    "empty",  # The content is "".
    "missing_verdict",  # A comparison without a preference.
    "ambiguous_verdict",  # A or B.
    "length",  # The content is cut short with finish_reason "length".
]
FAULTS: tuple[Fault, ...] = get_args(Fault)

Verdict = Literal["truth", "A", "B"]
KeyEcho = Literal["part", "all"]


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """The endpoint's behaviour.

    Attributes:
        verdict: Rule for the winner. `truth`: the completion with the higher marker, such as
            `quality=0.731`, of which each must have one; `A` or `B`: always this letter.
        delay: Seconds before an answer.
        seed: Seed of faults.
        faults: Probability of each fault.
        script: Outcomes of the next requests: faults or "answered". The script takes precedence
            over `faults`; a changed script starts from its beginning.
        retry_after: Seconds in the header Retry-After of the fault `rate_limited_retry_after`.
        hang_seconds: Seconds for which the fault `hang` keeps a connection.
        headers: Headers that are added to every answer.
        api_key: The accepted key; None accepts any key.
        key_echo: Part of a wrong key that the error's text repeats.
        models: Names of the models.
        response_format: Whether response_format is supported.
        context_characters: Most characters of a question, with its system message.
        filtered: Text that makes the content filter refuse a question.
        usage: Whether answers report their tokens.
    """

    verdict: Verdict = "truth"
    delay: float = 0.0
    seed: int = 0
    faults: Mapping[str, float] = field(default_factory=dict)
    script: tuple[str, ...] = ()
    retry_after: float = 1.0
    hang_seconds: float = 60.0
    headers: Mapping[str, str] = field(default_factory=dict)
    api_key: str | None = None
    key_echo: KeyEcho = "part"
    models: tuple[str, ...] = ("judge",)
    response_format: bool = True
    context_characters: int | None = None
    filtered: str | None = None
    usage: bool = True

    def __post_init__(self) -> None:
        unknown = [name for name in (*self.faults, *self.script) if name not in FAULTS]
        unknown = [name for name in unknown if name != "answered"]
        if unknown or "answered" in self.faults:
            raise ValueError(f"faults and script: unknown {unknown}; there are {FAULTS}")
        if min(self.faults.values(), default=0) < 0 or sum(self.faults.values()) > 1 + 1e-9:
            raise ValueError("faults: probabilities must be at least 0 and sum to at most 1")
        for name, allowed in (
            ("verdict", Verdict),
            ("key_echo", KeyEcho),
        ):
            if getattr(self, name) not in get_args(allowed):
                raise ValueError(f"{name}: one of {get_args(allowed)}")

    def changed(self, changes: Mapping[str, Any]) -> Behaviour:
        """The behaviour with some fields replaced by values from JSON."""
        given = dict(changes)
        for name in ("script", "models"):
            if name in given:
                given[name] = tuple(given[name])
        return dataclasses.replace(self, **given)
