"""Every use of Ray's private interfaces, each with the reason for it.

Ray may change them in any release. All were tried with Ray 2.60.0. With Ray 2.57.1 the tests of
studies, clusters and failures in tests/platform/execution pass, too, and no others were run; look
through this file before allowing another version in pyproject.toml.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.tune.experiment import Trial as TuneTrial
    from ray.util.placement_group import PlacementGroup

# Logs every package that is uploaded; only a logger's name, so nothing breaks if it changes.
PACKAGING_LOGGER = "ray._private.runtime_env.packaging"


def dashboard_address() -> str | None:
    """`host:port` of the connected cluster's dashboard; None if it has none.

    `ray.init` returns the address, but only to the program that started the connection.
    """
    from ray._private.worker import get_dashboard_url

    address: str | None = get_dashboard_url()  # type: ignore[no-untyped-call]
    return address


def available_resources() -> Mapping[str, Mapping[str, float]]:
    """Free resources of each node of the connected cluster, by node id.

    The public `ray.available_resources` only has the cluster's sum.
    """
    from ray._private.state import available_resources_per_node

    free: Mapping[str, Mapping[str, float]] = available_resources_per_node()  # type: ignore[no-untyped-call]
    return free


def actor_is_alive(actor_id: str) -> bool:
    """Tell from Ray's table of actors whether the actor with this id has not ended.

    The public state API asks the dashboard, which a private cluster does not have.
    """
    from ray._private.state import actors

    return actors(actor_id).get("State", "DEAD") != "DEAD"  # type: ignore[no-any-return]


def placement_groups_of(actor_id: str) -> list[PlacementGroup]:
    """Placement groups that an actor created and that have not been removed.

    The public `placement_group_table` does not tell the creator.
    """
    import ray
    from ray._private.state import state
    from ray.core.generated import gcs_pb2
    from ray.util.placement_group import PlacementGroup

    accessor: Any = state._connect_and_get_accessor()
    table: Any = gcs_pb2.PlacementGroupTableData  # type: ignore[attr-defined]
    groups = map(table.FromString, accessor.get_placement_group_table())
    return [
        PlacementGroup(ray.PlacementGroupID(group.placement_group_id))
        for group in groups
        if group.creator_actor_id.hex() == actor_id and group.state != table.REMOVED
    ]


def torch_trainer(on_controller_start: Callable[[str], None]) -> Any:
    """A `TorchTrainer` class without Ray Train's own cleaner of placement groups.

    That cleaner learns of a placement group only when the workers are up, so it loses one whose
    workers never start. It also asks the dashboard whether the controller lives.

    Args:
        on_controller_start: Called in Ray Train's controller with the controller's actor id,
            before the controller reserves anything.
    """
    from ray.train.torch import TorchTrainer
    from ray.train.v2._internal.callbacks.placement_group_callback import (
        PlacementGroupCleanerCallback,
    )
    from ray.train.v2._internal.execution.callback import ControllerCallback

    trainer: Any = TorchTrainer  # Ray's annotations have gaps.
    controller_callback: Any = ControllerCallback

    class OnControllerStart(controller_callback):  # type: ignore[misc]
        def after_controller_start(self, train_run_context: Any) -> None:
            import ray

            actor_id = ray.get_runtime_context().get_actor_id()
            assert actor_id is not None
            on_controller_start(actor_id)

    class Trainer(trainer):  # type: ignore[misc]
        def _create_default_callbacks(self) -> list[Any]:
            defaults = super()._create_default_callbacks()
            kept = [c for c in defaults if not isinstance(c, PlacementGroupCleanerCallback)]
            return [OnControllerStart(), *kept]

    return Trainer


def scheduler_objective(scheduler: Any) -> tuple[str | None, str | None]:
    """Metric and mode that a Tune scheduler was constructed with.

    Unlike searchers, schedulers have no public attribute for the mode.
    """
    return getattr(scheduler, "_metric", None), getattr(scheduler, "_mode", None)


def scheduler_time(scheduler: Any) -> str | None:
    """Name of the value by which a Tune scheduler measures a trial's progress.

    Schedulers have no public attribute for it.
    """
    return getattr(scheduler, "_time_attr", None)


def stop_tune_trial(tune_controller: Any, trial: TuneTrial) -> None:
    """Stop one of Tune's trials at once, and free its resources.

    A public `Stopper` is asked only when the trial reports. A busy actor would be waited for until
    then, or be handed to the next trial, so it is killed; Tune then has the trial pending again,
    and the next call stops it. A trial without a folder is left alone for now, because Tune's code
    for ending a trial needs the folder.

    Args:
        tune_controller: As Tune passes it to `TrialScheduler.choose_trial_to_run`.
        trial: One of the controller's live trials.
    """
    import ray

    actor = trial.temporary_state.ray_actor
    if trial.status == trial.RUNNING and actor is not None:
        ray.kill(actor)
    elif trial.storage is not None and trial.storage.trial_dir_name is not None:
        tune_controller.stop_trial(trial)


@contextmanager
def tune_actors_in(runtime_env: Mapping[str, Any]) -> Iterator[None]:
    """Have Tune start its actors in a runtime environment, for runs in a block.

    Tune's API has no place for one. Variables are joined with those that Tune sets itself.
    """
    import ray
    from ray.tune.execution import tune_controller

    module: Any = tune_controller
    usual: Any = module._ActorClassCache

    class Classes(usual):  # type: ignore[misc]
        def get(self, trainable: type) -> Any:
            if trainable in self._cache:
                return self._cache[trainable]
            variables = super().get(trainable)._default_options["runtime_env"]["env_vars"]
            variables = {**variables, **runtime_env.get("env_vars", {})}
            joined = {**runtime_env, "env_vars": variables}
            self._cache[trainable] = ray.remote(runtime_env=joined)(trainable)
            return self._cache[trainable]

    module._ActorClassCache = Classes
    try:
        yield
    finally:
        module._ActorClassCache = usual


def actor_of(trial: TuneTrial) -> str | None:
    """Id of the actor in which one of Tune's trials has started; None if it has none.

    Tune's callbacks are not told of actors.
    """
    actor = trial.temporary_state.ray_actor
    return None if actor is None else actor._actor_id.hex()


def died_with_node(trial: TuneTrial) -> bool:
    """Tell whether the last process of one of Tune's trials died with its node.

    Tune itself asks for nodes only that were drained for preemption. Of a node that has failed,
    Ray's error says so in its text, or at first that the actor cannot be reached: of a process
    that has died by itself, its node tells at once.
    """
    import pickle

    from ray.exceptions import ActorUnavailableError, RayActorError

    if trial.pickled_error_file is None:
        return False
    with open(trial.pickled_error_file, "rb") as file:
        error = pickle.load(file)
    cause = getattr(error, "cause", None)
    found = cause if isinstance(cause, RayActorError) else error
    if isinstance(found, ActorUnavailableError):
        return True
    return isinstance(found, RayActorError) and (found.preempted or "node has died" in str(found))


def end_actor_with_trial(tune_controller: Any, trial: TuneTrial) -> None:
    """End the actor of one of Tune's trials with the trial, although Tune reuses actors.

    Publicly, a study reuses all actors or none. Tune hands on only actors that it has noted as
    started, and uses that note for nothing else.

    Args:
        tune_controller: As Tune passes it to its scheduler.
        trial: A trial that has an actor.
    """
    controller = getattr(tune_controller, "_tune_controller", tune_controller)
    controller._started_actors.discard(controller._trial_to_actor.get(trial))


def wandb_callback(start_actors: Callable[[type], Any], **options: Any) -> Any:
    """Ray's `WandbLoggerCallback` with another way to start its logging actors.

    Ray would put the API key into the actors' runtime environment, which the job API shows to
    anyone who may ask.

    Args:
        start_actors: Takes the class of the actors and returns an object whose `remote(...)` starts
            one. The class ends wandb's own process when a run ends; Ray kills the actor right
            afterwards, and with it a process that may still be writing.
        options: Passed to the callback.
    """
    from ray.air.integrations.wandb import WandbLoggerCallback

    class Callback(WandbLoggerCallback):
        def log_trial_start(self, trial: Any) -> None:
            if self._remote_logger_class is None:
                self._remote_logger_class = start_actors(_flushing(self._logger_actor_cls))
            super().log_trial_start(trial)

    return Callback(**options)


def _flushing(logging_actor: type) -> type:
    class FlushingActor(logging_actor):  # type: ignore[misc]
        def run(self) -> None:
            super().run()
            self._wandb.teardown()

    return FlushingActor


def tune_searchers() -> dict[str, Callable[[], Any]]:
    """Functions by a searcher's name that import the searcher's class.

    The public `ray.tune.search.create_searcher` drops options that the class does not know.
    """
    from ray.tune.search import SEARCH_ALG_IMPORT

    return dict(SEARCH_ALG_IMPORT)


def tune_schedulers() -> dict[str, Any]:
    """Classes of schedulers by name.

    The public `ray.tune.schedulers.create_scheduler` drops options that the class does not know.
    """
    from ray.tune.schedulers import SCHEDULER_IMPORT

    return dict(SCHEDULER_IMPORT)


def distribution_of(domain: Any) -> tuple[str, Any, float | None]:
    """Distribution of a Tune domain: its name such as `LogUniform`, its sampler, and its quantum.

    Domains have no public attribute for them.
    """
    sampler = domain.get_sampler()
    quantum: float | None = getattr(sampler, "q", None)
    inner = sampler if quantum is None else getattr(sampler, "sampler", sampler)
    return type(inner).__name__.strip("_"), inner, quantum
