"""K-step inference (equation B.2, algorithm 4) against closed forms."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Independent, Normal

from modicum_algorithms.vae.methods.elbo import negative_elbo_at
from modicum_algorithms.vae.methods.k_step import k_step_posterior
from modicum_algorithms.vae.model_spec import ModelSpec
from modicum_algorithms.vae.networks import ImageDecoder, build_vae

BLIND = ImageDecoder(nn.Sequential(nn.Linear(2, 3), nn.Unflatten(1, (1, 1, 3))), "bernoulli")
nn.init.zeros_(BLIND.network[0].weight)
IMAGES = torch.tensor([[[[0.0, 1.0, 1.0]]], [[[1.0, 1.0, 0.0]]]])


def normals(mean, std):
    return Independent(Normal(torch.tensor(mean), torch.tensor(std)), 1)


def elbo(decoder, posterior, images, noise):
    """The bound of each image at a standardised sample."""
    z = posterior.mean + posterior.stddev * noise
    return -negative_elbo_at(z, posterior, decoder, images)


START = normals([[1.0, -2.0], [0.5, 0.0]], [[0.5, 2.0], [1.0, 3.0]])


def test_no_steps_give_the_start_back():
    assert k_step_posterior(BLIND, START, IMAGES, 0, 0.1, 0) is START


def test_the_first_step_of_adam_moves_by_the_learning_rate_towards_the_prior():
    """Where the decoder ignores z, the ELBO's slope is the divergence's, by hand."""
    found = k_step_posterior(BLIND, START, IMAGES, 1, 0.01, 0).base_dist
    assert found.loc == pytest.approx(torch.tensor([[0.99, -1.99], [0.49, 0.0]]), abs=1e-5)
    # σ = 1 is the prior's own; the others' ρ = ln(exp(σ) − 1) moves by 0.01.
    raw = [math.log(math.expm1(0.5)) + 0.01, math.log(math.expm1(2)) - 0.01]
    wide = math.log(math.expm1(3)) - 0.01
    assert found.scale[0].tolist() == pytest.approx([math.log1p(math.exp(r)) for r in raw])
    assert found.scale[1, 1].item() == pytest.approx(math.log1p(math.exp(wide)))


def test_many_steps_find_the_prior_where_the_decoder_ignores_z():
    found = k_step_posterior(BLIND, START, IMAGES, 600, 0.02, 0).base_dist
    assert found.loc.abs().max() < 1e-3
    assert (found.scale - 1).abs().max() < 1e-3


def test_elbo_of_a_decoder_that_ignores_z():
    with torch.no_grad():
        BLIND.network[0].bias.copy_(torch.tensor([0.0, 1.0, -1.0]))
    found = elbo(BLIND, START, IMAGES, torch.zeros(2, 2))
    divergence = [
        0.5 * (0.25 + 1 - 1 - math.log(0.25)) + 0.5 * (4 + 4 - 1 - math.log(4)),
        0.5 * 0.25 + 0.5 * (9 - 1 - math.log(9)),
    ]
    # ln σ(1) and ln σ(−1).
    likely, unlikely = -math.log1p(math.exp(-1)), -math.log1p(math.exp(1))
    expected = [
        -math.log(2) + likely + unlikely - divergence[0],
        -math.log(2) + likely + likely - divergence[1],
    ]
    assert found.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("likelihood", ["bernoulli", "discretised_logistic"])
def test_steps_improve_the_elbo_and_leave_the_model_alone(likelihood):
    spec = ModelSpec(shape=(1, 4, 4), likelihood=likelihood, latent_size=3, hidden_units=30)
    model = build_vae(spec, 0)
    images = torch.randint(
        0, spec.levels, (30, 1, 4, 4), generator=torch.Generator().manual_seed(0)
    )
    images = images.float()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    noise = torch.randn(50, 30, 3, generator=torch.Generator().manual_seed(1))
    start = model.encoder(images)
    values = []
    for steps in (0, 10, 50):
        found = k_step_posterior(model.decoder, start, images, steps, 0.02, 0)
        with torch.no_grad():
            values.append(
                torch.stack([elbo(model.decoder, found, images, n).mean() for n in noise]).mean()
            )
    assert values[0] < values[1] < values[2]
    assert not found.mean.requires_grad
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_images_do_not_act_on_each_other_and_the_seed_decides():
    spec = ModelSpec(shape=(1, 4, 4), likelihood="bernoulli", latent_size=3, hidden_units=30)
    model = build_vae(spec, 0)
    images = torch.randint(0, 2, (6, 1, 4, 4), generator=torch.Generator().manual_seed(0)).float()
    changed = images.clone()
    changed[3:] = 1 - changed[3:]

    def found(x, seed):
        return k_step_posterior(model.decoder, model.encoder(x), x, 5, 0.02, seed).mean

    assert torch.equal(found(images, 0), found(images, 0))
    assert not torch.equal(found(images, 0), found(images, 1))
    assert torch.allclose(found(images, 0)[:3], found(changed, 0)[:3], atol=1e-6)
    assert not torch.allclose(found(images, 0)[3:], found(changed, 0)[3:], atol=1e-3)
