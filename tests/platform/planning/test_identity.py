from typing import ClassVar

import pytest

import modicum as md
from modicum.planning.trial_plan import TrialPlan, plan_trial
from toys import Descent, DescentConfig


def trial_id(seed=0, digests=None, experiment=None, **settings):
    config = DescentConfig(**settings)
    return plan_trial(experiment or Descent(), config, seed, digests or {}).id


class NextVersion(Descent):
    version = "2"


def test_what_changes_numbers_changes_the_identity():
    ids = [
        trial_id(),
        trial_id(seed=1),
        trial_id(rate=0.25),
        trial_id(method="slow"),
        trial_id(digests={"data": "abc"}),
        trial_id(digests={"data": "abd"}),
        trial_id(experiment=NextVersion()),
    ]
    assert len(set(ids)) == len(ids)


def test_defaults_spelt_out_are_the_same_trial():
    assert trial_id() == trial_id(method="fast", rate=0.5, steps=4)


def test_paths_and_logging_do_not_matter():
    assert trial_id() == trial_id(ledger="/somewhere", seconds=0.5, checkpoints=True)


def test_a_setting_without_effect_does_not_matter_where_it_has_none():
    assert trial_id(method="fast", noise=0.3) == trial_id(method="fast")
    assert trial_id(method="noisy", noise=0.3) != trial_id(method="noisy")


def test_inactive_settings_are_left_out_of_the_columns():
    plan = plan_trial(Descent(), DescentConfig(method="fast"), 0, {})
    assert "noise" not in plan.columns
    assert plan.columns["rate"] == 0.5
    assert plan.config.noise == 0.0


def test_a_plan_survives_json():
    plan = plan_trial(Descent(), DescentConfig(), 3, {"data": "x"})
    assert TrialPlan.from_json({**plan.as_json(), "status": "finished"}, Descent()) == plan


class Playing(md.Experiment):
    """An experiment with a setting whose keys are the user's."""

    class Config(md.Config):
        options: dict[str, int] = md.setting({}, description="Arguments of the game.")

    name = "playing"
    version = "1"
    budget_unit = "episodes"
    metrics: ClassVar = {"score": md.Metric("Score.", goal="max")}

    def run(self, config, trial):
        yield md.Record(budget=1, metrics={"score": sum(config.options.values())})


def test_keys_of_a_mapping_are_settings_that_can_be_swept(tmp_path):
    space = {"options": {"speed": md.grid(1, 2), "size": 3}}
    study = md.Study(Playing, space, seeds=1, report={"rows": ["options.speed"]})
    results = study.run(tmp_path / "run", runner="local", quiet=True)
    assert results.frame["config/options.speed"].tolist() == [1, 2]
    assert results.frame["score"].tolist() == [4, 5]
    assert len({trial.id for trial in study.trials}) == 2
    with pytest.raises(md.InputError, match=r"unknown setting 'optionz.speed'"):
        md.Study(Playing, {"optionz": {"speed": 1}}, seeds=1)
