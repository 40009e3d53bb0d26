"""Training in epochs, cached stages and joint training: bit for bit what they should be."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.optim import SGD

import modicum as md
from modicum_algorithms.vae import checkpoints
from modicum_algorithms.vae.checkpoints import Pretraining, Refinement, pretrained, refined
from modicum_algorithms.vae.evaluation import bits_per_dimension, iwae_bits_per_dimension
from modicum_algorithms.vae.methods.elbo import latent_prior, wake
from modicum_algorithms.vae.methods.joint import vae_gradients
from modicum_algorithms.vae.model_spec import ModelSpec
from modicum_algorithms.vae.networks import build_vae
from modicum_algorithms.vae.training import TrainingSettings, adam, refine_epochs, train_epoch
from tiny_vae import inference_method, same, weights

SPEC = ModelSpec(
    shape=(1, 2, 4), likelihood="bernoulli", latent_size=2, hidden_layers=1, hidden_units=8
)
# The last batch has five images.
SETTINGS = TrainingSettings(
    epochs=4, batch_size=10, learning_rate=1e-2, precision="float32", schedule="constant"
)
HALF_SLEEP = inference_method("reverse_half_sleep")


@pytest.fixture
def images():
    """25 images with something to learn: every row is all ones or all zeros."""
    rows = torch.randint(0, 2, (25, 1, 2, 1), generator=torch.Generator().manual_seed(0))
    return rows.expand(25, 1, 2, 4).to(torch.uint8)


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A function that starts another, empty cache."""

    def start(name):
        monkeypatch.setenv("MODICUM_CACHE", str(tmp_path / name))

    start("first")
    return start


@pytest.fixture
def epochs_trained(monkeypatch):
    """Numbers of images of all epochs that pretraining trains from now on."""
    seen = []

    def counted(images, *rest, **more):
        seen.append(len(images))
        return train_epoch(images, *rest, **more)

    monkeypatch.setattr(checkpoints, "train_epoch", counted)
    return seen


def none_same(first, second):
    return not any(a.equal(b) for a, b in zip(first, second, strict=True))


# --- One epoch ---


def test_an_epoch_visits_every_image_once_in_an_order_of_its_seed():
    """Loss of a batch: mean of its images; of an epoch: of all images, the last batch's too."""
    images = torch.arange(7, dtype=torch.uint8).reshape(7, 1)
    parameter = nn.Parameter(torch.zeros(()))
    orders = []
    for seed in (0, 0, 1):
        batches = []

        def fill(x, batches=batches):
            batches.append(x)
            parameter.grad = torch.zeros(())
            return x.mean()

        loss = train_epoch(images, SGD([parameter]), fill, batch_size=3, seed=seed)
        assert [len(batch) for batch in batches] == [3, 3, 1]
        assert all(batch.dtype == torch.float32 for batch in batches)
        orders.append(torch.cat(batches).flatten().tolist())
        assert sorted(orders[-1]) == list(range(7))
        assert loss == pytest.approx(3)
    assert orders[0] == orders[1] != orders[2]


def test_gradients_do_not_pile_up_from_step_to_step():
    """Two plain steps at a rate of 1 on -w x, x = 1: w goes from 0 to 2, and not to 3."""
    parameter = nn.Parameter(torch.zeros(()))

    def fill(x):
        loss = -(parameter * x).mean()
        loss.backward()
        return loss

    train_epoch(torch.ones(2, 1), SGD([parameter], lr=1.0), fill, batch_size=1, seed=0)
    assert float(parameter.detach()) == 2


# --- Ends of the range of alpha ---


def refined_encoder(images, method, settings=SETTINGS, start=0, seed=3):
    """Weights of the encoder after refining, and the losses of the epochs."""
    model = build_vae(SPEC, start)
    theta = weights(model.decoder.requires_grad_(False))
    losses = list(refine_epochs(model.encoder, model.decoder, images, method, settings, seed=seed))
    assert same(theta, weights(model.decoder))
    return weights(model.encoder), losses


@pytest.mark.parametrize("source", ["prior", "aggregate_posterior"])
@pytest.mark.parametrize(
    ("name", "alpha", "twin"),
    [
        ("reverse_half_sleep", 0.0, "wake"),
        ("reverse_half_sleep", 1.0, "reverse_sleep"),
        ("denoising", 0.0, "wake"),
    ],
)
def test_alpha_at_its_ends_is_the_other_method_step_for_step(images, name, alpha, twin, source):
    """Weights and losses of twelve steps of Adam, bit for bit."""
    found, losses = refined_encoder(
        images, inference_method(name, alpha=alpha, samples_from=source)
    )
    wanted, twins = refined_encoder(images, inference_method(twin, samples_from=source))
    assert same(found, wanted)
    assert losses == twins
    assert len(losses) == 4
    between, _ = refined_encoder(images, inference_method(name, alpha=0.5, samples_from=source))
    assert none_same(between, wanted)
    assert none_same(found, weights(build_vae(SPEC, 0).encoder))


def test_refining_goes_on_after_a_pause_as_without_one(images):
    """Numbers drawn between two epochs change nothing, and stay as they were."""
    model = build_vae(SPEC, 0)
    model.decoder.requires_grad_(False)
    losses, torchs_own = [], torch.get_rng_state()
    for loss in refine_epochs(model.encoder, model.decoder, images, HALF_SLEEP, SETTINGS, seed=3):
        assert torch.get_rng_state().equal(torchs_own)
        torch.randn(1)
        torchs_own = torch.get_rng_state()
        losses.append(loss)
    wanted, wanted_losses = refined_encoder(images, HALF_SLEEP)
    assert same(weights(model.encoder), wanted)
    assert losses == wanted_losses


class Watched(nn.Module):
    """An encoder that writes down the images that it is given."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder
        self.seen = []

    def forward(self, x):
        if self.training:
            self.seen.append(x)
        return self.encoder(x)


def test_every_epoch_has_an_order_and_samples_of_its_own():
    """Of eight different images, one a step, and of the model's images beside them."""
    images = torch.arange(8)[:, None].bitwise_and(torch.tensor([1, 2, 4])).ne(0)
    spec = SPEC.model_copy(update={"shape": (1, 1, 3)})
    model = build_vae(spec, 0)
    watched = Watched(model.encoder)
    settings = replace(SETTINGS, epochs=2, batch_size=1, learning_rate=1e-9)
    method, images = inference_method("reverse_half_sleep"), images.reshape(8, 1, 1, 3)
    list(refine_epochs(watched, model.decoder, images, method, settings, seed=3))
    # A step passes one image and one of the model's.
    steps = torch.stack(watched.seen).reshape(2, 8, 2, 3)
    data, dreamt = steps[:, :, 0], steps[:, :, 1]
    for epoch in data:
        assert len(epoch.unique(dim=0)) == 8
    assert not data[0].equal(data[1])
    assert not dreamt[0].equal(dreamt[1])


def test_a_falling_learning_rate_by_hand(images):
    """Of four epochs the second has three quarters of the rate, and so on; the first has all."""
    falling = replace(SETTINGS, schedule="linear")
    model = build_vae(SPEC, 0)
    model.decoder.requires_grad_(False)
    prior = latent_prior(model.encoder, images.float())
    optimiser = adam(model.encoder.parameters(), 1.0)

    def fill(x):
        loss = HALF_SLEEP.loss(model.encoder, model.decoder, x, prior)
        loss.backward()
        return loss

    losses = []
    for epoch, share in enumerate((1.0, 0.75, 0.5, 0.25)):
        optimiser.param_groups[0]["lr"] = SETTINGS.learning_rate * share
        seed = md.derive_seed(3, f"epoch {epoch}")
        losses.append(train_epoch(images, optimiser, fill, batch_size=10, seed=seed))
    found, found_losses = refined_encoder(images, HALF_SLEEP, falling)
    assert same(found, weights(model.encoder))
    assert found_losses == losses
    _, constant = refined_encoder(images, HALF_SLEEP)
    assert constant[0] == losses[0]
    assert constant[1:] != losses[1:]


# --- Joint training ---


@pytest.mark.parametrize("name", ["sleep", "reverse_sleep", "reverse_half_sleep", "denoising"])
def test_the_decoder_learns_from_wake_alone(images, name):
    """θ's gradient is that of the negative ELBO on data, φ's that of the method, bit for bit."""
    model, x = build_vae(SPEC, 1), images.float()
    method = inference_method(name)
    theta, phi = list(model.decoder.parameters()), list(model.encoder.parameters())
    prior = latent_prior(model.encoder, x)
    with md.seeded(2):
        loss = vae_gradients(model, "float32", method)(x)
    with md.seeded(2):
        elbo = wake(model.encoder, model.decoder, x, prior)
        objective = method.loss(model.encoder, model.decoder, x, prior)
    assert loss.equal(elbo)
    assert same([p.grad for p in theta], torch.autograd.grad(elbo, theta, retain_graph=True))
    assert same([p.grad for p in phi], torch.autograd.grad(objective, phi))
    assert none_same([p.grad for p in phi], torch.autograd.grad(elbo, phi))


def test_joint_training_by_wake_is_the_usual_one(images):
    """But for the sample of the second bound: one and the same where z does not vary."""
    spec = SPEC.model_copy(update={"hidden_layers": 0})
    found = []
    for inference in (None, inference_method("wake")):
        model = build_vae(spec, 1)
        with torch.no_grad():
            # A standard deviation of softplus(-200) = 0.
            model.encoder.network[-1].bias[2:] = -200
        with md.seeded(2):
            vae_gradients(model, "float32", inference)(images.float())
        found.append([p.grad for p in model.parameters()])
    for usual, other in zip(*found, strict=True):
        assert torch.allclose(usual, other, atol=1e-6)
        assert usual.isfinite().all()


def test_training_learns(images):
    """From 1 bit a dimension, that is chance, towards the entropy of two bits in eight pixels."""
    model = build_vae(SPEC, 0)
    optimiser = adam(model.parameters(), 1e-2)
    losses = [
        train_epoch(images, optimiser, vae_gradients(model, "float32"), batch_size=10, seed=n)
        for n in range(150)
    ]
    assert losses[-1] < losses[0] / 2
    found = bits_per_dimension(model.encoder, model.decoder, images, seed=0)
    assert 0.2 < float(found.mean()) < 0.6


# --- Half precision ---


@pytest.mark.parametrize("source", ["prior", "aggregate_posterior"])
@pytest.mark.parametrize("name", ["wake", "sleep", "reverse_sleep", "reverse_half_sleep"])
def test_half_precision_trains_every_weight_of_the_encoder(images, name, source):
    """Weights cast for the pass without gradients must not serve the pass that needs them."""
    method = inference_method(name, samples_from=source)
    half = replace(SETTINGS, precision="bfloat16")
    found, losses = refined_encoder(images, method, half)
    full, full_losses = refined_encoder(images, method)
    start = weights(build_vae(SPEC, 0).encoder)
    assert none_same(found, start)
    assert none_same(found, full)
    assert losses == pytest.approx(full_losses, rel=0.15)
    moved = torch.cat([(a - b).flatten() for a, b in zip(full, start, strict=True)])
    apart = torch.cat([(a - b).flatten() for a, b in zip(found, full, strict=True)])
    assert apart.norm() < 0.5 * moved.norm()
    assert all(value.dtype == torch.float32 for value in found)


@pytest.mark.parametrize(
    "inference", [None, inference_method("reverse_half_sleep", samples_from="aggregate_posterior")]
)
def test_half_precision_gradients_are_near_those_in_full(images, inference):
    found = {}
    for precision in ("float32", "bfloat16"):
        model = build_vae(SPEC, 1)
        with md.seeded(2):
            vae_gradients(model, precision, inference)(images.float())
        found[precision] = [p.grad for p in model.parameters()]
    if inference is not None:
        # Images drawn by other probabilities may differ: the encoder's gradients are compared
        # by the test above.
        found = {key: value[4:] for key, value in found.items()}
    for full, half in zip(found["float32"], found["bfloat16"], strict=True):
        assert (full - half).norm() < 0.05 * full.norm()
        assert not full.equal(half)


# --- Stages in the cache ---


@pytest.fixture
def plan(images):
    return Pretraining(SPEC, images, "images", SETTINGS, seed=5, checkpoint_epochs=2)


@pytest.mark.parametrize(
    ("method", "start"), [(None, 0), (HALF_SLEEP, 0), (HALF_SLEEP, 2), (HALF_SLEEP, 3)]
)
def test_training_in_stages_is_training_in_one_go(plan, own_cache, epochs_trained, method, start):
    """Stages of two, one and four epochs against a loop without any, bit for bit."""
    plan = replace(plan, method=method, method_from=start)
    model = build_vae(SPEC, 5)
    optimiser = adam(model.parameters(), SETTINGS.learning_rate)
    for epoch in range(4):
        train_epoch(
            plan.images,
            optimiser,
            vae_gradients(model, "float32", method if epoch >= start else None),
            batch_size=10,
            seed=md.derive_seed(5, f"epoch {epoch}"),
        )
    for length in (2, 1, 4):
        own_cache(f"stages of {length}")
        epochs_trained.clear()
        stage = pretrained(replace(plan, checkpoint_epochs=length), 4)
        assert same(weights(stage.model), weights(model))
        assert len(epochs_trained) == 4
        assert stage.seconds > 0


def test_what_is_in_the_cache_is_not_trained_again(plan, own_cache, epochs_trained):
    """Also by a plan of other stages; a longer plan goes on from the last stage."""
    first = pretrained(plan, 4)
    assert len(epochs_trained) == 4
    again = pretrained(replace(plan, checkpoint_epochs=4), 4)
    assert len(epochs_trained) == 4
    assert same(weights(first.model), weights(again.model))
    assert (again.key, again.seconds) == (first.key, first.seconds)
    earlier = pretrained(plan, 2)
    assert len(epochs_trained) == 4
    assert earlier.seconds < first.seconds
    assert none_same(weights(earlier.model), weights(first.model))
    longer = replace(plan, settings=replace(SETTINGS, epochs=6))
    pretrained(longer, 6)
    assert len(epochs_trained) == 6
    own_cache("empty")
    assert same(weights(pretrained(plan, 4).model), weights(first.model))
    assert len(epochs_trained) == 10


def test_a_method_from_some_epoch_on_shares_the_epochs_before(plan, own_cache, epochs_trained):
    usual, stage = pretrained(plan, 4), pretrained(plan, 2)
    later = replace(plan, method=HALF_SLEEP, method_from=2)
    assert later.key(2) == plan.key(2)
    assert later.key(4) != plan.key(4)
    found = pretrained(later, 4)
    assert len(epochs_trained) == 6
    assert same(weights(pretrained(later, 2).model), weights(stage.model))
    assert len(epochs_trained) == 6
    assert none_same(weights(found.model.encoder), weights(usual.model.encoder))


def test_keys_tell_apart_what_gives_other_weights(plan):
    others = [
        replace(plan, spec=SPEC.model_copy(update={"hidden_units": 9})),
        replace(plan, images_key="others"),
        replace(plan, seed=6),
        replace(plan, settings=replace(SETTINGS, batch_size=5)),
        replace(plan, settings=replace(SETTINGS, learning_rate=1e-3)),
        replace(plan, settings=replace(SETTINGS, precision="bfloat16")),
        replace(plan, method=HALF_SLEEP),
        replace(plan, method=HALF_SLEEP, method_from=1),
        replace(plan, method=inference_method("reverse_half_sleep", alpha=0.4)),
        replace(plan, method=inference_method("sleep")),
    ]
    keys = [plan.key(4), plan.key(2), *(other.key(4) for other in others)]
    assert len(set(keys)) == len(keys)
    same_weights = [
        replace(plan, checkpoint_epochs=1),
        replace(plan, settings=replace(SETTINGS, epochs=9)),
        replace(plan, method=HALF_SLEEP, method_from=4),
    ]
    assert {other.key(4) for other in same_weights} == {plan.key(4)}


def test_no_epochs_are_fresh_weights(plan, own_cache, epochs_trained):
    assert same(weights(pretrained(plan, 0).model), weights(build_vae(SPEC, 5)))
    assert not epochs_trained


def test_a_stage_is_ready_to_measure(plan, own_cache):
    model = pretrained(plan, 2).model
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())


def test_the_optimal_encoder_is_trained_by_wake_on_the_images_it_is_measured_on(plan, own_cache):
    """The decoder stays; a second call finds it; the stage itself is left alone."""
    stage = pretrained(plan, 2)
    before = weights(stage.model)
    test = plan.images[:8]
    settings = replace(SETTINGS, epochs=30)
    refinement = Refinement(stage, test, "test", inference_method("wake"), settings, 7)
    found = refined(refinement).model
    assert same(weights(stage.model), before)
    assert same(weights(found.decoder), weights(stage.model.decoder))
    twin = copy.deepcopy(stage.model.encoder).requires_grad_(True)
    for _ in refine_epochs(
        twin, stage.model.decoder, test, inference_method("wake"), settings, seed=7
    ):
        pass
    assert same(weights(found.encoder), weights(twin))
    assert same(weights(refined(refinement).model), weights(found))
    measured = [
        float(iwae_bits_per_dimension(m.encoder, m.decoder, test, 20, seed=0).mean())
        for m in (stage.model, found)
    ]
    assert measured[1] < measured[0]


def test_a_refinement_epoch_by_epoch_is_the_one_in_the_cache(plan, own_cache):
    """Each method with its own result; the stage's decoder and weights stay."""
    stage = pretrained(plan, 2)
    before, found = weights(stage.model), []
    for method in (HALF_SLEEP, replace(HALF_SLEEP, samples_from="aggregate_posterior")):
        refinement = Refinement(stage, plan.images, "images", method, SETTINGS, 7)
        after_each = [weights(model.encoder) for model in refinement.epochs()]
        assert len(after_each) == 4
        assert none_same(after_each[2], after_each[3])
        result = refined(refinement)
        assert same(weights(result.model.encoder), after_each[3])
        assert same(weights(result.model.decoder), weights(stage.model.decoder))
        assert not result.model.training
        assert result.seconds > 0
        found.append(result)
    assert same(weights(stage.model), before)
    assert none_same(*(weights(result.model.encoder) for result in found))


def test_keys_of_refinements_tell_apart_what_gives_other_weights(plan, own_cache):
    stage = pretrained(plan, 2)
    refinement = Refinement(stage, plan.images, "images", HALF_SLEEP, SETTINGS, 7)
    others = [
        replace(refinement, stage=pretrained(plan, 4)),
        replace(refinement, images_key="others"),
        replace(refinement, method=replace(HALF_SLEEP, alpha=0.4)),
        replace(refinement, method=replace(HALF_SLEEP, samples_from="aggregate_posterior")),
        replace(refinement, settings=replace(SETTINGS, epochs=5)),
        replace(refinement, settings=replace(SETTINGS, schedule="linear")),
        replace(refinement, seed=8),
    ]
    keys = [refinement.key, *(other.key for other in others)]
    assert len({*keys, stage.key}) == len(keys) + 1
