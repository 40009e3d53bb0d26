"""Spreading requests evenly over time. Pure: the caller brings the clock.

A bucket that refills by the minute lets a full minute's allowance out at once, so that two
minutes' worth can pass within one. Here each request falls due when those before it have taken
their share of time (the generic cell rate algorithm), and no window holds more than its share.
"""

from __future__ import annotations

from dataclasses import dataclass, field

# How far a request may be ahead of its time, seconds: makes good a loop that woke up late.
SLACK = 0.05


@dataclass
class Pacer:
    """Admits amounts at an even rate.

    Attributes:
        per_minute: How much is admitted in a minute.
        due: The time at which the next request falls due.
    """

    per_minute: float
    due: float = 0.0

    def wait(self, now: float) -> float:
        """Seconds until something may be admitted; zero where it may be now."""
        return max(0.0, self.due - SLACK - now)

    def admit(self, amount: float, now: float) -> None:
        """Let an amount pass now; what comes next is due when it has taken its time."""
        self.due = max(self.due, now) + amount * 60 / self.per_minute

    def correct(self, difference: float) -> None:
        """An amount that was admitted turned out larger (or smaller) by so much."""
        self.due += difference * 60 / self.per_minute


@dataclass
class Throttle:
    """Everything that holds requests back: rates of requests and tokens, and pauses for all.

    Attributes:
        requests: Pacer of requests, or None.
        tokens: Pacer of tokens, or None.
        paused_until: Nothing is admitted before this time.
    """

    requests: Pacer | None = None
    tokens: Pacer | None = None
    paused_until: float = field(default=0.0)

    @classmethod
    def of(cls, requests_per_minute: float | None, tokens_per_minute: float | None) -> Throttle:
        """A throttle for two limits, either of which may be None."""
        return cls(
            None if requests_per_minute is None else Pacer(requests_per_minute),
            None if tokens_per_minute is None else Pacer(tokens_per_minute),
        )

    def wait(self, now: float) -> float:
        """Seconds until a request may be admitted; zero where it may be now."""
        pacers = [pacer for pacer in (self.requests, self.tokens) if pacer is not None]
        return max([self.paused_until - now, *(pacer.wait(now) for pacer in pacers), 0.0])

    def admit(self, tokens: float, now: float) -> None:
        """Let a request of so many tokens (estimated) pass now."""
        if self.requests is not None:
            self.requests.admit(1, now)
        if self.tokens is not None:
            self.tokens.admit(tokens, now)

    def settle(self, estimated: float, actual: float) -> None:
        """Correct an estimate of tokens by what was used."""
        if self.tokens is not None:
            self.tokens.correct(actual - estimated)

    def pause(self, seconds: float, now: float) -> None:
        """Admit nothing for so long, whoever asks; a longer pause under way stays."""
        self.paused_until = max(self.paused_until, now + seconds)
