"""Encoders, decoders and saved models."""

import json
import shutil
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import modicum as md
from modicum_algorithms.vae.model_spec import ModelSpec
from modicum_algorithms.vae.networks import ResidualBlock, build_vae
from modicum_algorithms.vae.saved_models import load_vae, model_hash, save_vae
from tiny_vae import scattered

SMALL = {"hidden_layers": 1, "hidden_units": 6, "channels": 4, "residual_blocks": 1}
KINDS = {
    "binary mlp": ModelSpec(shape=(1, 4, 6), likelihood="bernoulli", latent_size=3, **SMALL),
    "grey mlp": ModelSpec(
        shape=(1, 4, 6), likelihood="discretised_logistic", latent_size=3, **SMALL
    ),
    "colour mlp": ModelSpec(
        shape=(3, 4, 6), likelihood="autoregressive_logistic", latent_size=3, **SMALL
    ),
    "no hidden layers": ModelSpec(
        shape=(1, 4, 6), likelihood="bernoulli", latent_size=3, hidden_layers=0
    ),
    "binary resnet": ModelSpec(
        shape=(1, 8, 12), likelihood="bernoulli", network="resnet", latent_size=12, **SMALL
    ),
    "colour resnet": ModelSpec(
        shape=(3, 8, 4),
        likelihood="autoregressive_logistic",
        network="resnet",
        latent_size=2,
        **SMALL,
    ),
}
kinds = pytest.mark.parametrize("spec", KINDS.values(), ids=KINDS)


def images_for(spec, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, spec.levels, (count, *spec.shape), generator=generator).float()


@kinds
def test_shapes(spec):
    model, x = build_vae(spec, 0), images_for(spec, 5)
    posterior = model.encoder(x)
    assert posterior.batch_shape == (5,)
    assert posterior.event_shape == (spec.latent_size,)
    assert (posterior.stddev > 0).all()
    likelihood = model.decoder(posterior.rsample())
    assert likelihood.sample().shape == x.shape
    assert likelihood.log_prob(x).shape == (5,)
    loss = -likelihood.log_prob(x).sum() - posterior.entropy().sum()
    loss.backward()
    dead = [name for name, p in model.named_parameters() if p.grad is None]
    assert dead == []


@kinds
def test_an_images_posterior_does_not_depend_on_those_beside_it(spec):
    model, x = scattered(spec), images_for(spec, 5)
    together = model.encoder(x)
    for n in range(5):
        alone = model.encoder(x[n : n + 1])
        assert torch.allclose(alone.mean[0], together.mean[n], atol=1e-5)
        assert torch.allclose(alone.stddev[0], together.stddev[n], atol=1e-5)


def test_the_standard_deviation_is_softplus_of_the_second_half():
    """One linear layer of zeros but for its bias: ln(1 + e^0) = ln 2, ln(1 + e^-200) > 0."""
    model = build_vae(KINDS["no hidden layers"], 0)
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.zero_()
        model.encoder.network[-1].bias.copy_(torch.tensor([1.0, 2.0, 3.0, 0.0, 1.0, -200.0]))
    found = model.encoder(torch.ones(2, 1, 4, 6))
    assert found.mean.tolist() == [[1, 2, 3]] * 2
    assert found.stddev[0].tolist() == pytest.approx([0.693147, 1.313262, 0], rel=1e-5)
    assert float(found.stddev[0, 2].detach()) > 0
    assert found.log_prob(found.mean).isfinite().all()


@pytest.mark.parametrize(
    ("likelihood", "seen"), [("bernoulli", [0, 1]), ("discretised_logistic", [-1, 1])]
)
def test_networks_see_pixels_from_minus_one_to_one_or_binary_ones(likelihood, seen):
    spec = ModelSpec(shape=(1, 1, 2), likelihood=likelihood)
    scale = build_vae(spec, 0).encoder.network[0]
    ends = torch.tensor([0.0, spec.levels - 1]).reshape(1, 1, 1, 2)
    assert scale(ends).flatten().tolist() == seen


def test_a_resnets_latents_are_a_map():
    """A row of pixels moves only the latents of rows near it, and the other way round.

    Without residual blocks, row j of the latents sees j ± 1 of a quarter, rows 2j − 3 to 2j + 4 of
    a half, and pixels 4j − 7 to 4j + 10: row 33 is seen by j from 6 to 10. Back, row 8 reaches 6 to
    10 of a quarter, 11 to 22 of a half, and pixels 22 to 45.
    """
    spec = ModelSpec(
        shape=(1, 64, 4),
        likelihood="bernoulli",
        network="resnet",
        latent_size=32,
        residual_blocks=0,
        channels=4,
    )
    model, x = scattered(spec), images_for(spec, 1)
    other = x.clone()
    other[0, 0, 33] = 1 - other[0, 0, 33]
    # Two channels of sixteen rows, row by row.
    moved = (model.encoder(x).mean != model.encoder(other).mean).reshape(2, 16)
    rows = moved.any(0).nonzero().flatten().tolist()
    assert rows
    assert set(rows) <= {6, 7, 8, 9, 10}
    z = torch.zeros(1, 32)
    changed = z.clone().reshape(1, 2, 16)
    changed[0, 1, 8] = 1
    difference = model.decoder(z).mean != model.decoder(changed.reshape(1, 32)).mean
    rows = difference.reshape(64, 4).any(1).nonzero().flatten().tolist()
    assert rows
    assert min(rows) >= 22
    assert max(rows) <= 45


def test_a_residual_block_starts_as_the_identity_and_adds_what_it_learns():
    block = ResidualBlock(2)
    h = torch.randn(1, 2, 3, 3)
    assert block(h).equal(h)
    nn.init.ones_(block.second.bias)
    assert block(h).equal(h + 1)


@kinds
def test_a_seed_gives_one_model_and_torchs_own_numbers_stay(spec):
    before = torch.get_rng_state()
    first, again, other = (build_vae(spec, seed).state_dict() for seed in (1, 1, 2))
    assert torch.get_rng_state().equal(before)
    assert all(value.equal(again[name]) for name, value in first.items())
    assert not all(value.equal(other[name]) for name, value in first.items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"shape": (1, 8, 8), "likelihood": "autoregressive_logistic"},
            "likelihood: autoregressive_logistic needs images of three channels, these have 1",
        ),
        (
            {"shape": (1, 28, 30), "likelihood": "bernoulli", "network": "resnet"},
            "network: resnet needs a height and width divisible by 4, got 28 x 30",
        ),
        (
            {
                "shape": (1, 8, 8),
                "likelihood": "bernoulli",
                "network": "resnet",
                "latent_size": 6,
            },
            "latent_size: .* 2 x 2 places, so it must be a multiple of 4, got 6",
        ),
    ],
)
def test_settings_that_do_not_fit_are_named(settings, message):
    with pytest.raises(md.InputError, match=message):
        md.validated(ModelSpec, settings)


# --- Saved models ---


@kinds
def test_a_saved_model_comes_back_as_it_was(spec, tmp_path):
    model, x = scattered(spec), images_for(spec, 3)
    save_vae(model, tmp_path / "a" / "model", data="made up")
    found = load_vae(tmp_path / "a" / "model")
    assert found.spec == spec
    assert not found.training
    assert found.encoder(x).mean.equal(model.encoder(x).mean)
    assert found.encoder(x).stddev.equal(model.encoder(x).stddev)
    with md.seeded(0):
        z = torch.randn(3, spec.latent_size)
    assert found.decoder(z).log_prob(x).equal(model.decoder(z).log_prob(x))
    assert model_hash(found) == model_hash(model)
    described = json.loads((tmp_path / "a" / "model" / "model.json").read_text())
    assert described["data"] == "made up"


def test_a_folder_is_never_written_over(tmp_path):
    model = build_vae(KINDS["binary mlp"], 0)
    save_vae(model, tmp_path / "model")
    with pytest.raises(FileExistsError):
        save_vae(model, tmp_path / "model")


def test_one_bit_of_any_weight_changes_the_hash():
    model = scattered(KINDS["binary resnet"])
    hashes = {model_hash(model)}
    assert len(next(iter(hashes))) == 32
    values = model.state_dict()
    for value in values.values():
        flat = value.view(torch.int32).flatten()
        flat[-1] ^= 1
        hashes.add(model_hash(model))
        flat[-1] ^= 1
    assert len(hashes) == 1 + len(values)
    assert model_hash(model) in hashes


def test_the_hash_tells_apart_what_computes_other_numbers_from_the_same_weights():
    """A grey model of one channel and a binary one of two have layers of the same sizes."""
    grey = ModelSpec(shape=(2, 2, 2), likelihood="discretised_logistic", **SMALL)
    binary = ModelSpec(shape=(2, 2, 2), likelihood="bernoulli", **SMALL)
    assert model_hash(build_vae(grey, 0)) != model_hash(build_vae(binary, 0))
    taller = ModelSpec(shape=(1, 2, 6), likelihood="bernoulli", **SMALL)
    wider = ModelSpec(shape=(1, 6, 2), likelihood="bernoulli", **SMALL)
    first, second = build_vae(taller, 0), build_vae(wider, 0)
    assert all(
        a.equal(b)
        for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )
    assert model_hash(first) != model_hash(second)


def with_content(file, content):
    """Damage to a file: another content, a function of the one before, or no file at all."""

    def damage(folder):
        path = folder / file
        old = path.read_bytes()
        path.unlink()
        if content is not None:
            path.write_bytes(content(old) if callable(content) else content)

    return damage


def with_spec(**settings):
    def damage(folder):
        described = json.loads((folder / "model.json").read_text())
        described["spec"] |= settings
        (folder / "model.json").write_text(json.dumps(described))

    return damage


def without_a_weight(folder):
    weights = load_file(folder / "model.safetensors")
    weights.pop(next(iter(weights)))
    save_file(weights, folder / "model.safetensors")


@pytest.mark.parametrize(
    "damage",
    [
        shutil.rmtree,
        without_a_weight,
        with_content("model.safetensors", None),
        with_content("model.safetensors", lambda old: old[: len(old) // 2]),
        with_content("model.safetensors", struct.pack("<Q", 2**40) + b"{}"),
        with_content("model.json", b"{"),
        with_content("model.json", b"\xff\xfe\x00"),
        with_content("model.json", b"[1, 2]"),
        with_content("model.json", b"{}"),
        with_spec(likelihood="poisson"),
        with_spec(likelihood="autoregressive_logistic"),
        with_spec(hidden_units=7),
    ],
)
def test_a_broken_folder_is_named(damage, tmp_path):
    save_vae(build_vae(KINDS["binary mlp"], 0), tmp_path / "model")
    damage(tmp_path / "model")
    with pytest.raises(md.InputError, match=r"base: '.*model' holds no saved VAE"):
        load_vae(tmp_path / "model", field="base")


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "model").write_text("")
    with pytest.raises(md.InputError, match="holds no saved VAE"):
        load_vae(str(tmp_path / "model"))
