"""An actor that removes the workers' placement group when the group host is gone."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from ray import actor
from ray.exceptions import RayActorError
from ray.util import remove_placement_group

from modicum.ray_support.private_api import actor_is_alive, placement_groups_of

_POLL_SECONDS = 0.1


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
        actor.exit_actor()  # type: ignore[no-untyped-call]
