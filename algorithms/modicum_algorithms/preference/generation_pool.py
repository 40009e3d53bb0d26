"""Sampling on a pool: actors of Ray Data that load the weights as they are and sample with them.

A pipeline is started for each step that samples, and so are its actors: Ray Data ends them with
it. Weights reach them through the run folder, once for each round.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import modicum as md
from modicum_algorithms.preference.generation import Completion, Request, batches, generate
from modicum_algorithms.preference.generation_settings import GenerationSettings

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

# Name in the journal of the model that a pool samples with.
WEIGHTS = "generation"


@dataclass(frozen=True)
class Sampling:
    """How a pool samples.

    Attributes:
        journal: Location of the journal with the model.
        precision: Of its weights.
        temperature: Divides the logits.
        end: The token that ends a text; None if there is none.
        padding: The token to pad with.
        batch_size: Completions at a time.
    """

    journal: str
    precision: md.training.Precision
    temperature: float
    end: int | None
    padding: int
    batch_size: int


@dataclass
class Pool:
    """The pool of a trial; every worker has one and calls every method.

    Attributes:
        settings: Of the pool.
        precision: Of the weights.
        batch_size: Completions that an actor samples at a time.
        version: Of the weights that are published; None where they have no name.
    """

    settings: GenerationSettings
    precision: md.training.Precision
    batch_size: int
    version: int | None = None

    def publish(
        self,
        language: md.training.LanguageModel,
        weights: Mapping[str, Tensor],
        version: int | None,
        worker: md.training.Worker,
    ) -> None:
        """Put the model where every actor can read it, adapters merged into it.

        Args:
            language: The model.
            weights: What was trained, on the first worker.
            version: Of these weights.
            worker: This process.

        Raises:
            InputError: Workers are on machines that do not share the run folder.
        """

        def write(folder: Path) -> None:
            if not worker.first:
                return
            if not hasattr(language.model, "peft_config"):
                md.training.export_language_model(language, weights, folder)
                return
            with tempfile.TemporaryDirectory(dir=worker.scratch) as adapters:
                md.training.export_language_model(language, weights, Path(adapters))
                md.training.merge_adapters(Path(adapters), folder)

        worker.keep_state(WEIGHTS, write)
        self.version = version

    def sample(
        self,
        requests: Sequence[Request],
        temperature: float,
        tokenizer: Any,
        worker: md.training.Worker,
    ) -> list[Completion]:
        """Completions by the published model, in the order of their requests."""
        sampling = Sampling(
            journal=worker.journal.files.uri,
            precision=self.precision,
            temperature=temperature,
            end=tokenizer.eos_token_id,
            padding=tokenizer.pad_token_id,
            batch_size=self.batch_size,
        )
        return worker.alone(lambda: sample_on_pool(requests, sampling, self.settings))


def sample_on_pool(
    requests: Sequence[Request], sampling: Sampling, settings: GenerationSettings
) -> list[Completion]:
    """Completions of all requests by a pool that is started for them; one process calls.

    Args:
        requests: What to sample; batched by length over all of the pool.
        sampling: How, and with which model.
        settings: Of the pool.

    Returns:
        One completion for each request, in their order.

    Raises:
        InputError: Not all actors started in time, or one of them cannot read the model.
    """
    if not requests:
        return []
    # No actor is without work where there is enough for all.
    size = min(sampling.batch_size, -(-len(requests) // settings.actors))

    def stages(rows: Any) -> Any:
        if settings.engine == "vllm":
            from modicum_algorithms.preference.generation_vllm import sampled_by_vllm

            return sampled_by_vllm(rows, sampling, settings, size)
        import ray.data

        return rows.map_batches(
            Sampler,
            fn_constructor_args=(sampling, settings),
            batch_size=size,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=settings.actors),
            num_cpus=settings.cpus,
            num_gpus=settings.gpus,
        )

    rows = md.training.run_pipeline(
        tables_of(requests, size),
        stages,
        start_timeout=settings.start_timeout,
        too_few=(
            f"generation.actors: all {settings.actors} actors with {settings.cpus:g} CPUs and "
            f"{settings.gpus:g} GPUs each must start within {settings.start_timeout:g} s "
            "(generation.start_timeout), fewer did: something else holds the cluster, or the "
            "machines are slow; the same command goes on from here"
        ),
    )
    by_place = {row["place"]: row for row in rows}
    assert len(by_place) == len(requests)
    return [
        Completion(tuple(map(int, row["completion"])), float(row["log_probability"]))
        for row in map(by_place.__getitem__, range(len(requests)))
    ]


def tables_of(requests: Sequence[Request], size: int) -> list[pa.Table]:
    """Requests as tables of so many rows, like lengths together, the longest first."""
    import pyarrow as pa

    return [
        pa.table(
            {
                "place": pa.array(places, pa.int64()),
                # Ray's vLLM stage would take a column `prompt` for text.
                "ids": pa.array([list(requests[p].prompt) for p in places], pa.list_(pa.int64())),
                "tokens": pa.array([requests[p].tokens for p in places], pa.int64()),
                "seed": pa.array([requests[p].seed for p in places], pa.uint64()),
            }
        )
        for places in batches(requests, size)
    ]


class Sampler:
    """An actor's part of the work, on transformers: what a worker does, with the same numbers.

    The model is loaded with the first batch: an error in a constructor would reach the trial only
    as the end of the actor.

    Args:
        sampling: How, and with which model.
        settings: What this actor has.
    """

    def __init__(self, sampling: Sampling, settings: GenerationSettings) -> None:
        import torch

        torch.set_num_threads(max(1, round(settings.cpus)))
        self._sampling = sampling
        self._device = torch.device("cuda" if settings.gpus else "cpu")
        self._model: Any = None

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Rows of `tables_of` to rows with `place`, `completion` and `log_probability`.

        Raises:
            InputError: The model is not where this machine looks for it.
        """
        import pyarrow as pa

        if self._model is None:
            self._model = self._load()
        columns = rows.to_pydict()
        found = generate(
            self._model,
            [
                Request(tuple(ids), tokens, seed)
                for ids, tokens, seed in zip(
                    columns["ids"], columns["tokens"], columns["seed"], strict=True
                )
            ],
            temperature=self._sampling.temperature,
            end=self._sampling.end,
            padding=self._sampling.padding,
            batch_size=self._sampling.batch_size,
        )
        return pa.table(
            {
                "place": rows["place"],
                "completion": pa.array([list(one.ids) for one in found], pa.list_(pa.int64())),
                "log_probability": pa.array([one.log_probability for one in found], pa.float64()),
            }
        )

    def _load(self) -> Any:
        journal = md.training.Journal(self._sampling.journal)
        with (
            tempfile.TemporaryDirectory(prefix="modicum-generation-") as scratch,
            journal.folder(WEIGHTS, Path(scratch)) as folder,
        ):
            if folder is None:
                raise md.InputError(
                    "--out: a pool on several machines needs a run folder that all of them reach, "
                    f"got {self._sampling.journal!r}"
                )
            return md.training.load_language_model(
                str(folder), precision=self._sampling.precision, device=self._device
            ).model
