"""Algorithm 2 as an experiment: on the packaged model, in one process."""

import errno
import json
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

import modicum as md
from modicum_algorithms.preference import run as algorithm
from modicum_algorithms.preference.checkpoints import MODEL
from modicum_algorithms.preference.config import PreferenceConfig
from modicum_algorithms.preference.evaluation import Match, win_rate
from modicum_algorithms.preference.experiment import ActivePreferenceLearning
from modicum_algorithms.preference.inspection import ACQUIRED, TRAINING
from modicum_algorithms.preference.judging import Judge, OracleFailedError
from modicum_algorithms.preference.pretraining import model_location

SMALL = {
    "oracle_calls": 24,
    "acquired_per_round": 8,
    "prompts_per_round": 16,
    "entropy_samples": 2,
    "entropy_factor": 2,
    "epochs": 2,
    "batch_size": 4,
    "evaluation_prompts": 16,
    "completion_tokens_min": 14,
    "completion_tokens_max": 16,
    "training": {"learning_rate": 3e-4, "micro_batch_size": 4},
}


def config(**changed):
    return PreferenceConfig.model_validate({**SMALL, **changed})


def worker(folder):
    scratch = folder / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    return md.training.Worker(
        rank=0, size=1, device=torch.device("cpu"),
        journal=md.training.Journal(folder / "journal"), scratch=scratch,
    )  # fmt: skip


def run(folder, settings):
    arguments = algorithm.Arguments(settings, model_location("packaged"), 0, "trial")
    messages = list(algorithm.active_learning(worker(folder), arguments))
    return [without_times(message) for message in messages], rows_of(folder, ACQUIRED)


def rows_of(folder, name):
    with md.training.Journal(folder / "journal").folder("left", folder) as left:
        return [json.loads(line) for line in (left / name).read_text().splitlines()]


def without_times(message):
    metrics = {k: v for k, v in message["metrics"].items() if not k.startswith("time/")}
    return {**message, "metrics": metrics}


class MadeUp:
    """An oracle whose answer to a pair is that of a function."""

    name, version = "made_up", "1"

    def __init__(self, answer):
        self.answer = answer

    def judge(self, pairs, *, repeat=0):
        return [self.answer(pair) for pair in pairs]


def judgement(pair, winner):
    return md.oracles.Judgement(
        winner=winner, oracle="made_up", version="1", order_shown=pair.order
    )


def failure(reason, message=""):
    return md.oracles.Failure(reason=reason, message=message, oracle="made_up", version="1")


def longer(pair):
    """The longer completion wins; equally long ones are a tie."""
    if len(pair.first) == len(pair.second):
        return failure("tie")
    return judgement(pair, "first" if len(pair.first) > len(pair.second) else "second")


TIED = MadeUp(lambda pair: failure("tie"))
SILENT = MadeUp(lambda pair: failure("unreadable"))
FIRST_SHOWN = MadeUp(lambda pair: judgement(pair, "first" if pair.order == "given" else "second"))


@pytest.fixture
def judged_by(monkeypatch):
    """Trials are judged by the given oracle, whatever their settings say."""
    return lambda oracle: monkeypatch.setattr(
        algorithm, "open_oracle", lambda *_, **__: nullcontext(oracle)
    )


@pytest.mark.parametrize("acquisition", ["entropy", "entropy_certainty"])
def test_the_loop_spends_its_budget_and_never_asks_about_a_prompt_twice(tmp_path, acquisition):
    messages, rows = run(tmp_path, config(acquisition=acquisition))
    assert [message["budget"] for message in messages] == sorted(
        message["budget"] for message in messages
    )
    assert messages[-1]["budget"] == len(rows) <= 24
    assert len({row["prompt"] for row in rows}) == len(rows)
    sampled = [
        md.training.Journal(tmp_path / "journal").read(f"round-00{i}/pairs") for i in (1, 2, 3)
    ]
    # Only certainty compares pairs before it chooses.
    assert {len(pairs) for pairs in sampled} == {8 if acquisition == "entropy" else 16}


@pytest.mark.slow
def test_interrupted_after_any_step_it_goes_on_to_the_same_end(tmp_path, monkeypatch):
    """Killed after every fifth of its journal's writes, with checkpoints within rounds."""
    settings = config(
        acquisition="certainty", oracle_calls=16, training={**SMALL["training"], "save_every": 2}
    )
    expected, expected_rows = run(tmp_path / "whole", settings)
    writes = kills = 0
    original = md.training.Journal.write

    class KilledError(Exception):
        pass

    def write(self, name, result):
        nonlocal writes
        original(self, name, result)
        writes += 1
        if writes % 5 == 0:
            raise KilledError

    monkeypatch.setattr(md.training.Journal, "write", write)
    for _ in range(100):
        try:
            found, rows = run(tmp_path / "killed", settings)
            break
        except KilledError:
            kills += 1
    assert kills >= 4
    assert rows == expected_rows
    assert found == expected


@pytest.mark.slow
def test_a_disk_that_is_full_at_a_checkpoint_ends_the_trial_and_loses_nothing(tmp_path, small_disk):
    remount = small_disk(tmp_path / "full" / "journal", "size=1m")
    settings = config(acquisition="random", training={**SMALL["training"], "save_every": 2})
    expected = run(tmp_path / "whole", settings)
    with pytest.raises(OSError, match="space") as raised:
        run(tmp_path / "full", settings)
    assert raised.value.errno == errno.ENOSPC
    done = md.training.Journal(tmp_path / "full" / "journal")
    assert done.read("round-001/judgements-000000") is not None
    remount("size=64m")
    assert run(tmp_path / "full", settings) == expected


class Counting:
    """VADER, counting what it is asked, and giving up for good after so many questions."""

    name, version = "counting", "1"

    def __init__(self, limit):
        self.asked, self.limit = [], limit
        self.inner = md.oracles.VaderOracle()

    def judge(self, pairs, *, repeat=0):
        if len(self.asked) + len(pairs) > self.limit:
            return [failure("unavailable", "gone") for _ in pairs]
        self.asked += pairs
        return self.inner.judge(pairs, repeat=repeat)


@pytest.mark.slow
def test_an_oracle_that_gives_up_ends_the_trial_and_is_asked_nothing_twice(tmp_path, judged_by):
    always, oracle = Counting(limit=10_000), Counting(limit=60)
    judged_by(always)
    expected, _ = run(tmp_path / "whole", config(acquisition="random"))
    judged_by(oracle)
    with pytest.raises(OracleFailedError, match=r"oracle: .* pairs have no answer \(gone\)"):
        run(tmp_path / "failed", config(acquisition="random"))
    assert 0 < len(oracle.asked) <= 60
    oracle.limit = 10_000
    found, _ = run(tmp_path / "failed", config(acquisition="random"))
    assert oracle.asked == always.asked
    assert found == expected


@pytest.mark.slow
def test_rounds_without_a_single_judgement_leave_the_model_as_it_was(tmp_path, judged_by):
    judged_by(TIED)
    for fine_tuning in ("refit", "online"):
        messages, rows = run(tmp_path / fine_tuning, config(fine_tuning=fine_tuning))
        assert rows == []
        assert [message["budget"] for message in messages] == [0, 0, 0]
        metrics = messages[-1]["metrics"]
        assert (metrics["training/updates"], metrics["acquired/failures"]) == (0, 1)
        assert metrics["evaluation/win_rate"] == 0.5


def test_online_learning_makes_one_update_a_round_and_does_not_reset(tmp_path):
    messages, _ = run(tmp_path, config(fine_tuning="online", acquisition="random"))
    assert [message["metrics"]["training/updates"] for message in messages] == [1, 1, 1]
    with worker(tmp_path).kept_state("weights") as folder:
        assert json.loads((folder / "round.json").read_text())["rows"][0]["update"] == 2


def test_the_model_that_is_left_behind_loads_and_generates(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run(tmp_path, config())
    with md.training.Journal(tmp_path / "journal").folder("left", tmp_path) as left:
        model = AutoModelForCausalLM.from_pretrained(left / MODEL)
        tokenizer = AutoTokenizer.from_pretrained(left / MODEL)
    ids = tokenizer("The film", return_tensors="pt")
    assert (
        model.generate(**ids, max_new_tokens=4, min_new_tokens=4).shape[1]
        == ids["input_ids"].shape[1] + 4
    )
    start = AutoModelForCausalLM.from_pretrained(model_location("packaged"))
    changed = [
        name
        for (name, a), b in zip(model.named_parameters(), start.parameters(), strict=True)
        if not torch.equal(a, b)
    ]
    assert changed


@pytest.mark.slow
def test_epochs_within_the_last_round_are_evaluated_when_asked_for(tmp_path):
    messages, _ = run(tmp_path, config(epochs=3, evaluate_epochs=1, evaluate_at=(24,)))
    epochs = [message["metrics"]["training/epoch"] for message in messages]
    rated = ["evaluation/win_rate" in message["metrics"] for message in messages]
    assert epochs == [3, 3, 1, 2, 3]
    assert rated == [False, False, True, True, True]


def test_a_win_rate_by_hand(tmp_path):
    """One win, one loss, a tie by length, a tie by being the same: (1 + 0 + 1/2 + 1/2) / 4."""
    matches = [
        Match("x", "longer", "short"),
        Match("x", "a", "bb"),
        Match("x", "cc", "dd"),
        Match("x", "same", "same"),
    ]
    found = win_rate(matches, Judge(MadeUp(longer), worker(tmp_path)), "step", seed=3)
    assert found["win_rate"] == 0.5
    assert (found["ties"], found["failures"], found["judgements"]) == (0.5, 0, 6)
    # Points 1, 0, 1/2, 1/2: the squared deviations add up to 1/2.
    assert found["standard_error"] == pytest.approx(np.sqrt(0.5) / 4)
    assert [row["winner"] for row in found["rows"]] == ["model", "opponent", None, None]


def test_a_win_rate_of_no_answers_is_left_out(tmp_path):
    """Not NaN, which would end the trial as diverged."""
    matches = [Match(str(n), "one", "other") for n in range(3)]
    found = win_rate(matches, Judge(SILENT, worker(tmp_path)), "step", seed=0)
    assert not {"win_rate", "standard_error"} & set(found)
    assert (found["failures"], found["ties"], found["judgements"]) == (1, 0, 6)
    assert {row["points"] for row in found["rows"]} == {None}


@pytest.mark.slow
def test_a_trial_whose_evaluation_has_no_answer_finishes_and_says_so(tmp_path, judged_by):
    judged_by(SILENT)
    # Completions of a cold model are often the same, and need no oracle then.
    settings = {**SMALL, "oracle_calls": 8, "evaluation_temperature": 1.5}
    study = md.Study("preference", settings, seeds=1)
    frame = study.run(tmp_path / "run", runner="local").frame
    assert frame["evaluation/failures"].tolist() == [1]
    assert frame.get("evaluation/win_rate", np.full(1, np.nan)).tolist() == pytest.approx(
        [np.nan], nan_ok=True
    )
    (log,) = (tmp_path / "run" / "trials").glob("*/log.txt")
    assert "judged none of 16 held-out prompts" in log.read_text()


def test_an_oracle_that_always_says_a_makes_no_winner(tmp_path):
    """Both orders are asked, so a bias for what stands first cancels out."""
    matches = [Match(str(n), "one", "other") for n in range(20)]
    found = win_rate(matches, Judge(FIRST_SHOWN, worker(tmp_path)), "step", seed=0)
    assert found["win_rate"] == 0.5
    assert found["ties"] == 1


@pytest.mark.slow
def test_a_model_does_not_win_against_itself(tmp_path):
    """Other sampling seeds, the same weights: the 95% interval holds 1/2."""
    settings = config(
        evaluation_prompts=200, evaluation_temperature=1.0, oracle_calls=8,
        training={**SMALL["training"], "learning_rate": 1e-12},
    )  # fmt: skip
    messages, _ = run(tmp_path, settings)
    metrics = messages[-1]["metrics"]
    assert abs(metrics["evaluation/win_rate"] - 0.5) < 1.96 * metrics["evaluation/standard_error"]
    assert 0 < metrics["evaluation/ties"] < 0.9


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"acquisition": "best"}, "acquisition: must be one of"),
        ({"acquired_per_round": 32, "oracle_calls": 64}, "acquired_per_round: must be at most"),
        ({"acquired_per_round": 16, "oracle_calls": 8}, "acquired_per_round: must be at most"),
        ({"evaluate_at": [12]}, "evaluate_at: must hold multiples"),
        ({"completion_tokens_min": 17}, "completion_tokens_min: must be at most"),
        ({"language_model": "./nowhere"}, "^language_model: no folder at './nowhere'"),
        ({"prompts": "nowhere.txt"}, "prompts: "),
        ({"opponent": "human"}, "opponent"),
        ({"training": {"precision": "fp16"}}, "training.precision: fp16 needs GPUs"),
        ({"generation": {"where": "pool"}}, "generation.actors: must be 1 or more"),
    ],
)
def test_mistakes_are_found_before_anything_starts(changed, message):
    with pytest.raises(md.InputError, match=message):
        ActivePreferenceLearning().check(config(**changed))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"evaluation_prompts": 10**6}, "evaluation_prompts: must be at most"),
        ({"oracle_calls": 10**6, "acquired_per_round": 8}, "oracle_calls: must be at most"),
        ({"completion_tokens_max": 500}, "must fit the model's context"),
    ],
)
def test_what_only_the_data_tell_is_one_sentence(tmp_path, changed, message):
    with pytest.raises(md.InputError, match=message):
        run(tmp_path, config(**changed))


def test_a_study_in_this_process_leaves_its_model_and_removes_its_journal(tmp_path):
    study = md.Study("preference", {**SMALL, "acquisition": "entropy_certainty"}, seeds=1)
    results = study.run(tmp_path / "run", runner="local")
    assert results.frame["budget"].max() <= 24
    (checkpoint,) = Path(tmp_path / "run" / "checkpoints").rglob(ACQUIRED)
    assert (checkpoint.parent / MODEL / "config.json").is_file()
    assert not list((tmp_path / "run").glob("storage/*"))


def training_losses(folder):
    return [row["loss"] for row in rows_of(folder, TRAINING)]


def test_accumulated_micro_batches_are_one_batch(tmp_path, judged_by):
    """Micro-batches of 1 against whole batches of 4, the last of an epoch smaller."""
    judged_by(MadeUp(longer))
    for size in (1, 4):
        settings = config(
            acquisition="random",
            acquired_per_round=6,
            oracle_calls=6,
            training={**SMALL["training"], "micro_batch_size": size},
        )
        run(tmp_path / str(size), settings)
    one, four = (training_losses(tmp_path / str(size)) for size in (1, 4))
    assert len(one) > 1
    assert one == pytest.approx(four, rel=1e-4)
    assert one[0] == pytest.approx(np.log(2), abs=1e-4)  # θ = θ0


@pytest.mark.slow
def test_fine_tuning_stops_when_held_back_pairs_get_worse(tmp_path, judged_by):
    """With a learning rate that destroys the model, after the first epochs; never without."""
    judged_by(MadeUp(longer))
    shared = {
        "acquisition": "random",
        "acquired_per_round": 24,
        "prompts_per_round": 24,
        "epochs": 6,
        "training": {**SMALL["training"], "learning_rate": 0.3},
    }
    run(tmp_path / "patient", config(patience=1, held_back=0.25, **shared))
    _, rows = run(tmp_path / "all", config(**shared))
    stopped, went_on = (training_losses(tmp_path / name) for name in ("patient", "all"))
    trained = len(rows) - round(0.25 * len(rows))
    assert len(went_on) == 6 * -(-len(rows) // 4)
    assert len(stopped) < 6 * -(-trained // 4)


@pytest.mark.slow
def test_each_reference_is_computed_once_over_rounds_and_runs(tmp_path, monkeypatch):
    location = model_location("packaged")
    monkeypatch.setenv("MODICUM_CACHE", str(tmp_path / "cache"))
    computed = []
    original = algorithm.Policy.log_probabilities

    def counting(self, wanted):
        computed.extend(wanted)
        return original(self, wanted)

    monkeypatch.setattr(algorithm.Policy, "log_probabilities", counting)
    for name in ("one", "two"):
        arguments = algorithm.Arguments(config(acquisition="certainty"), location, 0, "trial")
        list(algorithm.active_learning(worker(tmp_path / name), arguments))
        assert len(computed) == len(set(computed)) > 2 * 24
