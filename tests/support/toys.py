"""Small experiments for tests of the platform."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Literal

import modicum as md
from waiting import comes_true


class DescentConfig(md.Config):
    method: Literal["fast", "slow", "noisy"] = md.setting("fast", description="How it descends.")
    rate: float = md.setting(0.5, description="Step size.", gt=0, le=1)
    noise: float = md.setting(
        0.0, description="Noise of each step.", ge=0, used_by={"method": ("noisy",)}
    )
    steps: int = md.setting(4, description="Number of records.", ge=1)
    fail_seed: int = md.setting(-1, description="Seed that raises.", identity=False)
    die_at: int = md.setting(-1, description="Record at which the process dies.", identity=False)
    marker: str = md.setting("", description="File that says it has died.", identity=False)
    seconds: float = md.setting(0.0, description="Sleep before a record.", identity=False)
    checkpoints: bool = md.setting(False, description="Save checkpoints.", identity=False)
    ledger: str = md.setting("", description="File that logs every step.", identity=False)


class Descent(md.Experiment[DescentConfig]):
    """Multiplies x by a factor below 1 in each step, and yields a record per step."""

    name = "descent"
    version = "1"
    budget_unit = "samples"
    Config = DescentConfig
    selection_metric = "test/loss"
    metrics = {  # noqa: RUF012
        "test/loss": md.Metric("|x|.", goal="min"),
        "start": md.Metric("x at the start."),
        "resumed_at": md.Metric("First step of this process.", timing=True),
    }

    def check(self, config: DescentConfig) -> None:
        if config.method == "slow" and config.rate > 0.9:
            raise md.InputError("rate: slow needs at most 0.9")

    def saves_checkpoints(self, config: DescentConfig) -> bool:
        return config.checkpoints

    def run(self, config: DescentConfig, trial: md.Trial) -> Iterator[md.Record]:
        x = start = float(trial.generator("start").uniform(1, 2))
        first = 0
        if trial.checkpoint is not None:
            state = json.loads((trial.checkpoint / "state.json").read_text())
            x, first = state["x"], state["step"] + 1
        factor = 1 - config.rate if config.method != "slow" else 1 - config.rate / 10
        for step in range(first, config.steps):
            if trial.seed == config.fail_seed:
                print("about to fail")
                raise ZeroDivisionError("the toy was told to fail")
            if step == config.die_at and not Path(config.marker).exists():
                Path(config.marker).touch()
                os._exit(17)
            time.sleep(config.seconds)
            x *= factor
            if config.method == "noisy":
                x += config.noise * float(trial.generator(f"noise {step}").normal())
            if config.ledger:
                with open(config.ledger, "a") as file:
                    file.write(f"{trial.id} {step}\n")
            trial.log.info("step %d: %f", step, x)
            folder = None
            if config.checkpoints:
                folder = trial.scratch / f"step{step}"
                folder.mkdir()
                (folder / "state.json").write_text(json.dumps({"x": x, "step": step}))
            metrics = {"test/loss": abs(x), "start": start, "resumed_at": first}
            yield md.Record(budget=10 * (step + 1), metrics=metrics, checkpoint=folder)


class NeedsRay(Descent):
    """`Descent`, declared as starting actors."""

    name = "needs_ray"
    needs_ray = True

    def resources(self, config: DescentConfig) -> md.Resources:
        return md.Resources(trial=md.Bundle(cpus=0.5), nested=(md.Bundle(cpus=1.0),))


class BallastConfig(md.Config):
    megabytes: int = md.setting(description="Size of the array.", unit="MB", ge=0)


class Ballast(md.Experiment[BallastConfig]):
    """Holds an array for longer than the interval between two measurements of memory."""

    name = "ballast"
    version = "1"
    budget_unit = "samples"
    Config = BallastConfig
    metrics = {"sum": md.Metric("Sum of the array.", goal="max")}  # noqa: RUF012

    def run(self, config: BallastConfig, trial: md.Trial) -> Iterator[md.Record]:
        import numpy as np

        array = np.ones(config.megabytes * 1_000_000, dtype=np.uint8)
        time.sleep(2.5)
        yield md.Record(budget=0, metrics={"sum": int(array.sum())})


class Rising(Descent):
    """Its loss grows, and it fails at step 3 until the marker exists."""

    def run(self, config, trial):
        first = 0 if trial.checkpoint is None else trial.records_done
        for step in range(first, config.steps):
            if step == 3 and not Path(config.marker).exists():
                raise RuntimeError("not yet")
            print(f"step {step}")
            folder = trial.scratch / f"step{step}"
            folder.mkdir()
            (folder / "state.json").write_text(json.dumps({"step": step}))
            yield md.Record(budget=step, metrics={"test/loss": float(step)}, checkpoint=folder)


class DyingLate(Descent):
    """Its process dies soon after the trial was recorded as ended, while it waits for the next one.

    `marker` is the run folder; each seed draws its delay, up to `seconds`.
    """

    name = "dying_late"

    def run(self, config, trial):
        yield md.Record(budget=1, metrics={"test/loss": 1.0})
        delay = config.seconds * float(trial.generator("delay").uniform())
        record = Path(config.marker, "trials", trial.id, "trial.json")
        Thread(target=_die_after, args=(record, delay), daemon=True).start()


def _die_after(record: Path, delay: float) -> None:
    while json.loads(record.read_text())["status"] != "finished":
        time.sleep(0.005)
    time.sleep(delay)
    os._exit(17)


# Test rows of `Answers`.
ROWS = 60


class AnswersConfig(md.Config):
    method: Literal["good", "bad"] = md.setting("good", description="Which share is right.")
    told: Literal["all", "none", "first", "wrong", "undeclared"] = md.setting(
        "all", description="Outcomes that its records have."
    )


class Answers(md.Experiment[AnswersConfig]):
    """Answers that are right more often on some rows than on others."""

    name = "answers"
    version = "1"
    budget_unit = "labels"
    Config = AnswersConfig
    metrics = {  # noqa: RUF012
        "accuracy": md.Metric("Share of right answers.", goal="max", outcomes=True),
        "size": md.Metric("Number of rows."),
    }

    def run(self, config: AnswersConfig, trial: md.Trial) -> Iterator[md.Record]:
        right = right_answers(config.method, trial.seed)
        accuracy = float(right.mean())
        outcomes = {
            "all": {"accuracy": right},
            "none": {},
            "first": {"accuracy": right},
            "wrong": {"accuracy": ~right},
            "undeclared": {"size": right},
        }[config.told]
        metrics = {"accuracy": accuracy, "size": ROWS}
        yield md.Record(budget=1, metrics=metrics, outcomes=outcomes)
        if config.told == "first":
            yield md.Record(budget=2, metrics={**metrics, "accuracy": accuracy / 2})


def right_answers(method, seed):
    """Right or wrong on each test row, as the method answers under a seed."""
    import numpy as np

    hard = np.linspace(0, 1, ROWS)
    draw = np.random.default_rng([seed, method == "good"])
    return draw.random(ROWS) > hard * (0.3 if method == "good" else 0.6)


class Killed(Descent):
    """Its process is killed before records: `fast` once before each, `slow` always before one."""

    name = "killed"

    def run(self, config, trial):
        for record in itertools.chain([None], super().run(config, trial)):
            if record is not None:
                yield record
            done = trial.records_done if record is None else record.budget // 10
            mark = Path(f"{config.marker}-{config.method}-{done:g}")
            if done == config.die_at or (config.method == "fast" and not mark.exists()):
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)


class LeavesDeath(Descent):
    """Seed 0 leaves a thread that kills the process of the next trial, whichever that is."""

    name = "leaves_death"

    def resources(self, config):
        return md.Resources(md.Bundle(cpus=2))

    def run(self, config, trial):
        mark = Path(config.marker)
        if trial.seed == 0:
            Thread(target=_die_with, args=[mark], daemon=True).start()
        elif not mark.exists():
            mark.touch()
            time.sleep(60)
        yield md.Record(budget=1, metrics={"test/loss": 1.0})


def _die_with(mark):
    while not mark.exists():
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGKILL)


class Surroundings(Descent):
    """Records the environment of its process, and of an actor that it starts."""

    name = "surroundings"
    metrics = {name: md.Metric(name) for name in ("MODICUM_DATA", "OWN", "child")}  # noqa: RUF012

    def resources(self, config):
        return md.Resources(md.Bundle(resources={"node:__internal_head__": 0.01}))

    def run(self, config, trial):
        import ray

        child = ray.remote(num_cpus=0)(lambda: f"{os.getenv('MODICUM_DATA')} {os.getenv('OWN')}")
        found = {name: os.getenv(name) for name in ("MODICUM_DATA", "OWN")}
        yield md.Record(budget=1, metrics={**found, "child": ray.get(child.remote())})


class NeedsTpu(Descent):
    name = "needs_tpu"

    def resources(self, config):
        return md.Resources(md.Bundle(resources={"TPU": 1}))


class Gated(Descent):
    """Waits for the marker before its first record."""

    name = "gated"

    def run(self, config, trial):
        assert comes_true(Path(config.marker).exists)
        yield from super().run(config, trial)
