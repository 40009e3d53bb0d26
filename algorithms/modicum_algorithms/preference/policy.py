"""The language model that learns: sampling, log-probabilities and fine-tuning on all workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

import modicum as md
from modicum_algorithms.preference.config import PreferenceConfig
from modicum_algorithms.preference.data.prompts import Ids
from modicum_algorithms.preference.reference import PromptAndCompletion, ReferenceCache
from modicum_algorithms.preference.sampling.in_process import Sampler, WorkerSampler
from modicum_algorithms.preference.sampling.pool import GenerationPool, transformers_stages
from modicum_algorithms.preference.sampling.vllm import vllm_stages
from modicum_algorithms.preference.scoring import CompletionScorer, Example, trained_weights

# Two short texts and a longer one, of tokens that every vocabulary has.
_LAYOUT_EXAMPLES = (
    Example((1, 2, 3), (4, 5), (6, 7, 8)),
    Example((9, 8), (7,), (5, 4, 3, 2)),
    Example((3, 1, 4, 1, 5), (9, 2, 6), (5, 3), tail=(5, 8)),
)


@dataclass(frozen=True)
class Policy:
    """p_θ, whole or sharded over the workers; every worker calls every method.

    Attributes:
        language: Model, tokenizer and context.
        engine: Engine that trains the model.
        worker: The calling process.
        reference: Cache of log-probabilities under θ0.
        sampler: Sampler of completions.
        micro_batch_size: Examples that a worker scores at once.
    """

    language: md.training.LanguageModel
    engine: md.training.Engine
    worker: md.training.Worker
    reference: ReferenceCache
    sampler: Sampler
    micro_batch_size: int

    @classmethod
    def load(
        cls, config: PreferenceConfig, name: str, seed: int, worker: md.training.Worker
    ) -> Policy:
        """θ0 by its hub name, folder or GGUF file, ready to be trained.

        The seed is that of the adapters' initial weights.

        Raises:
            InputError: The model cannot be loaded.
        """
        settings = config.training
        with md.training.loading(settings, worker):
            language = md.training.load_language_model(
                name,
                precision=settings.precision,
                activation_checkpointing=settings.activation_checkpointing,
                device=worker.device,
                field="language_model",
            )
        language = md.training.add_adapters(language, settings, seed)
        scorer = CompletionScorer(language.model)
        engine = md.training.build_engine(scorer, settings, worker)
        if not scorer.choose_layout(_LAYOUT_EXAMPLES):
            worker.log.info("the model computes a prompt once for each of its completions")
        return cls(
            language=language,
            engine=engine,
            worker=worker,
            reference=ReferenceCache(
                md.data.cache_folder() / "reference_log_probabilities", language.identity
            ),
            sampler=_sampler(config, language, engine, worker),
            micro_batch_size=settings.micro_batch_size,
        )

    def encode_continuation(self, text: str) -> Ids:
        """Tokens of a text that continues another."""
        return tuple(self.language.tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, ids: Ids) -> str:
        """The text of a completion."""
        return str(self.language.tokenizer.decode(ids, skip_special_tokens=True))

    def reference_log_probabilities(self, wanted: Sequence[PromptAndCompletion]) -> list[float]:
        """Log p_θ0(y|x) of each completion, computed unless it is in the cache."""
        missing = self.worker.alone(lambda: self.reference.missing(wanted))
        if missing:
            new = [wanted[place] for place in missing]
            with self.engine.at_start():
                found = self.log_probabilities(new)
            self.worker.alone(lambda: self.reference.store(new, found))
        return self.worker.alone(lambda: self.reference.read(wanted))

    def log_probabilities(self, wanted: Sequence[PromptAndCompletion]) -> list[float]:
        """Log p_θ(y|x) of each completion; neighbours with the same prompt share its pass."""
        examples, places = _paired(wanted)
        found = [0.0] * len(wanted)
        for (first, second), values in zip(places, self.score(examples), strict=True):
            found[first] = values[0]
            if second is not None:
                found[second] = values[1]
        return found

    def embeddings(self, prompts: Sequence[Ids]) -> list[list[float]]:
        """Mean of the last hidden states over the tokens of each prompt."""
        padded = list(prompts) + [prompts[-1]] * (-len(prompts) % self.worker.size)
        found = []
        with torch.no_grad(), self.engine.whole():
            for ids in self.worker.share(padded):
                model = self.language.model
                hidden_1TD = model(
                    torch.tensor([ids], device=self.worker.device), output_hidden_states=True
                ).hidden_states[-1]
                found.append(hidden_1TD[0].float().mean(0).tolist())
        return self.worker.collect(found)[: len(prompts)]

    def score(self, examples: Sequence[Example]) -> list[tuple[float, float]]:
        """Log p_θ of both completions of each example, in micro-batches of similar length."""
        # Under ZeRO-3 all workers must call the model equally often.
        padded = list(examples) + [examples[-1]] * (-len(examples) % self.worker.size)
        order = sorted(range(len(padded)), key=lambda place: padded[place].tokens)
        mine = self.worker.share(order)
        found: list[tuple[float, float]] = []
        with torch.no_grad():
            for start in range(0, len(mine), self.micro_batch_size):
                batch = [padded[place] for place in mine[start : start + self.micro_batch_size]]
                found += [(row[0], row[1]) for row in self.engine(batch).tolist()]
        by_place = dict(zip(order, self.worker.collect(found), strict=True))
        return [by_place[place] for place in range(len(examples))]


def _sampler(
    config: PreferenceConfig,
    language: md.training.LanguageModel,
    engine: md.training.Engine,
    worker: md.training.Worker,
) -> Sampler:
    if config.generation.where == "workers":
        return WorkerSampler(language, engine, worker, config.generation_batch)
    return GenerationPool(
        settings=config.generation,
        stages=vllm_stages if config.generation.engine == "vllm" else transformers_stages,
        precision=config.training.precision,
        batch_size=config.generation_batch,
        language=language,
        weights=partial(trained_weights, engine),
        worker=worker,
    )


def _paired(
    wanted: Sequence[PromptAndCompletion],
) -> tuple[list[Example], list[tuple[int, int | None]]]:
    """Examples that join neighbours with the same prompt, and the indices of their completions."""
    examples: list[Example] = []
    places: list[tuple[int, int | None]] = []
    for place, (prompt, completion) in enumerate(wanted):
        if places and places[-1][1] is None and examples[-1].prompt == prompt:
            examples[-1] = Example(prompt, examples[-1].first, completion)
            places[-1] = (places[-1][0], place)
        else:
            examples.append(Example(prompt, completion))
            places.append((place, None))
    return examples, places
