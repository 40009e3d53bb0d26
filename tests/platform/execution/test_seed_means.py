"""ASHA's decisions on means over seeds, against ASHA that is told these means alone."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from ray.tune.schedulers import ASHAScheduler

import modicum as md
from modicum.execution.messages import EndMessage, RecordMessage
from modicum.execution.recorder import Recorder
from modicum.execution.tune.seed_means import SeedMeans
from modicum.execution.tune.trainable import MESSAGE
from modicum.storage import StorageFolder
from toys import Descent

SEEDS, STEPS = 3, 9
OPTIONS = {"metric": "test/loss", "mode": "min", "max_t": 9, "grace_period": 1}


def asha():
    return ASHAScheduler(**OPTIONS, reduction_factor=3, stop_last_trials=False)


class Run:
    """Trials that report in a random order, as Tune would hand their reports to a scheduler."""

    def __init__(self, folder, scheduler=asha, seeds=SEEDS):
        rates = md.grid([0.5, 0.8, 0.2, 0.1, 0.7, 0.3, 0.6, 0.4])
        self.study = md.Study(Descent, {"rate": rates}, seeds=seeds, scheduler=scheduler())
        self.recorder = Recorder(StorageFolder(folder), self.study.experiment, keep_stopped=True)
        self.recorder.add(self.study.trials)
        self.means = SeedMeans(scheduler(), self.recorder)
        self.done = dict.fromkeys(self.recorder.plans, 0)
        self.trials = {}
        for plan in self.recorder.unfinished():
            self.trials[plan.id] = SimpleNamespace(trial_id=plan.id, config={"id": plan.id})
            self.means.on_trial_add(None, self.trials[plan.id])
            self.recorder.start(plan.id)

    def loss(self, name):
        """A loss whose mean over seeds says nothing of the single seeds."""
        plan = self.recorder.plans[name]
        noise = np.random.default_rng([plan.seed, self.done[name]]).normal()
        return abs(noise) / plan.config.rate

    def report(self, name, fails=False):
        """A trial's next record, or its end; True if it goes on."""
        trial, index = self.trials[name], self.done[name]
        if index == STEPS or fails:
            self.recorder.end(name, EndMessage("failed" if fails else "finished"))
            self.means.on_trial_complete(None, trial, {})
            return False
        message = RecordMessage(index, 10.0 * (index + 1), {"test/loss": self.loss(name)}, 0.1, b"")
        action = self.means.on_trial_result(None, trial, {MESSAGE: message})
        self.recorder.record(name, message)
        self.done[name] += 1
        if action == "STOP":
            self.means.on_trial_complete(None, trial, {})
            self.recorder.stop(name)
        return action == "CONTINUE"

    def finish(self, order):
        """Let trials report, one of them at a time, until all have ended."""
        live = list(self.trials)
        while live:
            name = live[int(order.integers(min(len(live), 7)))]
            if not self.report(name):
                live.remove(name)

    def statuses(self):
        """Statuses of the trials of each configuration."""
        found = {}
        for name, trial in self.recorder.trials.items():
            rate = self.recorder.plans[name].config.rate
            found.setdefault(rate, Counter())[trial.status] += 1
        return found


@pytest.mark.parametrize("seed", range(4))
def test_decisions_are_those_of_the_means_and_end_all_seeds(tmp_path, seed):
    told = []

    class Told(ASHAScheduler):
        def on_trial_result(self, controller, trial, result):
            action = super().on_trial_result(controller, trial, result)
            told.append((trial.trial_id, dict(result), action))
            return action

    def scheduler():
        return Told(**OPTIONS, reduction_factor=3, stop_last_trials=False)

    run = Run(tmp_path, scheduler)
    run.finish(np.random.default_rng(seed))
    statuses = run.statuses()
    assert {tuple(count) for count in statuses.values()} == {("finished",), ("stopped",)}
    assert all(sum(count.values()) == SEEDS for count in statuses.values())
    # A scheduler that is told of the means in the same order, computed anew from the records.
    alone = asha()
    for name in dict.fromkeys(name for name, _, _ in told):
        alone.on_trial_add(None, SimpleNamespace(trial_id=name))
    for name, result, action in told:
        rate = run.recorder.plans[name].config.rate
        index = result["training_iteration"] - 1
        rows = [
            t.rows[index]
            for n, t in run.recorder.trials.items()
            if run.recorder.plans[n].config.rate == rate
        ]
        mean = np.mean([row["test/loss"] for row in rows])
        assert len(rows) == SEEDS
        assert result["test/loss"] == pytest.approx(mean)
        again = {"training_iteration": index + 1, "test/loss": result["test/loss"]}
        assert alone.on_trial_result(None, SimpleNamespace(trial_id=name), again) == action
    stopped = {run.recorder.plans[name].config.rate for name, _, action in told if action == "STOP"}
    assert stopped == {rate for rate, count in statuses.items() if "stopped" in count}


def test_seeds_that_ended_before_the_decision_end_with_their_configuration(tmp_path):
    """One trial at a time: two seeds of each configuration finish before the third decides."""
    run = Run(tmp_path)
    for name in list(run.trials):
        while run.report(name):
            pass
    statuses = run.statuses()
    assert {tuple(count) for count in statuses.values()} == {("finished",), ("stopped",)}
    again = Run(tmp_path)
    assert not again.trials
    assert again.statuses() == statuses


def test_a_stop_that_an_interruption_cut_off_ends_the_other_seeds_in_the_next_run(tmp_path):
    run = Run(tmp_path)
    first, *others = [name for name, plan in run.recorder.plans.items() if plan.config.rate == 0.1]
    run.report(first)
    run.recorder.stop(first)
    again = Run(tmp_path)
    assert first not in again.trials
    assert not any(again.report(name) for name in others)
    assert again.statuses()[0.1] == {"stopped": SEEDS}


def test_a_failed_seed_is_left_out_of_the_mean(tmp_path):
    run = Run(tmp_path)
    failed = next(iter(run.trials))
    run.report(failed, fails=True)
    del run.trials[failed]
    run.finish(np.random.default_rng(0))
    counts = run.statuses()
    assert counts.pop(0.5)["failed"] == 1
    assert {tuple(count) for count in counts.values()} == {("finished",), ("stopped",)}


def test_several_seeds_need_asha_and_a_time_that_all_seeds_report():
    for scheduler, message in (
        ({"name": "hyperband", "metric": "test/loss"}, "only asha decides on their mean"),
        (
            {"name": "asha", "metric": "test/loss", "options": {"time_attr": "time_total_s"}},
            "time_attr must be one of training_iteration, budget",
        ),
    ):
        with pytest.raises(md.InputError, match=message):
            md.Study(Descent, {}, seeds=2, scheduler=scheduler)
        md.Study(Descent, {}, seeds=1, scheduler=scheduler)
