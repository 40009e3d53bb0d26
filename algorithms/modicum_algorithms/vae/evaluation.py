"""Evaluation: bits per dimension, importance-weighted bounds, and generalization gaps.

Bounds are Monte Carlo estimates under seeds given by the caller, so that compared methods see the
same noise. Shapes: N images, B batch, C channels, H height, W width, L latent dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution

import modicum as md
from modicum_algorithms.vae.checkpoints import Refinement, Stage, refined
from modicum_algorithms.vae.classification import classification_accuracy
from modicum_algorithms.vae.config import MEASURED_TRAINING_IMAGES, ClassifierConfig, VaeConfig
from modicum_algorithms.vae.data.tensors import Images
from modicum_algorithms.vae.methods.elbo import (
    Network,
    image_log_prob,
    negative_elbo,
    prior_of,
    sampled_images,
)
from modicum_algorithms.vae.networks import EVALUATION_BATCH, VAE


def bits_per_dimension(
    encoder: Network,
    decoder: Network,
    images: Tensor,
    *,
    seed: int,
    prior: Distribution | None = None,
) -> Tensor:
    """Negative ELBO of each image in bits, divided by the image's dimensions, (N,).

    Args:
        encoder: q(z|x).
        decoder: p(x|z).
        images: (N, ...), of any numeric type.
        seed: Seed of the sampled latents.
        prior: p(z) of one image; N(0, I) if None.
    """
    return _bits(lambda x: negative_elbo(encoder, decoder, x, prior), images, seed)


def iwae_bits_per_dimension(
    encoder: Network,
    decoder: Network,
    images: Tensor,
    samples: int,
    *,
    seed: int,
    prior: Distribution | None = None,
) -> Tensor:
    """Negative IWAE bound of each image in bits, divided by the image's dimensions, (N,).

    Args:
        encoder: q(z|x).
        decoder: p(x|z).
        images: (N, ...), of any numeric type.
        samples: K, latents per image.
        seed: Seed of the sampled latents.
        prior: p(z) of one image; N(0, I) if None.
    """
    return _bits(lambda x: -iwae_bound(encoder, decoder, x, samples, prior), images, seed)


def iwae_bound(
    encoder: Network, decoder: Network, x: Tensor, samples: int, prior: Distribution | None = None
) -> Tensor:
    """The bound log 1/K Σ_k p(x|z_k) p(z_k) / q(z_k|x), z_k ~ q(z|x), nats, (B,) (equation 4.33).

    Args:
        encoder: q(z|x).
        decoder: p(x|z).
        x: (B, ...) images.
        samples: K; the mean of the bound at K = 1 is the ELBO.
        prior: p(z) of one image; N(0, I) if None.
    """
    posterior = encoder(x)
    prior = prior_of(posterior, prior, x.device)
    log_weights = []
    for _ in range(samples):
        z = posterior.rsample()
        log_joint = image_log_prob(decoder(z), x) + image_log_prob(prior, z)
        log_weights.append(log_joint - image_log_prob(posterior, z))
    return torch.stack(log_weights).logsumexp(0) - math.log(samples)


def mean_bits(encoder: Network, decoder: Network, images: Tensor, *, seed: int) -> float:
    """Mean of `bits_per_dimension` over images, in double precision."""
    return float(bits_per_dimension(encoder, decoder, images, seed=seed).double().mean())


def model_images(model: VAE, count: int, seed: int) -> Tensor:
    """Images x ~ p(x|z), z ~ N(0, I), (N, C, H, W) uint8; a smaller N gives the first of a larger.

    Args:
        model: Model whose decoder is used.
        count: N.
        seed: Seed of the latents and the images.
    """
    batches = []
    device = next(model.parameters()).device
    with md.seeded(seed):
        for start in range(0, count, EVALUATION_BATCH):
            # Whole batches, because torch's random numbers depend on the size of a draw.
            z_BL = torch.randn(EVALUATION_BATCH, model.spec.latent_size, device=device)
            x_BCHW = sampled_images(model.decoder, z_BL).to(torch.uint8)
            batches.append(x_BCHW[: count - start])
    return torch.cat(batches)


@dataclass(frozen=True)
class Encoder:
    """An encoder to measure, with its decoder, in evaluation mode.

    `epoch` counts the VAE's training, `refined_epochs` the encoder's further training; `seconds` is
    the time of the latter since the encoder before.
    """

    model: VAE
    epoch: int
    refined_epochs: int = 0
    seconds: float = 0.0


def checkpoint_metrics(
    config: VaeConfig, images: Images, trial: md.Trial, stage: Stage
) -> dict[str, float]:
    """Metrics of a VAE at a checkpoint and of its optimal encoder, shared by all encoders there.

    A model that was trained jointly never was a usual VAE, and has no `test/bpd_vae`.
    """
    seed = trial.seed_for("evaluation")
    metrics = {"train/seconds": stage.seconds}
    if not config.trained_jointly:
        model = stage.model
        metrics["test/bpd_vae"] = mean_bits(model.encoder, model.decoder, images.test, seed=seed)
    if config.optimal_epochs:
        best = refined(Refinement.optimal(config, images, trial, stage)).model
        metrics["test/bpd_optimal"] = mean_bits(best.encoder, best.decoder, images.test, seed=seed)
        metrics["evaluation/samples"] = len(images.test)
        if config.iwae_samples:
            metrics["test/iwae_bpd_optimal"] = _mean_iwae(config, best, images.test, seed)
    return metrics


def encoder_metrics(
    config: VaeConfig,
    images: Images,
    trial: md.Trial,
    encoder: Encoder,
    shared: Mapping[str, float],
) -> dict[str, float]:
    """All metrics of one encoder, by name; `shared` are those of its checkpoint."""
    seed, model = trial.seed_for("evaluation"), encoder.model
    metrics = dict(shared)
    before = metrics.pop("test/bpd_vae", None)
    if config.inference == "vae":
        assert before is not None
        test = before
    else:
        test = mean_bits(model.encoder, model.decoder, images.test, seed=seed)
    measured = images.train[:MEASURED_TRAINING_IMAGES]
    train = mean_bits(model.encoder, model.decoder, measured, seed=seed)
    metrics |= {
        "test/bpd": test,
        "train/bpd": train,
        "train/epoch": encoder.epoch,
        "refine/epoch": encoder.refined_epochs,
        "refine/seconds": encoder.seconds,
    }
    if before is not None:
        metrics["test/bpd_vae"] = before
    if config.iwae_samples:
        metrics["test/iwae_bpd"] = _mean_iwae(config, model, images.test, seed)
    if config.optimal_epochs:
        metrics |= gaps(test, metrics["test/bpd_optimal"], train, before)
    if config.classification:
        metrics["test/classification_accuracy"] = _accuracy(images, trial, model)
    return metrics


def gaps(test: float, optimal: float, train: float, before: float | None) -> dict[str, float]:
    """Generalization gaps, by the names of their metrics (equations 4.13 and 4.14).

    All arguments are bits per dimension: of the test images, of these with the optimal encoder, of
    training images, and of the test images `before` the encoder was trained further.
    """
    found = {"gap/amortized_inference": test - optimal, "gap/generative": optimal - train}
    if before is not None and before > optimal:
        found["gap/closed"] = (before - test) / (before - optimal)
    return found


def _accuracy(images: Images, trial: md.Trial, model: VAE) -> float:
    train_labels_N, test_labels_N = images.data.train_labels_N, images.data.test_labels_N
    # Data without labels was refused before the trial started.
    assert train_labels_N is not None
    assert test_labels_N is not None
    return classification_accuracy(
        model.encoder,
        images.train,
        torch.from_numpy(train_labels_N.copy()),
        images.test,
        torch.from_numpy(test_labels_N.copy()),
        ClassifierConfig(),
        seed=trial.seed_for("classification"),
    )


def _mean_iwae(config: VaeConfig, model: VAE, images: Tensor, seed: int) -> float:
    bits_N = iwae_bits_per_dimension(
        model.encoder, model.decoder, images, config.iwae_samples, seed=seed
    )
    return float(bits_N.double().mean())


def _bits(nats: Callable[[Tensor], Tensor], images: Tensor, seed: int) -> Tensor:
    """A function of images in nats, evaluated in batches without gradients, in bits/dim, (N,)."""
    with torch.no_grad(), md.seeded(seed):
        nats_N = torch.cat([nats(batch.float()) for batch in images.split(EVALUATION_BATCH)])
    return nats_N / (math.log(2) * images[0].numel())
