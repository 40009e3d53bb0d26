"""Figures of images, in matplotlib without its global state.

Shapes: N images, C channels, H height, W width, L latent dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.distributions import Distribution

import modicum as md
from modicum_algorithms.vae.likelihoods import LEVELS, DiscretisedLogistic
from modicum_algorithms.vae.networks import VAE

_GAP = 0.12  # Grey between the images: 0 is white, 1 is black.
_IMAGE_INCHES = 0.62
_CHARACTER_INCHES = 0.085
_SMALL = 9  # points


def images_figure(rows: Mapping[str, Tensor | np.ndarray], title: str = "") -> Figure:
    """Images side by side, in labelled rows.

    Grey images are drawn inverted: 0 is white. Colours are drawn as they are.

    Args:
        rows: (N, C, H, W) images with 1 or 3 channels and values 0 to 1, by the label of their row;
            all rows have the same shape.
        title: Title of the figure.

    Raises:
        InputError: The rows differ in shape or have another shape, or there is no image.
    """
    arrays = {label: np.asarray(images, np.float64) for label, images in rows.items()}
    shapes = {array.shape for array in arrays.values()}
    shape = shapes.pop() if len(shapes) == 1 else ()
    if len(shape) != 4 or shape[1] not in (1, 3) or min(shape) < 1:
        raise md.InputError(
            "rows: must hold images of one shape (N, C, H, W) with 1 or 3 channels, got "
            + ", ".join(f"{label!r}: {array.shape}" for label, array in arrays.items())
        )
    return _drawn(list(arrays), list(arrays.values()), title)


def samples_figure(
    model: VAE, rows: int = 3, columns: int = 12, seed: int = 0, title: str = ""
) -> Figure:
    """Samples of a model: expected pixels of p(x|z) at latents z ~ N(0, I).

    Args:
        model: A trained model.
        rows: Number of rows of images.
        columns: Number of images in a row.
        seed: Seed of the latents.
        title: Title of the figure.
    """
    with md.seeded(seed), torch.no_grad():
        z_NL = torch.randn(rows * columns, model.spec.latent_size)
        images_NCHW = expected_pixels(model.decoder(z_NL))
    drawn = [row.double().numpy() for row in images_NCHW.split(columns)]
    return _drawn([""] * rows, drawn, title)


def reconstructions_figure(models: Mapping[str, VAE], images: Tensor, title: str = "") -> Figure:
    """Images above their reconstructions: expected pixels of p(x|z) at the mean z of q(z|x).

    Args:
        models: Models trained on images of one kind, by the label of their row.
        images: (N, C, H, W), in the models' units.
        title: Title of the figure.
    """
    x_NCHW = images.float()
    highest = next(iter(models.values())).spec.levels - 1
    rows = {"image": x_NCHW / highest}
    with torch.no_grad():
        for label, model in models.items():
            rows[label] = expected_pixels(model.decoder(model.encoder(x_NCHW).mean))
    return images_figure(rows, title)


def expected_pixels(decoded: Distribution) -> Tensor:
    """The mean image of p(x|z), from 0 to 1: probabilities of 1, or means of the logistics."""
    if not isinstance(decoded, DiscretisedLogistic):
        return decoded.mean
    x_NCHW = torch.zeros_like(decoded.mean_BCHW)
    for channel in range(x_NCHW.shape[1]):
        # Earlier channels are at their means.
        mean_NHW = decoded.means_given(x_NCHW)[:, channel]
        x_NCHW[:, channel] = ((mean_NHW + 1) * 127.5).clamp(0, LEVELS - 1)
    return x_NCHW / (LEVELS - 1)


def _drawn(labels: list[str], rows: list[np.ndarray], title: str) -> Figure:
    count, _, height, width = rows[0].shape
    gap = max(1, height // 14)
    size = (
        max(count * _IMAGE_INCHES + max(map(len, labels)) * _CHARACTER_INCHES, 2.5),
        len(rows) * _IMAGE_INCHES * height / width + (0.4 if title else 0.1),
    )
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(_canvas(rows, gap), cmap="Greys", vmin=0, vmax=1, interpolation="nearest")
    middles = [gap + (height - 1) / 2 + number * (height + gap) for number in range(len(rows))]
    axes.set_yticks(middles, labels, fontsize=_SMALL)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if title:
        axes.set_title(title, fontsize=_SMALL + 1)
    return figure


def _canvas(rows: list[np.ndarray], gap: int) -> np.ndarray:
    """All images in one array, (H', W') if they are grey, (H', W', 3) if they are coloured."""
    count, channels, height, width = rows[0].shape
    tall = gap + len(rows) * (height + gap)
    wide = gap + count * (width + gap)
    canvas = np.full((tall, wide, channels), _GAP if channels == 1 else 1 - _GAP)
    for number, images_NCHW in enumerate(rows):
        top = gap + number * (height + gap)
        for place, image_CHW in enumerate(images_NCHW):
            left = gap + place * (width + gap)
            pixels = np.moveaxis(image_CHW.clip(0, 1), 0, -1)
            canvas[top : top + height, left : left + width] = pixels
    return canvas[..., 0] if channels == 1 else canvas
