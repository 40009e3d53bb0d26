"""Sampling by a pool with vLLM, through Ray's own integration (`ray.data.llm`).

Written from the source of Ray 2.60. vLLM needs GPUs and was not run: only the functions that map
its inputs and outputs are tested.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import modicum as md
from modicum_algorithms.preference.config import GenerationSettings
from modicum_algorithms.preference.sampling.pool import WEIGHTS, Published

# vLLM's seeds are signed 64-bit integers.
_SEEDS = 2**63


def vllm_stages(dataset: Any, published: Published, settings: GenerationSettings, size: int) -> Any:
    """Stages that sample with vLLM, from rows of `tables_of` in batches of `size`."""
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    place = md.training.Journal(published.journal).place(WEIGHTS)
    config = vLLMEngineProcessorConfig(**processor_options(place, published, settings, size))
    # The mapping of rows must not wait for CPUs that the pool itself has taken.
    light = {"num_cpus": 0}
    processor = build_processor(
        config,
        preprocess=partial(
            request_of_row, temperature=published.temperature, ends=published.end is not None
        ),
        postprocess=completion_of_row,
        preprocess_map_kwargs=light,
        postprocess_map_kwargs=light,
    )
    return processor(dataset)


def processor_options(
    model: str, published: Published, settings: GenerationSettings, size: int
) -> dict[str, Any]:
    """Arguments of `vLLMEngineProcessorConfig` for a model and its tokenizer, a folder or URI."""
    gpus = int(settings.gpus)
    return {
        "model_source": model,
        "engine_kwargs": {
            "tensor_parallel_size": gpus,
            "dtype": md.training.DTYPES[published.precision],
            "max_num_seqs": published.batch_size,
            # Log-probabilities at temperature 1, like the workers'.
            "logprobs_mode": "raw_logprobs",
            # Without this, the model's own sampling settings would be added.
            "generation_config": "vllm",
        },
        # With a single number, Ray Data could start with one actor.
        "concurrency": (settings.actors, settings.actors),
        "batch_size": size,
        "placement_group_config": {
            "bundles": [
                {"CPU": settings.cpus, "GPU": 1.0},
                *({"GPU": 1.0} for _ in range(gpus - 1)),
            ],
            "strategy": "STRICT_PACK",
        },
        # Prompts are tokens already, and completions stay tokens.
        "chat_template_stage": False,
        "tokenize_stage": False,
        "detokenize_stage": False,
        "log_engine_metrics": False,
    }


def request_of_row(row: Mapping[str, Any], *, temperature: float, ends: bool) -> dict[str, Any]:
    """Input of Ray's vLLM stage for a row of `tables_of`; it `ends` at an end-of-text token."""
    return {
        "tokenized_prompt": [int(token) for token in row["ids"]],
        "sampling_params": {
            "max_tokens": int(row["tokens"]),
            "temperature": float(temperature),
            "seed": int(row["seed"]) % _SEEDS,
            "logprobs": 0,  # Only the sampled token's.
            "ignore_eos": not ends,
            "detokenize": False,
        },
    }


def completion_of_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """`place`, `completion` and `log_probability` from a row of Ray's vLLM stage.

    Its `logprobs` are a mapping from token to log-probability for each generated token. Between
    stages, Arrow may have turned keys into strings and added those of other rows with None.
    """
    tokens = [int(token) for token in row["generated_tokens"]]
    found = 0.0
    for token, known in zip(tokens, row["logprobs"], strict=True):
        about = known.get(token) or known.get(str(token))
        assert about is not None, "vLLM left out the sampled token"
        found += float(about["logprob"])
    return {"place": int(row["place"]), "completion": tokens, "log_probability": found}
