"""Settings of the smallest VAE that learns anything, and objects from few settings, for tests."""

from dataclasses import replace

from modicum_algorithms.vae.codec.coder import FileSettings
from modicum_algorithms.vae.config import CoderSettings, MethodConfig
from modicum_algorithms.vae.methods.inference_method import InferenceMethod

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
