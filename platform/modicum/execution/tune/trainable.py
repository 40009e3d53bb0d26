"""The function that Tune's actors run: a trial, whose messages become Tune's reports."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.tune import PlacementGroupFactory
from ray.tune.result import DONE

from modicum.execution.messages import EndMessage
from modicum.execution.recorder import Recorder
from modicum.execution.run_trial import run_trial
from modicum.experiment.experiment import Experiment
from modicum.experiment.resources import Resources
from modicum.planning.trial_plan import TrialPlan
from modicum.run_folder.trial_logs import log_file

if TYPE_CHECKING:
    from ray.tune.experiment import Trial as TuneTrial

# Keys of a report.
MESSAGE, HOST, SCORE = "modicum", "host", "modicum_score"


def tune_config(experiment: Experiment[Any], plan: TrialPlan) -> dict[str, Any]:
    """A trial in the form in which Tune takes it to an actor.

    Tune copies, flattens and encodes it many times, so the plan is one text.
    """
    resources = experiment.resources(plan.config)
    return {"id": plan.id, "plan": json.dumps(plan.as_json()), "resources": resources}


def trial_id(trial: TuneTrial) -> str:
    """The id of the study's trial that Tune runs."""
    return str(trial.config["id"])


def make_trainable(recorder: Recorder) -> Callable[[dict[str, Any]], None]:
    """The function for Tune's actors, with the resources of each trial.

    Args:
        recorder: Knows the experiment, the run folder and the checkpoints to resume from. The
            function is pickled, so it takes along what it needs of the recorder.
    """
    experiment = recorder.experiment
    resume = {
        name: trial.checkpoint
        for name, trial in recorder.trials.items()
        if trial.checkpoint is not None and trial.status == "pending"
    }
    location, filesystem = recorder.folder.root, recorder.folder.filesystem
    storage = recorder.storage("{}")
    root = recorder.folder.local
    inode = 0 if root is None else root.stat().st_ino

    def modicum_trial(config: dict[str, Any]) -> None:
        plan = TrialPlan.from_json(json.loads(config["plan"]), experiment)
        checkpoint = tune.get_checkpoint()
        if checkpoint is None and plan.id in resume:
            checkpoint = tune.Checkpoint(f"{location}/{resume[plan.id]}", filesystem)
        with contextlib.ExitStack() as stack:
            folder: Path | None = None
            if checkpoint is not None:
                folder = Path(stack.enter_context(checkpoint.as_directory()))
            metrics: dict[str, Any] = {}
            messages = run_trial(
                experiment,
                plan,
                config["resources"],
                checkpoint=folder,
                storage=storage.format(plan.id),
                log_file=root and log_file(root, inode, plan.id),
            )
            for message in stack.enter_context(contextlib.closing(messages)):
                report: dict[str, Any] = {MESSAGE: message, HOST: socket.gethostname()}
                saved = None
                if isinstance(message, EndMessage):
                    # Unless a report says so, Tune takes a trial for ended only when it asks for
                    # more: it would start one again whose process dies in between.
                    report[DONE] = True
                else:
                    metrics = {**message.metrics, "budget": message.budget}
                    score = experiment.selection_score(message.metrics)
                    metrics |= {} if score is None else {SCORE: score}
                    if message.checkpoint is not None:
                        saved = tune.Checkpoint.from_directory(str(message.checkpoint))
                # Schedulers and searchers look for their metric in every report.
                tune.report({**metrics, **report}, checkpoint=saved)

    resourced: Callable[[dict[str, Any]], None] = tune.with_resources(modicum_trial, placement)
    return resourced


def placement(config: dict[str, Any], *, own_process: bool = False) -> PlacementGroupFactory:
    """Resources that a trial reserves from Ray.

    Args:
        config: Tune's configuration of the trial.
        own_process: Keep Tune from handing the trial the process of one that started normally.
    """
    # Tune also asks without a trial.
    needs: Resources = config.get("resources", Resources())
    # Tune hands processes on where all arguments are equal, also where they mean the same.
    distinct = {"name": ""} if own_process else {}
    return PlacementGroupFactory([b.as_ray() for b in (needs.trial, *needs.actors)], **distinct)
