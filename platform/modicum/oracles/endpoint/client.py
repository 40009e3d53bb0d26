"""An oracle behind an endpoint, as a program uses it."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from modicum.errors import InputError
from modicum.oracles.endpoint.budget import Budget
from modicum.oracles.endpoint.messages import Answer, Batch, GateLeavingError
from modicum.oracles.endpoint.settings import Endpoint
from modicum.oracles.endpoint.templates import Template
from modicum.oracles.protocol import Failure, Judgement, Order, Pair, digest, other, winner_of
from modicum.oracles.questions import Question

NAMESPACE = "modicum-oracles"
_RENEW = 5.0
_PATIENCE = 60.0
# Gates that may end one after another within that time before the reason is raised.
_GATES = 10
_CHUNK = 1000


class EndpointOracle:
    """A language model behind an OpenAI-compatible endpoint.

    All oracles on a cluster that name the same endpoint share its gate, and so its limits, its
    budget and its ledger. Uses the Ray cluster that the program is connected to, or starts one.

    Args:
        model: The endpoint's name for the model.
        template: The question's wording; a shipped one by name, a file, or a `Template`.
        endpoint: Where the model is, what is allowed, what it costs.
        temperature: Of the model's sampling.
        max_tokens: Tokens that an answer may have, reason included.
        both_orders: Ask in both orders, and say whether the winner is the same. The winner is that
            of the order that the pair's seed drew.
        run: Name under which spending is added up, over restarts, too.
        budget: What this run may spend.

    Raises:
        InputError: A value is not allowed, or a budget cannot be kept with what is known.
    """

    def __init__(
        self,
        model: str,
        template: str | Template,
        *,
        endpoint: Endpoint | None = None,
        temperature: float = 0.0,
        max_tokens: int = 256,
        both_orders: bool = False,
        run: str | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.model = model
        self.template = Template.load(template) if isinstance(template, str) else template
        self.endpoint = endpoint or Endpoint()
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.both_orders = both_orders
        self.run = run or "unnamed"
        self.budget = budget or Budget()
        if not model:
            raise InputError("model: name one that the endpoint serves")
        if not 0 <= temperature <= 2:
            raise InputError(f"temperature: must be from 0 to 2, got {temperature!r}")
        if max_tokens < 1:
            raise InputError(f"max_tokens: must be at least 1, got {max_tokens!r}")
        if run is None and self.budget != Budget():
            raise InputError("run: name the run whose budget this is, so that a restart knows it")
        capped = self.budget.dollars is not None or self.endpoint.budget.dollars is not None
        if capped and model not in self.endpoint.prices:
            raise InputError(
                f"prices: a budget in dollars needs the price of {model!r} (dollars per million "
                "tokens, as {input: ..., output: ...})"
            )
        self._connection: _Connection | None = None

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model

    @property
    def version(self) -> str:
        """The wording and the temperature."""
        return f"{self.template.name} {self.template.digest}, temperature {self.temperature:g}"

    def questions(
        self, pairs: Sequence[Pair], *, repeat: int = 0
    ) -> list[tuple[Question, Question | None]]:
        """What is asked about each pair: in the order drawn, and in the other one if both are.

        Raises:
            InputError: A pair's text is no valid text.
        """
        return [self._questions(index, pair, repeat) for index, pair in enumerate(pairs)]

    def _questions(self, index: int, pair: Pair, repeat: int) -> tuple[Question, Question | None]:
        for field in ("prompt", "first", "second"):
            try:
                getattr(pair, field).encode("utf-8")
            except UnicodeEncodeError:
                raise InputError(f"pairs: {field} of pair {index} is no valid text") from None

        def ask(order: Order) -> Question:
            return Question(
                prompt=pair.prompt,
                first=pair.first,
                second=pair.second,
                order=order,
                model=self.model,
                temperature=self.temperature,
                template=self.template.digest,
                repeat=repeat,
            )

        drawn = pair.order
        return ask(drawn), ask(other(drawn)) if self.both_orders else None

    def judge(self, pairs: Sequence[Pair], *, repeat: int = 0) -> list[Judgement | Failure]:
        """One answer for each pair, in order; each is in the ledger before this returns.

        Blocks. If the program is killed, running it again asks only what was not answered.

        Raises:
            InputError: Nothing can be asked: no key, a wrong address or model, no credit, a ledger
                that cannot be used. What was answered before is in the ledger.
        """
        asked = self.questions(pairs, repeat=repeat)
        distinct = {q.key: q for both in asked for q in both if q is not None}
        answers = self._answers(list(distinct.values()))
        judged: list[Judgement | Failure] = []
        for drawn, turned in asked:
            verdicts = [answers[q.key] for q in (drawn, turned) if q is not None]
            judged.append(self._judgement(drawn, *verdicts))
            for question in (drawn, turned):
                if question is not None:  # The same pair again costs nothing.
                    answers[question.key] = _again(answers[question.key])
        return judged

    def _judgement(
        self, question: Question, answer: Answer, turned: Answer | None = None
    ) -> Judgement | Failure:
        cost = answer.dollars + (0.0 if turned is None else turned.dollars)
        if answer.letter is None:
            assert answer.failure is not None
            return Failure(
                reason=answer.failure,
                message=answer.message,
                oracle=self.name,
                version=self.version,
                cost=cost,
            )
        winner = winner_of(answer.letter, question.order)
        judgement = Judgement(
            winner=winner,
            rationale=answer.rationale,
            oracle=self.name,
            version=self.version,
            order_shown=question.order,
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
            cost=cost,
            latency=answer.latency,
            cached=answer.cached,
        )
        if turned is None:
            return judgement
        same = None
        if turned.letter is not None:
            same = winner == winner_of(turned.letter, other(question.order))
        return replace(
            judgement,
            prompt_tokens=answer.prompt_tokens + turned.prompt_tokens,
            completion_tokens=answer.completion_tokens + turned.completion_tokens,
            latency=max(answer.latency, turned.latency),
            cached=answer.cached and turned.cached,
            consistent=same,
        )

    def _answers(self, questions: Sequence[Question]) -> dict[str, Answer]:
        """Answers by key; a gate that ended meanwhile is started again and asked again."""
        import ray

        short_lived = 0
        while True:
            connection = self._connected()
            started = time.monotonic()
            try:
                return connection.ask(self._batches(questions, connection))
            except (ray.exceptions.RayActorError, GateLeavingError):
                # Answers so far are in its ledger.
                self.close()
                lasted = time.monotonic() - started
                short_lived = short_lived + 1 if lasted < _PATIENCE else 0
                if short_lived > _GATES:
                    raise
                time.sleep(0.2)
            except KeyboardInterrupt:
                self.close()  # What was not sent is not sent any more.
                raise

    def _batches(self, questions: Sequence[Question], connection: _Connection) -> list[Batch]:
        return [
            Batch(
                client=connection.client,
                template=self.template,
                max_tokens=self.max_tokens,
                questions=tuple(questions[start : start + _CHUNK]),
            )
            for start in range(0, len(questions), _CHUNK)
        ]

    def _connected(self) -> _Connection:
        if self._connection is None or not self._connection.usable():
            self.close()
            self._connection = _Connection(self.endpoint, self.run, self.budget)
        return self._connection

    def status(self) -> dict[str, Any]:
        """What the gate is doing: clients, questions waiting and under way, spending, workers."""
        return self._connected().status()

    def close(self) -> None:
        """Let the gate go; it ends when its last client has been gone for its lease."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        """Travels to other processes without its connection: they make their own."""
        return {**self.__dict__, "_connection": None}


class _Connection:
    """A client's hold on a gate: found or started, and its lease renewed in the background.

    Raises:
        InputError: As `EndpointOracle.judge`.
    """

    def __init__(self, endpoint: Endpoint, run: str, budget: Budget) -> None:
        from modicum.ray_support.connection import ensure_connected

        ensure_connected()
        self.client = uuid.uuid4().hex
        self._place = _place()
        self._gate = _attach(endpoint, self.client, run, budget)
        self._ended = threading.Event()
        self._renewing = threading.Thread(target=self._renew, daemon=True, name="oracle lease")
        self._renewing.start()

    def _renew(self) -> None:
        # Without Ray, a call from here would start a cluster of its own.
        while not self._ended.wait(_RENEW) and self.usable():
            with contextlib.suppress(Exception):  # A gate that is gone is noticed by who asks.
                self._gate.renew.remote(self.client)

    def usable(self) -> bool:
        """Whether Ray is still the one that the gate was found on."""
        import ray

        return ray.is_initialized() and _place() == self._place

    def ask(self, batches: Sequence[Batch]) -> dict[str, Answer]:
        """Answers by the questions' keys.

        Raises:
            GateLeavingError: The gate let this client go.
        """
        replies = _get([self._gate.judge.remote(batch) for batch in batches])
        return {
            question.key: answer
            for batch, answers in zip(batches, replies, strict=True)
            for question, answer in zip(batch.questions, answers, strict=True)
        }

    def status(self) -> dict[str, Any]:
        import ray

        found: dict[str, Any] = ray.get(self._gate.status.remote())
        return found

    def close(self) -> None:
        self._ended.set()
        if self.usable():
            with contextlib.suppress(Exception):  # It may have ended.
                self._gate.detach.remote(self.client)


def _place() -> tuple[str, str]:
    """Tells connections to Ray apart: every private cluster numbers its jobs from 1."""
    import ray

    context = ray.get_runtime_context()
    return context.get_node_id(), context.get_job_id()


def _attach(endpoint: Endpoint, client: str, run: str, budget: Budget) -> Any:
    """The endpoint's gate on this cluster, started on its head node if there is none."""
    import ray

    from modicum.oracles.endpoint.gate import Gate

    until = time.monotonic() + _PATIENCE
    # A relative path means something else in the gate's process.
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
                # Not among what is reserved for the trial that happens to ask first.
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
    """Values of calls, and the gate's own exceptions without Ray's wrapping."""
    import ray

    try:
        return ray.get(references)
    except ray.exceptions.RayTaskError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, InputError | GateLeavingError):
            raise type(cause)(*cause.args) from None
        raise


def _again(answer: Answer) -> Answer:
    return replace(
        answer, prompt_tokens=0, completion_tokens=0, dollars=0.0, latency=0.0, cached=True
    )
