"""Equations 4.1 to 4.28 against a linear Gaussian model in closed form and sums by hand."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import (
    Bernoulli,
    Independent,
    MultivariateNormal,
    Normal,
    StudentT,
    kl_divergence,
)

import modicum as md
from linear_gaussian import FullCovarianceEncoder, LinearEncoder, LinearGaussian
from modicum_algorithms.vae.methods.denoising import denoising
from modicum_algorithms.vae.methods.elbo import (
    image_log_prob,
    latent_prior,
    negative_elbo,
    prior_of,
    sampled_images,
    wake,
)
from modicum_algorithms.vae.methods.reverse_half_sleep import reverse_half_sleep
from modicum_algorithms.vae.methods.reverse_sleep import reverse_sleep
from modicum_algorithms.vae.methods.sleep import sleep
from modicum_algorithms.vae.model_spec import ModelSpec
from modicum_algorithms.vae.networks import build_vae
from modicum_algorithms.vae.refine import refine_encoder
from tiny_vae import inference_method

REPEATS = 20_000


def mean_and_error(values, count):
    """Means over the repeats of each of `count` images, and their standard errors."""
    repeated = values.reshape(REPEATS, count).detach()
    return repeated.mean(0), repeated.std(0) / math.sqrt(REPEATS)


# --- The bound ---


@pytest.mark.parametrize("orthogonal", [True, False])
def test_with_the_exact_posterior_and_sampled_divergence_every_sample_is_the_evidence(orthogonal):
    """When q is it, log p(x|z) + log p(z) − log q(z|x) = log p(x) whatever z."""
    model = LinearGaussian(orthogonal)
    x = model.images(20)
    # The prior is no multivariate normal to torch, so the divergence is sampled.
    with md.seeded(0):
        found = negative_elbo(model.posterior, model, x)
    assert torch.allclose(-found, model.evidence(x), rtol=0, atol=1e-10)


def test_with_the_exact_posterior_the_mean_over_samples_is_the_evidence():
    """Now with the exact divergence."""
    model = LinearGaussian()
    x = model.images(3)
    with md.seeded(1):
        found = negative_elbo(model.diagonal_posterior, model, x.repeat(REPEATS, 1))
    mean, error = mean_and_error(found, 3)
    assert ((mean + model.evidence(x)).abs() < 4 * error).all()
    assert (error < 0.02).all()


def test_any_other_posterior_loses_its_divergence_from_the_exact_one():
    """ELBO = log p(x) − KL(q(z|x) || p(z|x)) (equation 4.3)."""
    model = LinearGaussian(orthogonal=False)
    x = model.images(3)

    def encoder(x):
        return Independent(Normal(0.4 * x[:, :2], x.new_tensor([0.5, 0.8]).expand(len(x), 2)), 1)

    q = encoder(x).base_dist
    full = MultivariateNormal(q.mean, torch.diag_embed(q.variance))
    wanted = model.evidence(x) - kl_divergence(full, model.posterior(x))
    with md.seeded(2):
        found = negative_elbo(encoder, model, x.repeat(REPEATS, 1))
    mean, error = mean_and_error(-found, 3)
    assert ((mean - wanted).abs() < 4 * error).all()
    assert (wanted < model.evidence(x) - 10 * error).all()


def shifted(form):
    """A linear encoder far from the prior."""
    encoder = LinearEncoder(form)
    with torch.no_grad():
        encoder.mean.weight.fill_(0.4)
        encoder.log_std.copy_(torch.tensor([-0.5, 0.2]))
    return encoder


def independent(mean, std):
    return Independent(Normal(mean, std), 1)


def test_a_bare_normal_is_the_same_posterior_as_an_independent_one():
    """To the last bit, so the divergence is exact for both."""
    model = LinearGaussian(dtype=torch.float32)
    x = model.images(6)
    found = []
    for form in (Normal, independent):
        encoder = shifted(form)
        for prior in (None, latent_prior(encoder, x)):
            with md.seeded(3):
                found.append(negative_elbo(encoder, model, x, prior))
    posterior = encoder(x).base_dist
    with md.seeded(3):
        z = posterior.rsample()
    # KL(N(μ, σ²) || N(0, 1)) = (μ² + σ² − 1)/2 − ln σ in every dimension.
    divergence = (posterior.mean**2 + posterior.variance - 1) / 2 - posterior.stddev.log()
    wanted = divergence.sum(1) - model(z).log_prob(x)
    for values in found:
        assert values.equal(found[0])
        assert torch.allclose(values, wanted, rtol=1e-5)


def test_a_posterior_without_a_formula_has_its_divergence_from_the_same_sample():
    """Student's t against a normal: log q(z) − log p(z)."""
    model = LinearGaussian(dtype=torch.float32)
    x = model.images(6)
    encoder = shifted(lambda mean, std: StudentT(5.0, mean, std))
    for prior in (None, latent_prior(encoder, x)):
        with md.seeded(4):
            found = negative_elbo(encoder, model, x, prior)
        with md.seeded(4):
            z = encoder(x).rsample()
        ratio = encoder(x).log_prob(z) - Normal(0.0, 1.0).log_prob(z)
        assert torch.allclose(found, ratio.sum(1) - model(z).log_prob(x), rtol=1e-5)


@pytest.mark.parametrize(
    "one_posterior",
    [
        Normal(torch.zeros(1, 2), 1.0),
        Independent(Normal(torch.zeros(1, 2), 1.0), 1),
        Independent(Normal(torch.zeros(1, 2, 3), 1.0), 2),
        MultivariateNormal(torch.zeros(1, 2), torch.eye(2)),
    ],
    ids=["bare", "independent", "map", "full covariance"],
)
def test_the_prior_has_the_posteriors_shapes(one_posterior):
    def encoder(x):
        return one_posterior.expand((len(x), *one_posterior.batch_shape[1:]))

    x = torch.zeros(5, 3)
    posterior, one = encoder(x), latent_prior(encoder, x)
    whole = prior_of(posterior, None, torch.device("cpu"))
    for prior in (whole, one.expand(posterior.batch_shape)):
        assert prior.batch_shape == posterior.batch_shape
        assert prior.event_shape == posterior.event_shape
    with md.seeded(5):
        z = one.sample((5,))
    assert z.shape == posterior.sample().shape
    wanted = Normal(0.0, 1.0).log_prob(z).flatten(1).sum(1)
    assert torch.allclose(image_log_prob(one.expand(posterior.batch_shape), z), wanted)


@pytest.mark.parametrize("training", [True, False])
def test_a_look_at_the_latents_leaves_the_encoders_mode(training):
    encoder = nn.Sequential(nn.Dropout(0.5), LinearEncoder()).train(training)
    latent_prior(encoder, torch.zeros(4, 3))
    assert encoder.training is encoder[0].training is training


# --- Optimal inference (equation 4.16) ---


def anneal(encoder, decoder, x, method="wake"):
    """Two rounds, the second one slow: Adam's own noise is as large as its rate."""
    for rate, epochs in ((3e-2, 50), (2e-3, 40)):
        encoder = refine_encoder(
            encoder, decoder, x, method, learning_rate=rate, epochs=epochs, batch_size=50
        )
    return encoder


@pytest.mark.parametrize("method", ["wake", "reverse_sleep", "sleep"])
def test_inference_recovers_the_exact_posterior(method):
    """Also from the model's own images alone: the linear map is the same for every x."""
    model = LinearGaussian(dtype=torch.float32)
    x = model.images(250)
    found = anneal(LinearEncoder(), model, x, method)(x).base_dist
    exact = model.posterior(x)
    assert (found.mean - exact.mean).square().mean().sqrt() < 0.06
    assert torch.allclose(found.stddev[0], exact.variance[0].sqrt(), atol=0.03)
    gaps = kl_divergence(MultivariateNormal(found.mean, torch.diag_embed(found.variance)), exact)
    assert gaps.mean() < 0.02


def test_inference_recovers_a_full_covariance():
    model = LinearGaussian(orthogonal=False, dtype=torch.float32)
    x = model.images(250)
    found, exact = anneal(FullCovarianceEncoder(), model, x)(x), model.posterior(x)
    assert abs(float(exact.covariance_matrix[0, 0, 1])) > 0.1
    assert torch.allclose(found.covariance_matrix[0], exact.covariance_matrix[0], atol=0.03)
    assert kl_divergence(found, exact).mean() < 0.02


# --- Weights of the terms, by hand ---


def certain_of_ones(z):
    """p(x|z) puts all but 2e-9 on x = 1, whatever z: zeros cost 20 nats, its images nothing."""
    return Independent(Bernoulli(logits=torch.full((len(z), 1), 20.0)), 1)


def prior_as_posterior(x):
    return Independent(Normal(torch.zeros(len(x), 1), torch.ones(len(x), 1)), 1)


@pytest.mark.parametrize(("alpha", "wanted"), [(0.0, 20.0), (0.25, 15.0), (0.8, 4.0), (1.0, 0.0)])
def test_alpha_weighs_the_models_images(alpha, wanted):
    """Data of zeros, a model of ones (equation 4.25): α · 0 + (1 − α) · 20."""
    x, z = torch.zeros(10, 1), torch.zeros(7, 1)
    found = reverse_half_sleep(prior_as_posterior, certain_of_ones, x, z, alpha)
    assert float(found) == pytest.approx(wanted, abs=1e-6)
    method = inference_method("reverse_half_sleep", alpha=alpha)
    found = method.loss(prior_as_posterior, certain_of_ones, x, latent_prior(prior_as_posterior, x))
    assert float(found) == pytest.approx(wanted, abs=1e-6)


def test_two_sizes_of_batch_weigh_as_alpha_says():
    """Means over each, not over both together, against two passes of their own."""
    model = LinearGaussian()
    x, z = model.images(9), torch.randn(4, 2, dtype=torch.float64)
    with md.seeded(6):
        dreamt = sampled_images(model, z)
        noise = model.posterior(torch.cat([x, dreamt]))
    with md.seeded(6):
        found = reverse_half_sleep(model.posterior, model, x, z, 0.3)
    assert noise.batch_shape == (13,)
    # Every sample of the exact posterior gives the evidence.
    wanted = -0.3 * model.evidence(dreamt).mean() - 0.7 * model.evidence(x).mean()
    assert float(found) == pytest.approx(float(wanted), abs=1e-9)


def follows(x):
    return Independent(Normal(x, torch.ones_like(x)), 1)


def standard_images(z):
    return Independent(Normal(torch.zeros(len(z), 1), torch.ones(len(z), 1)), 1)


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.8, 1.0])
def test_alpha_weighs_the_noisy_term(alpha):
    """q(z|x) = N(x, 1), x = 0, ε = 2: KL 2 and 0; log p(x) of the clean image (equation 4.28)."""
    x, noise = torch.zeros(5, 1), torch.full((5, 1), 2.0)
    found = denoising(follows, standard_images, x, noise, alpha)
    assert float(found) == pytest.approx(2 * alpha + math.log(2 * math.pi) / 2, abs=1e-6)


def test_denoising_draws_noise_of_the_given_size():
    """Mean KL of q(z|x + ε) is E(x + ε)²/2 = σ²/2 at x = 0."""
    x = torch.zeros(20_000, 1)
    method = inference_method("denoising", alpha=0.5, noise=3.0)
    with md.seeded(7):
        found = method.loss(follows, standard_images, x, latent_prior(follows, x))
    wanted = 0.5 * 9 / 2 + math.log(2 * math.pi) / 2
    # ε² of variance 2σ⁴, halved twice: four standard errors.
    assert float(found) == pytest.approx(wanted, abs=4 * 9 * math.sqrt(2 / 20_000) / 4)


def test_denoising_without_noise_is_wake():
    """With the z of both halves to the last bits, and on average."""
    model = LinearGaussian()
    x = model.images(8)
    with md.seeded(8):
        found = denoising(model.diagonal_posterior, model, x, torch.zeros_like(x), 0.5)
    with md.seeded(8):
        wanted = wake(model.diagonal_posterior, model, torch.cat([x, x]))
    assert float(found) == pytest.approx(float(wanted), abs=1e-12)
    many = x.repeat(REPEATS, 1)
    with md.seeded(9):
        found = denoising(model.diagonal_posterior, model, many, torch.zeros_like(many), 0.3)
    assert float(found) == pytest.approx(-float(model.evidence(x).mean()), abs=0.01)


def test_sleep_is_the_negative_log_posterior_of_what_was_dreamt():
    """With z of the prior, x of p(x|z), −log q(z|x) (equation 4.21)."""
    model = LinearGaussian()
    z = torch.randn(6, 2, dtype=torch.float64)
    with md.seeded(10):
        found = sleep(model.posterior, model, z)
    with md.seeded(10):
        x = model(z).sample()
    assert float(found) == pytest.approx(-float(model.posterior(x).log_prob(z).mean()))


# --- Where gradients go, and where samples come from ---


@pytest.fixture
def tiny():
    spec = ModelSpec(shape=(1, 2, 3), likelihood="bernoulli", latent_size=2, hidden_units=8)
    return build_vae(spec, seed=0)


@pytest.fixture
def binary():
    return torch.randint(0, 2, (12, 1, 2, 3), generator=torch.Generator().manual_seed(0)).float()


def gradients(loss, module):
    return torch.autograd.grad(
        loss, list(module.parameters()), allow_unused=True, retain_graph=True
    )


def test_sleep_leaves_the_decoder_without_gradient(tiny, binary):
    z = torch.randn(12, 2, requires_grad=True)
    loss = sleep(tiny.encoder, tiny.decoder, z.detach())
    assert gradients(loss, tiny.decoder) == (None,) * 6
    assert all(g.abs().sum() > 0 for g in gradients(loss, tiny.encoder))


def test_sampled_images_are_constants_where_the_decoder_could_reparameterise():
    decoder = LinearGaussian(dtype=torch.float32).requires_grad_(True)
    z = torch.randn(4, 2, requires_grad=True)
    assert decoder(z).rsample().requires_grad
    assert not sampled_images(decoder, z).requires_grad


def test_the_models_images_are_constants_to_the_gradient(tiny):
    """Reverse sleep's gradient is that of the bound at images that were drawn before."""
    z = torch.randn(12, 2, generator=torch.Generator().manual_seed(1), requires_grad=True)
    with md.seeded(11):
        loss = reverse_sleep(tiny.encoder, tiny.decoder, z)
    with md.seeded(11):
        x = sampled_images(tiny.decoder, z)
        wanted = negative_elbo(tiny.encoder, tiny.decoder, x).mean()
    assert loss.equal(wanted)
    assert torch.autograd.grad(loss, z, allow_unused=True, retain_graph=True) == (None,)
    for module in (tiny.encoder, tiny.decoder):
        for found, right in zip(gradients(loss, module), gradients(wanted, module), strict=True):
            assert found.equal(right)


@pytest.mark.parametrize("name", ["sleep", "reverse_sleep", "reverse_half_sleep"])
def test_latents_of_the_models_images_come_from_where_they_should(name):
    """q(z|x) is close to 5 and the prior around 0; a decoder writes down what it is given."""
    seen = []

    def encoder(x):
        return Independent(Normal(5 + 0 * x[:, :1], 0.01 * torch.ones(len(x), 1)), 1)

    def decoder(z):
        seen.append(z)
        return standard_images(z)

    x = torch.zeros(400, 1)
    for source, mean, spread in (("prior", 0, 1), ("aggregate_posterior", 5, 0.01)):
        seen.clear()
        method = inference_method(name, samples_from=source)
        with md.seeded(12):
            method.loss(encoder, decoder, x, latent_prior(encoder, x))
        assert seen[0].shape == (400, 1)
        assert float(seen[0].mean()) == pytest.approx(mean, abs=0.2)
        assert float(seen[0].std()) == pytest.approx(spread, rel=0.15)
        assert not seen[0].requires_grad


def test_aggregate_posterior_pairs_images_with_the_batchs_own_posteriors():
    """One latent for each image of the batch, from that image's q(z|x)."""
    seen = []

    def decoder(z):
        seen.append(z)
        return standard_images(z)

    def encoder(x):
        return Independent(Normal(x, 1e-4 * torch.ones_like(x)), 1)

    x = torch.arange(6.0).reshape(6, 1)
    method = inference_method("reverse_sleep", samples_from="aggregate_posterior")
    method.loss(encoder, decoder, x, latent_prior(encoder, x))
    assert torch.allclose(seen[0], x, atol=1e-3)
