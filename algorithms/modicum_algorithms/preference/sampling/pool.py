"""Sampling by a pool of Ray Data actors, which load the current weights and sample with them.

Each sampling step starts a pipeline with its actors, and Ray Data ends them with it. Weights reach
the actors through the run folder, once for each round.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

import modicum as md
from modicum_algorithms.preference.config import GenerationSettings
from modicum_algorithms.preference.sampling.in_process import (
    Completion,
    Request,
    batches,
    generate,
)

# Name of the published model in the journal.
WEIGHTS = "generation"


@dataclass(frozen=True)
class Published:
    """A published model and the parameters of the sampling.

    Attributes:
        journal: Location of the journal that holds the model.
        precision: Precision of the weights.
        temperature: Sampling temperature.
        end: End-of-text token; None if there is none.
        padding: Padding token.
        batch_size: Completions that an actor samples at once.
    """

    journal: str
    precision: md.training.Precision
    temperature: float
    end: int | None
    padding: int
    batch_size: int


# The stages of a pipeline on one engine: a dataset of requests to one of completions.
Stages = Callable[[Any, Published, GenerationSettings, int], Any]


@dataclass
class GenerationPool:
    """The pool of a trial; see `Sampler`.

    Attributes:
        settings: Settings of the pool.
        stages: Stages of the pipeline, which determine the engine.
        precision: Precision of the weights.
        batch_size: Completions that an actor samples at once.
        language: The policy and its tokenizer.
        weights: Function that returns the trained weights, on the first worker.
        worker: The calling process.
    """

    settings: GenerationSettings
    stages: Stages
    precision: md.training.Precision
    batch_size: int
    language: md.training.LanguageModel
    weights: Callable[[], Mapping[str, Tensor]]
    worker: md.training.Worker
    _version: int | None = field(default=None, init=False)

    def sample(
        self, requests: Sequence[Request], temperature: float, version: int | None
    ) -> list[Completion]:
        """See `Sampler`.

        Raises:
            InputError: Some actors did not start in time or cannot read the model, or the workers
                are on machines that do not share the run folder.
        """
        if version is None or version != self._version:
            self.publish(version)
        published = Published(
            journal=self.worker.journal.files.uri,
            precision=self.precision,
            temperature=temperature,
            end=self.language.tokenizer.eos_token_id,
            padding=self.language.tokenizer.pad_token_id,
            batch_size=self.batch_size,
        )
        return self.worker.alone(lambda: self._run(requests, published))

    def publish(self, version: int | None) -> None:
        """Write the model of a version where every actor can read it, with adapters merged into it.

        Raises:
            InputError: The workers are on machines that do not share the run folder.
        """
        weights = self.weights()

        def write(folder: Path) -> None:
            if not self.worker.first:
                return
            if not hasattr(self.language.model, "peft_config"):
                md.training.export_language_model(self.language, weights, folder)
                return
            with tempfile.TemporaryDirectory(dir=self.worker.scratch) as adapters:
                md.training.export_language_model(self.language, weights, Path(adapters))
                md.training.merge_adapters(Path(adapters), folder)

        self.worker.keep_state(WEIGHTS, write)
        self._version = version

    def _run(self, requests: Sequence[Request], published: Published) -> list[Completion]:
        """Sample all requests by a pipeline that is started for them."""
        if not requests:
            return []
        settings = self.settings
        # Small enough that every actor gets a batch.
        size = min(published.batch_size, -(-len(requests) // settings.actors))
        rows = md.training.run_pipeline(
            tables_of(requests, size),
            lambda dataset: self.stages(dataset, published, settings, size),
            start_timeout=settings.start_timeout,
            too_few=(
                f"generation.actors: all {settings.actors} actors with {settings.cpus:g} CPUs and "
                f"{settings.gpus:g} GPUs each must start within {settings.start_timeout:g} s "
                "(generation.start_timeout), fewer did: the cluster is occupied, or the machines "
                "are slow; run the same command again to continue from here"
            ),
        )
        found = {
            row["place"]: Completion(
                tuple(map(int, row["completion"])), float(row["log_probability"])
            )
            for row in rows
        }
        return [found[place] for place in range(len(requests))]


def tables_of(requests: Sequence[Request], size: int) -> list[pa.Table]:
    """Requests as tables of `size` rows of similar length, the longest first."""
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


def transformers_stages(
    dataset: Any, published: Published, settings: GenerationSettings, size: int
) -> Any:
    """Stages that sample with transformers, with the same numbers as the workers."""
    import ray.data

    return dataset.map_batches(
        TransformersActor,
        fn_constructor_args=(published, settings),
        batch_size=size,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=settings.actors),
        num_cpus=settings.cpus,
        num_gpus=settings.gpus,
    )


class TransformersActor:
    """An actor of a pool that samples with transformers.

    The model is loaded with the first batch: an error in the constructor would reach the trial
    only as the death of the actor.
    """

    def __init__(self, published: Published, settings: GenerationSettings) -> None:
        torch.set_num_threads(max(1, round(settings.cpus)))
        self._published = published
        self._device = torch.device("cuda" if settings.gpus else "cpu")
        self._model: Any = None

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Rows of `tables_of` to rows with `place`, `completion` and `log_probability`.

        Raises:
            InputError: This machine does not see the published model.
        """
        if self._model is None:
            self._model = self._load()
        found = generate(
            self._model,
            [Request(tuple(row["ids"]), row["tokens"], row["seed"]) for row in rows.to_pylist()],
            temperature=self._published.temperature,
            end=self._published.end,
            padding=self._published.padding,
            batch_size=self._published.batch_size,
        )
        return pa.table(
            {
                "place": rows["place"],
                "completion": pa.array([list(one.ids) for one in found], pa.list_(pa.int64())),
                "log_probability": pa.array([one.log_probability for one in found], pa.float64()),
            }
        )

    def _load(self) -> Any:
        journal = md.training.Journal(self._published.journal)
        with (
            tempfile.TemporaryDirectory(prefix="modicum-generation-") as scratch,
            journal.folder(WEIGHTS, Path(scratch)) as folder,
        ):
            if folder is None:
                raise md.InputError(
                    "--out: a pool on several machines needs a run folder that all of them reach, "
                    f"got {self._published.journal!r}"
                )
            return md.training.load_language_model(
                str(folder), precision=self._published.precision, device=self._device
            ).model
