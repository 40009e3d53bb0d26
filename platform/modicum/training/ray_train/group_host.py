"""Actors between the trial and the workers: the host of the group, and the guard after its end."""

from __future__ import annotations

import asyncio
import logging
import pickle
from contextlib import suppress
from typing import Any

import ray
from ray.actor import exit_actor
from ray.exceptions import RayActorError
from ray.util import remove_placement_group

from modicum.ray_support.private_api import actor_is_alive, placement_groups_of
from modicum.training.ray_train.messages import Reply, WorkerFailure, WorkerTask

_POLL_SECONDS = 0.1


class GroupHost:
    """Runs Ray Train in a thread, and mediates between the workers and the trial.

    A worker's `put_value` returns only when the trial asks for the next value, so the computation
    advances as a generator does.
    """

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._values: dict[int, bytes] = {}
        self._wanted = 0
        self._log: list[logging.LogRecord] = []
        self._failures: list[WorkerFailure] = []
        self._end: Reply | None = None

    async def start(self, task: WorkerTask, guard: Any) -> None:
        """Start the workers, and return at once."""
        this_actor = ray.get_runtime_context().current_actor
        self._running = asyncio.create_task(self._run(task, this_actor, guard))

    async def wait_forever(self) -> None:
        """Never return; the caller learns of the end of this process."""
        await asyncio.Event().wait()

    async def group_started(self) -> None:
        """Forget the failures of an earlier group; the first worker calls when a group is up."""
        self._failures = [failure for failure in self._failures if failure.final]

    async def put_value(self, index: int, value: bytes) -> None:
        """Take a value of the first worker, and return when the trial wants the next one."""
        async with self._changed:
            if index < self._wanted:
                return
            self._values[index] = value
            self._changed.notify_all()
            await self._changed.wait_for(lambda: self._wanted > index)

    async def report_failure(self, failure: WorkerFailure) -> None:
        """Take a worker's exception; never return if it is final.

        The worker may be ahead of the first one. If it ended now, Ray Train would stop the first
        one and start the group again. It ends with this process instead.
        """
        async with self._changed:
            self._failures.append(failure)
            self._changed.notify_all()
        if failure.final:
            await self.wait_forever()

    async def log(self, record: logging.LogRecord) -> None:
        """Take a log record of a worker."""
        self._log.append(record)

    async def next_reply(self, index: int) -> Reply:
        """Return the value with an index when it is there, or the error or end in its place."""
        async with self._changed:
            self._wanted = index
            self._values.pop(index - 1, None)
            self._changed.notify_all()
            await self._changed.wait_for(lambda: self._reply(index) is not None)
            log, self._log = self._log, []
            reply = self._reply(index)
            assert reply is not None
            return Reply(log, reply.value, reply.error)

    def _reply(self, index: int) -> Reply | None:
        if index in self._values:
            return Reply([], value=self._values[index])
        for failure in self._failures:
            if failure.final and failure.yields <= index:
                return Reply([], error=failure.error)
        return self._end

    async def _run(self, task: WorkerTask, this_actor: Any, guard: Any) -> None:
        # Loads torch, which the trial's process, in which this module is imported, does not need.
        from modicum.training.ray_train.worker_loop import run_trainer

        try:
            await asyncio.to_thread(run_trainer, task, this_actor, guard)
            end = Reply([])
        except Exception as error:
            end = Reply([], error=self._cause(error, task.settings.restarts))
        async with self._changed:
            self._end = end
            self._changed.notify_all()

    def _cause(self, error: Exception, restarts: int) -> bytes:
        """Pickled reason why Ray Train gave up: a worker's exception, or the death of one."""
        ranks = set(getattr(error, "worker_failures", {}))
        died = ranks - {failure.rank for failure in self._failures}
        if ranks and not died:
            return self._failures[0].error
        cause = RuntimeError(
            f"the process of worker {min(died)} died; training.restarts allows {restarts} restarts"
            if died
            else "the worker group could not be run"
        )
        cause.add_note(f"Ray Train said:\n{error}")
        return pickle.dumps(cause)


class PlacementGuard:
    """Removes the placement groups of Ray Train's controller after the host's end.

    It takes the place of Ray Train's own cleaner; see `private_api.torch_trainer`.
    """

    def __init__(self) -> None:
        self._controller: str | None = None

    async def follow(self, controller: str) -> None:
        """Remember the controller's actor id; the controller calls before it reserves anything."""
        self._controller = controller

    async def watch(self, host: Any) -> None:
        """Wait for the end of the host, clean up, and end this actor."""
        with suppress(RayActorError):
            await host.wait_forever.remote()
        if self._controller is not None:
            while actor_is_alive(self._controller):
                await asyncio.sleep(_POLL_SECONDS)
            for group in placement_groups_of(self._controller):
                remove_placement_group(group)
        exit_actor()  # type: ignore[no-untyped-call]
