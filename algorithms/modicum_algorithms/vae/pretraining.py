"""Trained VAEs, kept in the cache: methods of inference are compared on the same decoder.

A stage is a model with its optimiser at some epoch, a multiple of the epochs between two stages. It
is trained from the stage before it, so training that was interrupted or made longer goes on from
the last stage that there is.
"""

from __future__ import annotations

import copy
import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

import modicum as md
from modicum_algorithms.vae.methods import InferenceMethod
from modicum_algorithms.vae.networks import VAE, ModelSpec, build_vae
from modicum_algorithms.vae.training import (
    TrainingSettings,
    adam,
    refine_epochs,
    train_epoch,
    vae_gradients,
)

# Part of every key: change it when the same settings would give other weights.
_VERSION = "1"
_ADAM_STATE = ("exp_avg", "exp_avg_sq", "step")


@dataclass(frozen=True)
class Pretraining:
    """How a VAE is trained; what of it is equal gives equal weights.

    Attributes:
        spec: The model.
        images: (N, C, H, W) training images.
        images_key: Digest of the images.
        settings: Its rate is constant, and its epochs do not matter: a stage has its own.
        seed: Of initialisation, order and samples.
        stage_epochs: Epochs between two stages.
        inference: Objective of the encoder, after `inference_from` epochs; None for the usual VAE.
        inference_from: Epochs of usual training before it.
    """

    spec: ModelSpec
    images: Tensor
    images_key: str
    settings: TrainingSettings
    seed: int
    stage_epochs: int
    inference: InferenceMethod | None = None
    inference_from: int = 0

    def __post_init__(self) -> None:
        assert self.settings.schedule == "constant", "a falling rate would depend on the end"

    def key(self, epoch: int) -> str:
        """Digest of everything that a stage's weights depend on."""
        usual = self.inference is None or epoch <= self.inference_from
        return _digest(
            {
                "what": "vae",
                "spec": self.spec.model_dump(mode="json"),
                "images": self.images_key,
                "settings": asdict(self.settings) | {"epochs": epoch},
                "device": self.images.device.type,
                "seed": self.seed,
                "inference": None if usual else [repr(self.inference), self.inference_from],
            }
        )


@dataclass(frozen=True)
class Stage:
    """A trained model.

    Attributes:
        model: In evaluation mode, its parameters without gradients.
        key: Digest that identifies it.
        seconds: Time of training, all stages before included.
    """

    model: VAE
    key: str
    seconds: float


def pretrained(training: Pretraining, epoch: int) -> Stage:
    """The model after some epochs, from the cache where it is there already."""
    arrays = _stage_arrays(training, epoch)
    model = build_vae(training.spec, training.seed).to(training.images.device)
    _load_weights(model, arrays)
    return Stage(model.eval().requires_grad_(False), training.key(epoch), float(arrays["seconds"]))


@dataclass(frozen=True)
class Refinement:
    """How the encoder of a trained model is trained further.

    Attributes:
        stage: The trained model; its decoder stays as it is.
        images: (N, C, H, W): the training images, or for the optimal encoder of some test images
            these images themselves (equation 4.16).
        images_key: Digest of the images.
        method: The objective.
        settings: Of that training.
        seed: Of order and samples.
    """

    stage: Stage
    images: Tensor
    images_key: str
    method: InferenceMethod
    settings: TrainingSettings
    seed: int

    @property
    def key(self) -> str:
        """Digest of everything that the refined weights depend on."""
        return _digest(
            {
                "what": "refined",
                "stage": self.stage.key,
                "images": self.images_key,
                "method": repr(self.method),
                "settings": asdict(self.settings),
                "seed": self.seed,
            }
        )

    def epochs(self) -> Iterator[VAE]:
        """The model after every epoch of training: one object, whose encoder changes, in evaluation
        mode.
        """
        model = copy.deepcopy(self.stage.model)
        model.encoder.requires_grad_(True)
        losses = refine_epochs(
            model.encoder, model.decoder, self.images, self.method, self.settings, seed=self.seed
        )
        for _ in losses:
            yield model


def refined(refinement: Refinement) -> Stage:
    """The model with its encoder refined, from the cache where it is there already.

    Its seconds are those of the refinement.
    """

    def compute() -> Mapping[str, np.ndarray]:
        started = time.perf_counter()
        for model in refinement.epochs():
            last = model
        return {**_weights(last), "seconds": np.array(time.perf_counter() - started)}

    arrays = md.data.cached_arrays(refinement.key, compute)
    model = copy.deepcopy(refinement.stage.model)
    _load_weights(model, arrays)
    return Stage(model, refinement.key, float(arrays["seconds"]))


def _stage_arrays(training: Pretraining, epoch: int) -> Mapping[str, np.ndarray]:
    return md.data.cached_arrays(training.key(epoch), lambda: _train_stage(training, epoch))


def _train_stage(training: Pretraining, epoch: int) -> Mapping[str, np.ndarray]:
    model = build_vae(training.spec, training.seed).to(training.images.device)
    optimiser = adam(model.parameters(), training.settings.learning_rate)
    # Stages end at multiples of their length, and where the objective changes.
    earlier = max(0, (epoch - 1) // training.stage_epochs * training.stage_epochs)
    if earlier < training.inference_from < epoch:
        earlier = training.inference_from
    seconds = 0.0
    if earlier:
        arrays = _stage_arrays(training, earlier)
        _load_weights(model, arrays)
        _load_optimiser(optimiser, arrays)
        seconds = float(arrays["seconds"])
    started = time.perf_counter()
    changed = training.inference is not None and earlier >= training.inference_from
    inference = training.inference if changed else None
    gradients = vae_gradients(model, training.settings, inference)
    for number in range(earlier, epoch):
        train_epoch(
            training.images,
            optimiser,
            gradients,
            batch_size=training.settings.batch_size,
            seed=md.derive_seed(training.seed, f"epoch {number}"),
        )
    seconds += time.perf_counter() - started
    return {**_weights(model), **_optimiser_state(optimiser), "seconds": np.array(seconds)}


def _weights(model: VAE) -> dict[str, np.ndarray]:
    return {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}


def _load_weights(model: VAE, arrays: Mapping[str, np.ndarray]) -> None:
    # Copied, for the cache's arrays are read-only.
    state = {name: torch.from_numpy(np.array(arrays[name])) for name in model.state_dict()}
    model.load_state_dict(state)


def _optimiser_state(optimiser: Optimizer) -> dict[str, np.ndarray]:
    state = optimiser.state_dict()["state"]
    return {
        f"adam.{number}.{name}": values[name].cpu().numpy()
        for number, values in state.items()
        for name in _ADAM_STATE
    }


def _load_optimiser(optimiser: Optimizer, arrays: Mapping[str, np.ndarray]) -> None:
    described = optimiser.state_dict()
    numbers = described["param_groups"][0]["params"]
    described["state"] = {
        number: {
            name: torch.from_numpy(np.array(arrays[f"adam.{number}.{name}"]))
            for name in _ADAM_STATE
        }
        for number in numbers
    }
    optimiser.load_state_dict(described)


def _digest(described: Mapping[str, object]) -> str:
    # Other devices, thread counts and versions round differently.
    machine = {"version": _VERSION, "torch": torch.__version__, "threads": torch.get_num_threads()}
    text = json.dumps({**described, **machine}, sort_keys=True)
    return f"vae-{hashlib.sha256(text.encode()).hexdigest()[:24]}"
