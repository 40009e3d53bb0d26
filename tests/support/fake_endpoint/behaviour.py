"""What the endpoint is told to do."""

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

Verdict = Literal["truth", "A", "B", "alternate", "sampled"]
Delay = Literal["fixed", "exponential"]
Unit = Literal["requests", "tokens"]
KeyEcho = Literal["part", "all"]


@dataclass(frozen=True)
class Limit:
    """No more than this in any window; what is above it is answered 429 and does not count.

    Attributes:
        amount: Most requests or tokens in a window.
        seconds: Length of the window, [t, t + seconds) for any t.
        unit: What is counted. Tokens are those of the question and of its answer.
    """

    amount: int
    seconds: float
    unit: Unit = "requests"


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """What the endpoint does with a request.

    Attributes:
        verdict: Who wins. `truth`: the completion with the higher marker, such as `quality=0.731`,
            that stands in each of the two; `A` or `B`: always that one; `alternate`: A for the
            first answer, B for the second, and so on; `sampled`: A with probability
            1 / (1 + exp(-(quality of A - quality of B) / temperature)), the truth at temperature
            0, a coin without markers.
        temperature: That of requests which name none.
        delay: Mean seconds before an answer.
        delay_distribution: `fixed` or `exponential`.
        seed: Of faults, delays and sampled verdicts.
        faults: Probability of each fault.
        script: Outcomes of the next requests, one each: faults or "answered". Goes before
            `faults`; a change of it starts it from its beginning.
        retry_after: Seconds in Retry-After of the fault `rate_limited_retry_after`.
        hang_seconds: How long the fault `hang` keeps a connection.
        limits: Enforced strictly.
        limits_say_when: Whether a 429 of `limits` has Retry-After and retry-after-ms.
        headers: Added to every answer.
        api_key: The key that is let in; None lets in everybody.
        key_echo: How much of a wrong key the error's text repeats.
        models: The models that there are.
        response_format: Whether response_format is supported.
        context_characters: Longest question, system message included.
        filtered: A question with this text in it is refused by the content filter.
        usage: Whether answers say how many tokens they used.
    """

    verdict: Verdict = "truth"
    temperature: float = 1.0
    delay: float = 0.0
    delay_distribution: Delay = "fixed"
    seed: int = 0
    faults: Mapping[str, float] = field(default_factory=dict)
    script: tuple[str, ...] = ()
    retry_after: float = 1.0
    hang_seconds: float = 60.0
    limits: tuple[Limit, ...] = ()
    limits_say_when: bool = True
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
            ("delay_distribution", Delay),
            ("key_echo", KeyEcho),
        ):
            if getattr(self, name) not in get_args(allowed):
                raise ValueError(f"{name}: one of {get_args(allowed)}")

    def changed(self, changes: Mapping[str, Any]) -> Behaviour:
        """The same with some fields replaced, as they come from JSON."""
        given = dict(changes)
        if "limits" in given:
            given["limits"] = tuple(Limit(**limit) for limit in given["limits"])
        for name in ("script", "models"):
            if name in given:
                given[name] = tuple(given[name])
        return dataclasses.replace(self, **given)
