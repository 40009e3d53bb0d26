"""Checkpoints of training, shared by all trials through the data cache.

A checkpoint is addressed by a digest of everything on which its weights depend. Methods of
inference are therefore compared on the same decoder, which is trained once for all of them.

A VAE's training has checkpoints at multiples of some number of epochs. Each is trained from the one
before it, so that training that was interrupted, or is now longer, continues from the last
checkpoint in the cache.
"""

from __future__ import annotations

import copy
import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

import modicum as md
from modicum_algorithms.vae.config import InferenceConfig, MethodConfig, ModelConfig, VaeConfig
from modicum_algorithms.vae.data.tensors import Images
from modicum_algorithms.vae.methods.inference_method import InferenceMethod
from modicum_algorithms.vae.methods.joint import vae_gradients
from modicum_algorithms.vae.model_spec import ModelSpec, model_spec
from modicum_algorithms.vae.networks import VAE, build_vae
from modicum_algorithms.vae.training import TrainingSettings, adam, refine_epochs, train_epoch

# Part of every key: change it when the same settings would give other weights.
_VERSION = "1"
_ADAM_STATE = ("exp_avg", "exp_avg_sq", "step")


@dataclass(frozen=True)
class Stage:
    """A model at a checkpoint.

    Attributes:
        model: The model in evaluation mode, its parameters without gradients.
        key: Digest that identifies the weights.
        seconds: Time of training; a VAE's includes all checkpoints before.
    """

    model: VAE
    key: str
    seconds: float


@dataclass(frozen=True)
class Pretraining:
    """The training of a VAE; equal ones give equal weights.

    Attributes:
        spec: Specification of the model.
        images: (N, C, H, W) training images.
        images_key: Identifies the images.
        settings: Settings of the training, with a constant learning rate. Its `epochs` have no
            effect: each checkpoint has a number of epochs.
        seed: Seed of initialisation, order and samples.
        checkpoint_epochs: Epochs between two checkpoints.
        method: Objective of the encoder after `method_from` epochs; None for the usual VAE.
        method_from: Epochs of usual training before the encoder's objective changes.
    """

    spec: ModelSpec
    images: Tensor
    images_key: str
    settings: TrainingSettings
    seed: int
    checkpoint_epochs: int
    method: InferenceMethod | None = None
    method_from: int = 0

    def __post_init__(self) -> None:
        assert self.settings.schedule == "constant", "a decaying rate would depend on the end"

    @classmethod
    def of(
        cls,
        config: ModelConfig,
        images: Images,
        trial: md.Trial,
        checkpoint_epochs: int | None = None,
    ) -> Pretraining:
        """The usual training of a trial's VAE, with ten checkpoints unless told otherwise."""
        return cls(
            spec=model_spec(config, images.data),
            images=images.train,
            images_key=images.train_key,
            settings=TrainingSettings.of(config, "constant"),
            seed=trial.seed_for("training"),
            checkpoint_epochs=checkpoint_epochs or max(1, config.epochs // 10),
        )

    def key(self, epoch: int) -> str:
        """Digest of everything on which the weights after some epochs depend."""
        usual = self.method is None or epoch <= self.method_from
        return _digest(
            {
                "what": "vae",
                "spec": self.spec.model_dump(mode="json"),
                "images": self.images_key,
                "settings": asdict(self.settings) | {"epochs": epoch},
                "device": self.images.device.type,
                "seed": self.seed,
                "inference": None if usual else [repr(self.method), self.method_from],
            }
        )

    def checkpoints(self, epoch: int) -> list[int]:
        """Checkpoints on the way to an epoch, in epochs; the last is the epoch itself.

        They are at multiples of `checkpoint_epochs`, and where the objective changes.
        """
        ends = {*range(self.checkpoint_epochs, epoch, self.checkpoint_epochs), epoch}
        if self.method_from < epoch:
            ends.add(self.method_from)
        return sorted(ends - {0})


def pretrained(training: Pretraining, epoch: int) -> Stage:
    """The model after some epochs, trained from the last checkpoint in the cache."""
    model = build_vae(training.spec, training.seed).to(training.images.device)
    optimiser = adam(model.parameters(), training.settings.learning_rate)
    checkpoints = training.checkpoints(epoch)
    done = [end for end in checkpoints if md.data.is_cached(training.key(end))]
    start, seconds = 0, 0.0
    for end in checkpoints[checkpoints.index(done[-1]) if done else 0 :]:
        train = partial(_train, training, model, optimiser, start, end, seconds)
        arrays = md.data.cached_arrays(training.key(end), train)
        # Also after training: another process may have been the first.
        _load_weights(model, arrays)
        _load_optimiser(optimiser, arrays)
        start, seconds = end, float(arrays["seconds"])
    return Stage(model.eval().requires_grad_(False), training.key(epoch), seconds)


def _train(
    training: Pretraining, model: VAE, optimiser: Optimizer, start: int, end: int, seconds: float
) -> Mapping[str, np.ndarray]:
    """Train from one checkpoint to the next; returns weights, optimiser state and time in all."""
    started = time.perf_counter()
    method = training.method if start >= training.method_from else None
    gradients = vae_gradients(model, training.settings.precision, method)
    for epoch in range(start, end):
        train_epoch(
            training.images,
            optimiser,
            gradients,
            batch_size=training.settings.batch_size,
            seed=md.derive_seed(training.seed, f"epoch {epoch}"),
        )
    seconds += time.perf_counter() - started
    return {**_weights(model), **_optimiser_state(optimiser), "seconds": np.array(seconds)}


@dataclass(frozen=True)
class Refinement:
    """The further training of a model's encoder, with the decoder fixed.

    Attributes:
        stage: The trained model.
        images: (N, C, H, W): the training images, or for the optimal encoder the test images that
            it is measured on (equation 4.16).
        images_key: Identifies the images.
        method: The objective.
        settings: Settings of the further training.
        seed: Seed of order and samples.
    """

    stage: Stage
    images: Tensor
    images_key: str
    method: InferenceMethod
    settings: TrainingSettings
    seed: int

    @classmethod
    def of(
        cls, config: InferenceConfig, images: Images, trial: md.Trial, stage: Stage
    ) -> Refinement:
        """Further training of a trial's encoder on its training images."""
        return cls(
            stage=stage,
            images=images.train,
            images_key=images.train_key,
            method=InferenceMethod.of(config, images.data.pixel_range),
            settings=replace(
                TrainingSettings.of(config, config.refine_schedule),
                epochs=config.refine_epochs,
                learning_rate=config.refine_learning_rate or config.learning_rate,
            ),
            seed=trial.seed_for("refinement"),
        )

    @classmethod
    def optimal(
        cls, config: VaeConfig, images: Images, trial: md.Trial, stage: Stage
    ) -> Refinement:
        """Training of the optimal encoder, on the test images (equation 4.16)."""
        return cls(
            stage=stage,
            images=images.test,
            images_key=images.test_key,
            method=InferenceMethod.of(MethodConfig(inference="wake")),
            settings=replace(TrainingSettings.of(config, "linear"), epochs=config.optimal_epochs),
            seed=trial.seed_for("optimal"),
        )

    @property
    def key(self) -> str:
        """Digest of everything on which the refined weights depend."""
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
        """Train, yielding the model after each epoch.

        It is one object whose encoder changes, in evaluation mode.
        """
        model = copy.deepcopy(self.stage.model)
        model.encoder.requires_grad_(True)
        losses = refine_epochs(
            model.encoder, model.decoder, self.images, self.method, self.settings, seed=self.seed
        )
        for _ in losses:
            yield model


def refined(refinement: Refinement) -> Stage:
    """The model with its encoder refined, trained where the cache does not have it.

    The stage's seconds are those of the refinement alone.
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


def _weights(model: VAE) -> dict[str, np.ndarray]:
    return {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}


def _load_weights(model: VAE, arrays: Mapping[str, np.ndarray]) -> None:
    # Copied, because the cache's arrays are read-only.
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
    # Results are rounded differently by other versions and numbers of threads.
    machine = {"version": _VERSION, "torch": torch.__version__, "threads": torch.get_num_threads()}
    text = json.dumps({**described, **machine}, sort_keys=True)
    return f"vae-{hashlib.sha256(text.encode()).hexdigest()[:24]}"
