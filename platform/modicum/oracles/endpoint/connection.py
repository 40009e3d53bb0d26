"""A client's connection to the gate of an endpoint: found or started, and kept alive."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Sequence
from typing import Any

import ray

from modicum.errors import InputError
from modicum.oracles.endpoint.budget import Budget
from modicum.oracles.endpoint.gate import Gate
from modicum.oracles.endpoint.messages import Answer, Batch, GateLeavingError
from modicum.oracles.endpoint.settings import Endpoint
from modicum.oracles.endpoint.templates import Template
from modicum.oracles.protocol import digest
from modicum.oracles.questions import Question
from modicum.ray_support.connection import ensure_connected

NAMESPACE = "modicum-oracles"
_RENEW_SECONDS = 5.0
# Seconds in which a gate must be found or started. Also the lifetime from which a gate counts as
# healthy.
_PATIENCE = 60.0
# Unhealthy gates in a row before their error is raised.
_MOST_GATES = 10
_BATCH = 1000


class GateConnection:
    """A client's access to an endpoint's gate; a gate that ends is replaced by another."""

    def __init__(self, endpoint: Endpoint, run: str, budget: Budget) -> None:
        self._endpoint, self._run, self._budget = endpoint, run, budget
        self._current: Lease | None = None

    def ask(
        self, questions: Sequence[Question], template: Template, max_tokens: int
    ) -> dict[str, Answer]:
        """Answers by the questions' keys.

        Raises:
            InputError: The gate cannot be used, or every request would fail.
        """
        short_lived = 0
        while True:
            lease = self.lease()
            started = time.monotonic()
            try:
                return lease.ask(questions, template, max_tokens)
            except (ray.exceptions.RayActorError, GateLeavingError):
                # Answers so far are in the gate's ledger.
                self.close()
                healthy = time.monotonic() - started >= _PATIENCE
                short_lived = 0 if healthy else short_lived + 1
                if short_lived > _MOST_GATES:
                    raise
                time.sleep(0.2)
            except KeyboardInterrupt:
                self.close()  # Unsent questions are given up.
                raise

    def lease(self) -> Lease:
        """The lease on a gate, taken out if there is none.

        Raises:
            InputError: The gate cannot be used.
        """
        if self._current is None or not self._current.usable():
            self.close()
            self._current = Lease(self._endpoint, self._run, self._budget)
        return self._current

    def close(self) -> None:
        """Give the lease back."""
        if self._current is not None:
            self._current.close()
            self._current = None


class Lease:
    """A lease on a gate that was found or started; a background thread renews it.

    Raises:
        InputError: The gate cannot be used.
    """

    def __init__(self, endpoint: Endpoint, run: str, budget: Budget) -> None:
        ensure_connected()
        self.client = uuid.uuid4().hex
        self._place = _place()
        self.gate = _attach(endpoint, self.client, run, budget)
        self._ended = threading.Event()
        threading.Thread(target=self._renew, daemon=True, name="oracle lease").start()

    def _renew(self) -> None:
        # Without Ray, a call from here would start another cluster.
        while not self._ended.wait(_RENEW_SECONDS) and self.usable():
            with contextlib.suppress(Exception):  # The next question notices a gate that is gone.
                self.gate.renew.remote(self.client)

    def usable(self) -> bool:
        """True while Ray is connected to the cluster on which the gate was found."""
        return ray.is_initialized() and _place() == self._place

    def ask(
        self, questions: Sequence[Question], template: Template, max_tokens: int
    ) -> dict[str, Answer]:
        """Answers by the questions' keys.

        Raises:
            InputError: Every request would fail.
            GateLeavingError: The gate has let this client go.
            ray.exceptions.RayActorError: The gate has ended.
        """
        parts = [
            tuple(questions[start : start + _BATCH]) for start in range(0, len(questions), _BATCH)
        ]
        batches = [Batch(self.client, template, max_tokens, part) for part in parts]
        replies = _get([self.gate.judge.remote(batch) for batch in batches])
        return {
            question.key: answer
            for part, answers in zip(parts, replies, strict=True)
            for question, answer in zip(part, answers, strict=True)
        }

    def status(self) -> dict[str, Any]:
        """The gate's status."""
        found: dict[str, Any] = ray.get(self.gate.status.remote())
        return found

    def close(self) -> None:
        """Give the lease back."""
        self._ended.set()
        if self.usable():
            with contextlib.suppress(Exception):  # The gate may have ended.
                self.gate.detach.remote(self.client)


def _place() -> tuple[str, str]:
    """Identity of the connection to Ray; every private cluster numbers its jobs from 1."""
    context = ray.get_runtime_context()
    return context.get_node_id(), context.get_job_id()


def _attach(endpoint: Endpoint, client: str, run: str, budget: Budget) -> Any:
    """Attach to the endpoint's gate, which is started on the head node if there is none."""
    until = time.monotonic() + _PATIENCE
    # The gate's process has another working directory, for which a relative path would be wrong.
    ledger = None if endpoint.ledger is None else endpoint.ledger_file
    settled = endpoint.model_copy(update={"ledger": ledger})
    while True:
        gate: Any = (
            ray.remote(Gate)
            .options(
                name=f"gate-{digest(endpoint.gate)[:16]}",
                namespace=NAMESPACE,
                lifetime="detached",
                get_if_exists=True,
                num_cpus=0,
                max_concurrency=10_000,
                resources={"node:__internal_head__": 0.001},
                # Outside the resources of the trial that happens to ask first.
                scheduling_strategy="DEFAULT",
            )
            .remote(endpoint.gate)
        )
        try:
            _get(gate.attach.remote(client, settled, run, budget))
        except (ray.exceptions.RayActorError, GateLeavingError):
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
        else:
            return gate


def _get(references: Any) -> Any:
    """Results of calls; the gate's own exceptions come without Ray's wrapping."""
    try:
        return ray.get(references)
    except ray.exceptions.RayTaskError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, InputError | GateLeavingError):
            raise type(cause)(*cause.args) from None
        raise
