"""Data sets of images: splits, binarisation, and which training images a budget buys."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

import modicum as md
from modicum_algorithms.vae.data import datasets


def load(dataset, binarisation="none", seed=0, samples=None):
    data = datasets.load(dataset, binarisation=binarisation, seed=seed)
    return data if samples is None else data.subset(samples, seed)


@pytest.fixture
def folder(tmp_path):
    """Builds a folder of `.npz` files: grey images unless told otherwise."""

    def build(train=None, test=None, labels=True, name="set"):
        generator = np.random.default_rng(0)
        place = tmp_path / name
        place.mkdir(exist_ok=True)
        for split, images in (("train", train), ("test", test)):
            if images is None:
                images = generator.integers(0, 256, (50, 4, 3), dtype=np.uint8)
            arrays = {"images": images}
            if labels:
                arrays["labels"] = np.arange(len(images))
            np.savez(place / f"{split}.npz", **arrays)
        return str(place)

    return build


def published(name):
    root = os.environ.get("MODICUM_DATA")
    if not root or not (Path(root) / name).is_dir():
        pytest.skip(f"MODICUM_DATA with {name} is not set")
    return name


def test_digits_against_scikit_learn():
    data = load("digits")
    assert (data.shape, data.levels) == ((1, 8, 8), 256)
    assert data.train_NCHW.shape == (1437, 1, 8, 8)
    assert data.test_NCHW.shape == (360, 1, 8, 8)
    assert data.train_NCHW.dtype == data.test_NCHW.dtype == np.uint8
    original = load_digits()
    # 0, 16 and, between them, 255 v / 16; v = 8 is 127.5, which rounds to the even 128.
    grey = {0: 0, 1: 16, 2: 32, 3: 48, 4: 64, 5: 80, 6: 96, 7: 112, 8: 128}
    grey |= {9: 143, 10: 159, 11: 175, 12: 191, 13: 207, 14: 223, 15: 239, 16: 255}
    expected = np.vectorize(grey.get)(original.images.astype(int))
    assert np.array_equal(np.concatenate([data.train_NCHW, data.test_NCHW])[:, 0], expected)
    labels = np.concatenate([data.train_labels_N, data.test_labels_N])
    assert labels.dtype == np.int64
    assert np.array_equal(labels, original.target)


def test_threshold_is_above_127(folder):
    values = np.array([0, 1, 126, 127, 128, 254, 255], np.uint8)[None, None]
    data = load(folder(values, values), binarisation="threshold")
    assert data.levels == 2
    for images in (data.train_NCHW, data.test_NCHW):
        assert images.dtype == np.uint8
        assert images.tolist() == [[[[0, 0, 0, 0, 1, 1, 1]]]]


def test_sampling_draws_each_pixel_with_its_own_probability(folder):
    """All 256 values, each 20,000 times: frequencies within five standard errors."""
    values = np.tile(np.arange(256, dtype=np.uint8), (20000, 1))[:, None]
    data = load(folder(values, values[:9]), binarisation="sampling", seed=3)
    assert data.levels == 2
    assert set(np.unique(data.train_NCHW)) == {0, 1}
    probability = np.arange(256) / 255
    frequency = data.train_NCHW.mean((0, 1, 2))
    error = np.sqrt(probability * (1 - probability) / 20000)
    assert np.all(np.abs(frequency - probability) <= 5 * error)
    assert frequency[0] == 0
    assert frequency[255] == 1
    # Neighbours are drawn independently: their covariance is nought within five errors.
    grey = data.train_NCHW[:, 0, 0, 100:160].astype(float)
    centred = grey - grey.mean(0)
    covariance = (centred[:, :-1] * centred[:, 1:]).mean(0)
    assert np.abs(covariance).max() < 5 * 0.25 / np.sqrt(20000)


def test_draws_depend_on_the_seed_alone(folder):
    place = folder()
    first = load(place, binarisation="sampling", seed=0)
    datasets._binary.cache_clear()
    again = load(place, binarisation="sampling", seed=0)
    other = load(place, binarisation="sampling", seed=1)
    for split in ("train_NCHW", "test_NCHW"):
        assert np.array_equal(getattr(first, split), getattr(again, split))
        assert not np.array_equal(getattr(first, split), getattr(other, split))


def test_train_and_test_are_drawn_independently(folder):
    grey = np.full((40, 10, 10), 128, np.uint8)
    data = load(folder(grey, grey), binarisation="sampling")
    agree = (data.train_NCHW == data.test_NCHW).mean()
    assert abs(agree - 0.5) < 5 * 0.5 / np.sqrt(4000)


@pytest.mark.parametrize("binarisation", ["none", "threshold", "sampling"])
def test_smaller_budgets_are_parts_of_larger_ones(folder, binarisation):
    """The same image has the same pixels and label, whatever the budget."""
    place = folder()

    def some(samples, seed=5):
        return load(place, binarisation=binarisation, seed=seed, samples=samples)

    everything = some(None)
    of_label = dict(zip(everything.train_labels_N.tolist(), everything.train_NCHW, strict=True))
    largest = some(50)
    assert sorted(largest.train_labels_N.tolist()) == list(range(50))
    assert largest.train_labels_N.tolist() != list(range(50))
    for samples in (1, 7, 20, 50):
        data = some(samples)
        assert data.train_NCHW.shape == (samples, 1, 4, 3)
        assert data.train_labels_N.tolist() == largest.train_labels_N[:samples].tolist()
        for label, image in zip(data.train_labels_N.tolist(), data.train_NCHW, strict=True):
            assert np.array_equal(image, of_label[label])
        assert np.array_equal(data.test_NCHW, everything.test_NCHW)
        assert data.test_labels_N.tolist() == list(range(50))
    assert some(20, seed=6).train_labels_N.tolist() != some(20).train_labels_N.tolist()


def test_methods_share_their_training_images(folder):
    """Which images are chosen does not depend on the binarisation."""
    place = folder()
    chosen = [
        load(place, binarisation=name, seed=2, samples=9).train_labels_N.tolist()
        for name in ("none", "threshold", "sampling")
    ]
    assert chosen[0] == chosen[1] == chosen[2]


@pytest.mark.parametrize("samples", [0, -1, 51])
def test_budgets_that_cannot_be_met(folder, samples):
    message = rf"^samples: must be 1 to 50, the number of training images, got {samples}$"
    with pytest.raises(md.InputError, match=message):
        load(folder(), samples=samples)


def test_images_without_labels(folder):
    data = load(folder(labels=False), samples=3)
    assert data.train_labels_N is None
    assert data.test_labels_N is None


@pytest.mark.parametrize("binarisation", ["threshold", "sampling"])
def test_colour_is_not_made_binary(folder, binarisation):
    place = folder(np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 4, 4, 3), np.uint8))
    with pytest.raises(md.InputError, match=r"^binarisation: .*3 channels.*\(allowed: none\)"):
        load(place, binarisation=binarisation)
    assert load(place).shape == (3, 4, 4)


def test_binary_images_stay_as_they_are(folder):
    """A threshold of 127 would make them all black."""
    images = np.random.default_rng(0).integers(0, 2, (4, 5, 6)).astype(bool)
    place = folder(images, ~images)
    data = load(place)
    assert data.levels == 2
    assert np.array_equal(data.train_NCHW[:, 0], images)
    with pytest.raises(md.InputError, match=r"^binarisation: .*are binary"):
        load(place, binarisation="threshold")
    # One brighter pixel anywhere, and they are grey.
    grey = images.astype(np.uint8)
    grey[0, 0, 0] = 2
    assert load(folder(images, grey, name="grey")).levels == 256


def test_unknown_binarisation():
    with pytest.raises(
        md.InputError, match=r"binarisation: must be one of none, threshold, sampling, got 'dither'"
    ):
        load("digits", binarisation="dither")


def test_unknown_data(tmp_path, monkeypatch):
    monkeypatch.setenv("MODICUM_DATA", str(tmp_path))
    (tmp_path / "empty").mkdir()
    for call in (datasets.data_digests, load):
        with pytest.raises(md.InputError, match=r"dataset: no 'mnist'.*there: empty"):
            call("mnist")
        with pytest.raises(md.InputError, match="known format"):
            call("empty")
        with pytest.raises(md.InputError, match=r"dataset: no folder at '\./nowhere'"):
            call("./nowhere")


def test_digests_follow_the_files_and_decode_nothing(tmp_path):
    for name in ("train.parquet", "test.parquet"):
        (tmp_path / name).write_bytes(b"not parquet")
    before = datasets.data_digests(str(tmp_path))
    assert list(before) == ["dataset"]
    (tmp_path / "README.md").write_text("not data")
    assert datasets.data_digests(str(tmp_path)) == before
    (tmp_path / "test.parquet").write_bytes(b"not PARQUET")
    assert datasets.data_digests(str(tmp_path)) != before
    assert datasets.data_digests("digits") != before


def test_changed_files_are_read_anew(folder):
    black = np.zeros((2, 4, 3), np.uint8)
    assert load(folder(black, black)).train_NCHW.max() == 0
    assert load(folder(black + 7, black)).train_NCHW.max() == 7


def test_data_is_held_once_and_nobody_can_change_it(folder):
    for place in ("digits", folder()):
        for binarisation in ("none", "threshold", "sampling"):
            first = load(place, binarisation=binarisation)
            again = load(place, binarisation=binarisation)
            small = load(place, binarisation=binarisation, samples=5)
            assert again.train_NCHW is first.train_NCHW
            assert small.test_NCHW is first.test_NCHW
            for images in (first.train_NCHW, first.test_NCHW):
                with pytest.raises(ValueError, match="read-only"):
                    images[0] = 0


def test_importing_light_modules_loads_nothing_heavy():
    names = (
        "cli",
        "data.datasets",
        "experiment",
        "experiments.compression",
        "experiments.consistency",
    )
    imports = ", ".join(f"modicum_algorithms.vae.{name}" for name in names)
    code = f"import {imports}, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"ray", "torch", "sklearn", "pandas", "pyarrow", "PIL", "scipy"}
    assert not heavy & set(done.stdout.split())


def test_mnist():
    name = published("mnist")
    data = load(name)
    assert data.train_NCHW.shape == (60000, 1, 28, 28)
    assert data.test_NCHW.shape == (10000, 1, 28, 28)
    # The first digits and their mean grey value are known from many a tutorial.
    assert data.train_labels_N[:5].tolist() == [5, 0, 4, 1, 9]
    assert data.test_labels_N[:5].tolist() == [7, 2, 1, 0, 4]
    assert data.train_NCHW.mean() / 255 == pytest.approx(0.1307, abs=5e-5)
    binary = load(name, binarisation="sampling", seed=1, samples=1000)
    assert binary.levels == 2
    assert binary.train_NCHW.mean() == pytest.approx(0.1307, abs=0.01)


def test_cifar10():
    data = load(published("cifar10_lossless_4000"))
    assert data.train_NCHW.shape == (3500, 3, 32, 32)
    assert data.test_NCHW.shape == (500, 3, 32, 32)
    assert set(np.unique(data.train_labels_N)) == set(range(10))
    # Neighbouring pixels are more alike than distant ones: planes and rows are not mixed up.
    images = data.train_NCHW.astype(np.float32)
    for axis in (2, 3):
        near, far = (np.abs(np.roll(images, n, axis) - images).mean() for n in (1, 16))
        assert near < far / 2
    # The means of the three colours, known from the whole training set, are near.
    assert images.mean((0, 2, 3)) / 255 == pytest.approx([0.4914, 0.4822, 0.4465], abs=0.02)


@pytest.mark.slow
def test_cifar10_in_parquet():
    data = load(published("cifar10_jpeg"))
    assert data.train_NCHW.shape == (50000, 3, 32, 32)
    assert data.test_NCHW.shape == (10000, 3, 32, 32)
    assert np.bincount(data.train_labels_N).tolist() == [5000] * 10
    assert np.bincount(data.test_labels_N).tolist() == [1000] * 10
    mean = data.train_NCHW.mean((0, 2, 3)) / 255
    assert mean == pytest.approx([0.4914, 0.4822, 0.4465], abs=0.005)
