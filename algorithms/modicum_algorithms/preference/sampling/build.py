"""The sampler that the settings ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

import modicum as md
from modicum_algorithms.preference.config import PreferenceConfig
from modicum_algorithms.preference.sampling.in_process import WorkerSampler
from modicum_algorithms.preference.sampling.pool import GenerationPool, transformers_stages
from modicum_algorithms.preference.sampling.protocol import Sampler
from modicum_algorithms.preference.sampling.vllm import vllm_stages


def build_sampler(
    config: PreferenceConfig,
    language: md.training.LanguageModel,
    engine: md.training.Engine,
    weights: Callable[[], Mapping[str, Tensor]],
    worker: md.training.Worker,
) -> Sampler:
    """The sampler of a worker.

    Args:
        config: Settings.
        language: The policy and its tokenizer.
        engine: Engine that holds the weights.
        weights: Function that returns the trained weights, on the first worker.
        worker: The calling process.
    """
    if config.generation.where == "workers":
        return WorkerSampler(language, engine, worker, config.generation_batch)
    return GenerationPool(
        settings=config.generation,
        stages=vllm_stages if config.generation.engine == "vllm" else transformers_stages,
        precision=config.training.precision,
        batch_size=config.generation_batch,
        language=language,
        weights=weights,
        worker=worker,
    )
