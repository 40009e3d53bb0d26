import pytest

import modicum as md
from modicum.experiment.resources import require_fit, trials_that_fit

TWO_NODES = [{"CPU": 4.0, "GPU": 1.0}, {"CPU": 4.0}]


def test_plain_trials_fill_the_nodes():
    assert trials_that_fit(TWO_NODES, md.Resources()) == 8
    assert trials_that_fit(TWO_NODES, md.Resources(md.Bundle(cpus=3))) == 2


def test_a_bundle_does_not_straddle_nodes():
    assert trials_that_fit([{"CPU": 3.0}, {"CPU": 3.0}], md.Resources(md.Bundle(cpus=4))) == 0


def test_nested_workers_count():
    """On two CPUs: a trial at 0.01 with two workers at 0.99 fits once; with workers at 1 never."""
    node = [{"CPU": 2.0}]
    fits = md.Resources(md.Bundle(cpus=0.01), nested=(md.Bundle(cpus=0.99),) * 2)
    never = md.Resources(md.Bundle(cpus=0.01), nested=(md.Bundle(cpus=1.0),) * 2)
    assert trials_that_fit(node, fits) == 1
    assert trials_that_fit(node, never) == 0
    with pytest.raises(md.InputError, match=r"needs 0.01 CPU \+ 1 CPU \+ 1 CPU.*2 CPU"):
        require_fit(node, never)


def test_gpus_and_memory_are_counted():
    assert trials_that_fit(TWO_NODES, md.Resources(md.Bundle(gpus=0.25))) == 4
    big = md.Resources(md.Bundle(memory=3 * 2**30))
    assert trials_that_fit([{"CPU": 8.0, "memory": 7 * 2.0**30}], big) == 2


def test_fractions_do_not_lose_a_trial_to_rounding():
    assert trials_that_fit([{"CPU": 1.0}], md.Resources(md.Bundle(cpus=0.1))) == 10


def test_other_resources_are_counted_and_named():
    nodes = [{"CPU": 4.0, "TPU": 1.0, "node:10.0.0.1": 1.0}, {"CPU": 4.0}]
    assert trials_that_fit(nodes, md.Resources(md.Bundle(resources={"TPU": 0.5}))) == 2
    # The larger bundle of plain CPUs must not take the place of the one with a TPU.
    both = md.Resources(md.Bundle(cpus=4), actors=(md.Bundle(cpus=1, resources={"TPU": 1}),))
    assert trials_that_fit(nodes, both) == 1
    with pytest.raises(md.InputError, match=r"needs 1 CPU, 2 TPU, .* 4 CPU, 1 TPU; 4 CPU$"):
        require_fit(nodes, md.Resources(md.Bundle(resources={"TPU": 2})))


@pytest.mark.parametrize("resources", [{"CPU": 1}, {"TPU": 1.5}, {"TPU": -1}])
def test_impossible_amounts_of_other_resources_are_refused(resources):
    with pytest.raises(md.InputError, match=r"resources: '(CPU|TPU)'"):
        md.Bundle(resources=resources)


@pytest.mark.parametrize(
    ("trial", "actors"),
    [(md.Bundle(cpus=0), ()), (md.Bundle(cpus=-1), ()), (md.Bundle(), (md.Bundle(cpus=0),))],
)
def test_a_process_without_resources_is_refused(trial, actors):
    with pytest.raises(md.InputError, match="resources: each process needs"):
        md.Resources(trial=trial, actors=actors)


def test_a_gpu_alone_is_enough():
    assert md.Resources(trial=md.Bundle(cpus=0, gpus=0.5)).trial.as_ray() == {"GPU": 0.5}
