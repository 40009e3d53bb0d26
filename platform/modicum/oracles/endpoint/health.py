"""Knowledge about an endpoint that its replies have brought. Pure: no clock."""

from __future__ import annotations

import random

from modicum.oracles.endpoint.messages import Reply
from modicum.oracles.endpoint.settings import Endpoint

# Failed connections to an endpoint that has never replied before all questions fail.
_MOST_UNREACHABLE = 3


class EndpointHealth:
    """An endpoint's reachability, and the waits before requests are repeated.

    Args:
        endpoint: Settings of the waits.
        draws: Source of the waits' jitter.

    Attributes:
        structured: Whether requests ask for structured output.
    """

    def __init__(self, endpoint: Endpoint, draws: random.Random) -> None:
        self._first_wait, self._longest_wait = endpoint.first_wait, endpoint.longest_wait
        self._draws = draws
        self.structured = endpoint.structured_output
        self._reached = False
        self._unreachable = 0
        self._throttled = 0  # Since the last answer.

    def observe(self, reply: Reply) -> None:
        """Take note of a reply."""
        if reply.outcome == "answered":
            self._throttled = 0
        if reply.outcome == "unreachable":
            self._unreachable += 1
        else:
            self._reached = True

    def is_hopeless(self, reply: Reply) -> bool:
        """True if a reply says that every further request would fail, too."""
        never_there = not self._reached and self._unreachable >= _MOST_UNREACHABLE
        return reply.outcome == "fatal" or (reply.outcome == "unreachable" and never_there)

    def pause_for_all(self) -> float:
        """Seconds of the pause after a rate limit that named no wait; doubles with each call."""
        self._throttled += 1
        return self.backoff(self._throttled - 1)

    def backoff(self, doublings: int) -> float:
        """Seconds of an exponential backoff.

        The jitter (a factor from 0.5 to 1) spreads requests out that failed together.
        """
        wait = min(self._longest_wait, self._first_wait * 2.0 ** min(doublings, 60))
        return wait * self._draws.uniform(0.5, 1.0)
