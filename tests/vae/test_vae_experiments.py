"""The experiments of the family vae: settings, identities, resuming, and small parts by hand."""

import itertools
import json
import math
import re
import sys

import numpy as np
import pytest
import torch

import modicum as md
from modicum.cli import main as cli
from modicum.experiment.resources import Resources
from modicum.planning.trial_plan import plan_trial
from modicum.yaml_io import dump_yaml
from modicum_algorithms.vae.checkpoints import Pretraining, Refinement, pretrained
from modicum_algorithms.vae.codec.general_codecs import general_codecs
from modicum_algorithms.vae.data.tensors import load_images
from modicum_algorithms.vae.evaluation import gaps, model_images
from modicum_algorithms.vae.experiment import VaeInference
from modicum_algorithms.vae.experiments.compression import VaeCompression
from modicum_algorithms.vae.experiments.consistency import VaeConsistency
from modicum_algorithms.vae.methods.inference_method import InferenceMethod
from modicum_algorithms.vae.model_spec import ModelSpec, model_spec
from modicum_algorithms.vae.networks import build_vae
from modicum_algorithms.vae.saved_models import load_vae
from tiny_vae import TINY, image_set


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MODICUM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def trial(tmp_path, seed=0, **more):
    folder = tmp_path / "scratch"
    folder.mkdir(exist_ok=True)
    return md.Trial(id="t", seed=seed, scratch=folder, resources=Resources(), **more)


def vae_config(**settings):
    return VaeInference.Config(**TINY, **settings)


def untimed(record, experiment=VaeInference):
    return {n: v for n, v in record.metrics.items() if not experiment.metrics[n].timing}


# --- Mistakes ---


@pytest.fixture
def refused(monkeypatch, capsys, tmp_path):
    """`modicum run` of a study that must be refused; returns its one sentence."""
    monkeypatch.chdir(tmp_path)

    def call(experiment, command="run study.yaml --local --out out", **space):
        raw = {"experiment": experiment, "space": {**TINY, **space}, "seeds": 1}
        (tmp_path / "study.yaml").write_text(dump_yaml(raw))
        monkeypatch.setattr(sys, "argv", ["modicum", *command.split()])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code == 2
        error = capsys.readouterr().err.strip()
        assert len(error.splitlines()) == 1, error
        where, _, sentence = error.partition("error: ")
        assert where in {"", "study.yaml: "}
        assert not (tmp_path / "out").exists()
        return sentence.removeprefix("space: ")

    return call


MISTAKES = {
    "alpha": ("vae", {"inference": "reverse_half_sleep", "alpha": 1.5}, "alpha: .*equal to 1"),
    "unknown method": (
        "vae",
        {"inference": "dreaming"},
        "^inference: .*'vae'.*'reverse_half_sleep'",
    ),
    "unknown likelihood": ("vae", {"likelihood": "normal"}, "^likelihood: .*'auto'.*'bernoulli'"),
    "colour on grey": (
        "vae",
        {"binarisation": "none", "likelihood": "autoregressive_logistic"},
        "likelihood: autoregressive_logistic needs images of three channels, these have 1",
    ),
    "bernoulli on grey": (
        "vae",
        {"binarisation": "none", "likelihood": "bernoulli"},
        "likelihood: bernoulli does not model pixels of 0 to 255",
    ),
    "logistic on binary": (
        "vae_compression",
        {"binarisation": "threshold", "likelihood": "discretised_logistic"},
        "likelihood: discretised_logistic does not model binary images",
    ),
    "unknown data": ("vae", {"dataset": "./nowhere"}, "dataset: no folder at './nowhere'"),
    "samples": ("vae", {"samples": 1438}, "samples: must be 1 to 1437, .*, got 1438"),
    "samples of compression": ("vae_compression", {"samples": 2000}, "samples: .*got 2000"),
    "checkpoints": (
        "vae",
        {"epochs": 5, "checkpoint_every": 2},
        "checkpoint_every: must divide epochs, 5, got 2",
    ),
    "measures": (
        "vae",
        {"inference": "wake", "refine_epochs": 5, "measure_every": 2},
        "measure_every: must divide refine_epochs, 5, got 2",
    ),
    "measures of consistency": (
        "vae_consistency",
        {"inference": "wake", "inference_epochs": 5, "measure_every": 3},
        "measure_every: must divide inference_epochs, 5, got 3",
    ),
    "no method": ("vae_consistency", {}, "inference"),
    "joint too late": (
        "vae",
        {"inference": "wake", "apply": "joint", "joint_from": 2},
        "joint_from: must be below epochs, 2, got 2",
    ),
    "steps in integers": (
        "vae_compression",
        {"inference_steps": 3},
        "inference_steps: more than 0 needs mode: pinned",
    ),
    "more than there are to code": (
        "vae_compression",
        {"coded_images": 361},
        "coded_images: digits has 360 test images, got 361",
    ),
}


@pytest.mark.parametrize(("experiment", "space", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_refused_before_anything_starts(refused, experiment, space, message):
    assert re.search(message, refused(experiment, **space))


@pytest.mark.parametrize("mistake", ["alpha", "colour on grey", "steps in integers"])
def test_validating_refuses_mistakes_as_running_does(refused, mistake):
    """In a setting's range, in what fits the images, and in settings that must fit together."""
    experiment, space, _ = MISTAKES[mistake]
    sentences = {refused(experiment, **space)}
    sentences.add(refused(experiment, "validate study.yaml", **space))
    assert len(sentences) == 1


def test_classification_needs_labels(refused, tmp_path):
    data = image_set(tmp_path / "bare", labels=False)
    sentence = refused("vae", dataset=data, samples=20, classification=True)
    assert re.fullmatch("classification: .* has no labels in train and test", sentence)
    labelled = image_set(tmp_path / "labelled")
    VaeInference().check(
        vae_config(dataset=labelled, classification=True).model_copy(update={"samples": 20})
    )


def test_compression_without_its_package_is_refused(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "constriction", None)
    assert "pip install 'modicum[vae]'" in refused("vae_compression")


# --- Settings that have no effect ---


def trial_id(experiment, **settings):
    return plan_trial(experiment, experiment.Config(**TINY, **settings), 0, {}).id


@pytest.mark.parametrize(
    ("base", "without_effect"),
    [
        ({}, {"alpha": 0.1, "noise": 0.5, "refine_epochs": 3, "apply": "joint", "channels": 3}),
        ({"inference": "wake"}, {"alpha": 0.1, "samples_from": "aggregate_posterior"}),
        ({"inference": "denoising"}, {"samples_from": "aggregate_posterior", "joint_from": 1}),
        ({"inference": "reverse_sleep"}, {"alpha": 0.9, "noise": 0.9, "residual_blocks": 1}),
        (
            {"inference": "reverse_sleep", "apply": "joint"},
            {"refine_epochs": 7, "refine_learning_rate": 0.1, "measure_every": 3},
        ),
    ],
)
def test_a_setting_without_effect_makes_no_other_trial(base, without_effect, own_cache, tmp_path):
    """Identities say so, and the numbers do."""
    bare, full = vae_config(**base), vae_config(**base, **without_effect)
    assert trial_id(VaeInference(), **base) == trial_id(VaeInference(), **base, **without_effect)
    if base.get("apply") != "joint" and base:
        bare, full = (c.model_copy(update={"refine_epochs": 1}) for c in (bare, full))
    first, second = (list(VaeInference().run(c, trial(tmp_path))) for c in (bare, full))
    assert [untimed(record) for record in first] == [untimed(record) for record in second]


@pytest.mark.parametrize(
    ("base", "changed"),
    [
        ({"inference": "reverse_half_sleep"}, {"alpha": 0.1}),
        ({"inference": "reverse_sleep"}, {"samples_from": "aggregate_posterior"}),
        ({"inference": "denoising"}, {"noise": 0.5}),
        ({"inference": "wake"}, {"refine_learning_rate": 0.1}),
        ({"inference": "sleep", "apply": "joint"}, {"joint_from": 1}),
        ({}, {"network": "resnet", "channels": 3, "latent_size": 4}),
        ({}, {"binarisation": "threshold"}),
        ({}, {"binarisation": "none"}),
        ({}, {"precision": "bfloat16"}),
    ],
)
def test_a_setting_with_an_effect_changes_the_numbers(base, changed, own_cache, tmp_path):
    """Through one cache: no stage stands in for another."""
    base = {**TINY, "refine_epochs": 1, **base}
    first, second = (VaeInference.Config(**{**base, **more}) for more in ({}, changed))
    assert (
        plan_trial(VaeInference(), first, 0, {}).id != plan_trial(VaeInference(), second, 0, {}).id
    )
    bits = [
        next(iter(VaeInference().run(c, trial(tmp_path)))).metrics["test/bpd"]
        for c in (first, second)
    ]
    assert bits[0] != bits[1]


# --- What a stage is identified by ---


def key_of(config, tmp_path, seed=0, epoch=1):
    of = trial(tmp_path, seed)
    images = load_images(config, of, config.samples)
    return Pretraining.of(config, images, of, config.checkpoint_every).key(epoch)


def test_the_key_of_a_stage_holds_what_changes_its_weights(tmp_path, monkeypatch):
    usual = key_of(vae_config(), tmp_path)
    data = image_set(tmp_path / "data", train=60)
    others = [
        {"binarisation": "threshold"},
        {"binarisation": "none"},
        {"samples": 59},
        {"samples": None},
        {"dataset": data},
        {"hidden_units": 7},
    ]
    keys = [key_of(VaeInference.Config(**{**TINY, **other}), tmp_path) for other in others]
    keys += [key_of(vae_config(), tmp_path, seed=1), key_of(vae_config(), tmp_path, epoch=2)]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        keys.append(key_of(vae_config(), tmp_path))
    finally:
        torch.set_num_threads(threads)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "2.0.0")
        keys.append(key_of(vae_config(), tmp_path))
    assert len({usual, *keys}) == 1 + len(keys)


def test_the_key_of_a_stage_holds_nothing_else(tmp_path):
    """Nor does a folder's name, for data are known by their content."""
    usual = key_of(vae_config(), tmp_path)
    for other in (
        {"epochs": 50, "checkpoint_every": 10},
        {"inference": "reverse_half_sleep", "alpha": 0.2},
        {"optimal_epochs": 3, "iwae_samples": 2, "classification": True, "save_model": True},
    ):
        assert key_of(VaeInference.Config(**{**TINY, **other}), tmp_path) == usual
    first = image_set(tmp_path / "one", train=60)
    second = image_set(tmp_path / "two", train=60)
    keys = {key_of(vae_config(dataset=data), tmp_path) for data in (first, second)}
    assert len(keys) == 1


# --- Resuming ---


@pytest.mark.parametrize("measure_every", [None, 2])
def test_resumed_after_any_record_gives_the_records_that_are_missing(
    own_cache, tmp_path, measure_every
):
    """Three checkpoints of 1 or 2 records: the process dies between two, or in a refinement."""
    settings = {"inference": "reverse_half_sleep", "refine_epochs": 4, "optimal_epochs": 1}
    config = VaeInference.Config(
        **{**TINY, **settings, "epochs": 3},
        checkpoint_every=1,
        measure_every=measure_every,
        save_model=True,
    )
    per_checkpoint = {None: 1, 2: 2}[measure_every]
    assert config.records_at_checkpoint == per_checkpoint

    def run(**state):
        saved = []
        for record in VaeInference().run(config, trial(tmp_path, **state)):
            decoder = load_vae(record.checkpoint).state_dict()
            saved.append((untimed(record), {n: v.tolist() for n, v in decoder.items()}))
        return saved

    whole = run()
    places = [(m["train/epoch"], m["refine/epoch"]) for m, _ in whole]
    refined = [4] if measure_every is None else list(range(measure_every, 5, measure_every))
    assert places == list(itertools.product([1, 2, 3], refined))
    for done in range(len(whole) + 1):
        assert run(records_done=done) == whole[done:]


def test_saved_models_do_not_pile_up_in_the_scratch_folder(own_cache, tmp_path):
    """A record's folder is there until the next record is asked for."""
    config = vae_config(checkpoint_every=1, save_model=True)
    of = trial(tmp_path)
    for record in VaeInference().run(config, of):
        assert [path.name for path in of.scratch.iterdir()] == [record.checkpoint.name]
    assert not list(of.scratch.iterdir())


def test_stages_are_trained_once_for_all_methods(own_cache, tmp_path):
    """Three methods at two checkpoints: two stages, two optimal encoders, two refinements each."""
    methods = ("vae", "wake", "reverse_sleep")
    for method in methods:
        config = vae_config(inference=method, refine_epochs=1, checkpoint_every=1, optimal_epochs=1)
        list(VaeInference().run(config, trial(tmp_path)))
    assert len(list(own_cache.glob("vae-*/names.json"))) == 2 + 2 + 2 * 2


# --- Measures, by hand ---


def test_gaps_by_hand():
    """BPD 0.5 before, 0.4 after, 0.3 at best, 0.25 in training.

    Gap 0.4 - 0.3 = 0.1 of 0.2, so half of it is closed; generative gap 0.3 - 0.25 = 0.05.
    """
    found = gaps(test=0.4, optimal=0.3, train=0.25, before=0.5)
    assert found == pytest.approx(
        {"gap/amortized_inference": 0.1, "gap/generative": 0.05, "gap/closed": 0.5}
    )
    # An encoder that got worse has closed less than nothing.
    assert math.isclose(gaps(0.6, 0.3, 0.25, before=0.5)["gap/closed"], -0.5)


@pytest.mark.parametrize("optimal", [0.5, 0.6])
def test_there_is_no_share_of_no_gap(optimal):
    """The optimal encoder, badly trained, is no better than the VAE's: 0 / 0, or a wrong sign."""
    found = gaps(0.4, optimal, 0.25, before=0.5)
    assert found == pytest.approx(
        {"gap/amortized_inference": 0.4 - optimal, "gap/generative": optimal - 0.25}
    )


def test_joint_training_closes_no_gap_of_its_own_model(own_cache, tmp_path):
    config = vae_config(inference="wake", apply="joint", optimal_epochs=1)
    (record,) = VaeInference().run(config, trial(tmp_path))
    assert not {"gap/closed", "test/bpd_vae"} & record.metrics.keys()
    gap = record.metrics["test/bpd"] - record.metrics["test/bpd_optimal"]
    assert record.metrics["gap/amortized_inference"] == gap


# --- Parts ---


def test_images_that_are_binary_already_are_modelled_as_such(own_cache, tmp_path):
    """0 and 1 in the files: Bernoulli, without binarisation; noise in units of a range of 1."""
    data = image_set(tmp_path / "binary", high=2)
    config = VaeInference.Config(
        **{**TINY, "samples": None},
        dataset=data,
        binarisation="none",
        inference="denoising",
        noise=0.25,
        refine_epochs=1,
    )
    VaeInference().check(config)
    VaeInference().check(config.model_copy(update={"likelihood": "bernoulli"}))
    with pytest.raises(md.InputError, match="discretised_logistic does not model binary images"):
        VaeInference().check(config.model_copy(update={"likelihood": "discretised_logistic"}))
    images = load_images(config, trial(tmp_path), None)
    assert model_spec(config, images.data).likelihood == "bernoulli"
    assert InferenceMethod.of(config, images.data.pixel_range).noise == 0.25
    (record,) = VaeInference().run(config, trial(tmp_path))
    assert record.budget == 20
    assert record.metrics["test/bpd"] < 1.5


def test_noise_is_in_units_of_the_range_of_pixels():
    config = vae_config(inference="denoising", noise=0.2)
    assert InferenceMethod.of(config).noise == 0.2
    assert InferenceMethod.of(config, 255).noise == 0.2 * 255


def test_refinement_leaves_the_decoder_and_the_stage_alone(own_cache, tmp_path):
    config = vae_config(inference="reverse_half_sleep", refine_epochs=2)
    of = trial(tmp_path)
    images = load_images(config, of, config.samples)
    stage = pretrained(Pretraining.of(config, images, of, 2), 2)
    before = {name: value.clone() for name, value in stage.model.state_dict().items()}
    refinement = Refinement.of(config, images, of, stage)
    for model in refinement.epochs():
        assert not model.training
        for name, value in model.state_dict().items():
            assert value.equal(before[name]) == name.startswith("decoder"), name
    for name, value in stage.model.state_dict().items():
        assert value.equal(before[name])


def test_the_models_images_do_not_depend_on_how_many_are_asked_for():
    """Fewer are the first of more, across a batch's end too; another seed gives others."""
    spec = ModelSpec(shape=(1, 2, 2), likelihood="discretised_logistic", latent_size=2)
    model = build_vae(spec, seed=0)
    many = model_images(model, 1201, seed=3)
    assert many.shape == (1201, 1, 2, 2)
    assert many.dtype == torch.uint8
    for count in (1, 17, 500, 501, 1200):
        assert model_images(model, count, seed=3).equal(many[:count])
    assert not model_images(model, 1201, seed=4).equal(many)
    # No batch repeats another.
    assert not many[:500].equal(many[500:1000])


def test_budgets_of_consistency_share_their_test_images(own_cache, tmp_path):
    """An encoder that is hardly trained differs hardly; its test images must not differ at all."""
    bits = {}
    for samples in (30, 60):
        config = VaeConsistency.Config(
            **{**TINY, "samples": samples, "learning_rate": 1e-12},
            inference="wake",
            inference_epochs=1,
            test_samples=20,
        )
        (record,) = VaeConsistency().run(config, trial(tmp_path))
        assert record.budget == samples
        bits[samples] = record.metrics["test/bpd"], record.metrics["train/bpd"]
    assert math.isclose(bits[30][0], bits[60][0], rel_tol=1e-6)
    assert not math.isclose(bits[30][1], bits[60][1], rel_tol=1e-6)


@pytest.mark.parametrize("mode", ["portable", "pinned"])
@pytest.mark.parametrize("shape", [(8, 12, 3), (8, 12), (5, 3)])
def test_images_of_every_shape_are_compressed(own_cache, tmp_path, shape, mode):
    """In colour and grey, not square, and of a width that could be a number of channels."""
    colour = len(shape) == 3
    config = VaeCompression.Config(
        **{**TINY, "samples": None, "epochs": 1, "latent_size": 6},
        dataset=image_set(tmp_path / "data", shape),
        binarisation="none",
        network="resnet" if colour else "mlp",
        channels=4,
        mode=mode,
        general_codecs=True,
    )
    VaeCompression().check(config)
    (record,) = VaeCompression().run(config, trial(tmp_path))
    assert record.metrics["code/images"] == 5
    # Noise of eight bits a dimension.
    assert record.metrics["test/code_bpd"] > 8
    assert record.metrics["general/zstd_bpd"] > 8


# --- General codecs ---


def test_sizes_of_png_by_hand():
    """A PNG file of one grey pixel has 67 bytes, the smallest that there are.

    Signature 8, header 12 + 13, end 12, and data 12 + 10: zlib's frame 2 + 4, and of deflate 3
    bits, 8 for the filter, 8 for the pixel and 7 for the end, in 4 bytes. Two such pixels in one
    column are 16 bits more: 42 bits in 6 bytes. A row of one bit takes a whole byte as well.
    """
    pixels = np.array([3, 100], np.uint8).reshape(2, 1, 1, 1)
    bits = general_codecs(pixels, levels=256)
    assert bits["png"] == 8 * 67
    assert bits["png_all"] == 8 * 69 / 2
    binary = general_codecs(np.array([0, 1], np.uint8).reshape(2, 1, 1, 1), levels=2)
    assert binary["png"] == 8 * 67


def test_nothing_codes_noise_in_less_than_its_entropy():
    """Fair bits take one bit each, bytes eight; headers a little more, and in PNG a byte for each
    row, which makes three of the two bytes of 16 bits.
    """
    generator = np.random.default_rng(0)
    binary = general_codecs(generator.integers(0, 2, (200, 1, 16, 16), np.uint8), levels=2)
    grey = general_codecs(generator.integers(0, 256, (12, 1, 16, 16), np.uint8), levels=256)
    colour = general_codecs(generator.integers(0, 256, (8, 3, 16, 16), np.uint8), levels=256)
    for of, entropy in ((binary, 1), (grey, 8), (colour, 8)):
        assert set(of) == {"png", "png_all", "webp", "webp_all", "zstd", "xz"}
        assert all(value > entropy for value in of.values())
        assert of["zstd"] < 1.02 * entropy
        assert of["xz"] < 1.05 * entropy
        assert of["png_all"] < 1.5 * entropy
        assert of["png_all"] < of["png"]


def test_images_that_are_all_the_same_cost_nothing_but_headers():
    bits = general_codecs(np.full((100, 1, 28, 28), 7, np.uint8), levels=256)
    assert bits["zstd"] < 0.01
    assert bits["webp_all"] < 0.05
    assert bits["png"] > 8 * 67 / 784


def test_every_metric_is_described():
    for experiment in (VaeInference, VaeConsistency, VaeCompression):
        for name, metric in experiment.metrics.items():
            assert metric.description.endswith("."), name
            assert metric.timing == name.endswith("seconds"), name
    json.dumps(VaeInference.Config.model_json_schema())
