"""Importance-weighted bounds, bits per dimension and down-stream accuracy against closed forms."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, Independent, Normal
from torch.nn.functional import one_hot

import modicum as md
from linear_gaussian import LinearGaussian
from modicum_algorithms.vae.classification import classification_accuracy, predictive_probabilities
from modicum_algorithms.vae.config import ClassifierConfig
from modicum_algorithms.vae.evaluation import (
    bits_per_dimension,
    iwae_bits_per_dimension,
    iwae_bound,
)
from modicum_algorithms.vae.methods.elbo import latent_prior, negative_elbo
from modicum_algorithms.vae.model_spec import ModelSpec
from modicum_algorithms.vae.networks import build_vae


def wide(x):
    """A poor q(z|x): the prior."""
    return Independent(Normal(torch.zeros(len(x), 2, dtype=x.dtype), 1.0), 1)


# --- Importance-weighted bounds ---


@pytest.mark.parametrize("samples", [1, 3])
def test_the_exact_posterior_weighs_all_samples_alike(samples):
    """Every weight is p(x), so the bound is the evidence for every K."""
    model = LinearGaussian(orthogonal=False)
    x = model.images(10)
    with md.seeded(0):
        found = iwae_bound(model.posterior, model, x, samples)
    assert torch.allclose(found, model.evidence(x), rtol=0, atol=1e-10)


def test_one_sample_is_the_elbo():
    """The same number for the same z where the divergence is sampled; else the same mean."""
    model = LinearGaussian()
    x = model.images(7)

    def shifted(x):
        exact = model.posterior(x)
        return type(exact)(exact.mean + 0.3, exact.covariance_matrix)

    with md.seeded(1):
        one = iwae_bound(shifted, model, x, 1)
    with md.seeded(1):
        elbo = -negative_elbo(shifted, model, x)
    assert torch.allclose(one, elbo, rtol=0, atol=1e-12)
    with md.seeded(1):
        z = wide(x).sample()
    with md.seeded(1):
        # q and prior cancel.
        assert torch.allclose(iwae_bound(wide, model, x, 1), model(z).log_prob(x))

    def diagonal(x):
        return Independent(Normal(model.posterior(x).mean + 0.3, 0.5), 1)

    repeats = 20_000
    many = x.repeat(repeats, 1)
    with md.seeded(2):
        sampled = iwae_bound(diagonal, model, many, 1).reshape(repeats, 7)
    with md.seeded(3):
        exact = -negative_elbo(diagonal, model, many).reshape(repeats, 7)
    error = (sampled.var(0) + exact.var(0)).div(repeats).sqrt()
    assert ((sampled.mean(0) - exact.mean(0)).abs() < 4 * error).all()
    assert (error < 0.02).all()


def test_the_bound_rises_towards_the_evidence():
    model = LinearGaussian()
    x = model.images(5)
    evidence = float(model.evidence(x).mean())
    means = []
    with md.seeded(4):
        for samples, repeats in ((1, 2000), (4, 1000), (32, 200), (2000, 4)):
            bounds = iwae_bound(wide, model, x.repeat(repeats, 1), samples)
            means.append(float(bounds.mean()))
    assert means == sorted(means)
    assert means[1] - means[0] > 0.3
    assert means[-1] == pytest.approx(evidence, abs=0.03)
    assert means[0] < evidence - 0.5


def test_two_samples_by_hand():
    """Weights of 1/2 and 1/8 in a model without latents' effect on x: log of their mean.

    q(z|x) = N(0, 1) against a prior N(0, 1) of the same shape leaves p(x|z): z > 0 gives x = 1 the
    probability 1/2, else 1/8.
    """

    def encoder(x):
        return Independent(Normal(torch.zeros(len(x), 1), 1.0), 1)

    def decoder(z):
        return Independent(Bernoulli(probs=torch.where(z > 0, 0.5, 0.125)), 1)

    x = torch.ones(1000, 1)
    with md.seeded(5):
        found = iwae_bound(encoder, decoder, x, 2)
    counts = [
        int(torch.isclose(found, torch.tensor(math.log(value)), atol=1e-6).sum())
        for value in (0.5, 0.3125, 0.125)
    ]
    assert sum(counts) == 1000
    # Four standard errors of 1/4 and 1/2.
    assert counts == pytest.approx([250, 500, 250], abs=64)


def test_a_prior_of_ones_own_is_used():
    model = LinearGaussian()
    x = model.images(4)
    prior = Independent(Normal(torch.full((2,), 0.5, dtype=x.dtype), 1.0), 1)
    with md.seeded(6):
        found = iwae_bound(wide, model, x, 1, prior)
    with md.seeded(6):
        z = wide(x).sample()
        wanted = model(z).log_prob(x) + prior.log_prob(z) - wide(x).log_prob(z)
    assert torch.allclose(found, wanted)
    with md.seeded(6):
        plain = iwae_bound(wide, model, x, 1, latent_prior(wide, x))
    with md.seeded(6):
        assert plain.equal(iwae_bound(wide, model, x, 1))


# --- Bits per dimension ---


def test_bits_per_dimension_by_hand():
    """p(x|z) = 1/4 for each of six pixels and q the prior: two bits a pixel, whatever z."""

    def encoder(x):
        return Independent(Normal(torch.zeros(len(x), 3), 1.0), 1)

    def decoder(z):
        return Independent(Bernoulli(probs=torch.full((len(z), 1, 2, 3), 0.25)), 3)

    images = torch.ones(1203, 1, 2, 3, dtype=torch.uint8)
    bounds = [iwae_bits_per_dimension(encoder, decoder, images, k, seed=0) for k in (1, 5)]
    for found in (bits_per_dimension(encoder, decoder, images, seed=0), *bounds):
        assert found.shape == (1203,)
        assert found.tolist() == pytest.approx([2.0] * 1203, rel=1e-5)


def test_measures_repeat_under_their_seed_and_leave_torchs_own_alone():
    model = build_vae(ModelSpec(shape=(1, 2, 2), likelihood="bernoulli", hidden_units=4), 0)
    images = torch.randint(0, 2, (30, 1, 2, 2))
    before = torch.get_rng_state()
    first, again, other = (
        bits_per_dimension(model.encoder, model.decoder, images, seed=seed) for seed in (1, 1, 2)
    )
    assert torch.get_rng_state().equal(before)
    assert first.equal(again)
    assert not first.equal(other)
    assert not first.requires_grad


# --- Down-stream classification (section 4.5.2) ---


def two_classes(count, seed):
    """One number an image: ±1 by class, with noise of standard deviation 1."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (count,), generator=generator)
    return 2.0 * labels[:, None] - 1 + torch.randn(count, 1, generator=generator), labels


def narrow(x):
    """A posterior that passes x on."""
    return Independent(Normal(x, 1e-3), 1)


def accuracy(encoder, train, test, seed=0, **settings):
    config = ClassifierConfig(
        **({"hidden_units": 16, "epochs": 5, "learning_rate": 1e-2} | settings)
    )
    return classification_accuracy(encoder, *train, *test, config, seed=seed)


def test_a_posterior_that_keeps_x_reaches_the_bayes_accuracy():
    """Two unit Gaussians 2 apart: Φ(1) = 0.841, that is the accuracy of the sign of x."""
    train, test = two_classes(2000, 0), two_classes(2000, 1)
    bayes = float(((test[0][:, 0] > 0) == test[1]).double().mean())
    assert bayes == pytest.approx(0.841, abs=0.03)
    assert accuracy(narrow, train, test, samples=5) == pytest.approx(bayes, abs=0.015)


def test_five_separate_classes_are_all_told_apart():
    """Labels beyond two; latents of more than one dimension; integer images."""
    labels = torch.arange(500) % 5
    images = (one_hot(labels, 5) * 200).to(torch.uint8)

    def encoder(x):
        return Independent(Normal((x / 100).reshape(-1, 5, 1), 0.1), 2)

    split = (images, labels)
    assert accuracy(encoder, split, split, samples=3) == 1.0


def test_a_posterior_that_ignores_x_gives_chance():
    def encoder(x):
        return Independent(Normal(torch.zeros(len(x), 2), 1.0), 1)

    labels = torch.arange(900) % 3
    split = (torch.zeros(900, 1), labels)
    # Averaged over K, all images are taken for the same class.
    assert accuracy(encoder, split, split, samples=200) == pytest.approx(1 / 3, abs=1e-9)


def test_latents_are_drawn_afresh_in_training():
    """q(z|x) = N(x, 2²) of 20 images: fixed latents would be learned by heart.

    Of fresh ones only the sign is worth something, which is right for every x.
    """
    images = torch.tensor([[-1.0], [1.0]]).repeat(10, 1)
    labels = (images[:, 0] > 0).long()

    def encoder(x):
        return Independent(Normal(x, 2.0), 1)

    settings = {"epochs": 150, "batch_size": 20, "learning_rate": 3e-3, "samples": 300}
    assert accuracy(encoder, (images, labels), (images, labels), **settings) == 1.0


class Steps(nn.Module):
    """p(y|z) = (0.9, 0.1) at z = 0 and (0.4, 0.6) at z = 1."""

    def forward(self, z_BL):
        return torch.where(z_BL > 0.5, torch.tensor([0.4, 0.6]), torch.tensor([0.9, 0.1])).log()


def test_probabilities_are_averaged_and_not_votes():
    """q(z = 1|x) = 3/4 in three of four samples says class 1, by 0.6 to 0.4.

    But p(y|x) = 1/4 (0.9, 0.1) + 3/4 (0.4, 0.6) = (0.525, 0.475) says class 0 (equation 4.27).
    """
    posterior = Independent(Bernoulli(probs=torch.full((2000, 1), 0.75)), 1)
    with md.seeded(0):
        one = predictive_probabilities(Steps(), posterior, 1)
        many = predictive_probabilities(Steps(), posterior, 400)
    said = one.argmax(1).double().mean()
    assert float(said) == pytest.approx(0.75, abs=4 * math.sqrt(0.75 * 0.25 / 2000))
    assert sorted(set(one[:, 0].tolist())) == pytest.approx([0.4, 0.9])
    assert many.mean(0).tolist() == pytest.approx([0.525, 0.475], abs=0.002)
    # The share of z = 1 among 400 has a standard error of 0.0217, times 0.5.
    assert float(many[:, 0].std()) == pytest.approx(0.5 * 0.0217, rel=0.1)
    assert many.sum(1).tolist() == pytest.approx([1.0] * 2000, abs=1e-5)


def test_classification_repeats_under_its_seed_and_leaves_torchs_own_alone():
    train, test = two_classes(300, 2), two_classes(300, 3)

    def noisy(x):
        return Independent(Normal(x, 1.5), 1)

    before = torch.get_rng_state()
    scores = [accuracy(noisy, train, test, seed=s, epochs=2, samples=2) for s in (0, 0, 1, 2, 3)]
    assert torch.get_rng_state().equal(before)
    assert scores[0] == scores[1]
    assert len(set(scores)) > 1


def test_labels_that_do_not_fit_are_named():
    train = two_classes(20, 0)
    with pytest.raises(md.InputError, match=r"test_labels: .* shape \(19,\) for 20 images"):
        classification_accuracy(narrow, *train, train[0], train[1][:19], ClassifierConfig(), seed=0)
    with pytest.raises(md.InputError, match="train_labels"):
        classification_accuracy(
            narrow, train[0][:0], train[1][:0], *train, ClassifierConfig(), seed=0
        )
