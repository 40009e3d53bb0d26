"""Algorithm 2 on a worker group of Ray Train, the model sharded: the same numbers as without."""

import pytest

import modicum as md

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SMALL = {
    "acquisition": "entropy_certainty",
    "oracle_calls": 16,
    "acquired_per_round": 8,
    "prompts_per_round": 12,
    "entropy_factor": 2,
    "entropy_samples": 2,
    "epochs": 2,
    "batch_size": 6,
    "evaluation_prompts": 15,
    "completion_tokens_min": 14,
    "completion_tokens_max": 16,
    "training.micro_batch_size": 2,
}
SHARDED = {"training.workers": 2, "training.zero_stage": 3}


def records(folder, **changed):
    study = md.Study("preference", {**SMALL, **changed}, seeds=1)
    frame = study.run(folder).frame
    kept = [name for name in frame.columns if name.startswith(("evaluation/", "training/"))]
    return frame[["budget", "acquired/accuracy", *kept]], folder


def test_zero_3_on_two_workers_gives_the_numbers_of_one_process(ray_cluster, tmp_path):
    """An odd number of prompts and a batch that does not divide: shares of the workers differ."""
    import pandas as pd
    from transformers import AutoModelForCausalLM, AutoTokenizer

    alone, _ = records(tmp_path / "alone")
    sharded, folder = records(tmp_path / "sharded", **SHARDED)
    pd.testing.assert_frame_equal(alone, sharded, rtol=1e-3, atol=1e-3)
    (model,) = (folder / "checkpoints").glob("*/*/model")
    tokenizer = AutoTokenizer.from_pretrained(model)
    ids = tokenizer("The film", return_tensors="pt")
    longer = AutoModelForCausalLM.from_pretrained(model).generate(**ids, max_new_tokens=3)
    assert longer.shape[1] > ids["input_ids"].shape[1]
