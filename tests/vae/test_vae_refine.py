"""`refine_encoder` with anybody's modules: what it takes, what it refuses, what it leaves alone."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import (
    Bernoulli,
    Categorical,
    Independent,
    MultivariateNormal,
    Normal,
)

import modicum as md
from linear_gaussian import FullCovarianceEncoder, LinearEncoder, LinearGaussian
from modicum_algorithms.vae.evaluation import bits_per_dimension
from modicum_algorithms.vae.model_spec import ModelSpec
from modicum_algorithms.vae.networks import build_vae
from modicum_algorithms.vae.refine import refine_encoder
from tiny_vae import same, weights

METHODS = ["wake", "sleep", "reverse_sleep", "reverse_half_sleep", "denoising"]


class Module(nn.Module):
    """A function of a linear layer's output as a module."""

    def __init__(self, inputs, outputs, function, seed=0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layer = nn.Linear(inputs, outputs)
        self.function = function

    def forward(self, x):
        return self.function(self.layer(x.flatten(1)))


class Constant(nn.Module):
    """The prior for every image."""

    def forward(self, x):
        return Normal(torch.zeros(len(x), 2), 1.0)


def bare_normal(h):
    mean, raw = h.chunk(2, 1)
    return Normal(mean, nn.functional.softplus(raw))


def independent_normal(h):
    return Independent(bare_normal(h), 1)


def full_normal(h):
    lower = torch.diag_embed(h[:, 2:4].exp())
    lower = lower + nn.functional.pad(h[:, 4:5, None], (0, 1, 1, 0))
    return MultivariateNormal(h[:, :2], scale_tril=lower)


def pixels(h):
    return Independent(Bernoulli(logits=h.reshape(-1, 1, 2, 3)), 3)


def flat_pixels(h):
    return Independent(Bernoulli(logits=h), 1)


def bare_pixels(h):
    return Bernoulli(logits=h.reshape(-1, 1, 2, 3))


def real_pixels(h):
    return Normal(h.reshape(-1, 1, 2, 3), 0.5)


ENCODER, DECODER = Module(6, 4, independent_normal), Module(2, 6, pixels)
IMAGES = torch.randint(0, 2, (25, 1, 2, 3), generator=torch.Generator().manual_seed(0))
BRIEF = {"epochs": 2, "batch_size": 10, "learning_rate": 1e-2}


# --- Modules of every kind ---


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("encoder", "decoder", "images"),
    [
        (ENCODER, DECODER, IMAGES),
        (Module(6, 4, bare_normal), Module(2, 6, bare_pixels), IMAGES),
        (Module(6, 5, full_normal), DECODER, IMAGES),
        (ENCODER, Module(2, 6, flat_pixels), IMAGES.flatten(1)),
        (ENCODER, Module(2, 6, real_pixels), IMAGES + 0.25),
        (ENCODER, DECODER, IMAGES.numpy().astype(np.uint8)),
        (ENCODER, DECODER, IMAGES[:1]),
    ],
    ids=["independent", "bare", "full covariance", "flat", "real", "numpy", "one image"],
)
def test_anybodys_modules_are_refined(encoder, decoder, images, method):
    """Every weight moves, to finite values."""
    for source in ("prior", "aggregate_posterior"):
        found = refine_encoder(encoder, decoder, images, method, samples_from=source, **BRIEF)
        assert type(found) is type(encoder)
        assert not found.training
        for before, after in zip(weights(encoder), weights(found), strict=True):
            assert after.isfinite().all()
            assert not after.equal(before)


def test_bare_and_independent_normals_are_refined_alike():
    """To the last bit: both have the exact divergence."""
    for method in METHODS:
        found = [
            refine_encoder(Module(6, 4, form), DECODER, IMAGES, method, **BRIEF)
            for form in (bare_normal, independent_normal)
        ]
        assert same(*map(weights, found))


@pytest.mark.parametrize("method", METHODS)
def test_a_model_of_the_family_is_refined(method):
    spec = ModelSpec(shape=(1, 2, 3), likelihood="discretised_logistic", hidden_units=8)
    model = build_vae(spec, 0).requires_grad_(False)
    images = IMAGES * 255
    found = refine_encoder(model.encoder, model.decoder, images, method, **BRIEF)
    assert all(p.requires_grad for p in found.parameters())
    assert not same(weights(found), weights(model.encoder))


@pytest.mark.parametrize("family", [LinearEncoder, FullCovarianceEncoder])
def test_refining_brings_unseen_images_nearer_to_the_model(family):
    """Few training images: their own bound overfits, the model's images do not let it."""
    decoder = LinearGaussian(dtype=torch.float32)
    train, test = decoder.images(4, seed=1), decoder.images(400, seed=2)
    settings = {"epochs": 150, "batch_size": 4, "learning_rate": 2e-2}
    bits = {}
    for method in ("wake", "reverse_half_sleep"):
        found = refine_encoder(family(), decoder, train, method, **settings)
        bits[method] = float(bits_per_dimension(found, decoder, test, seed=0).mean())
    evidence = -float(decoder.evidence(test).mean()) / (3 * np.log(2))
    assert bits["reverse_half_sleep"] - evidence < 0.5 * (bits["wake"] - evidence)


def test_half_precision_with_anybodys_modules():
    """Near single precision where torch has the operations; refused at once where it has not."""
    for images, decoder in [(IMAGES, DECODER), (IMAGES + 0.25, Module(2, 6, real_pixels))]:
        half, full = (
            refine_encoder(ENCODER, decoder, images, "wake", precision=precision, **BRIEF)
            for precision in ("bfloat16", "float32")
        )
        for a, b in zip(weights(half), weights(full), strict=True):
            assert not a.equal(b)
            assert torch.allclose(a, b, atol=0.06)
    with pytest.raises(md.InputError, match=r"^encoder: .*BFloat16"):
        refine_encoder(
            Module(6, 5, full_normal), DECODER, IMAGES, precision="bfloat16", on_epoch=never
        )


def never(*_):
    raise AssertionError


# --- What stays as it was ---


def test_the_originals_stay_as_they_were():
    """Weights, gradients asked for, and modes, also where those inside differ."""
    encoder = nn.Sequential(
        nn.Flatten(), nn.BatchNorm1d(6), nn.Dropout(0.5), Module(6, 4, independent_normal)
    )
    decoder = nn.Sequential(nn.Dropout(0.5), Module(2, 6, pixels))
    encoder.train()
    encoder[1].eval()
    encoder[3].layer.bias.requires_grad_(False)
    decoder[1].eval()
    modules = [*encoder.modules(), *decoder.modules()]
    parameters = [*encoder.parameters(), *decoder.parameters()]
    states = weights(encoder), weights(decoder)
    modes = [m.training for m in modules]
    asked = [p.requires_grad for p in parameters]
    found = refine_encoder(encoder, decoder, IMAGES, **BRIEF)
    assert same(weights(encoder), states[0])
    assert same(weights(decoder), states[1])
    assert [m.training for m in modules] == modes
    assert [p.requires_grad for p in parameters] == asked
    assert all(p.grad is None for p in parameters)
    assert not any(m.training for m in found.modules())


def test_the_decoder_is_evaluated_without_its_dropout():
    """Refining against one with dropout is refining against it in evaluation mode."""
    decoder = nn.Sequential(nn.Dropout(0.9), DECODER)
    found = refine_encoder(ENCODER, decoder.train(), IMAGES, **BRIEF)
    assert same(weights(found), weights(refine_encoder(ENCODER, DECODER, IMAGES, **BRIEF)))


def test_a_seed_gives_one_result_and_torchs_own_numbers_stay():
    before = torch.get_rng_state()
    first = refine_encoder(ENCODER, DECODER, IMAGES, seed=1, **BRIEF)
    assert torch.get_rng_state().equal(before)
    torch.randn(3)
    again = refine_encoder(ENCODER, DECODER, IMAGES, seed=1, **BRIEF)
    other = refine_encoder(ENCODER, DECODER, IMAGES, seed=2, **BRIEF)
    assert same(weights(first), weights(again))
    assert not same(weights(first), weights(other))


def test_a_module_that_encoder_and_decoder_share_is_trained_in_the_encoder_alone():
    shared = nn.Linear(2, 2)
    encoder = Module(6, 4, lambda h: independent_normal(torch.cat([shared(h[:, :2]), h[:, 2:]], 1)))
    encoder.shared = shared
    decoder = nn.Sequential(shared, Module(2, 6, pixels))
    before = copy.deepcopy(shared)
    refine_encoder(encoder, decoder, IMAGES, **BRIEF)
    assert same(weights(shared), weights(before))


def test_an_image_read_only_in_memory_is_taken_without_a_word():
    """So come the arrays of the cache."""
    images = IMAGES.numpy().astype(np.uint8)
    images.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = refine_encoder(ENCODER, DECODER, images, **BRIEF)
    assert same(weights(found), weights(refine_encoder(ENCODER, DECODER, IMAGES, **BRIEF)))
    assert not images.flags.writeable


# --- Progress ---


def test_every_epoch_is_reported_in_evaluation_mode():
    """Looking at it, drawing numbers or changing its mode, changes nothing."""
    encoder = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), Module(6, 4, independent_normal))
    seen = []
    settings = BRIEF | {"schedule": "constant"}

    def on_epoch(epoch, refined, loss):
        assert not any(m.training for m in refined.modules())
        torch.randn(1)
        seen.append((epoch, weights(refined), loss))

    found = refine_encoder(encoder, DECODER, IMAGES, on_epoch=on_epoch, **settings | {"epochs": 3})
    assert [epoch for epoch, _, _ in seen] == [1, 2, 3]
    assert same(seen[2][1], weights(found))
    assert not same(seen[1][1], weights(found))
    assert all(np.isfinite(loss) for _, _, loss in seen)
    unseen = refine_encoder(encoder, DECODER, IMAGES, **settings | {"epochs": 3})
    assert same(weights(unseen), weights(found))
    shorter = refine_encoder(encoder, DECODER, IMAGES, **settings | {"epochs": 2})
    assert same(weights(shorter), seen[1][1])


# --- Mistakes ---


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"method": "awake"}, "method: must be one of"),
        ({"alpha": 1.5}, r"alpha: .*less than or equal to 1 \(got 1.5\)"),
        ({"alpha": -0.1}, "alpha"),
        ({"alpha": float("nan")}, "alpha"),
        ({"samples_from": "data"}, "samples_from: .*'prior' or 'aggregate_posterior'"),
        ({"noise": -1.0}, "noise: .*greater than or equal to 0"),
        ({"noise": float("nan")}, "noise"),
        ({"epochs": 0}, r"epochs: .*greater than or equal to 1 \(got 0\)"),
        ({"batch_size": 0}, "batch_size: .*greater than or equal to 1"),
        ({"learning_rate": 0.0}, "learning_rate: .*greater than 0"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"precision": "float16"}, "precision: .*'float32' or 'bfloat16'.*'float16'"),
        ({"rate": 1e-3}, "unknown setting 'rate'"),
        ({"seed": -1}, "seed: must be 0 or more"),
        ({"data": IMAGES[:0]}, r"data: must hold at least one image.* \(0, 1, 2, 3\)"),
        ({"data": torch.zeros(5)}, "data: must hold at least one image"),
        ({"encoder": Module(6, 4, torch.relu)}, "^encoder: .*has no attribute 'rsample'"),
        (
            {"encoder": Module(6, 4, lambda h: Categorical(logits=h))},
            r"^encoder: .* with rsample \(NotImplementedError\)",
        ),
        ({"encoder": Module(7, 4, bare_normal)}, r"^encoder: .*shape \(1, 2, 3\).*cannot be multi"),
        (
            {"encoder": Module(6, 4, lambda h: Independent(bare_normal(h), 2))},
            r"^encoder: .*one log probability for each image of a batch, for 2 .*shape \(\)",
        ),
        (
            {"encoder": nn.Sequential(nn.Flatten(), Constant())},
            "^encoder: must have parameters to train",
        ),
        ({"decoder": Module(2, 6, torch.relu)}, "^decoder: .*has no attribute 'sample'"),
        ({"decoder": Module(3, 6, pixels)}, "^decoder: .*cannot be multiplied"),
        (
            {"decoder": Module(2, 6, flat_pixels)},
            r"^decoder: its images must have the data's shape \(1, 2, 3\)|^decoder: .*log_prob",
        ),
        (
            {"decoder": Module(2, 6, lambda h: Independent(bare_pixels(h), 4))},
            "^decoder: .*one log probability for each image",
        ),
        ({"data": IMAGES + 1}, "^decoder: .*log_prob of the data .*within the support"),
    ],
)
def test_mistakes_are_named_before_anything_starts(changed, message):
    given = {"encoder": ENCODER, "decoder": DECODER, "data": IMAGES} | BRIEF | changed
    before = torch.get_rng_state()
    with pytest.raises(md.InputError, match=message) as caught:
        refine_encoder(**given)
    assert "\n" not in str(caught.value)
    assert torch.get_rng_state().equal(before)
