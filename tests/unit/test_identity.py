from modicum.identity import TrialPlan, plan_trial
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
    assert plan.config["noise"] == 0.0


def test_a_plan_survives_json():
    plan = plan_trial(Descent(), DescentConfig(), 3, {"data": "x"})
    assert TrialPlan.from_json({**plan.as_json(), "status": "finished"}) == plan
