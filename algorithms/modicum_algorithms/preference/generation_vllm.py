"""Sampling on a pool with vLLM, through Ray's own integration (`ray.data.llm`).

Written from the source of Ray 2.60; vLLM needs GPUs, and was not run. What goes in and comes out is
mapped by functions of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import modicum as md
from modicum_algorithms.preference.generation_settings import GenerationSettings

if TYPE_CHECKING:
    from modicum_algorithms.preference.generation_pool import Sampling

_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
# vLLM's seeds are signed.
_SEEDS = 2**63


def sampled_by_vllm(rows: Any, sampling: Sampling, settings: GenerationSettings, size: int) -> Any:
    """A dataset of `tables_of` with the stages that sample its completions.

    Args:
        rows: The dataset.
        sampling: How, and with which model.
        settings: Of the pool.
        size: Completions in a batch.
    """
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    from modicum_algorithms.preference.generation_pool import WEIGHTS

    place = md.training.Journal(sampling.journal).place(WEIGHTS)
    config = vLLMEngineProcessorConfig(**processor_options(place, sampling, settings, size))
    # They wait for nothing, and must not wait for processors that the pool itself has taken.
    light = {"num_cpus": 0}
    processor = build_processor(
        config,
        preprocess=partial(
            request_of_row, temperature=sampling.temperature, ends=sampling.end is not None
        ),
        postprocess=completion_of_row,
        preprocess_map_kwargs=light,
        postprocess_map_kwargs=light,
    )
    return processor(rows)


def processor_options(
    model: str, sampling: Sampling, settings: GenerationSettings, size: int
) -> dict[str, Any]:
    """Arguments of `vLLMEngineProcessorConfig`.

    Args:
        model: Folder or URI of the model and its tokenizer.
        sampling: How.
        settings: Of the pool.
        size: Completions in a batch.
    """
    gpus = int(settings.gpus)
    return {
        "model_source": model,
        "engine_kwargs": {
            "tensor_parallel_size": gpus,
            "dtype": _DTYPES[sampling.precision],
            "max_num_seqs": sampling.batch_size,
            # log p at temperature 1, as the workers count it.
            "logprobs_mode": "raw_logprobs",
            # The model's own settings of sampling would be added to ours.
            "generation_config": "vllm",
        },
        # A single number would let Ray Data start with one actor.
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
    """What Ray's vLLM stage asks for, from a row of `tables_of`.

    Args:
        row: `ids`, `tokens` and `seed`.
        temperature: Of the sampling.
        ends: Whether there is a token that ends a text.
    """
    return {
        "tokenized_prompt": [int(token) for token in row["ids"]],
        "sampling_params": {
            "max_tokens": int(row["tokens"]),
            "temperature": float(temperature),
            "seed": int(row["seed"]) % _SEEDS,
            "logprobs": 0,  # None but the drawn token's.
            "ignore_eos": not ends,
            "detokenize": False,
        },
    }


def completion_of_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """`place`, `completion` and `log_probability` from a row of Ray's vLLM stage.

    Args:
        row: With `generated_tokens`, and in `logprobs` for each of them a mapping from tokens to
            what is known of them. Between stages, Arrow may have made texts of its keys, and added
            the keys of other rows, without values.
    """
    tokens = [int(token) for token in row["generated_tokens"]]
    found = 0.0
    for token, known in zip(tokens, row["logprobs"], strict=True):
        about = known.get(token) or known.get(str(token))
        assert about is not None, "vLLM has left out the drawn token"
        found += float(about["logprob"])
    return {"place": int(row["place"]), "completion": tokens, "log_probability": found}
