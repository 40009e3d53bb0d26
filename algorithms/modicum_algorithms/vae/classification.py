"""Downstream classification from the latent representation (section 4.5.2).

Shapes: N training images, M test images, B batch, L latent dimensions, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.functional import cross_entropy

import modicum as md
from modicum_algorithms.vae.config import ClassifierConfig
from modicum_algorithms.vae.methods.elbo import Network
from modicum_algorithms.vae.networks import EVALUATION_BATCH
from modicum_algorithms.vae.training import adam


def classification_accuracy(
    encoder: Network,
    train_images: Tensor,
    train_labels: Tensor,
    test_images: Tensor,
    test_labels: Tensor,
    config: ClassifierConfig,
    *,
    seed: int,
) -> float:
    """Test accuracy of a classifier that sees z ~ q(z|x) instead of x (section 4.5.2).

    In each epoch the classifier is trained on one fresh z of each image. At test time the predicted
    probabilities of K latents of an image are averaged (equation 4.27).

    Images (N, ...) and (M, ...) are of any numeric type, labels (N,) and (M,) class numbers from 0.
    The encoder is used as it is: a module should be in evaluation mode. The seed decides
    initialisation, order, latents and dropout.

    Raises:
        InputError: A split has no images, or not one label for each.
    """
    _check_labels("train", train_images, train_labels)
    _check_labels("test", test_images, test_labels)
    posteriors = _posteriors(encoder, train_images)
    with md.seeded(md.derive_seed(seed, "classifier")):
        latents = posteriors[0].sample().flatten(1).shape[1]
        classifier = _network(latents, int(train_labels.max()) + 1, config)
    device = train_images.device
    classifier.to(device)
    labels_N = train_labels.long().to(device)
    optimiser = adam(classifier.parameters(), config.learning_rate)
    for epoch in range(config.epochs):
        with md.seeded(md.derive_seed(seed, f"epoch {epoch}")):
            z_NL = torch.cat([posterior.sample().flatten(1) for posterior in posteriors])
            for rows in torch.randperm(len(z_NL)).split(config.batch_size):
                optimiser.zero_grad()
                cross_entropy(classifier(z_NL[rows]), labels_N[rows]).backward()
                optimiser.step()
    classifier.eval()
    with md.seeded(md.derive_seed(seed, "test")):
        probabilities_MC = torch.cat(
            [
                predictive_probabilities(classifier, posterior, config.samples)
                for posterior in _posteriors(encoder, test_images)
            ]
        )
    right_M = probabilities_MC.argmax(1) == test_labels.to(device)
    return float(right_M.double().mean())


def predictive_probabilities(
    classifier: nn.Module, posterior: Distribution, samples: int
) -> Tensor:
    """Monte Carlo estimate of p(y|x) = ∫ p(y|z) q(z|x) dz, (B, C) (equation 4.27).

    The classifier maps latents (B, L), drawn by torch's generator, to logits (B, C).
    """
    with torch.no_grad():
        # One latent of every image at a time keeps the layers' outputs in the processor's cache.
        drawn = (classifier(posterior.sample().flatten(1)).softmax(1) for _ in range(samples))
        return sum(drawn, start=torch.zeros(())) / samples


def _network(latents: int, classes: int, config: ClassifierConfig) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(latents, config.hidden_units),
        nn.ReLU(),
        nn.Dropout(config.dropout),
        nn.Linear(config.hidden_units, config.hidden_units),
        nn.ReLU(),
        nn.Dropout(config.dropout),
        nn.Linear(config.hidden_units, classes),
    )


def _posteriors(encoder: Network, images: Tensor) -> list[Distribution]:
    """q(z|x) of all images, in batches: the encoder is evaluated once for each image."""
    with torch.no_grad():
        return [encoder(batch.float()) for batch in images.split(EVALUATION_BATCH)]


def _check_labels(split: str, images: Tensor, labels: Tensor) -> None:
    if len(images) == 0 or labels.shape != images.shape[:1]:
        raise md.InputError(
            f"{split}_labels: must be one class number for each of at least one image, got shape "
            f"{tuple(labels.shape)} for {len(images)} images"
        )
