import pytest
from ray import tune

import modicum as md
from modicum.planning.expansion import expand
from modicum.planning.space import Grid, describe_space, merge, parse_space


def points(space, draws=1, seed=0):
    return list(expand(parse_space(space), draws, seed))


def test_grid_expands_to_the_product_last_name_fastest():
    assert points({"a": {"grid": [1, 2]}, "b": md.grid("x", "y"), "c": 7}) == [
        {"a": 1, "b": "x", "c": 7},
        {"a": 1, "b": "y", "c": 7},
        {"a": 2, "b": "x", "c": 7},
        {"a": 2, "b": "y", "c": 7},
    ]


def test_nested_and_dotted_names_are_the_same():
    nested = points({"model": {"width": {"grid": [1, 2]}}})
    assert nested == points({"model.width": {"grid": [1, 2]}})
    assert nested == [{"model": {"width": 1}}, {"model": {"width": 2}}]


def test_grid_takes_an_iterable_and_rays_spelling():
    assert md.grid(range(3)) == Grid((0, 1, 2))
    assert parse_space({"a": tune.grid_search([1, 2])}) == {"a": Grid((1, 2))}


def test_draws_do_not_change_when_the_grid_widens_or_more_are_drawn():
    narrow = points({"m": {"grid": ["a"]}, "lr": {"loguniform": [1e-4, 1e-1]}}, draws=3)
    wide = points(
        {"m": {"grid": ["a", "b"]}, "lr": {"loguniform": [1e-4, 1e-1]}, "w": {"randint": [1, 9]}},
        draws=5,
    )
    drawn = [p["lr"] for p in narrow]
    assert len(set(drawn)) == 3
    assert [p["lr"] for p in wide if p["m"] == "a"][:3] == drawn
    assert [p["lr"] for p in wide if p["m"] == "b"][:3] == drawn
    assert all(1e-4 <= p["lr"] <= 1e-1 and 1 <= p["w"] < 9 for p in wide)


def test_draws_come_from_the_studys_seed():
    space = {"lr": tune.uniform(0, 1)}
    assert points(space, 4, seed=1) == points(space, 4, seed=1)
    assert points(space, 4, seed=1) != points(space, 4, seed=2)


@pytest.mark.parametrize(
    "function",
    [
        lambda config: 10 * config["a"] + config["model"]["width"],
        lambda spec: 10 * spec.config.a + spec.config.model.width,
        lambda spec: 10 * spec["config"]["a"] + spec["config"]["model"]["width"],
    ],
)
def test_sample_from_sees_the_other_settings(function):
    """In Ray's form, which gets the configuration, and in the older one with `spec.config`."""
    space = {"a": tune.uniform(1, 2), "b": tune.sample_from(function), "model.width": md.grid(3, 4)}
    for point in points(space, 3):
        assert point["b"] == pytest.approx(10 * point["a"] + point["model"]["width"])


def test_sample_from_that_fails_is_a_mistake_in_a_sentence():
    space = {"a": 1, "b": tune.sample_from(lambda config: config["c"])}
    with pytest.raises(md.InputError, match=r"space\.b: the function of sample_from .*KeyError"):
        points(space, 1)


@pytest.mark.parametrize(
    "written",
    [
        {"uniform": [0.0, 1.0]},
        {"loguniform": [1e-4, 1.0]},
        {"quniform": [0.0, 1.0, 0.25]},
        {"randint": [1, 5]},
        {"lograndint": [1, 100]},
        {"qrandint": [0, 10, 5]},
        {"randn": [0.0, 2.0]},
        {"choice": ["a", "b"]},
        {"grid": [1, 2]},
    ],
)
def test_a_described_space_reads_back_as_the_same_space(written):
    parsed = parse_space({"a": written})
    again = parse_space(describe_space(parsed))
    assert describe_space(again) == {"a": written}
    assert list(expand(parsed, 5, 3)) == list(expand(again, 5, 3))


def test_merge_replaces_one_setting_and_refuses_a_group():
    assert merge({"a": {"b": 1, "c": 2}}, {"a.b": 5}) == {"a": {"b": 5, "c": 2}}
    with pytest.raises(md.InputError, match="group"):
        merge({"a": {"b": 1}}, {"a": 5})


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"a": {"grid": "abc"}}, "list"),
        ({"a": md.grid(tune.uniform(0, 1), 2)}, "domain"),
        ({3: 1}, "text"),
    ],
)
def test_wrong_spaces_name_the_setting(space, message):
    with pytest.raises(md.InputError, match=message):
        parse_space(space)


def test_true_and_one_are_different_grid_values():
    assert parse_space({"a": {"grid": [True, 1]}}) == {"a": Grid((True, 1))}
