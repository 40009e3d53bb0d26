"""The specification of a VAE: what its networks are built from, checked without building them."""

from __future__ import annotations

from typing import Any, Self

from pydantic import model_validator

import modicum as md
from modicum_algorithms.vae.config import ArchitectureConfig, LikelihoodName, ModelConfig
from modicum_algorithms.vae.data.datasets import ImageData, load


class ModelSpec(ArchitectureConfig):
    """A specification of a VAE, saved beside the model's weights.

    Attributes:
        likelihood: p(x|z). Bernoulli models pixels 0 and 1, the others pixels 0 to 255.
        shape: (C, H, W) of an image.
    """

    likelihood: LikelihoodName
    shape: tuple[int, int, int]

    @model_validator(mode="after")
    def _networks_fit_images(self) -> Self:
        channels, height, width = self.shape
        if self.likelihood == "autoregressive_logistic" and channels != 3:
            raise ValueError(
                "likelihood: autoregressive_logistic needs images of three channels, these have "
                f"{channels}"
            )
        if self.network == "resnet":
            if height % 4 or width % 4:
                raise ValueError(
                    "network: resnet needs a height and width divisible by 4, got "
                    f"{height} x {width}"
                )
            places = height // 4 * (width // 4)
            if self.latent_size % places:
                raise ValueError(
                    f"latent_size: resnet lays it out on {height // 4} x {width // 4} places, so "
                    f"it must be a multiple of {places}, got {self.latent_size}"
                )
        return self

    @property
    def dimensions(self) -> int:
        """D = C × H × W, by which bits per dimension are divided."""
        channels, height, width = self.shape
        return channels * height * width

    @property
    def levels(self) -> int:
        """Number of values that a pixel can have."""
        return 2 if self.likelihood == "bernoulli" else 256

    def description(self) -> dict[str, Any]:
        """The specification as plain data, in the order of keys that files have."""
        values = self.model_dump(mode="json")
        return {"shape": values.pop("shape"), **values}


def model_spec(config: ModelConfig, data: ImageData) -> ModelSpec:
    """The specification of a trial's VAE, with the likelihood `auto` resolved by the images.

    Raises:
        InputError: A setting does not fit the shape of the images.
    """
    values = config.model_dump(include=set(ArchitectureConfig.model_fields))
    if config.likelihood == "auto":
        if data.levels == 2:
            values["likelihood"] = "bernoulli"
        else:
            colour = data.shape[0] == 3
            values["likelihood"] = "autoregressive_logistic" if colour else "discretised_logistic"
    return md.validated(ModelSpec, {"shape": data.shape, **values})


def check_model(config: ModelConfig, samples: int | None) -> None:
    """Refuse a model that does not fit its images.

    Raises:
        InputError: The images cannot be read, or a setting does not fit them.
    """
    data = load(config.dataset, binarisation=config.binarisation, seed=0)
    if samples is not None:
        data = data.subset(samples, seed=0)
    spec = model_spec(config, data)
    if spec.levels != data.levels:
        pixels = "binary images" if data.levels == 2 else "pixels of 0 to 255"
        raise md.InputError(f"likelihood: {spec.likelihood} does not model {pixels}")
