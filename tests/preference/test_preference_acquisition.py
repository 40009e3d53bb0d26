"""Acquisition functions of section 6.3.1 against worked examples and brute force.

Shapes: S candidates, N samples, D dimensions of an embedding.
"""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

import modicum as md
from modicum_algorithms.preference.acquiring import PromptPool
from modicum_algorithms.preference.methods.acquisition import (
    BUILT_IN,
    Candidates,
    DiverseCertainty,
    Stages,
    acquisition_names,
    best,
    certainty,
    choose,
    entropy,
    get_acquisition,
)


def rng(seed=0):
    return np.random.default_rng(seed)


def chosen(name, count, seed=0, **quantities):
    size = len(next(iter(quantities.values())))
    arrays = {field: np.asarray(values, float) for field, values in quantities.items()}
    pairs = BUILT_IN[name].pairs
    return choose(pairs, Candidates(size=size, **arrays), count, rng(seed)).tolist()


def everything(size, seed):
    generator = rng(seed)
    return Candidates(
        size=size,
        sample_log_probabilities_SN=-generator.exponential(20, (size, 4)),
        implicit_rewards_S2=generator.normal(size=(size, 2)),
        embeddings_SD=generator.normal(size=(size, 3)),
        costs_S=generator.uniform(0.5, 2, size),
    )


# Signs and worked examples.


def test_the_prompt_that_the_model_is_least_sure_of_comes_first():
    """Prompt 1 has one answer, written with probability 1 (H = 0); prompt 0 has 8 equally likely
    answers (H = log 8), prompt 2 two of them (H = log 2).
    """
    samples = np.log([[1 / 8, 1 / 8], [1, 1], [1 / 2, 1 / 2]])
    found = entropy(Candidates(size=3, sample_log_probabilities_SN=samples))
    np.testing.assert_allclose(found, np.log([8, 1, 2]))
    assert chosen("entropy", 3, sample_log_probabilities_SN=samples) == [0, 2, 1]
    assert chosen("entropy", 1, sample_log_probabilities_SN=samples) == [0]


def test_entropy_is_the_mean_over_samples():
    """−(−1 − 2 − 6)/3 = 3, above −(−2.5 × 3)/3 = 2.5; by its best or its median sample it would
    be below.
    """
    samples = np.array([[-1.0, -2, -6], [-2.5, -2.5, -2.5]])
    found = entropy(Candidates(size=2, sample_log_probabilities_SN=samples))
    np.testing.assert_allclose(found, [3, 2.5])


def test_entropy_by_samples_is_the_entropy_of_a_known_distribution():
    """With p = (1/2, 1/4, 1/4), H = 3/2 log 2, and log p has standard deviation log(2)/2."""
    p = np.array([0.5, 0.25, 0.25])
    drawn = rng().choice(3, p=p, size=(1, 40_000))
    found = entropy(Candidates(size=1, sample_log_probabilities_SN=np.log(p)[drawn]))
    assert found[0] == pytest.approx(1.5 * np.log(2), abs=5 * np.log(2) / 2 / 200)


REWARDS = [[0.1, 0.2], [3.0, 2.5], [-1.0, 1.0], [5.0, 4.0]]  # apart by 0.1, 0.5, 2 and 1


def test_certainty_is_a_distance_whatever_completion_is_ahead():
    found = certainty(Candidates(size=4, implicit_rewards_S2=np.array(REWARDS)))
    np.testing.assert_allclose(found, [0.1, 0.5, 2, 1])
    assert chosen("certainty", 4, implicit_rewards_S2=REWARDS) == [2, 3, 1, 0]
    assert chosen("low_certainty", 2, implicit_rewards_S2=REWARDS) == [0, 1]
    swapped = np.array(REWARDS)[:, ::-1]
    assert chosen("certainty", 4, implicit_rewards_S2=swapped) == [2, 3, 1, 0]


def test_a_judgement_that_is_four_times_as_dear_must_be_four_times_as_certain():
    """Per unit of price: 0.1, 0.5, 2/8 and 1/1."""
    found = chosen("certainty_per_cost", 4, implicit_rewards_S2=REWARDS, costs_S=[1, 1, 8, 1])
    assert found == [3, 1, 2, 0]


def test_the_hybrid_is_certainty_among_the_prompts_of_highest_entropy():
    """Brute force: no other choice of S of the J × S prompts has more entropy, and no other M of
    those S pairs more certainty.
    """
    stages = BUILT_IN["entropy_certainty"]
    drawn = everything(8, seed=3)
    prompts = choose(stages.prompts, drawn, 4, rng())
    entropies = -drawn.sample_log_probabilities_SN.mean(1)
    most = max(itertools.combinations(range(8), 4), key=lambda some: entropies[list(some)].sum())
    assert set(prompts) == set(most)
    pairs = Candidates(size=4, implicit_rewards_S2=drawn.implicit_rewards_S2[prompts])
    acquired = prompts[choose(stages.pairs, pairs, 2, rng())]
    gaps = np.abs(np.diff(drawn.implicit_rewards_S2, axis=1))[:, 0]
    expected = max(itertools.combinations(prompts, 2), key=lambda some: gaps[list(some)].sum())
    assert set(acquired) == set(expected)


# Diversity.


def test_a_duplicate_of_a_chosen_prompt_gives_way_to_another_prompt():
    """Prompts 0 and 1 are the same. Once 0 is chosen, 1 has 0.9/0.9 of certainty and no distance
    (1/2), 2 has 0.2/0.9 and all the distance (0.61).
    """
    rewards = [[0, 1.0], [0, 0.9], [0, 0.2]]
    embeddings = [[0, 0], [0, 0], [3, 4]]
    found = chosen("diverse_certainty", 3, implicit_rewards_S2=rewards, embeddings_SD=embeddings)
    assert found == [0, 2, 1]
    assert chosen("certainty", 3, implicit_rewards_S2=rewards) == [0, 1, 2]


def test_without_certainty_it_is_k_centre_greedy():
    """Places on a line at 0, 1, 5, 9 and 10: from either side the far end is next and then the
    middle, from the middle both ends are.
    """
    line = np.array([[0.0], [1], [5], [9], [10]])
    far = Candidates(size=5, embeddings_SD=line, implicit_rewards_S2=rng().normal(size=(5, 2)))
    orders = {
        tuple(DiverseCertainty(certainty_weight=0.0).choose(far, 3, rng(seed)).tolist())
        for seed in range(100)
    }
    assert orders == {(0, 4, 2), (1, 4, 2), (2, 0, 4), (2, 4, 0), (3, 0, 2), (4, 0, 2)}


def diverse_twin(rewards, embeddings, count):
    gaps = [abs(one - other) for one, other in rewards]
    taken = [max(range(len(gaps)), key=gaps.__getitem__)]
    while len(taken) < count:
        rest = [place for place in range(len(gaps)) if place not in taken]
        near = {
            place: min(sum((embeddings[place] - embeddings[t]) ** 2) ** 0.5 for t in taken)
            for place in rest
        }
        sure, wide = max(gaps[place] for place in rest), max(near.values())
        taken.append(max(rest, key=lambda place: gaps[place] / sure + near[place] / wide))
    return taken


@pytest.mark.parametrize("seed", range(10))
def test_diverse_certainty_is_its_slow_twin(seed):
    given_ = everything(12, seed)
    found = choose(BUILT_IN["diverse_certainty"].pairs, given_, 12, rng()).tolist()
    assert found == diverse_twin(given_.implicit_rewards_S2, given_.embeddings_SD, 12)


# Ties.

TIED = sorted(set(BUILT_IN) - {"random"})


@pytest.mark.parametrize("name", ["random", *TIED])
def test_equal_scores_are_broken_uniformly(name):
    """As in the first round, where θ = θ0 and all rewards are 0: each of the 12 ordered choices of
    2 out of 4 is as likely as the others.
    """
    equal = Candidates(
        size=4,
        sample_log_probabilities_SN=np.full((4, 2), -7.0),
        implicit_rewards_S2=np.zeros((4, 2)),
        embeddings_SD=np.eye(4),
        costs_S=np.full(4, 3.0),
    )
    generator, rounds = rng(7), 3000
    counts = Counter(
        tuple(choose(BUILT_IN[name].pairs, equal, 2, generator).tolist()) for _ in range(rounds)
    )
    assert len(counts) == 12
    assert chisquare(list(counts.values())).pvalue > 1e-3


def test_the_price_decides_nothing_while_there_is_no_certainty():
    zeros, prices = np.zeros((3, 2)), np.array([1.0, 10, 100])
    equal = Candidates(size=3, implicit_rewards_S2=zeros, costs_S=prices)
    generator = rng(1)
    firsts = Counter(
        int(choose(BUILT_IN["certainty_per_cost"].pairs, equal, 1, generator)[0])
        for _ in range(900)
    )
    assert chisquare([firsts[place] for place in range(3)]).pvalue > 1e-3


def test_only_equal_scores_change_places():
    scores = np.array([1.0, 3, 2, 3, 2, 2])
    orders = {tuple(best(scores, 6, rng(seed)).tolist()) for seed in range(400)}
    expected = {
        (*top, *middle, 0)
        for top in itertools.permutations([1, 3])
        for middle in itertools.permutations([2, 4, 5])
    }
    assert orders == expected


# Whatever the numbers.


@settings(deadline=None, max_examples=60)
@given(
    name=st.sampled_from(sorted(BUILT_IN)),
    size=st.integers(1, 12),
    count=st.integers(1, 15),
    seed=st.integers(0, 2**20),
)
def test_choices_are_distinct_reproducible_and_know_no_places(name, size, count, seed):
    """Shuffled candidates give the same candidates, shuffled (but for a draw at random)."""
    pairs, candidates = BUILT_IN[name].pairs, everything(size, seed)
    found = choose(pairs, candidates, count, rng(seed))
    assert len(found) == len(set(found.tolist())) == min(count, size)
    np.testing.assert_array_equal(found, choose(pairs, candidates, count, rng(seed)))
    order = rng(seed + 1).permutation(size)
    shuffled = Candidates(
        size=size,
        sample_log_probabilities_SN=candidates.sample_log_probabilities_SN[order],
        implicit_rewards_S2=candidates.implicit_rewards_S2[order],
        embeddings_SD=candidates.embeddings_SD[order],
        costs_S=candidates.costs_S[order],
    )
    if name != "random":
        again = order[choose(pairs, shuffled, count, rng(seed))]
        np.testing.assert_array_equal(again, found)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=8), st.integers(1, 8))
def test_nothing_left_out_is_better_than_anything_chosen(scores, count):
    scores = np.array(scores, float)
    found = best(scores, count, rng())
    assert (np.diff(scores[found]) <= 0).all()
    assert np.delete(scores, found).max(initial=-np.inf) <= scores[found].min()


# Refusals.


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "field", ["sample_log_probabilities_SN", "implicit_rewards_S2", "embeddings_SD", "costs_S"]
)
def test_numbers_that_are_none_are_refused(field, bad):
    values = np.ones((3, 2)) if field != "costs_S" else np.ones(3)
    values.flat[1] = bad
    with pytest.raises(ValueError, match=f"{field}: all numbers must be finite"):
        Candidates(size=3, **{field: values})
    with pytest.raises(ValueError, match="finite"):
        best(np.array([1.0, bad]), 1, rng())


def test_shapes_and_prices_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="wrong shape"):
        Candidates(size=3, implicit_rewards_S2=np.zeros((2, 2)))
    with pytest.raises(ValueError, match="wrong shape"):
        Candidates(size=3, sample_log_probabilities_SN=np.zeros((3, 0)))
    with pytest.raises(ValueError, match="two completions"):
        Candidates(size=3, implicit_rewards_S2=np.zeros((3, 3)))
    with pytest.raises(ValueError, match="above 0"):
        Candidates(size=2, costs_S=np.array([1.0, 0.0]))
    with pytest.raises(ValueError, match="implicit_rewards_S2: the acquisition needs it"):
        choose(BUILT_IN["certainty"].pairs, Candidates(size=2), 1, rng())
    with pytest.raises(ValueError, match="at least 1"):
        choose(BUILT_IN["random"].pairs, Candidates(size=2), 0, rng())
    assert choose(BUILT_IN["random"].pairs, Candidates(size=0), 5, rng()).tolist() == []


class Fixed:
    """An acquisition that answers what it was told."""

    needs = frozenset()

    def __init__(self, answer):
        self.answer = np.array(answer)

    def choose(self, candidates, count, generator):
        return self.answer


@pytest.mark.parametrize("answer", [[0, 0], [0], [0, 3], [0, -1], [[0, 1]], [0.5, 1]])
def test_an_acquisition_that_breaks_its_promise_is_caught(answer):
    with pytest.raises(ValueError, match="acquisition"):
        choose(Fixed(answer), Candidates(size=3), 2, rng())


# How many prompts, and when completions are needed.


def test_only_the_hybrid_draws_more_prompts_than_it_generates_for():
    """IMDB: J × S = 32,000 exceeds its 25,000 prompts."""
    draws = {name: stages.prompts_to_draw(4000, 8, 25_000) for name, stages in BUILT_IN.items()}
    assert draws.pop("entropy_certainty") == 25_000
    assert set(draws.values()) == {4000}
    assert BUILT_IN["entropy_certainty"].prompts_to_draw(2048, 4, 117_000) == 8192
    assert BUILT_IN["random"].prompts_to_draw(4000, 8, 17) == 17


def test_completions_of_all_prompts_are_needed_by_what_looks_at_them():
    without = {name for name, stages in BUILT_IN.items() if not stages.needs_completions}
    assert without == {"random", "entropy"}


# A user's own.


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package with acquisitions, installed as far as Python's metadata is concerned."""
    (tmp_path / "my_acquisitions.py").write_text(
        "import numpy as np\n"
        "from modicum_algorithms.preference.methods.acquisition import BUILT_IN, Stages\n"
        "class Cheapest:\n"
        "    needs = frozenset({'costs'})\n"
        "    def choose(self, candidates, count, generator):\n"
        "        return np.argsort(candidates.quantity('costs'))[:count]\n"
        "instance = Cheapest()\n"
        "def narrowed():\n"
        "    return Stages(Cheapest(), prompts=BUILT_IN['entropy'].pairs)\n"
        "late = Stages(Cheapest(), prompts=Cheapest())\n"
        "class Needy(Cheapest):\n"
        "    needs = frozenset({'gold'})\n"
    )
    information = tmp_path / "my_acquisitions-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: my-acquisitions\n")
    names = ["Cheapest", "instance", "narrowed", "late", "Needy", "missing"]
    lines = [f"{name.lower()} = my_acquisitions:{name}" for name in names]
    (information / "entry_points.txt").write_text(
        "\n".join(["[modicum.acquisitions]", *lines, "gone = no_such_module:It", "random = x:y"])
    )
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize("name", ["cheapest", "instance", "narrowed"])
def test_a_package_adds_an_acquisition(installed, name):
    stages = get_acquisition(name)
    assert isinstance(stages, Stages)
    assert stages.needs_completions
    prices = Candidates(size=3, costs_S=np.array([3.0, 1, 2]))
    assert choose(stages.pairs, prices, 2, rng()).tolist() == [1, 2]
    assert (stages.prompts is None) == (name != "narrowed")
    assert {name, *BUILT_IN} <= set(acquisition_names())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("certanty", "must be one of certainty, certainty_per_cost, cheapest, .* got 'certanty'"),
        ("needy", "frozenset of costs, embeddings, entropy, rewards"),
        ("late", "must choose prompts without costs and rewards"),
        ("missing", "must be importable"),
        ("gone", "must be importable, got: No module named 'no_such_module'"),
        ("random", "must be the name of one acquisition, 2 have it"),
    ],
)
def test_what_is_no_acquisition_is_told_in_one_sentence(installed, name, message):
    with pytest.raises(md.InputError, match=f"^acquisition: .*{message}"):
        get_acquisition(name)


def test_a_name_that_is_built_in():
    assert get_acquisition("entropy_certainty") is BUILT_IN["entropy_certainty"]


# The pool.


@settings(deadline=None, max_examples=60)
@given(
    size=st.integers(0, 30),
    removes=st.sampled_from(["acquired", "drawn"]),
    rounds=st.lists(st.tuples(st.integers(1, 12), st.integers(0, 12)), max_size=8),
    seed=st.integers(0, 99),
)
def test_no_prompt_is_acquired_twice(size, removes, rounds, seed):
    """Drawing takes nothing out, and every prompt is somewhere."""
    pool, generator, acquired, seen = PromptPool(size, removes), rng(seed), [], set()
    for draws, takes in rounds:
        again = pool.draw(draws, rng(seed))
        np.testing.assert_array_equal(again, pool.draw(draws, rng(seed)))
        drawn = pool.draw(draws, generator).tolist()
        assert len(set(drawn)) == len(drawn) == min(draws, pool.left)
        assert set(drawn) <= set(range(size)) - set(acquired)
        if removes == "drawn":
            assert seen.isdisjoint(drawn)
        acquired += drawn[:takes]
        seen |= set(drawn)
        pool = pool.after(drawn, drawn[:takes])
        assert pool.left == size - len(acquired if removes == "acquired" else seen)
    assert len(acquired) == len(set(acquired))


def test_every_prompt_is_drawn_with_the_same_probability():
    pool, generator = PromptPool(5, "acquired").after([1], [1]), rng(0)
    counts = Counter(place for _ in range(1500) for place in pool.draw(2, generator).tolist())
    assert set(counts) == {0, 2, 3, 4}
    assert chisquare(list(counts.values())).pvalue > 1e-3


def test_a_pool_refuses_what_it_does_not_hold():
    pool = PromptPool(4, "acquired").after([1, 2], [2])
    for drawn in ([2], [4], [-1]):
        with pytest.raises(ValueError, match="in the pool"):
            pool.after(drawn, [])
    with pytest.raises(ValueError, match="drawn"):
        pool.after([1], [3])
