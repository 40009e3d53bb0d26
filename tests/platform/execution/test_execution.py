import random

import numpy as np
import pytest
import torch

import modicum as md
from modicum.execution.messages import EndMessage
from modicum.execution.run_trial import run_trial
from modicum.planning.trial_plan import plan_trial
from toys import Descent, DescentConfig


def run(experiment=None, seed=0, checkpoint=None, **settings):
    experiment = experiment or Descent()
    config = experiment.Config(**settings)
    plan = plan_trial(experiment, config, seed, {})
    return list(run_trial(experiment, plan, md.Resources(), checkpoint=checkpoint))


def test_records_then_an_end():
    *records, end = run(steps=3)
    assert [r.index for r in records] == [0, 1, 2]
    assert [r.budget for r in records] == [10, 20, 30]
    assert end.status == "finished"
    assert b"step 2" in records[2].log
    assert b"step 1" not in records[2].log


def test_an_exception_becomes_a_failed_end_with_traceback_and_log():
    (end,) = run(fail_seed=0)
    assert isinstance(end, EndMessage)
    assert end.status == "failed"
    assert end.error == "ZeroDivisionError: the toy was told to fail"
    assert "toys.py" in end.traceback
    assert b"about to fail" in end.log


class Recording(Descent):
    """Yields whatever it is told."""

    uses_torch = True

    def __init__(self, *records):
        self.records = records

    def run(self, config, trial):
        yield from self.records


@pytest.mark.parametrize(
    ("records", "error"),
    [
        ([], "yielded no record"),
        ([md.Record(budget=float("nan"), metrics={})], "finite"),
        ([md.Record(budget=-1, metrics={})], "finite"),
        ([md.Record(budget=2, metrics={}), md.Record(budget=1, metrics={})], "shrink"),
        ([md.Record(budget=1, metrics={"test/los": 1.0})], "did you mean 'test/loss'"),
        ([md.Record(budget=1, metrics={"test/loss": [1]})], "number or text"),
        ([md.Record(budget=1, metrics={"test/loss": float("nan")})], "diverged"),
        ([md.Record(budget=1, metrics={"test/loss": "low"})], "must be a number, got 'low'"),
        ([md.Record(budget=1, metrics={"budget": 1})], "taken"),
    ],
)
def test_wrong_records_fail_the_trial(records, error):
    end = run(Recording(*records))[-1]
    assert end.status == "failed"
    assert error in end.error


def test_numpy_and_torch_values_arrive_as_pythons_own():
    record, _ = run(Recording(md.Record(budget=1, metrics={"test/loss": np.float32(0.5)})))
    assert type(record.metrics["test/loss"]) is float
    record, _ = run(Recording(md.Record(budget=1, metrics={"test/loss": torch.tensor(2)})))
    assert type(record.metrics["test/loss"]) is int


class Threads(Descent):
    uses_torch = True

    def run(self, config, trial):
        draws = [random.random(), float(np.random.rand()), float(torch.rand(()))]
        yield md.Record(budget=torch.get_num_threads(), metrics={"test/loss": sum(draws)})


def test_global_generators_are_seeded_per_trial_and_put_back():
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    first = run(Threads(), seed=1)[0].metrics
    after = [random.random(), float(np.random.rand()), float(torch.rand(()))]
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    assert after == [random.random(), float(np.random.rand()), float(torch.rand(()))]
    assert run(Threads(), seed=1)[0].metrics == first
    assert run(Threads(), seed=2)[0].metrics != first


def test_torch_is_pinned_to_the_trials_cpus():
    before = torch.get_num_threads()
    plan = plan_trial(Threads(), DescentConfig(), 0, {})
    three = md.Resources(md.Bundle(cpus=3))
    assert next(iter(run_trial(Threads(), plan, three))).budget == 3
    assert run(Threads())[0].budget == 1
    assert torch.get_num_threads() == before


def test_a_resumed_trial_yields_the_rest_of_the_same_records(tmp_path):
    whole = run(steps=4, checkpoints=True)
    experiment, config = Descent(), DescentConfig(steps=4, checkpoints=True)
    plan = plan_trial(experiment, config, 0, {})
    for message in run_trial(experiment, plan, md.Resources()):
        if message.index == 1:
            kept = tmp_path / "kept"
            message.checkpoint.rename(kept)
            break
    rest = list(run_trial(experiment, plan, md.Resources(), checkpoint=kept))
    assert [r.index for r in rest[:-1]] == [2, 3]
    assert [r.metrics["test/loss"] for r in rest[:-1]] == [
        r.metrics["test/loss"] for r in whole[2:4]
    ]
    assert rest[0].metrics["resumed_at"] == 2


def test_other_data_than_planned_fail_the_trial():
    class Moved(Descent):
        def data_digests(self, config):
            return {"dataset": "now"}

    plan = plan_trial(Moved(), DescentConfig(), 0, {"dataset": "then"})
    (end,) = run_trial(Moved(), plan, md.Resources())
    assert end.status == "failed"
    assert "planned with: dataset differ" in end.error


def test_scratch_is_removed(tmp_path):
    class Leaves(Descent):
        def run(self, config, trial):
            (trial.scratch / "big").write_text("x")
            yield md.Record(budget=1, metrics={"test/loss": 0.0})
            places.append(trial.scratch)

    places = []
    run(Leaves())
    assert places
    assert not places[0].exists()
