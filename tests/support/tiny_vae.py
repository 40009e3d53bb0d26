"""Settings of the smallest VAE that learns anything, and objects from few settings, for tests."""

from dataclasses import replace

import numpy as np
import torch

from modicum_algorithms.vae.codec.coder import FileSettings
from modicum_algorithms.vae.config import CoderSettings, MethodConfig
from modicum_algorithms.vae.methods.inference_method import InferenceMethod
from modicum_algorithms.vae.networks import build_vae

TINY = {
    "samples": 60,
    "epochs": 2,
    "hidden_layers": 1,
    "hidden_units": 6,
    "latent_size": 2,
    "batch_size": 30,
    "learning_rate": 1e-2,
}


def inference_method(name, **settings):
    """An objective, with the defaults of its settings."""
    return InferenceMethod.of(MethodConfig(inference=name, **settings))


def file_settings(mode="portable", **changes):
    """Settings of a compressed file, with the defaults of those left out."""
    return replace(FileSettings.here(CoderSettings()), mode=mode, **changes)


def scattered(spec, scale=0.1, seed=0):
    """A model with random weights everywhere; fresh residual blocks add nothing."""
    model = build_vae(spec, seed)
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=noise), alpha=scale)
    return model.eval()


def weights(module):
    return [value.clone() for value in module.state_dict().values()]


def same(first, second):
    return all(a.equal(b) for a, b in zip(first, second, strict=True))


def image_set(folder, shape=(8, 8), labels=True, high=256, train=20, test=5):
    """A folder with a data set of noise in .npz files."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        arrays = {"images": generator.integers(0, high, (count, *shape), np.uint8)}
        if labels:
            arrays["labels"] = np.arange(count) % 2
        np.savez(folder / f"{split}.npz", **arrays)
    return str(folder)
