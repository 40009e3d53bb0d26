"""The codec's tables, integer networks and stack against exact and brute-force twins."""

import math
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import modicum as md
from modicum_algorithms.vae.codec import tables
from modicum_algorithms.vae.codec.elementary import exponential, logarithm, sigmoid, softplus
from modicum_algorithms.vae.codec.integer_networks import (
    LATENT_FORMAT,
    PIXEL_FORMAT,
    IntegerNetwork,
)
from modicum_algorithms.vae.codec.stack import CorruptChunk, Stack, start_words
from modicum_algorithms.vae.codec.symbols import (
    LatticePosterior,
    pop_posterior,
    pop_prior,
    push_posterior,
    push_prior,
)
from modicum_algorithms.vae.likelihoods import DiscretisedLogistic
from modicum_algorithms.vae.model_spec import ModelSpec
from modicum_algorithms.vae.networks import ResidualBlock, ScaleImage
from tiny_vae import scattered

finite = st.floats(-600, 600)


@settings(deadline=None)
@given(finite)
def test_exponential_is_within_units_in_the_last_place(x):
    with localcontext(prec=40):
        truth = Decimal(x).exp()
        error = abs(Decimal(float(exponential(np.array([x]))[0])) / truth - 1)
    assert error < Decimal("1e-15")


@settings(deadline=None)
@given(st.floats(1e-300, 1e300))
def test_logarithm_is_within_units_in_the_last_place(x):
    with localcontext(prec=40):
        truth = Decimal(x).ln()
        error = abs(Decimal(float(logarithm(np.array([x]))[0])) - truth)
    assert error <= abs(truth) * Decimal("4e-16") + Decimal("1e-17")


@settings(deadline=None)
@given(finite)
def test_softplus_and_sigmoid(x):
    array = np.array([x])
    assert softplus(array)[0] == pytest.approx(np.logaddexp(0, x), rel=1e-13, abs=1e-300)
    assert sigmoid(array)[0] == pytest.approx(scipy.special.expit(x), rel=1e-13)


@pytest.mark.parametrize("standard_deviation", [2**-9, 0.01, 0.3, 1.0, 2.0])
def test_gaussian_weights_are_the_density_on_the_lattice(standard_deviation):
    width = max(2, round(7 * standard_deviation * tables.LATTICE_SCALE))
    weights = tables.gaussian_weights(standard_deviation, width)
    assert math.fsum(weights) == pytest.approx(1, abs=1e-14)
    assert (weights == weights[::-1]).all()
    density = scipy.stats.norm.pdf(np.arange(-width, width + 1) / 256, scale=standard_deviation)
    assert weights == pytest.approx(density / density.sum(), rel=1e-11, abs=1e-300)


def test_a_posteriors_level_is_the_nearest_standard_deviation():
    raw = np.arange(-2000.0, 1100.0)
    nearest = np.abs(
        np.log(tables.standard_deviations())[:, None] - np.log(np.logaddexp(0, raw / 256))
    ).argmin(0)
    assert (tables.level_of_raw(raw) == nearest).all()
    assert tables.standard_deviations()[[0, -1]] == pytest.approx([2**-9, 2], rel=1e-15)
    # What lies beyond takes the outermost level.
    assert tables.level_of_raw(np.array([-1e6, 1e6])).tolist() == [0, 160]


def test_bernoulli_probabilities_are_the_likelihoods():
    logits = np.arange(-3000.0, 3001.0)
    truth = np.clip(scipy.special.expit(logits / 256), 1e-3, 1 - 1e-3)
    assert tables.bernoulli_probabilities(logits) == pytest.approx(truth, abs=4e-6)


@settings(deadline=None)
@given(st.floats(-1.5, 1.5), st.floats(-7, 2))
def test_cumulative_counts_are_the_discretised_logistic(mean, log_scale):
    mean, log_scale = round(mean * 4096) / 4096, round(log_scale * 128) / 128
    values = np.arange(1.0, 256.0)
    inverse = tables.inverse_scales(np.full(255, log_scale * 4096))
    inside = tables.cumulative(values, np.full(255, mean * 4096 * 255), inverse)
    counts = np.concatenate([[0], inside, [tables.cumulative_total()]])
    assert (np.diff(counts) >= 1).all()
    shape = 256, 1, 1, 1
    twin = DiscretisedLogistic(
        torch.full(shape, mean).double(), torch.full(shape, log_scale).double()
    )
    truth = twin.log_prob(torch.arange(256.0).double().reshape(shape)).exp().numpy()
    probabilities = np.diff(counts) / counts[-1]
    assert probabilities == pytest.approx(truth, rel=5e-3, abs=1e-12)
    # What coding with the table costs more than coding with the truth, in bits.
    assert (truth * (np.log2(np.maximum(truth, 1e-300)) - np.log2(probabilities))).sum() < 1e-5


@settings(deadline=None)
@given(
    st.floats(-1e9, 1e9),
    st.floats(-1e9, 1e9),
)
def test_every_pixel_value_can_be_coded_whatever_the_parameters(mean, log_scale):
    values = np.arange(1.0, 256.0)
    inverse = tables.inverse_scales(np.full(255, np.floor(log_scale)))
    inside = tables.cumulative(values, np.full(255, np.floor(mean) * 255), inverse)
    counts = np.concatenate([[0], inside, [tables.cumulative_total()]])
    assert (np.diff(counts) >= 1).all()
    assert (counts == np.floor(counts)).all()


def integer_twin(network, values, bits, output_bits):
    """The network in Python's own integers: one image (C, H, W) or (D,), as an object array."""
    layers, divisor = list(network), 1
    last = max(i for i, layer in enumerate(layers) if isinstance(layer, nn.Linear | nn.Conv2d))
    for place, layer in enumerate(layers):
        if isinstance(layer, ScaleImage):
            if layer.levels == 256:
                values, divisor = 2 * values - 255, 255
        elif isinstance(layer, nn.Linear | nn.Conv2d):
            target = output_bits if place == last else 12
            values = affine_twin(layer, values, bits, target, divisor)
            bits, divisor = target, 1
        elif isinstance(layer, nn.ReLU):
            values = np.maximum(values, 0)
        elif isinstance(layer, ResidualBlock):
            inner = affine_twin(layer.first, np.maximum(values, 0), 12, 12)
            change = affine_twin(layer.second, np.maximum(inner, 0), 12, 12)
            values = np.clip(values + change, -(2**23), 2**23)
        elif isinstance(layer, nn.PixelShuffle):
            channels, height, width = values.shape
            blocks = values.reshape(channels // 4, 2, 2, height, width)
            values = blocks.transpose(0, 3, 1, 4, 2).reshape(channels // 4, 2 * height, 2 * width)
        elif isinstance(layer, nn.Flatten):
            values = values.reshape(-1)
        else:
            values = values.reshape(layer.unflattened_size)
    return values


def affine_twin(layer, values, bits, target, divisor=1):
    """Every output as a sum of Python integers, then floor((sum + half)/2^shift)."""

    def whole(weight, scale):
        return round(Fraction(float(weight)) * scale)

    shift = 30 - target
    outputs = []
    for weights, bias in zip(layer.weight.detach(), layer.bias.detach(), strict=True):
        kernel = np.array(
            [whole(w, Fraction(2 ** (30 - bits), divisor)) for w in weights.flatten()], object
        ).reshape(weights.shape)
        start = whole(bias, 2**30) + 2 ** (shift - 1)
        if isinstance(layer, nn.Linear):
            sums = np.array((kernel * values).sum() + start)
        else:
            rows, columns = layer.kernel_size
            padded = np.pad(values, ((0, 0), (layer.padding[0],) * 2, (layer.padding[1],) * 2))
            tops = range(0, padded.shape[1] - rows + 1, layer.stride[0])
            lefts = range(0, padded.shape[2] - columns + 1, layer.stride[1])
            sums = np.array(
                [
                    [
                        (kernel * padded[:, t : t + rows, s : s + columns]).sum() + start
                        for s in lefts
                    ]
                    for t in tops
                ],
                object,
            )
        outputs.append(np.clip(sums >> shift, -(2**23), 2**23))
    return np.array(outputs, object)


SPECS = [
    ModelSpec(shape=(1, 3, 2), likelihood="bernoulli", latent_size=2, hidden_units=5),
    ModelSpec(shape=(2, 2, 2), likelihood="discretised_logistic", latent_size=3, hidden_units=6),
    ModelSpec(
        shape=(3, 4, 8),
        likelihood="autoregressive_logistic",
        network="resnet",
        latent_size=4,
        residual_blocks=1,
        channels=4,
    ),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.likelihood)
@pytest.mark.parametrize("scale", [0.2, 40.0], ids=["usual", "clamped"])
def test_integer_networks_are_exact(spec, scale):
    model = scattered(spec, scale)
    generator = np.random.default_rng(0)
    images = generator.integers(0, spec.levels, (2, *spec.shape))
    encoder = IntegerNetwork(model.encoder.network, PIXEL_FORMAT[spec.levels], 8)
    outputs = encoder(torch.from_numpy(images).double()).numpy()
    for image, output in zip(images, outputs, strict=True):
        assert (integer_twin(model.encoder.network, image.astype(object), 0, 8) == output).all()
    latents = generator.integers(-5120, 5121, (2, spec.latent_size))
    decoder = IntegerNetwork(model.decoder.network, LATENT_FORMAT, 12)
    outputs = decoder(torch.from_numpy(latents).double()).numpy()
    for latent, output in zip(latents, outputs, strict=True):
        assert (integer_twin(model.decoder.network, latent.astype(object), 8, 12) == output).all()


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.likelihood)
def test_integer_networks_are_close_to_the_floats(spec):
    model = scattered(spec, 0.2).double()
    images = torch.randint(0, spec.levels, (20, *spec.shape)).double()
    encoder = IntegerNetwork(model.encoder.network, PIXEL_FORMAT[spec.levels], 12)
    assert encoder(images) / 4096 == pytest.approx(model.encoder.network(images).detach(), abs=5e-3)
    latents = torch.randint(-512, 513, (20, spec.latent_size)).double()
    decoder = IntegerNetwork(model.decoder.network, LATENT_FORMAT, 12)
    assert decoder(latents) / 4096 == pytest.approx(
        model.decoder.network(latents / 256).detach(), abs=5e-3
    )


def test_integer_networks_give_the_same_bits_in_any_order(two_threads):
    """Batches, threads and the order of a sum decide the last bits of floats, not of these."""
    inputs, hidden, count = 700, 600, 65
    network = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, 7))
    z = torch.randint(-5120, 5121, (count, inputs)).double()
    integer = IntegerNetwork(network, LATENT_FORMAT, 12)
    whole = integer(z)
    assert torch.equal(whole, torch.cat([integer(row) for row in z.split(1)]))
    torch.set_num_threads(1)
    assert torch.equal(whole, integer(z))
    order, inner = torch.randperm(inputs), torch.randperm(hidden)
    with torch.no_grad():
        network[0].weight.copy_(network[0].weight[inner][:, order])
        network[0].bias.copy_(network[0].bias[inner])
        network[2].weight.copy_(network[2].weight[:, inner])
    assert torch.equal(whole, IntegerNetwork(network, LATENT_FORMAT, 12)(z[:, order]))


def test_convolutions_give_the_same_bits_in_any_batch(two_threads):
    spec = SPECS[2].model_copy(update={"channels": 16, "shape": (3, 16, 16), "latent_size": 32})
    network = scattered(spec, 0.2).encoder.network
    images = torch.randint(0, 256, (40, *spec.shape)).double()
    integer = IntegerNetwork(network, PIXEL_FORMAT[256], 8)
    whole = integer(images)
    torch.set_num_threads(1)
    assert torch.equal(whole, torch.cat([integer(row) for row in images.split(3)]))


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("value", [1e6, math.inf, math.nan])
def test_weights_that_could_round_are_refused(value):
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        network[2].weight[1, 2] = value
    with pytest.raises(md.InputError, match="too large for exact sums"):
        IntegerNetwork(network, LATENT_FORMAT, 8)


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.Tanh()), "no integer form of a Tanh"),
        (nn.Sequential(nn.ReLU()), "end in a linear layer"),
        (nn.Sequential(nn.Conv2d(4, 4, 3, groups=2)), "one group"),
    ],
)
def test_other_layers_are_refused(network, said):
    with pytest.raises(md.InputError, match=said):
        IntegerNetwork(network, LATENT_FORMAT, 8)


def test_inputs_of_an_integer_network_stay_as_they_are():
    values = torch.tensor([[-3.0, 5.0]]).double()
    IntegerNetwork(nn.Sequential(nn.ReLU(), nn.Linear(2, 1)), LATENT_FORMAT, 8)(values)
    assert values.tolist() == [[-3, 5]]


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_latents_go_back_to_the_start_of_the_stack(batch_size, latent_size, seed):
    generator = np.random.default_rng(seed)
    shape = batch_size, latent_size
    # Some far beyond the prior's table.
    mean = np.floor(generator.normal(0, 3000, shape))
    posterior = LatticePosterior.within_prior(mean, generator.integers(0, 161, shape))
    stack = Stack.started(batch_size * latent_size * tables.MOST_BITS)
    z = pop_posterior(stack, posterior)
    reach = tables.posterior_widths()[posterior.level_BL]
    assert (np.abs(z - posterior.mean_BL) <= reach).all()
    push_prior(stack, z)
    words, start_bits = stack.taken()
    assert start_bits <= batch_size * latent_size * tables.MOST_BITS + 32 + 64
    received = Stack.received(words)
    assert (pop_prior(received, *shape) == z).all()
    push_posterior(received, posterior, z)
    received.check_start()


def test_popped_latents_follow_their_posterior():
    mean, level = np.full((1, 40_000), 100.0), np.full((1, 40_000), 120)
    stack = Stack.started(40_000 * tables.MOST_BITS)
    z = pop_posterior(stack, LatticePosterior.within_prior(mean, level)) / tables.LATTICE_SCALE
    deviation = tables.standard_deviations()[120]
    test = scipy.stats.kstest(z.ravel(), scipy.stats.norm(100 / 256, deviation).cdf)
    # The lattice's steps alone make up to half the largest mass of a point.
    assert test.statistic < 0.01 + 0.5 * 0.4 / 256 / deviation


def test_a_stack_keeps_no_more_of_its_start_than_was_taken():
    stack = Stack.started(10_000)
    assert (stack.taken()[0] == start_words(2)[::-1]).all()
    stack.pop(tables.bernoulli_family(), np.full(320, 0.5))
    words, start_bits = stack.taken()
    # 320 bits are gone, and the coder holds between 32 and 64 in its two words.
    assert start_bits == 320 + 64
    assert len(words) == 2


@pytest.mark.parametrize("words", [[], [5], [1, 0], [[1, 2], [3, 4]]])
def test_words_that_no_encoder_leaves_are_refused(words):
    with pytest.raises(CorruptChunk):
        Stack.received(np.array(words, np.uint32))


def test_a_latent_out_of_reach_is_refused():
    # Level 0 is half a step of the lattice: 6.5 of it reach into the fourth step.
    posterior = LatticePosterior(np.array([[0]]), np.array([[0]]))
    push_posterior(Stack.started(64), posterior, np.array([[4]]))
    with pytest.raises(CorruptChunk, match="reach"):
        push_posterior(Stack.started(64), posterior, np.array([[5]]))
