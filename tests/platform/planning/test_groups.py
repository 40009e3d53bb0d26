"""Choices of groups, each with settings of its own."""

import itertools
from typing import ClassVar, Literal

import pytest
from ray import tune

import modicum as md
from modicum.execution.recorder import Recorder
from modicum.execution.tune.searchers import SeededSearch
from modicum.planning.expansion import combinations, expand
from modicum.planning.space import describe_space, drawn_settings, merge, parse_space
from modicum.storage import StorageFolder


class Model(md.Config):
    kind: Literal["linear", "network"] = md.setting("linear", description="Kind of model.")
    width: int = md.setting(8, description="Width.", ge=1)
    depth: int = md.setting(2, description="Depth.", ge=1)


class Settings(md.Config):
    rate: float = md.setting(0.5, description="Step size.")
    model: Model = Model()


class Fit(md.Experiment[Settings]):
    """Has a loss that only the settings decide."""

    name, version, budget_unit, Config = "fit", "1", "samples", Settings
    metrics: ClassVar = {"loss": md.Metric("Loss.", goal="min")}

    def run(self, config, trial):
        model = config.model
        loss = model.width * model.depth if model.kind == "network" else 5
        yield md.Record(budget=1, metrics={"loss": loss + config.rate})


NETWORK = {"kind": "network", "width": {"grid": [1, 4]}}
DRAWN = {"kind": "network", "width": {"randint": [1, 9]}}
LINEAR = {"kind": "linear"}


def points(space, draws=1):
    return list(expand(parse_space(space), draws, seed=0))


def test_a_grid_of_groups_has_the_settings_of_one_group_at_a_time():
    space = {"rate": {"grid": [0.1, 0.2]}, "model": {"grid": [NETWORK, LINEAR]}}
    assert points(space) == [
        *(
            {"rate": rate, "model": {"kind": "network", "width": width}}
            for rate, width in itertools.product([0.1, 0.2], [1, 4])
        ),
        *({"rate": rate, "model": LINEAR} for rate in (0.1, 0.2)),
    ]
    assert combinations(parse_space(space), 1) == 6
    python = {"rate": md.grid(0.1, 0.2), "model": md.grid(NETWORK, LINEAR)}
    assert points(python) == points(space)


def test_draws_of_a_choice_take_both_groups_and_change_no_other_draw():
    space = {"rate": {"uniform": [0, 1]}, "model": {"choice": [DRAWN, LINEAR]}}
    found = points(space, 12)
    kinds = [point["model"]["kind"] for point in found]
    assert set(kinds) == {"network", "linear"}
    assert all(("width" in p["model"]) == (p["model"]["kind"] == "network") for p in found)
    assert [p["rate"] for p in found] == [p["rate"] for p in points({"rate": space["rate"]}, 12)]
    widths = [p["model"]["width"] for p in points({"model": DRAWN}, 12)]
    assert all(p["model"].get("width", w) == w for p, w in zip(found, widths, strict=True))
    assert found[:5] == points(space, 5)
    assert found == points({**space, "model": tune.choice([DRAWN, LINEAR])}, 12)


def test_a_group_without_domains_is_not_repeated_for_each_draw():
    assert len(points({"model": {"grid": [DRAWN, LINEAR]}}, 3)) == 4


def test_groups_of_the_whole_space_and_groups_in_groups():
    inner = {"model": {"grid": [{"width": 1}, {"depth": 1}]}}
    assert points({"grid": [{"rate": 0.1}, {"rate": 0.2, **inner}]}) == [
        {"rate": 0.1},
        {"rate": 0.2, "model": {"width": 1}},
        {"rate": 0.2, "model": {"depth": 1}},
    ]


def test_a_described_choice_of_groups_reads_back():
    space = {"grid": [{"rate": 0.1}, {"model": {"choice": [DRAWN, LINEAR]}}]}
    described = describe_space(parse_space(space))
    assert described == space
    assert list(drawn_settings(described)) == ["model.kind", "model.width", "model.kind"]


def test_other_settings_of_a_space_with_groups_can_be_replaced():
    space = {"rate": 0.1, "model": {"grid": [NETWORK, LINEAR]}}
    assert points(merge(space, {"rate": 0.3})) == points({**space, "rate": 0.3})
    with pytest.raises(md.InputError, match=r"model\.width: stands more than once"):
        parse_space(merge(space, {"model.width": 3}))


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"model.width": 3, "model": {"grid": [NETWORK, LINEAR]}}, r"model\.width: stands more"),
        ({"model": {"choice": [LINEAR, LINEAR]}}, r"space\.model: the choice repeats the group"),
        ({"model": {"choice": [{"widht": 1}, LINEAR]}}, r"model\.widht.*did you mean.*width"),
        (
            {"model": {"grid": [{"width": {"grid": []}}, LINEAR]}},
            r"model\.grid\[0\]\.width: .*empty",
        ),
    ],
)
def test_wrong_groups_name_the_setting(space, message):
    with pytest.raises(md.InputError, match=message):
        md.Study(Fit, space)


def test_settings_of_other_groups_are_not_shown_and_identities_are_those_of_the_same_settings():
    study = md.Study(Fit, {"model": {"grid": [NETWORK, LINEAR]}}, seeds=1)
    shown = [
        {name: value for name, value in plan.columns.items() if name.startswith("model.")}
        for plan in study.trials
    ]
    assert shown == [
        {"model.kind": "network", "model.width": 1, "model.depth": 2},
        {"model.kind": "network", "model.width": 4, "model.depth": 2},
        {"model.kind": "linear", "model.depth": 2},
    ]
    plain = md.Study(Fit, {"model": {"kind": "linear", "width": 8}}, seeds=1)
    assert study.trials[-1].id == plain.trials[0].id
    assert study.trials[-1].config.model.width == 8


def test_a_table_shows_the_settings_of_other_groups_empty(tmp_path):
    space = {"model": {"choice": [{"kind": "network", "width": {"randint": [2, 9]}}, LINEAR]}}
    results = md.Study(Fit, space, draws=6, seeds=1).run(tmp_path, runner="local", quiet=True)
    assert results.layout[0] == ["model.kind", "model.width"]
    (table,) = results.tables()
    assert ("linear", None) in table.rows
    assert "| linear | – | **5.5000 (1)** |" in table.to_markdown()
    assert all(width is not None for kind, width in table.rows if kind == "network")


def test_a_searcher_chooses_the_settings_of_one_group(tmp_path):
    space = {"rate": 0.1, "model": {"choice": [DRAWN, LINEAR]}}
    search = {"name": "optuna", "metric": "loss", "samples": 12, "options": {"seed": 0}}
    study = md.Study(Fit, space, seeds=2, search=search)

    def begun():
        recorder = Recorder(StorageFolder(tmp_path), study.experiment)
        return recorder, SeededSearch(recorder, study._plan.make_search())

    recorder, searcher = begun()
    issued = []
    while (config := searcher.suggest(str(len(issued)))) != "FINISHED":
        issued.append(config["id"])
    # The group without settings is one configuration, however often it is chosen.
    assert len(issued) == len(set(issued)) < 24
    columns = [recorder.plans[each].columns for each in issued]
    assert {entry["model.kind"] for entry in columns} == {"network", "linear"}
    assert all(("model.width" in c) == (c["model.kind"] == "network") for c in columns)
    assert begun()[1].remaining == len(issued)


def test_a_searcher_refuses_a_grid_in_a_group():
    search = {"name": "optuna", "metric": "loss", "samples": 2}
    for space, name in (
        ({"model": {"grid": [DRAWN, LINEAR]}}, r"space\.model\.grid"),
        ({"model": {"choice": [NETWORK, LINEAR]}}, r"space\.model\.choice\[0\]\.width"),
    ):
        with pytest.raises(md.InputError, match=f"{name}: a searcher cannot walk a grid"):
            md.Study(Fit, space, search=search)
