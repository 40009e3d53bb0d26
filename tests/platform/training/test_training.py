from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch

from modicum.errors import InputError
from modicum.training import Journal, PlainEngine, TrainingSettings, Worker, build_engine

SETTINGS = TrainingSettings(learning_rate=0.1, weight_decay=0.1, gradient_clipping=0.5, warmup=2)


def worker(folder: Path) -> Worker:
    return Worker(0, 1, torch.device("cpu"), Journal(folder / "journal"), folder)


def line() -> torch.nn.Module:
    module = torch.nn.Linear(3, 1)
    torch.nn.init.constant_(module.weight, 0.5)
    torch.nn.init.constant_(module.bias, 0.0)
    return module


def square(output: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
    return (output[:, 0] - batch.sum(1) ** 2).square().sum() / 8


def batch(step: int) -> torch.Tensor:
    return torch.randn(8, 3, generator=torch.Generator().manual_seed(step))


def train(engine: Any, steps: range, micro_batches: int = 1) -> list[float]:
    return [engine.update(batch(s).chunk(micro_batches), square).loss for s in steps]


def test_eight_micro_batches_are_one_batch() -> None:
    whole = train(PlainEngine(line(), SETTINGS), range(5))
    assert train(PlainEngine(line(), SETTINGS), range(5), 8) == pytest.approx(whole, rel=1e-6)


def test_reset_is_a_fresh_start() -> None:
    engine = PlainEngine(line(), SETTINGS)
    first = train(engine, range(5))
    engine.reset()
    assert engine.updates == 0
    assert train(engine, range(5)) == first


@pytest.mark.parametrize("updates", [0, 3])
def test_a_kept_state_is_gone_on_from(tmp_path: Path, updates: int) -> None:
    engine, other, here = (
        PlainEngine(line(), SETTINGS),
        PlainEngine(line(), SETTINGS),
        worker(tmp_path),
    )
    train(engine, range(updates))
    here.keep_state("state", engine.save)
    train(other, range(10, 12))  # Loading forgets this.
    with here.kept_state("state") as folder:
        assert folder is not None
        other.load(folder)
    assert other.updates == updates
    assert train(other, range(3, 6)) == train(engine, range(3, 6))


def test_the_start_is_there_for_a_while() -> None:
    module = line()
    engine = PlainEngine(module, SETTINGS)
    train(engine, range(3))
    trained = engine(batch(9))
    with engine.at_start():
        assert torch.equal(engine(batch(9)), line()(batch(9)))
    assert torch.equal(engine(batch(9)), trained)
    assert not torch.equal(trained, line()(batch(9)))


def test_a_kept_folder_is_replaced_only_when_the_new_one_is_complete(tmp_path: Path) -> None:
    here = worker(tmp_path)
    with here.kept_state("run/state") as folder:
        assert folder is None
    for text in ("one", "two", "three"):
        here.keep_state("run/state", lambda folder, text=text: _write(folder, text))

        def half(folder: Path) -> None:
            _write(folder, "half")
            raise OSError("the disk is full")

        with pytest.raises(OSError, match="the disk is full"):
            here.keep_state("run/state", half)
        with here.kept_state("run/state") as folder:
            assert folder is not None
            assert (folder / "part").read_text() == text
    assert len(list((tmp_path / "journal").rglob("part"))) == 1


def _write(folder: Path, text: str) -> None:
    (folder / "part").write_text(text)


def test_parts_of_another_machines_disk_are_missed(tmp_path: Path) -> None:
    """Where a run folder is not shared, a path is another folder on each machine."""
    journal = Journal(tmp_path)
    slot = journal.free_slot("state")
    with journal.part("state", slot, tmp_path) as folder:
        (folder / "part-0").write_text("here")
    with pytest.raises(InputError, match=r"^--out: .*'part-1' of another machine cannot be seen"):
        journal.publish("state", slot, ["part-0", "part-1"])
    assert journal.slot("state") is None


def test_half_precision_of_one_process_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^training\.precision: fp16 needs GPUs"):
        build_engine(line(), TrainingSettings(precision="fp16"), worker(tmp_path))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "fp16", "workers": 2}, "precision: fp16 needs GPUs"),
        ({"precision": "fp16", "gpus_per_worker": 1}, "precision: fp16 needs GPUs"),
        ({"gpus_per_worker": 2, "workers": 1}, "gpus_per_worker: must be at most 1"),
        ({"workers": 2, "workers_at_least": 3}, r"workers_at_least: .* \(2\), got 3"),
        ({"workers_at_least": 1}, r"workers_at_least: .* \(0\), got 1"),
        ({"zero_stage": 2}, "zero_stage: must be 0 with training.workers 0"),
        ({"workers": 2, "offload": "optimizer"}, "offload: optimizer needs .* 1, 2 or 3, got 0"),
        ({"workers": 2, "zero_stage": 2, "offload": "parameters"}, "needs .*zero_stage 3, got 2"),
        ({"precision": "bf16", "offload": "optimizer"}, "offload: must be none with"),
    ],
)
def test_settings_that_cannot_work_together(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=rf"^training\..*{message}"):
        TrainingSettings(**settings).check()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"gpus_per_worker": 1},
        {"workers": 2, "workers_at_least": 2, "zero_stage": 3, "offload": "parameters"},
        {"workers": 2, "precision": "bf16", "offload": "optimizer"},  # Stage 0 is 1 in 16 bits.
        {"workers": 2, "precision": "fp16", "gpus_per_worker": 0.5, "zero_stage": 1},
    ],
)
def test_settings_that_can(settings: dict[str, Any]) -> None:
    TrainingSettings(**settings).check()


def test_an_error_of_a_worker_that_is_ahead_comes_after_the_values_before_it() -> None:
    from modicum.training.ray_train.group_host import GroupHost
    from modicum.training.ray_train.messages import WorkerFailure

    async def run() -> tuple[Any, Any]:
        host = GroupHost()
        # The second worker has yielded once and raised before the first has yielded.
        failing = asyncio.create_task(
            host.report_failure(WorkerFailure(1, 1, b"error", final=True))
        )
        first = asyncio.create_task(host.next_reply(0))
        await asyncio.sleep(0)
        assert not first.done()
        yielding = asyncio.create_task(host.put_value(0, b"value"))
        value = await first
        assert not failing.done()
        error = await host.next_reply(1)
        await yielding
        # Nor does it end before the host: Ray Train would start a group again.
        await asyncio.wait([failing], timeout=0.1)
        assert not failing.done()
        failing.cancel()
        return value, error

    value, error = asyncio.run(asyncio.wait_for(run(), timeout=10))
    assert (value.value, value.error) == (b"value", None)
    assert (error.value, error.error) == (None, b"error")
