"""Training on real worker groups of Ray Train, with DeepSpeed inside."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

import sharded_training
from modicum.errors import InputError
from modicum.experiment.trial import Trial
from modicum.training import Journal, TrainingSettings, Worker, build_engine, run_on_workers
from sharded_training import SETTINGS
from waiting import comes_true, cpus_come_back

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]

CASES: list[dict[str, Any]] = [
    {"zero_stage": 0},
    {"zero_stage": 1},
    {"zero_stage": 2},
    {"zero_stage": 3},
    {"zero_stage": 2, "precision": "bf16"},
    {"zero_stage": 3, "offload": "parameters"},
]
NAMES = ["zero-0", "zero-1", "zero-2", "zero-3", "zero-2-bf16", "zero-3-offload"]

# Workers add up the same gradients in another order: the last of fp32's 24 bits, a few times over
# in each of 5 updates. A gradient in bf16 has 8 bits.
TOLERANCES = {"fp32": 5e-6, "bf16": 5e-3}


def trial_of(folder: Path) -> Trial:
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    return Trial(id="trial", seed=0, scratch=scratch, storage=str(folder / "storage"))


def alone(folder: Path) -> Worker:
    return Worker(0, 1, torch.device("cpu"), Journal(folder / "storage"), folder)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trial")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("pretrained")
    sharded_training.tiny_gpt2().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def of_two(ray_cluster: None, storage: Path, pretrained: Path) -> list[dict[str, Any]]:
    """What two workers did in each case; an error of the second one ended it."""
    return until_fault(storage, 2, {"cases": CASES, "pretrained": str(pretrained)})


@pytest.fixture(scope="module")
def of_one(ray_cluster: None, of_two: object, storage: Path) -> list[dict[str, Any]]:
    """The same of a group of one, which also goes on from what two workers have kept."""
    return until_fault(storage, 1, {"cases": [CASES[0], CASES[3]], "kept": "2/fp32-2"})


def until_fault(storage: Path, workers: int, arguments: dict[str, Any]) -> list[dict[str, Any]]:
    values: Iterator[dict[str, Any]] = run_on_workers(
        sharded_training.check_engines,
        arguments,
        TrainingSettings(workers=workers),
        trial_of(storage),
    )
    seen = []
    with pytest.raises(InputError, match=r"^prompts: must be more, got none"):  # noqa: PT012
        for value in values:
            seen.append(value)
    return seen


def plainly(folder: Path, precision: str = "fp32") -> tuple[Any, Any, list[tuple[float, float]]]:
    """The module and engine of one process without DeepSpeed, and its first updates."""
    settings = TrainingSettings(**SETTINGS, precision=precision)  # type: ignore[arg-type]
    module = sharded_training.build(settings)
    engine = build_engine(module, settings, alone(folder))
    updates = sharded_training.numbers(sharded_training.train(engine, alone(folder)))
    return module, engine, updates


@pytest.mark.parametrize("number", range(len(CASES)), ids=NAMES)
def test_two_workers_train_as_one_process_does(
    of_two: list[dict[str, Any]], tmp_path: Path, number: int
) -> None:
    seen = of_two[number]
    precision = CASES[number].get("precision", "fp32")
    module, engine, updates = plainly(tmp_path, precision)
    tolerance = TOLERANCES[precision]

    losses, norms = zip(*updates, strict=True)
    assert [update[0] for update in seen["trained"]] == pytest.approx(losses, abs=tolerance)
    relative = 1e-5 if precision == "fp32" else 2e-2
    assert [update[1] for update in seen["trained"]] == pytest.approx(norms, rel=relative)
    assert [u[0] for u in seen["accumulated"]] == pytest.approx(losses, abs=tolerance)

    assert seen["updates_after_reset"] == 0
    assert seen["trained_again"] == seen["trained"]
    assert seen["went_on_elsewhere"] == seen["went_on"]

    # Trained weights come back as they were, and those of the start are exact.
    assert seen["trained_logits_again"] == seen["trained_logits"]
    with engine.at_start():
        assert seen["start_logits"] == sharded_training.logits(engine)

    # Generated as by an unsharded model with the same weights.
    assert seen["weights"].keys() == engine.weights().keys()
    module.load_state_dict(seen["weights"], strict=False)
    assert seen["generated"] == sharded_training.generated(module.model)


def test_one_worker_trains_as_one_process_does(
    of_one: list[dict[str, Any]], tmp_path: Path
) -> None:
    _, _, updates = plainly(tmp_path)
    for seen in of_one[:-1]:
        losses = [update[0] for update in seen["trained"]]
        assert losses == pytest.approx([update[0] for update in updates], abs=TOLERANCES["fp32"])
        assert seen["went_on_elsewhere"] == seen["went_on"]
        assert seen["trained_again"] == seen["trained"]


def test_what_two_workers_kept_is_gone_on_from_by_one_and_without_deepspeed(
    of_two: list[dict[str, Any]], of_one: list[dict[str, Any]], storage: Path
) -> None:
    """Kept in ZeRO 2; gone on from in ZeRO 0 by one worker, and in one process."""
    expected = [update[0] for update in of_two[2]["went_on"]]
    by_one = [update[0] for update in of_one[-1]["loaded"]]
    plain = sharded_training.go_on(alone(storage), "2/fp32-2", workers=0)
    assert by_one == pytest.approx(expected, abs=TOLERANCES["fp32"])
    assert [update[0] for update in plain] == pytest.approx(expected, abs=TOLERANCES["fp32"])


def test_weights_are_loaded_sharded_and_adapters_trained(
    of_two: list[dict[str, Any]], pretrained: Path, tmp_path: Path
) -> None:
    """With LoRA and activation checkpointing."""
    seen = of_two[len(CASES)]["adapters"]
    plain = sharded_training.adapters(alone(tmp_path), pretrained, workers=0)
    assert plain["share"] == 1
    assert seen["share"] == pytest.approx(1 / 2, abs=0.01)
    assert seen["weights"] == plain["weights"]
    assert all("lora" in name for name in plain["weights"])
    losses = [update[0] for update in plain["updates"]]
    assert losses[0] > losses[-1]
    assert [u[0] for u in seen["updates"]] == pytest.approx(losses, abs=TOLERANCES["fp32"])


def test_a_group_whose_worker_was_killed_ends_as_an_undisturbed_one(
    of_two: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Each value comes out once, and no other than in ZeRO 2's undisturbed run."""
    trial = trial_of(tmp_path)
    settings = TrainingSettings(workers=2, restarts=1)
    values = run_on_workers(sharded_training.killed_once, {"zero_stage": 2}, settings, trial)
    assert list(values) == [update[0] for update in of_two[2]["trained"]]
    assert Journal(tmp_path / "storage").read("killed") is not None


def test_a_trial_that_is_killed_leaves_no_worker_and_gives_back_its_cpus(tmp_path: Path) -> None:
    import ray

    actor: Any = ray.remote(sharded_training.KillableTrial).options(num_cpus=0.01).remote()
    process, workers = ray.get(actor.start.remote(trial_of(tmp_path)))
    assert ray.available_resources()["CPU"] < 0.1
    os.kill(process, signal.SIGKILL)
    assert comes_true(lambda: not any(map(psutil.pid_exists, workers)))
    assert cpus_come_back()


def test_a_trial_that_is_killed_while_its_workers_come_up_gives_back_its_cpus(
    tmp_path: Path,
) -> None:
    import ray

    actor: Any = ray.remote(sharded_training.KillableTrial).options(num_cpus=0.01).remote()
    actor.start.remote(trial_of(tmp_path))
    assert comes_true(lambda: ray.available_resources().get("CPU", 0) < 0.1)
    ray.kill(actor)
    assert cpus_come_back()


def test_a_trial_that_fails_gives_back_its_cpus_though_workers_may_start_again(
    tmp_path: Path,
) -> None:
    """The error is final: no group is started again between it and its arrival here."""
    settings = TrainingSettings(workers=1, restarts=3)
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        values = run_on_workers(sharded_training.fail, None, settings, trial_of(folder))
        with pytest.raises(InputError, match="prompts: none"):
            next(values)
        assert cpus_come_back()


def test_workers_that_do_not_fit_are_refused_at_once(tmp_path: Path) -> None:
    settings = TrainingSettings(workers=3)
    values = run_on_workers(sharded_training.wait_for_ever, None, settings, trial_of(tmp_path))
    start = time.monotonic()
    with pytest.raises(InputError, match=r"^training\.workers: 3 workers with 0\.99 CPUs each"):
        next(values)
    assert time.monotonic() - start < 5
