"""The bits-back coder: lossless, as short as the ELBO says, and never wrong without a word."""

import math
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import modicum as md
from modicum_algorithms.vae.codec.coder import BitsBackCoder, Chunk, batches
from modicum_algorithms.vae.codec.float_networks import PinnedNetworks, pinned
from modicum_algorithms.vae.codec.integer_networks import PortableNetworks
from modicum_algorithms.vae.codec.stack import CorruptChunk, Stack
from modicum_algorithms.vae.codec.symbols import pop_posterior, push_pixels, push_prior
from modicum_algorithms.vae.model_spec import ModelSpec
from modicum_algorithms.vae.networks import VAE
from modicum_algorithms.vae.saved_models import save_vae
from tiny_vae import file_settings, scattered

PORTABLE = file_settings("portable")
PINNED = file_settings("pinned", threads=1)
K_STEPS = file_settings("pinned", threads=1, inference_steps=2, batch_size=4)
LIKELIHOODS = ["bernoulli", "discretised_logistic", "autoregressive_logistic"]


def small_spec(likelihood: str, network: str = "mlp", channels: int = 3) -> ModelSpec:
    return ModelSpec(
        shape=(channels, 4, 8),
        likelihood=likelihood,
        network=network,
        latent_size=6 if network == "mlp" else 4,
        hidden_layers=1,
        hidden_units=10,
        residual_blocks=1,
        channels=4,
    )


def pictures(spec: ModelSpec, count: int, seed: int = 0) -> np.ndarray:
    """Noise, slopes and blanks."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, spec.levels, (count, *spec.shape))
    kind = generator.integers(0, 4, count)
    slope = np.linspace(0, spec.levels - 1, math.prod(spec.shape)).reshape(spec.shape)
    images[kind == 1] = slope
    images[kind == 2] = generator.integers(0, spec.levels)
    images[kind == 3] = spec.levels - 1
    return images.astype(np.uint8)


@pytest.mark.parametrize("network", ["mlp", "resnet"])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@settings(deadline=None, max_examples=12)
@given(
    setting=st.sampled_from([PORTABLE, PINNED, K_STEPS]),
    count=st.integers(0, 12),
    batch_size=st.integers(1, 5),
    scale=st.sampled_from([0.0, 0.1, 2.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_decoding_gives_the_images_back(
    likelihood, network, setting, count, batch_size, scale, seed
):
    spec = small_spec(likelihood, network)
    chosen = replace(setting, batch_size=batch_size)
    images = pictures(spec, count, seed)
    chunk = BitsBackCoder(scattered(spec, scale, seed), chosen).encode(images)
    # Another coder, as another process would have.
    decoded = BitsBackCoder(scattered(spec, scale, seed), chosen).decode(chunk.words, chunk.count)
    assert decoded.dtype == np.uint8
    assert (decoded == images).all()
    assert chunk.words.dtype == np.uint32
    assert 64 <= chunk.start_bits <= 32 * len(chunk.words) or count == 0


@pytest.mark.parametrize("likelihood", ["bernoulli", "discretised_logistic"])
def test_pieces_of_many_pixels_round_trip(likelihood):
    """More pixels than are taken at once."""
    spec = ModelSpec(shape=(1, 28, 28), likelihood=likelihood, latent_size=4, hidden_units=8)
    images = pictures(spec, 101)
    coder = BitsBackCoder(scattered(spec), PORTABLE)
    chunk = coder.encode(images)
    assert (coder.decode(chunk.words, 101) == images).all()


def test_read_only_and_strided_images():
    spec = small_spec("discretised_logistic")
    images = pictures(spec, 14)
    every_other = images[::2]
    every_other.flags.writeable = False
    coder = BitsBackCoder(scattered(spec), PORTABLE)
    words = coder.encode(every_other).words
    assert (words == coder.encode(images[::2].copy()).words).all()
    stored = np.frombuffer(words.astype("<u4").tobytes(), "<u4")
    assert (coder.decode(stored, 7) == every_other).all()


def networks_of(mode: str, model: VAE) -> PortableNetworks | PinnedNetworks:
    return PortableNetworks(model) if mode == "portable" else PinnedNetworks(model, 1, 0, 1e-3)


@pytest.mark.parametrize("mode", ["portable", "pinned"])
@pytest.mark.parametrize("log_scale", [0.0, -3.0])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_every_part_of_the_code_is_as_long_as_its_information(likelihood, log_scale, mode):
    """Equation B.1 with the very latents that were drawn, in floating point."""
    spec = small_spec(likelihood)
    model = scattered(spec, 0.03)
    with torch.no_grad():
        # An encoder that nobody trained gives latents that must not matter much.
        model.decoder.network[-2].weight.mul_(0.1)
        if likelihood != "bernoulli":
            model.decoder.network[-2].bias.view(-1, *spec.shape)[1] += log_scale
    # Likely images: drawn from the model.
    count = 300
    torch.manual_seed(0)
    with torch.no_grad():
        images = model.decoder(torch.randn(count, spec.latent_size)).sample()
        stack = Stack.started(count * spec.latent_size * 24)
        networks = networks_of(mode, model)
        x = images.numpy().astype(np.uint8)
        z = pop_posterior(stack, networks.posterior(x))
        latents = torch.from_numpy(z / 256)
        model.double()
        images = images.double()
        # A latent's probability is its density times the lattice's step.
        steps = z.size * math.log(256)
        prior = torch.distributions.Normal(0.0, 1.0)
        of_pixels = -model.decoder(latents).log_prob(images).sum().item() / math.log(2)
        of_prior = (steps - prior.log_prob(latents).sum().item()) / math.log(2)
        posterior = model.encoder(images)
        of_posterior = (steps - posterior.log_prob(latents).sum().item()) / math.log(2)
    sizes = [stack.bits()]
    push_pixels(stack, likelihood, x, networks_of(mode, model.float()).parameters(z))
    sizes.append(stack.bits())
    push_prior(stack, z)
    sizes.append(stack.bits())
    taken = 32 * (count * spec.latent_size * 24 // 32 + 3) - sizes[0]
    assert sizes[1] - sizes[0] == pytest.approx(of_pixels, rel=1e-3)
    assert sizes[2] - sizes[1] == pytest.approx(of_prior, rel=1e-3)
    assert taken == pytest.approx(of_posterior, rel=2e-3)


def test_small_first_batches_keep_the_start_small():
    spec = ModelSpec(shape=(1, 8, 8), likelihood="bernoulli", latent_size=4, hidden_units=20)
    model = scattered(spec, 0.05)
    chunk = BitsBackCoder(model, PORTABLE).encode(pictures(spec, 300))
    # An image takes about 4 x (8 + log2(0.7 x 4.13)) = 38 bits and leaves more.
    assert chunk.start_bits <= 38 + 3 * 32
    assert [b.stop - b.start for b in batches(300, 64)] == [1, 1, 2, 4, 8, 16, 32, 64, 64, 64, 44]
    assert [b.stop - b.start for b in batches(8, 3)] == [1, 1, 2, 3, 1]
    # Half of those before, rounded down: 1, 1, 1, 1 of 3, 2 of 4, 3 of 6, 4 of 9.
    assert [b.stop - b.start for b in batches(13, 9, 0.5)] == [1, 1, 1, 1, 2, 3, 4]
    assert batches(0, 3) == []


def test_images_shorter_than_their_latents_do_not_make_the_start_grow():
    """Nine pixels leave at most nine bits, eight latents take about 80."""
    spec = ModelSpec(shape=(1, 3, 3), likelihood="bernoulli", latent_size=8, hidden_units=20)
    model = scattered(spec, 0.05)
    few, many = (BitsBackCoder(model, PORTABLE).encode(pictures(spec, n)) for n in (20, 2000))
    assert many.start_bits <= few.start_bits + 2000 * 0.05


def test_threads_and_batches_of_the_networks_do_not_change_portable_words():
    spec = ModelSpec(shape=(1, 12, 12), likelihood="bernoulli", latent_size=5, hidden_units=300)
    images = pictures(spec, 60)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        words = BitsBackCoder(scattered(spec), PORTABLE).encode(images).words
        torch.set_num_threads(1)
        coder = BitsBackCoder(scattered(spec), PORTABLE)
        assert (coder.encode(images).words == words).all()
        assert (coder.decode(words, 60) == images).all()
    finally:
        torch.set_num_threads(before)


ENCODE_ELSEWHERE = """
import sys
from modicum_algorithms.vae.saved_models import load_vae
from test_vae_codec import PORTABLE, BitsBackCoder, pictures
for folder in sys.argv[1:]:
    model = load_vae(folder)
    words = BitsBackCoder(model, PORTABLE).encode(pictures(model.spec, 40)).words
    sys.stdout.buffer.write(words.tobytes())
"""


def test_portable_words_do_not_depend_on_the_processors_vector_instructions(tmp_path):
    """PyTorch and NumPy with the instructions of an old processor give the same file."""
    here, folders = b"", []
    for likelihood in ("bernoulli", "discretised_logistic"):
        spec = ModelSpec(shape=(1, 12, 12), likelihood=likelihood, latent_size=5, hidden_units=300)
        model = scattered(spec)
        here += BitsBackCoder(model, PORTABLE).encode(pictures(spec, 40)).words.tobytes()
        folders.append(str(tmp_path / likelihood))
        # Random weights do depend on them.
        save_vae(model, tmp_path / likelihood)
    old = {
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path]),
    }
    command = [sys.executable, "-c", ENCODE_ELSEWHERE, *folders]
    run = subprocess.run(command, env=os.environ | old, capture_output=True)
    assert run.stdout == here, run.stderr.decode()


def test_pinned_settings_of_torch_come_back():
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with pinned(before[0] + 1):
        assert torch.get_num_threads() == before[0] + 1
        assert torch.are_deterministic_algorithms_enabled()
    assert before == (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
    with pytest.raises(ZeroDivisionError), pinned(before[0] + 1):
        1 / 0  # noqa: B018 - any error.
    assert before == (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())


def test_no_steps_of_inference_are_the_encoder_and_steps_shorten_the_code():
    spec = small_spec("bernoulli")
    # Nobody trained its encoder.
    model = scattered(spec, 0.5)
    images = pictures(spec, 60)

    def words(**more: float) -> np.ndarray:
        return BitsBackCoder(model, file_settings("pinned", threads=1, **more)).encode(images).words

    plain = words()
    assert (plain == words(inference_steps=0, inference_learning_rate=0.3)).all()
    some, more = (
        len(words(inference_steps=steps, inference_learning_rate=0.2)) for steps in (10, 30)
    )
    assert len(plain) > 1.2 * some > 1.2**2 * more


@pytest.fixture(scope="module", params=LIKELIHOODS)
def written(request) -> tuple[BitsBackCoder, Chunk]:
    spec = small_spec(request.param)
    coder = BitsBackCoder(scattered(spec), PORTABLE)
    return coder, coder.encode(pictures(spec, 9))


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_a_flipped_bit_is_found(written, data):
    coder, chunk = written
    words = chunk.words.copy()
    place = data.draw(st.integers(0, len(words) - 1))
    words[place] ^= np.uint32(1 << data.draw(st.integers(0, 31)))
    with pytest.raises(CorruptChunk):
        coder.decode(words, chunk.count)


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_any_words_are_refused(written, data):
    coder, _ = written
    words = data.draw(st.lists(st.integers(0, 2**32 - 1), max_size=40))
    with pytest.raises(CorruptChunk):
        coder.decode(np.array(words, np.uint32), data.draw(st.integers(1, 20)))


def test_lost_added_and_reordered_words_are_found(written):
    coder, chunk = written
    words, count = chunk.words, chunk.count
    for changed in (words[1:], words[:-1], words[::-1], np.append(words, words[-1:])):
        with pytest.raises(CorruptChunk):
            coder.decode(changed, count)
    for wrong in (0, 1, count - 1, count + 1):
        with pytest.raises(CorruptChunk):
            coder.decode(words, wrong)


def test_another_model_and_other_settings_are_found():
    spec = small_spec("bernoulli")
    images = pictures(spec, 20)
    chunk = BitsBackCoder(scattered(spec), K_STEPS).encode(images)
    others = [
        (scattered(spec, seed=1), K_STEPS),
        (scattered(spec), PORTABLE),
        (scattered(spec), replace(K_STEPS, inference_steps=3)),
        (scattered(spec), replace(K_STEPS, batch_size=2)),
    ]
    for model, setting in others:
        with pytest.raises(CorruptChunk):
            BitsBackCoder(model, setting).decode(chunk.words, 20)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mode": "exact"}, "mode: must be one of portable, pinned, got 'exact'"),
        ({"inference_steps": 1}, "inference_steps: more than 0 needs mode 'pinned'"),
        ({"mode": "pinned"}, "threads: mode 'pinned' needs 1 to 1024, got None"),
        ({"mode": "pinned", "threads": 0}, "threads: mode 'pinned' needs 1 to 1024, got 0"),
        ({"mode": "pinned", "threads": 2**40}, "threads: mode 'pinned' needs 1 to 1024"),
        ({"threads": 2}, "threads: only mode 'pinned'"),
        ({"batch_size": 0}, "batch_size: must be at least 1"),
        ({"inference_steps": -1}, "inference_steps: must be at least 0"),
        ({"inference_learning_rate": math.nan}, "inference_learning_rate: must be positive"),
        ({"version": 7}, "version: this coder is version 1, got 7"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, said):
    model = scattered(small_spec("bernoulli"))
    with pytest.raises(md.InputError, match=said):
        BitsBackCoder(model, file_settings(**changes))


@pytest.mark.parametrize("setting", [PORTABLE, PINNED])
def test_weights_that_are_no_numbers_are_refused(setting):
    model = scattered(small_spec("bernoulli"))
    with torch.no_grad():
        model.encoder.network[2].weight[0, 0] = math.nan
    with pytest.raises(md.InputError, match="finite"):
        BitsBackCoder(model, setting)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (np.zeros((2, 3, 4, 8), np.float32), "8-bit images of shape"),
        (np.zeros((2, 1, 4, 8), np.uint8), "8-bit images of shape"),
        (np.full((2, 3, 4, 8), 2, np.uint8), "pixel values below 2, got 2"),
    ],
)
def test_images_of_another_kind_are_refused(images, said):
    coder = BitsBackCoder(scattered(small_spec("bernoulli")), PORTABLE)
    with pytest.raises(md.InputError, match=said):
        coder.encode(images)
