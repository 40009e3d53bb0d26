"""Rate limits that spread requests evenly over time. Pure: the caller brings the clock.

A token bucket that is refilled once a minute admits a whole minute's allowance at once, so up to
twice the limit within a minute. The generic cell rate algorithm, used here, delays each request
until the requests before it have taken their share of time, so no window exceeds its share.
"""

from __future__ import annotations

from dataclasses import dataclass, field

# Seconds that a request may be ahead of its time, to compensate for an event loop that wakes late.
SLACK = 0.05


@dataclass
class Pacer:
    """A rate limit."""

    per_minute: float  # Amount admitted in a minute.
    due: float = 0.0  # Time at which the next request falls due, seconds.

    def wait(self, now: float) -> float:
        """Seconds until the next amount may be admitted; zero if it may be now."""
        return max(0.0, self.due - SLACK - now)

    def admit(self, amount: float, now: float) -> None:
        """Admit an amount now; the next one falls due after this one's share of time."""
        self.due = max(self.due, now) + amount * 60 / self.per_minute

    def correct(self, difference: float) -> None:
        """Correct an admitted amount that turned out larger, or smaller, by a difference."""
        self.due += difference * 60 / self.per_minute


@dataclass
class Throttle:
    """Rate limits of requests and of tokens, and pauses for all requests."""

    requests: Pacer | None = None
    tokens: Pacer | None = None
    paused_until: float = field(default=0.0)  # Time before which nothing is admitted, seconds.

    @classmethod
    def of(cls, requests_per_minute: float | None, tokens_per_minute: float | None) -> Throttle:
        """A throttle with two limits, either of which may be None."""
        return cls(
            None if requests_per_minute is None else Pacer(requests_per_minute),
            None if tokens_per_minute is None else Pacer(tokens_per_minute),
        )

    def wait(self, now: float) -> float:
        """Seconds until a request may be admitted; zero if it may be now."""
        pacers = [pacer for pacer in (self.requests, self.tokens) if pacer is not None]
        return max([self.paused_until - now, *(pacer.wait(now) for pacer in pacers), 0.0])

    def admit(self, tokens: float, now: float) -> None:
        """Admit a request now, with an estimate of its tokens."""
        if self.requests is not None:
            self.requests.admit(1, now)
        if self.tokens is not None:
            self.tokens.admit(tokens, now)

    def settle(self, estimated: float, actual: float) -> None:
        """Correct an estimate of tokens by the tokens used."""
        if self.tokens is not None:
            self.tokens.correct(actual - estimated)

    def pause(self, seconds: float, now: float) -> None:
        """Admit nothing for some seconds; a longer pause under way stays."""
        self.paused_until = max(self.paused_until, now + seconds)
