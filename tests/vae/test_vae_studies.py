"""Studies of the family vae, as users run them: small networks on digits, and slices of MNIST."""

import gzip
import itertools
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import modicum as md
from conftest import ROOT
from modicum.planning.trial_plan import plan_trial
from modicum.run_folder.trial_record import records_before
from modicum.yaml_io import dump_yaml
from modicum_algorithms.vae.checkpoints import Pretraining, pretrained
from modicum_algorithms.vae.data.tensors import load_images
from modicum_algorithms.vae.evaluation import bits_per_dimension
from modicum_algorithms.vae.experiment import VaeInference
from modicum_algorithms.vae.experiments.compression import VaeCompression
from modicum_algorithms.vae.saved_models import load_vae
from tiny_vae import TINY, image_set

MODICUM = [sys.executable, "-m", "modicum"]
# Learns the digits in a second.
SMALL = {
    "epochs": 30,
    "hidden_layers": 1,
    "hidden_units": 64,
    "latent_size": 4,
    "batch_size": 50,
    "learning_rate": 3e-3,
}
DIGITS_DIMENSIONS = 360 * 64


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A function that starts a cache of one's own."""

    def start(name):
        monkeypatch.setenv("MODICUM_CACHE", str(tmp_path / name))

    return start


def run(out, experiment, space, runner="local", **options):
    return md.Study(experiment, space, **{"seeds": 1, **options}).run(
        out, runner=runner, quiet=True
    )


def comparable(results):
    """Everything that two runs of the same trials must have in common."""
    timing = [n for n, m in results.experiment["metrics"].items() if m["timing"]]
    return results.frame.drop(columns=["seconds", *timing], errors="ignore")


def last(results, **where):
    """The only last record with these settings."""
    frame = results.frame
    for name, value in where.items():
        frame = frame[frame[name if name == "seed" else f"config/{name}"] == value]
    assert frame["trial_id"].nunique() == 1
    return frame.iloc[-1]


# --- The same numbers, however they are come by ---


SPACES = {
    "vae": {
        **TINY,
        "inference": md.grid("vae", "reverse_half_sleep"),
        "refine_epochs": 2,
        "checkpoint_every": 1,
        "measure_every": 1,
        "optimal_epochs": 2,
        "iwae_samples": 2,
        "classification": True,
    },
    "vae_consistency": {
        **TINY,
        "inference": md.grid("wake", "reverse_sleep"),
        "test_samples": 20,
        "inference_epochs": 2,
    },
    "vae_compression": {
        **TINY,
        "inference": "wake",
        "refine_epochs": 1,
        "mode": md.grid("portable", "pinned"),
        "coded_images": 20,
        "general_codecs": True,
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("experiment", SPACES)
def test_runners_and_caches_give_the_same_records(tmp_path, ray_cluster, cache, experiment):
    """Locally with an empty cache, with that one filled, and on Ray with its own."""
    space = SPACES[experiment]
    cache("first")
    empty = run(tmp_path / "empty", experiment, space)
    filled = run(tmp_path / "filled", experiment, space)
    ray = run(tmp_path / "ray", experiment, space, "ray")
    assert not [trial for of in (empty, filled, ray) for trial in of.failed]
    # Records of a configuration: 2 or 2 x 2, 2, and 1.
    counts = {"vae": 2 + 4, "vae_consistency": 2 * 2, "vae_compression": 2}
    assert len(empty.frame) == counts[experiment]
    assert comparable(empty).equals(comparable(filled))
    assert comparable(empty).equals(comparable(ray))
    assert set(empty.frame["budget"]) == {60}
    # No number is missing but the share of a gap, where there is none.
    for name in {*empty.experiment["metrics"], "general/png_bpd"} & {*empty.frame} - {"gap/closed"}:
        assert np.isfinite(empty.frame[name].to_numpy(float)).all(), name


def stored(folder):
    """The one trial of a run folder that is being written, and how many records are safe."""
    for path in Path(folder).glob("trials/*/trial.json"):
        try:
            trial = json.loads(path.read_text())
            if trial["checkpoint"]:
                return trial, records_before(Path(folder) / trial["checkpoint"])
        except (OSError, ValueError):
            continue
    return None, 0


@pytest.mark.slow
def test_killed_half_way_and_run_again(tmp_path, cache):
    """A real kill -9 in the second refinement of three: the rest is equal to a run at one go."""
    space = {
        **TINY,
        "samples": None,
        "hidden_units": 40,
        "epochs": 3,
        "batch_size": 20,
        "inference": "reverse_half_sleep",
        "checkpoint_every": 1,
        "refine_epochs": 12,
        "measure_every": 1,
        "save_model": True,
    }
    (tmp_path / "study.yaml").write_text(
        dump_yaml({"name": "study", "experiment": "vae", "space": space, "seeds": 1})
    )
    cache("killed-cache")
    out = tmp_path / "killed"
    process = subprocess.Popen(
        [*MODICUM, "run", "study.yaml", "--local", "--out", "killed"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while stored(out)[1] < 14:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    trial, done = stored(out)
    assert trial["status"] == "running"
    assert 14 <= done < 36
    again = md.Study.from_yaml(tmp_path / "study.yaml").run(out, runner="local", quiet=True)
    assert again.trials[0].status == "finished"
    attempts = again.folder.read_json("trials", again.trials[0].id, "trial.json")["attempt"]
    assert attempts == 1
    cache("whole-cache")
    whole = md.Study.from_yaml(tmp_path / "study.yaml").run(
        tmp_path / "whole", runner="local", quiet=True
    )
    assert len(whole.frame) == 36
    assert comparable(again).equals(comparable(whole))
    first, second = (load_vae(saved(results)).state_dict() for results in (again, whole))
    assert all(value.equal(second[name]) for name, value in first.items())


def saved(results, **where):
    """The last checkpoint of the only trial with these settings."""
    trial = last(results, **where)["trial_id"]
    return results.folder.path(
        results.folder.read_json("trials", trial, "trial.json")["checkpoint"]
    )


# --- Budget ---


def test_the_budget_is_the_number_of_training_images(tmp_path):
    space = {
        **SMALL,
        "epochs": 4,
        "samples": md.grid(50, 200, None),
        "inference": md.grid("vae", "reverse_half_sleep"),
        "refine_epochs": 1,
    }
    results = run(tmp_path / "run", "vae", space, seeds=2)
    assert sorted(set(results.frame["budget"])) == [50, 200, 1437]
    assert results.experiment["budget_unit"] == "samples"
    curves = results.curves("test/bpd", "inference")
    for points in curves.values():
        assert [point.budget for point in points] == [50, 200, 1437]
    means = results.frame.groupby(["config/inference", "budget"])["test/bpd"].mean()["vae"]
    assert means[50] > means[200] > means[1437]
    # Every seed reaches the level with 1,437 images, and none with 200.
    per_seed = results.frame[results.frame["config/inference"] == "vae"]
    level = (
        per_seed[per_seed["budget"] == 200]["test/bpd"].min()
        + per_seed[per_seed["budget"] == 1437]["test/bpd"].max()
    ) / 2
    needed = results.budget_to_target("test/bpd", level, "inference")["vae",]
    assert needed.reached == 2
    assert needed.median == 1437


# --- What records say ---


@pytest.fixture(scope="module")
def methods(tmp_path_factory):
    """Three methods on one decoder that was trained on too few images, with everything measured."""
    space = {
        **SMALL,
        "samples": 100,
        "epochs": 150,
        "inference": md.grid("vae", "wake", "reverse_half_sleep"),
        "refine_epochs": 20,
        "optimal_epochs": 40,
        "iwae_samples": 10,
        "save_model": True,
    }
    return run(tmp_path_factory.mktemp("methods") / "run", "vae", space)


def test_gaps_on_the_numbers_of_the_records(methods):
    rows = methods.frame.to_dict("records")
    assert len(rows) == 3
    for row in rows:
        assert row["test/bpd_optimal"] < row["test/bpd_vae"]
        assert row["gap/amortized_inference"] == row["test/bpd"] - row["test/bpd_optimal"]
        assert row["gap/generative"] == row["test/bpd_optimal"] - row["train/bpd"]
        closed = (row["test/bpd_vae"] - row["test/bpd"]) / (
            row["test/bpd_vae"] - row["test/bpd_optimal"]
        )
        assert math.isclose(row["gap/closed"], closed, abs_tol=1e-12)
        assert row["evaluation/samples"] == 360
        # log 1/K sum of K weights is no less than the mean of their logarithms (Jensen).
        assert row["test/iwae_bpd"] < row["test/bpd"]
        assert row["test/iwae_bpd_optimal"] < row["test/bpd_optimal"]
        assert "test/classification_accuracy" not in row
    # The same VAE and the same optimal encoder for all.
    for name in ("test/bpd_vae", "test/bpd_optimal", "test/iwae_bpd_optimal", "train/seconds"):
        assert methods.frame[name].nunique() == 1, name
    vae = last(methods, inference="vae")
    assert vae["test/bpd"] == vae["test/bpd_vae"]
    assert vae["gap/closed"] == 0
    # Twenty more epochs on the same images do not close what images of the model do (figure 4.5).
    assert last(methods, inference="reverse_half_sleep")["gap/closed"] > 0.05
    assert (
        last(methods, inference="reverse_half_sleep")["test/bpd"]
        < last(methods, inference="wake")["test/bpd"]
    )


def test_methods_share_their_decoder(methods):
    names = ("vae", "wake", "reverse_half_sleep")
    models = [load_vae(saved(methods, inference=name)) for name in names]
    for first, second in itertools.pairwise(models):
        for name, value in first.decoder.state_dict().items():
            assert value.equal(second.decoder.state_dict()[name]), name
        for name, value in first.encoder.state_dict().items():
            assert not value.equal(second.encoder.state_dict()[name]), name


def test_a_saved_model_gives_the_numbers_of_its_record(methods):
    row = last(methods, inference="wake")
    model = load_vae(saved(methods, inference="wake"))
    config = VaeInference.Config(**SMALL)
    trial = md.Trial(id="t", seed=0, scratch=Path())
    test = load_images(config, trial, None).test
    bits = bits_per_dimension(model.encoder, model.decoder, test, seed=trial.seed_for("evaluation"))
    assert float(bits.double().mean()) == row["test/bpd"]


def test_classification_is_there_where_it_is_asked_for(tmp_path):
    space = {**SMALL, "epochs": 20, "classification": True}
    row = last(run(tmp_path / "run", "vae", space))
    # Chance is 0.1.
    assert 0.4 < row["test/classification_accuracy"] <= 1


def test_joint_training_is_the_usual_one_up_to_its_epoch(tmp_path):
    """From epoch 2 of 4 on; the epochs before are those of the VAE's own stages, its time too."""
    base = {**TINY, "epochs": 4, "checkpoint_every": 1}
    joint = {**base, "inference": "reverse_half_sleep", "apply": "joint"}
    results = run(
        tmp_path / "run",
        "vae",
        [base, {**joint, "joint_from": 2}, {**joint, "joint_from": 0}],
    )
    frame = results.frame
    numbers = ["train/epoch", "test/bpd", "train/bpd", "train/seconds"]
    usual, late, early = (
        of[numbers].to_numpy(float)
        for of in (
            frame[frame["config/inference"] == "vae"],
            frame[frame["config/joint_from"] == 2],
            frame[frame["config/joint_from"] == 0],
        )
    )
    assert usual[:, 0].tolist() == late[:, 0].tolist() == early[:, 0].tolist() == [1, 2, 3, 4]
    assert (late[:2] == usual[:2]).all()
    assert (late[2:, 1:] != usual[2:, 1:]).all()
    assert (early[:, 1:] != usual[:, 1:]).all()


# --- Compression ---


@pytest.fixture(scope="module")
def compressed(tmp_path_factory):
    """The digits' 360 test images in both modes."""
    modes = md.grid("portable", "pinned")
    space = {**SMALL, "epochs": 20, "mode": modes, "general_codecs": True}
    return run(tmp_path_factory.mktemp("compressed") / "run", "vae_compression", space)


@pytest.mark.parametrize("mode", ["portable", "pinned"])
def test_the_length_of_a_file_is_explained(compressed, mode):
    """Negative ELBO, the bits of the start, and a container of less than 200 bytes.

    What is left is the Monte-Carlo error of both: the ELBO of 360 images is known to 0.4 per cent.
    The whole is about a tenth more than the ELBO, for 23,040 binary pixels are only 1,600 bytes.
    """
    row = last(compressed, mode=mode)
    assert row["code/images"] == 360
    bits = 8 * row["code/bytes"]
    assert math.isclose(row["test/code_bpd"], bits / DIGITS_DIMENSIONS)
    assert math.isclose(row["test/overhead"], row["test/code_bpd"] / row["test/bpd"] - 1)
    elbo = row["test/bpd"] * DIGITS_DIMENSIONS
    container = bits - row["code/start_bits"] - elbo
    assert 8 * 100 - 0.015 * elbo < container < 8 * 200 + 0.015 * elbo
    assert row["code/start_bits"] <= 256
    assert row["test/overhead"] < 0.15


def test_modes_are_close_to_each_other(compressed):
    """The integers' networks are the floats' but for rounding; files differ in their headers."""
    portable, pinned = (last(compressed, mode=mode) for mode in ("portable", "pinned"))
    assert portable["test/bpd"] == pinned["test/bpd"]
    assert math.isclose(portable["test/code_bpd"], pinned["test/code_bpd"], rel_tol=0.02)


def test_general_codecs_are_there_where_they_are_asked_for(compressed, tmp_path):
    names = {f"general/{name}_bpd" for name in ("png", "webp", "zstd", "xz")}
    names |= {"general/png_all_bpd", "general/webp_all_bpd"}
    found = {name for name in compressed.frame if name.startswith("general/")}
    assert found == names
    row = last(compressed, mode="portable")
    # A picture of 8 x 8 has more header than pixels, and a model of digits knows more than zstd.
    assert row["general/png_bpd"] > 8 * 67 / 64
    assert row["test/code_bpd"] < row["general/zstd_bpd"]
    without = run(tmp_path / "run", "vae_compression", {**TINY, "coded_images": 5})
    assert not [name for name in without.frame if name.startswith("general/")]
    assert last(without)["code/images"] == 5


@pytest.mark.slow
def test_steps_of_inference_shorten_the_file(tmp_path):
    """K = 5 on the very same models, trained on 50 images, whose encoder is poor on others."""
    space = {
        **SMALL,
        "samples": 50,
        "epochs": 200,
        "mode": "pinned",
        "inference_steps": md.grid(0, 5),
        "inference_learning_rate": 0.05,
    }
    results = run(tmp_path / "run", "vae_compression", space, seeds=3)
    means = results.frame.groupby("config/inference_steps")[["test/code_bpd", "test/bpd"]].mean()
    assert means.loc[5, "test/code_bpd"] < means.loc[0, "test/code_bpd"] - 0.004
    assert means.loc[5, "test/bpd"] < means.loc[0, "test/bpd"] - 0.004
    assert results.frame["train/seconds"].nunique() == 3


def test_the_bound_after_steps_is_measured_with_other_noise(tmp_path):
    """Steps fitted to the noise that measures them would make test/bpd lower than it is.

    The standard deviation of one measurement is 0.002; the same noise made it 0.015 lower.
    """
    from modicum_algorithms.vae.experiments.compression_run import negative_elbo_bits

    settings = {"mode": "pinned", "inference_steps": 5, "inference_learning_rate": 0.05}
    config = VaeCompression.Config(**SMALL, **settings)
    trial = md.Trial(id="t", seed=0, scratch=tmp_path)
    images = load_images(config, trial, None)
    model = pretrained(Pretraining.of(config, images, trial, 30), 30).model
    bits = [negative_elbo_bits(model, images.test, config, seed) for seed in range(6)]
    unfitted = config.model_copy(update={"inference_steps": 0})
    before = [negative_elbo_bits(model, images.test, unfitted, seed) for seed in range(6)]
    # Five noisy steps hardly help an encoder that is good already.
    assert abs(np.mean(bits) - np.mean(before)) < 0.005


# --- Study files ---


@pytest.mark.slow
def test_the_digits_study_and_its_page(tmp_path, cache):
    """The command on the study file of the repository, with fewer epochs."""
    cache("cache")
    file = ROOT / "tune_configs" / "vae" / "digits.yaml"
    few = ["epochs=10", "refine_epochs=2", "optimal_epochs=5", "hidden_units=32"]
    options = [part for setting in few for part in ("--set", setting)]
    done = subprocess.run(
        [*MODICUM, "run", str(file), "--local", "--out", "run", "--seeds", "2", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "8/8 trials done" in done.stderr
    frame = pd.read_parquet(tmp_path / "run" / "results.parquet")
    methods = ["vae", "denoising", "reverse_sleep", "reverse_half_sleep"]
    assert sorted(set(frame["config/inference"])) == sorted(methods)
    assert set(frame["config/epochs"]) == {10}
    page = (tmp_path / "run" / "report.html").read_text()
    text = re.sub(r"<[^>]+>", " ", page)
    for word in (*methods, "test/bpd", "gap/closed"):
        assert word in text, word
    assert page.count("<table") >= 2
    assert page.count("<svg") >= 1
    assert "Failed trials" not in page
    log = next((tmp_path / "run").glob("trials/*/log.txt")).read_text()
    assert "test/bpd 0." in log


FILES = sorted(
    path
    for path in (ROOT / "tune_configs" / "vae").glob("*.yaml")
    if not path.name.endswith(".reference.yaml")
)
# Settings that make a study take long, small.
FEW = {
    "samples": 30,
    "hidden_units": 4,
    "hidden_layers": 1,
    "channels": 2,
    "residual_blocks": 1,
    "batch_size": 15,
    "epochs": 1,
    "joint_from": 0,
    "refine_epochs": 1,
    "checkpoint_every": 1,
    "measure_every": 1,
    "optimal_epochs": 1,
    "iwae_samples": 2,
    "inference_epochs": 1,
    "test_samples": 10,
    "coded_images": 3,
    "inference_steps": 1,
}


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """Folders of few images of noise, in the shapes of the data sets that studies name."""
    folders = {"digits": "digits"}
    shapes = {"mnist": (28, 28), "cifar10_jpeg": (32, 32, 3), "cifar10_lossless_4000": (32, 32, 3)}
    for name, shape in shapes.items():
        folders[name] = image_set(tmp_path_factory.mktemp("noise") / name, shape, train=40, test=6)
    return folders


def miniature(config, folders):
    """A configuration with few instead of many, on noise."""
    small = {}
    for name, value in config.model_dump().items():
        few = FEW.get(name)
        small[name] = value if few is None or not value else min(value, few)
    small |= {"samples": FEW["samples"], "dataset": folders[config.dataset]}
    return type(config).model_validate(small)


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_every_study_file_runs_in_miniature(tmp_path, cache, noise, file):
    """All of its configurations that differ in more than numbers made small here, for one seed."""
    cache("cache")
    study = md.Study.from_yaml(file, seeds=1)
    experiment = study.experiment
    planned = {}
    for small in (miniature(config, noise) for config in study.configurations):
        planned[plan_trial(experiment, small, 0, experiment.data_digests(small)).id] = small
    measured = set()
    for number, config in enumerate(planned.values()):
        experiment.check(config)
        scratch = tmp_path / str(number)
        scratch.mkdir()
        trial = md.Trial(id=str(number), seed=0, scratch=scratch)
        for record in experiment.run(config, trial):
            for name, value in record.metrics.items():
                assert math.isfinite(value), (config, name)
                experiment.metric(name)
            measured |= record.metrics.keys()
        shutil.rmtree(scratch)
    # What the report shows is there, but the share of a gap that there may not be so early.
    assert {*study.spec.report.metrics} - {"gap/closed"} <= measured


# --- Real data ---


@pytest.fixture(scope="session")
def mnist():
    """The folder of MNIST's own files."""
    named = os.environ.get("MODICUM_DATA")
    if not named or not (Path(named) / "mnist").is_dir():
        pytest.skip("MODICUM_DATA with MNIST's files is not set")
    return Path(named).absolute() / "mnist"


MNIST = {
    "dataset": "mnist",
    "samples": 2000,
    "epochs": 10,
    "hidden_units": 100,
    "latent_size": 8,
    "learning_rate": 2e-3,
}


@pytest.mark.parametrize(("binarisation", "coded"), [("sampling", 1000), ("none", 300)])
def test_a_slice_of_mnist_is_compressed_without_loss(tmp_path, mnist, binarisation, coded):
    """Decoded again by the experiment, and within 2 per cent of the ELBO."""
    space = {**MNIST, "epochs": 6, "binarisation": binarisation, "coded_images": coded}
    row = last(run(tmp_path / "run", "vae_compression", space))
    assert row["code/images"] == coded
    assert row["budget"] == 2000
    assert abs(row["test/overhead"]) < 0.02
    # A pixel, binary or of eight bits, is worth more than nothing and less than without a model.
    assert 0.1 < row["test/bpd"] < {"sampling": 0.5, "none": 4}[binarisation]


@pytest.mark.slow
def test_mnist_through_the_commands(tmp_path, mnist):
    """A model by `modicum compress` and `decompress` of its run, on grey images as they are."""

    def call(*arguments):
        done = subprocess.run(
            [*MODICUM, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    space = {**MNIST, "epochs": 5, "binarisation": "none", "save_model": True}
    trained = run(tmp_path / "trained", "vae", space)
    with gzip.open(mnist / "t10k-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(10_000, 28, 28)
    np.save(tmp_path / "thousand.npy", pixels[:1000])
    said = call("compress", "thousand.npy", "--model", "trained", "--out", "thousand.mbb")
    size = (tmp_path / "thousand.mbb").stat().st_size
    assert f"bytes: {size}" in said
    # The first 1,000 are not the 10,000 that were measured, but like them.
    assert math.isclose(8 * size / (1000 * 784), last(trained)["test/bpd"], rel_tol=0.05)
    call("decompress", "thousand.mbb", "--model", "trained", "--out", "restored")
    np.testing.assert_array_equal(np.load(tmp_path / "restored" / "images.npy"), pixels[:1000])
