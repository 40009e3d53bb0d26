"""Data sets of images for training and test, in each of their formats."""

import gzip
import io
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import modicum as md
from image_files import (
    idx_bytes,
    pixels,
    png,
    saved,
    write_pngs,
)


def test_pillow_missing(tmp_path, monkeypatch):
    write_pngs(tmp_path / "folder", pixels(1, 4, 3))
    write_parquet(tmp_path / "train.parquet", [saved(Image.new("L", (3, 4)))], [0])
    write_parquet(tmp_path / "test.parquet", [saved(Image.new("L", (3, 4)))], [0])
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(md.InputError, match=r"needs the package 'pillow' \(extra 'vae'\)"):
        md.data.open_images(tmp_path / "folder")
    with pytest.raises(md.InputError, match=r"needs the package 'pillow' \(extra 'vae'\)"):
        md.data.read_image_parquet(tmp_path)


def write_mnist(folder, packed=False, train=(5, 4, 3), test=(2, 4, 3)):
    folder.mkdir(exist_ok=True)
    arrays = {
        "train-images-idx3": pixels(*train),
        "t10k-images-idx3": pixels(*test, seed=1),
        "train-labels-idx1": np.arange(train[0]),
        "t10k-labels-idx1": np.arange(test[0]) + 7,
    }
    for stem, array in arrays.items():
        data = idx_bytes(array)
        name = f"{stem}-ubyte{'.gz' if packed else ''}"
        (folder / name).write_bytes(gzip.compress(data) if packed else data)
    return folder


def write_cifar10(folder, batches=(2, 3), test=2):
    folder.mkdir(exist_ok=True)
    records = pixels(sum(batches) + test, 3073)
    records[:, 0] %= 10
    files = [f"data_batch_{number}.bin" for number in range(1, len(batches) + 1)]
    start = 0
    for name, count in zip([*files, "test_batch.bin"], [*batches, test], strict=True):
        (folder / name).write_bytes(records[start : start + count].tobytes())
        start += count
    return records


def write_parquet(path, images, labels=None, column="image"):
    columns = {column: [{"bytes": data, "path": None} for data in images]}
    if labels is not None:
        columns["label"] = labels
    pd.DataFrame(columns).to_parquet(path, index=False)


def assert_splits(splits, train, test, train_labels, test_labels):
    assert np.array_equal(splits.train_NCHW, train)
    assert np.array_equal(splits.test_NCHW, test)
    assert splits.train_NCHW.dtype == splits.test_NCHW.dtype == np.uint8
    for labels, expected in (
        (splits.train_labels_N, train_labels),
        (splits.test_labels_N, test_labels),
    ):
        if expected is None:
            assert labels is None
        else:
            assert labels.dtype == np.int64
            assert labels.tolist() == expected


@pytest.mark.parametrize("packed", [False, True])
def test_mnist_format(tmp_path, packed):
    folder = write_mnist(tmp_path / "set", packed)
    expected = pixels(5, 4, 3)[:, None], pixels(2, 4, 3, seed=1)[:, None], [0, 1, 2, 3, 4], [7, 8]
    assert_splits(md.data.read_mnist(folder), *expected)
    assert_splits(md.data.read_image_set(folder), *expected)
    assert len(md.data.image_set_files(folder)) == 4


def test_mnist_unpacked_beside_the_packed_files(tmp_path):
    """As torchvision leaves them; the unpacked ones are read."""
    write_mnist(tmp_path / "set", packed=True)
    folder = write_mnist(tmp_path / "set")
    assert not any(path.suffix == ".gz" for path in md.data.image_set_files(folder))


def test_broken_mnist(tmp_path):
    folder = write_mnist(tmp_path / "set")
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(np.arange(3)))
    with pytest.raises(md.InputError, match=r"test has 2 images.*shape \(3,\)"):
        md.data.read_mnist(folder)
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(np.arange(3), (4,)))
    with pytest.raises(md.InputError, match="t10k-labels-idx1-ubyte holds 3 bytes"):
        md.data.read_mnist(folder)
    (folder / "t10k-labels-idx1-ubyte").write_bytes(
        (folder / "t10k-images-idx3-ubyte").read_bytes()
    )
    with pytest.raises(md.InputError, match="one label for each image"):
        md.data.read_mnist(folder)
    (folder / "train-images-idx3-ubyte").write_bytes(idx_bytes(np.arange(5)))
    with pytest.raises(md.InputError, match="train has no images"):
        md.data.read_mnist(folder)
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(md.InputError, match=r"has no t10k-labels-idx1-ubyte or t10k.*gz"):
        md.data.image_set_files(folder)
    with pytest.raises(md.InputError, match=r"train have the shape \(1, 4, 3\).*test \(1, 4, 4\)"):
        md.data.read_mnist(write_mnist(tmp_path / "other", test=(2, 4, 4)))


def test_cifar10_binary_format(tmp_path):
    records = write_cifar10(tmp_path)
    # Pixel (channel, row, column) is byte 1 + 1024 channel + 32 row + column of a record.
    splits = md.data.read_cifar10_binary(tmp_path)
    assert splits.train_NCHW[4, 2, 30, 5] == records[4, 1 + 2048 + 960 + 5]
    expected = (
        records[:5, 1:].reshape(5, 3, 32, 32),
        records[5:, 1:].reshape(2, 3, 32, 32),
        records[:5, 0].tolist(),
        records[5:, 0].tolist(),
    )
    assert_splits(splits, *expected)
    assert_splits(md.data.read_image_set(tmp_path), *expected)


def test_broken_cifar10(tmp_path):
    write_cifar10(tmp_path)
    (tmp_path / "data_batch_2.bin").write_bytes(bytes(3074))
    with pytest.raises(md.InputError, match=r"data_batch_2\.bin holds 3074 bytes.*3073"):
        md.data.read_cifar10_binary(tmp_path)
    (tmp_path / "data_batch_2.bin").write_bytes(b"\x0a" + bytes(3072))
    with pytest.raises(md.InputError, match=r"data_batch_2\.bin has the label 10"):
        md.data.read_cifar10_binary(tmp_path)
    (tmp_path / "data_batch_2.bin").write_bytes(b"")
    with pytest.raises(md.InputError, match="holds 0 bytes"):
        md.data.read_cifar10_binary(tmp_path)
    (tmp_path / "test_batch.bin").unlink()
    with pytest.raises(md.InputError, match=r"has no test_batch\.bin"):
        md.data.read_image_set(tmp_path)


@pytest.mark.parametrize("column", ["img", "image"])
def test_parquet_format(tmp_path, column):
    images = pixels(5, 4, 3, 3)
    files = [saved(Image.fromarray(image)) for image in images]
    write_parquet(tmp_path / "train-00000-of-00002.parquet", files[:2], [1, 0], column)
    write_parquet(tmp_path / "train-00001-of-00002.parquet", files[2:3], [5], column)
    write_parquet(tmp_path / "test-00000-of-00001.parquet", files[3:], [2, 2], column)
    expected = images.transpose(0, 3, 1, 2)
    assert_splits(md.data.read_image_set(tmp_path), expected[:3], expected[3:], [1, 0, 5], [2, 2])


def test_jpeg_in_parquet_is_decoded_as_pillow_does(tmp_path):
    data = saved(Image.fromarray(pixels(8, 8, 3)), "JPEG")
    for split in ("train", "test"):
        write_parquet(tmp_path / f"{split}.parquet", [data])
    with Image.open(io.BytesIO(data)) as image:
        expected = np.array(image).transpose(2, 0, 1)[None]
    assert_splits(md.data.read_image_parquet(tmp_path), expected, expected, None, None)


GOOD = saved(Image.new("L", (3, 4)))


def encoded(*files):
    return [{"bytes": data, "path": "x"} for data in files]


BAD_PARQUET = {
    "size": (
        {"image": encoded(GOOD, saved(Image.new("L", (4, 4))))},
        "row 1: the image has the shape",
    ),
    "channels": (
        {"image": encoded(GOOD, saved(Image.new("RGB", (3, 4))))},
        "row 1: the image has the shape",
    ),
    "16 bits": ({"image": encoded(png([bytes(18)] * 4, 3, 4, 16, 2))}, "row 0: .* has 16 bits"),
    "CMYK": ({"image": encoded(saved(Image.new("CMYK", (3, 4)), "JPEG"))}, "row 0.*mode CMYK"),
    "text": ({"image": encoded(GOOD, b"text")}, "row 1: the image cannot be read as PNG or JPEG"),
    "bytes elsewhere": ({"image": encoded(GOOD, None)}, "row 1: the image has no bytes"),
    "no label": (
        {"image": encoded(GOOD, GOOD), "label": pd.array([1, None], "Int64")},
        "row 1: label",
    ),
    "texts as labels": ({"image": encoded(GOOD), "label": ["cat"]}, "label is .*whole numbers"),
    "no images": ({"picture": encoded(GOOD)}, "columns picture; one of img and image is needed"),
    "two images": ({"img": encoded(GOOD), "image": encoded(GOOD)}, "columns img, image; one of"),
    "bare bytes": ({"image": [GOOD]}, "a struct of bytes and path"),
    "empty": ({"image": []}, "train has no images|a struct of bytes"),
}


@pytest.mark.parametrize("bad", BAD_PARQUET)
def test_broken_parquet(tmp_path, bad):
    columns, message = BAD_PARQUET[bad]
    pd.DataFrame(columns).to_parquet(tmp_path / "train.parquet", index=False)
    write_parquet(tmp_path / "test.parquet", [GOOD])
    with pytest.raises(md.InputError, match=rf"^dataset: .*({message})"):
        md.data.read_image_parquet(tmp_path)


def test_parquet_files_that_do_not_fit_together(tmp_path):
    write_parquet(tmp_path / "train-0.parquet", [GOOD])
    write_parquet(tmp_path / "train-1.parquet", [saved(Image.new("L", (4, 4)))])
    with pytest.raises(md.InputError, match=r"has no test\*\.parquet"):
        md.data.read_image_parquet(tmp_path)
    write_parquet(tmp_path / "test.parquet", [GOOD])
    with pytest.raises(md.InputError, match=r"shapes \(1, 4, 3\) and \(1, 4, 4\)"):
        md.data.read_image_parquet(tmp_path)
    write_parquet(tmp_path / "train-1.parquet", [GOOD], [1])
    with pytest.raises(md.InputError, match=r"only some of train-0\.parquet, train-1\.parquet"):
        md.data.read_image_parquet(tmp_path)
    (tmp_path / "train-1.parquet").write_bytes(b"x")
    with pytest.raises(md.InputError, match=r"train-1\.parquet is not readable parquet"):
        md.data.read_image_parquet(tmp_path)


def test_numpy_format(tmp_path):
    train, test = pixels(4, 5, 6, 3), pixels(2, 3, 5, 6, seed=1)
    np.savez_compressed(tmp_path / "train.npz", images=train, labels=np.array([3, 1, 2, 9]))
    np.savez(tmp_path / "test.npz", images=test)
    assert_splits(
        md.data.read_image_set(tmp_path), train.transpose(0, 3, 1, 2), test, [3, 1, 2, 9], None
    )


def test_arrays_in_npy_files_stay_on_disk(tmp_path):
    train, test = pixels(4, 5, 6, 3), pixels(2, 5, 6, 3, seed=1)
    np.save(tmp_path / "train.npy", train)
    np.save(tmp_path / "test.npy", test)
    splits = md.data.read_image_set(tmp_path)
    assert_splits(splits, train.transpose(0, 3, 1, 2), test.transpose(0, 3, 1, 2), None, None)
    assert isinstance(splits.train_NCHW, np.memmap)
    assert not splits.train_NCHW.flags.writeable


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([1.0, 2.0]), "labels has values of type float64"),
        (np.array([[1], [2]]), r"the shape \(2, 1\)"),
        (np.array([1, 2, 3]), "train has 2 images"),
        (np.array([1, None]), "labels cannot be read"),
    ],
)
def test_bad_labels_of_numpy(tmp_path, labels, message):
    np.savez(tmp_path / "train.npz", images=pixels(2, 4, 3), labels=labels)
    np.savez(tmp_path / "test.npz", images=pixels(2, 4, 3))
    with pytest.raises(md.InputError, match=message):
        md.data.read_image_set(tmp_path)


def test_folders_of_no_format_or_two(tmp_path):
    with pytest.raises(md.InputError, match="no files of a known format: MNIST"):
        md.data.read_image_set(tmp_path)
    np.save(tmp_path / "train.npy", pixels(2, 4, 3))
    with pytest.raises(md.InputError, match=r"no test\.npz or test\.npy"):
        md.data.image_set_files(tmp_path)
    np.save(tmp_path / "test.npy", pixels(2, 4, 3))
    np.savez(tmp_path / "test.npz", images=pixels(2, 4, 3))
    with pytest.raises(md.InputError, match=r"has test\.npz and test\.npy; keep one"):
        md.data.image_set_files(tmp_path)
    write_cifar10(tmp_path)
    with pytest.raises(md.InputError, match=r"two formats: CIFAR-10's.*NumPy's"):
        md.data.image_set_files(tmp_path)


def test_sets_are_decoded_once_and_change_with_their_files(tmp_path, monkeypatch):
    monkeypatch.setenv("MODICUM_CACHE", str(tmp_path / "cache"))
    folder = write_mnist(tmp_path / "set", packed=True)
    first = md.data.read_image_set(folder)
    (cached,) = [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    time = (cached / "train.npy").stat().st_mtime_ns
    assert np.array_equal(md.data.read_image_set(folder).train_NCHW, first.train_NCHW)
    assert (cached / "train.npy").stat().st_mtime_ns == time
    changed = 255 - pixels(5, 4, 3)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(changed)))
    assert np.array_equal(md.data.read_image_set(folder).train_NCHW, changed[:, None])
