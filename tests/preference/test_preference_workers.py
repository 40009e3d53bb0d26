"""Workers of Ray Train and a pool of Ray Data's actors that samples for them, on a real cluster."""

import threading
import time
from contextlib import suppress

import psutil
import pytest
import torch

import modicum as md
from modicum_algorithms.preference.config import GenerationSettings
from modicum_algorithms.preference.pretraining import model_location
from modicum_algorithms.preference.sampling.in_process import Request, generate
from modicum_algorithms.preference.sampling.pool import GenerationPool, transformers_stages
from waiting import cpus_come_back

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.usefixtures("ray_cluster")]

# One round: θ0's completions of the held-out prompts, pairs, and its own completions of them.
SMALL = {
    "acquisition": "random",
    "oracle_calls": 8,
    "acquired_per_round": 8,
    "prompts_per_round": 8,
    "epochs": 2,
    "batch_size": 4,
    "evaluation_prompts": 15,
    "completion_tokens_min": 14,
    "completion_tokens_max": 16,
    "training.micro_batch_size": 2,
}
POOL = {"generation.where": "pool", "generation.actors": 2, "generation.cpus": 0.5}


def records(folder, **changed):
    frame = md.Study("preference", {**SMALL, **changed}, seeds=1).run(folder).frame
    kept = [name for name in frame if name.startswith(("evaluation/", "training/", "acquired/"))]
    return frame[["budget", *kept]]


def test_zero_3_on_two_workers_gives_the_numbers_of_one_process(tmp_path):
    """An odd number of prompts and a batch that does not divide: shares of the workers differ."""
    import pandas as pd
    from transformers import AutoModelForCausalLM, AutoTokenizer

    hybrid = {
        "acquisition": "entropy_certainty",
        "oracle_calls": 16,
        "prompts_per_round": 12,
        "entropy_factor": 2,
        "entropy_samples": 2,
        "batch_size": 6,
    }
    workers = {"training.workers": 2, "training.zero_stage": 3}
    alone = records(tmp_path / "alone", **hybrid)
    sharded = records(tmp_path / "sharded", **hybrid, **workers)
    pd.testing.assert_frame_equal(alone, sharded, rtol=1e-3, atol=1e-3)
    (model,) = (tmp_path / "sharded" / "checkpoints").glob("*/*/model")
    tokenizer = AutoTokenizer.from_pretrained(model)
    ids = tokenizer("The film", return_tensors="pt")
    longer = AutoModelForCausalLM.from_pretrained(model).generate(**ids, max_new_tokens=3)
    assert longer.shape[1] > ids["input_ids"].shape[1]


def test_a_worker_with_a_pool_goes_the_way_of_a_trial_without(tmp_path):
    import pandas as pd

    alone = records(tmp_path / "alone")
    worker = {"training.workers": 1, "training.cpus_per_worker": 0.9, "training.zero_stage": 2}
    with_pool = records(tmp_path / "pool", **worker, **POOL)
    pd.testing.assert_frame_equal(alone, with_pool, rtol=1e-4, atol=1e-4)
    assert alone["evaluation/tokens"].equals(with_pool["evaluation/tokens"])


@pytest.mark.parametrize("runner", ["ray", "local"])
def test_a_pool_that_does_not_fit_is_refused_before_anything_starts(tmp_path, runner):
    settings = {**SMALL, **POOL, "generation.actors": 3, "generation.cpus": 0.9}
    study = md.Study("preference", settings, seeds=1)
    message = r"resources: one trial needs 0\.99 CPU \+ 0\.9 CPU \+ 0\.9 CPU \+ 0\.9 CPU, but"
    if runner == "ray":
        with pytest.raises(md.InputError, match=message):
            study.run(tmp_path / "run", runner=runner)
    else:
        results = study.run(tmp_path / "run", runner=runner)
        assert results.frame.empty
        (log,) = (tmp_path / "run" / "trials").glob("*/error.txt")
        assert "one trial needs" in log.read_text()


@pytest.fixture
def setting(tmp_path):
    """A published model, what to sample with it, and the completions of this process."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    journal = md.training.Journal(tmp_path / "journal")
    worker = md.training.Worker(0, 1, torch.device("cpu"), journal, scratch)
    language = md.training.load_language_model(model_location("packaged"), device="cpu")
    prompts = language.tokenizer(["The film", "A story about a man, which", "I"])["input_ids"]
    requests = [Request(tuple(prompts[n % 3]), 40, seed=n) for n in range(400)]
    expected = generate(
        language.model, requests, temperature=0.7, end=language.tokenizer.eos_token_id,
        padding=language.tokenizer.pad_token_id, batch_size=64,
    )  # fmt: skip

    def sample(**changed):
        settings = GenerationSettings(where="pool", **{"actors": 2, "cpus": 0.5, **changed})
        pool = GenerationPool(settings, transformers_stages, "fp32", 10, language, dict, worker)
        return pool.sample(requests, 0.7, None)

    return sample, expected


def test_an_actor_that_is_killed_is_replaced_and_nothing_is_lost(setting):
    sample, expected = setting
    killed, done = [], threading.Event()

    def kill():
        """The first actor that is seen to be at work."""
        while not done.is_set():
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    title = " ".join(process.cmdline())
                    if title.startswith("ray::MapWorker(MapBatches(TransformersActor)).submit"):
                        process.kill()
                        killed.append(process.pid)
                        return
            time.sleep(0.01)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        found = sample()
    finally:
        done.set()
        killer.join()
    assert len(killed) == 1
    assert [one.ids for one in found] == [one.ids for one in expected]
    logs = [one.log_probability for one in expected]
    assert [one.log_probability for one in found] == pytest.approx(logs, rel=1e-4)


def test_fewer_actors_than_asked_for_are_an_error(setting):
    """Something else holds three quarters of the cluster; not even a task of one CPU runs.

    The actor that did start ends, and the one that waited never starts.
    """
    import gc

    import ray

    class Holder:
        def ready(self):
            return True

    holder = ray.remote(Holder).options(num_cpus=1.5).remote()
    ray.get(holder.ready.remote())
    sample, _ = setting
    # A collection by chance must not stand in for the one that is owed.
    gc.disable()
    try:
        with pytest.raises(md.InputError, match=r"^generation\.actors: all 2 actors with 0\.5 CPU"):
            sample(start_timeout=20)
        ray.kill(holder)
        assert cpus_come_back(), "an actor of the pool still has its share"
    finally:
        gc.enable()
        ray.kill(holder)
