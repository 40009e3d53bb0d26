"""Images: what is read is what was written, in pieces, and bad files are named."""

import gzip
import io
import pickle
import struct
import sys
import tracemalloc
import zipfile
import zlib

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import modicum as md


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def idx_bytes(array, dimensions=None):
    dimensions = dimensions or array.shape
    head = struct.pack(f">I{len(dimensions)}I", 0x800 + len(dimensions), *dimensions)
    return head + array.astype(np.uint8).tobytes()


def whole(source, size=3):
    """All images, having checked what is promised of batches."""
    batches = list(source.batches(size))
    assert [len(batch) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    assert 1 <= len(batches[-1]) <= size
    for batch in batches:
        assert batch.dtype == np.uint8
        assert type(batch) is np.ndarray
        assert batch.flags.c_contiguous
        assert batch.flags.writeable
        assert batch.shape[1:] == source.shape
    images = np.concatenate(batches)
    assert len(images) == source.count
    return images


def write_pngs(folder, images, mode=None):
    """Save (N, H, W) or (N, H, W, 3) as 00.png, 01.png, ..."""
    folder.mkdir()
    for number, image in enumerate(images):
        picture = Image.fromarray(image)
        (picture if mode is None else picture.convert(mode)).save(folder / f"{number:02}.png")
    return folder


# One of each kind of file; every writer gets (N, H, W) or (N, H, W, 3).
WRITERS = {
    "npy": lambda path, images: np.save(path / "a.npy", images),
    "npy in Fortran's order": lambda path, images: np.save(
        path / "a.npy", np.asfortranarray(images)
    ),
    "npz, one array": lambda path, images: np.savez(path / "a.npz", images),
    "npz, named": lambda path, images: np.savez(path / "a.npz", labels=np.arange(3), images=images),
    "npz, packed": lambda path, images: np.savez_compressed(path / "a.npz", images=images),
    "PNG folder": lambda path, images: write_pngs(path / "folder", images),
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("colours", [(), (3,)], ids=["grey", "RGB"])
def test_what_is_written_is_read(tmp_path, writer, colours):
    images = pixels(7, 5, 4, *colours)
    WRITERS[writer](tmp_path, images)
    (path,) = tmp_path.iterdir()
    source = md.data.open_images(path)
    expected = images[:, None] if not colours else images.transpose(0, 3, 1, 2)
    assert source.shape == (3 if colours else 1, 5, 4)
    assert source.count == 7
    assert source.names == (tuple(f"{n:02}" for n in range(7)) if "PNG" in writer else None)
    for size in (1, 3, 7, 100):
        assert np.array_equal(whole(source, size), expected)
    # Every call starts anew, whatever became of the one before; and sources travel to workers.
    next(source.batches(2))
    assert np.array_equal(whole(pickle.loads(pickle.dumps(source))), expected)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("name", ["a-images-idx3-ubyte", "a.idx", "a.idx.gz", "anything"])
def test_idx_is_told_by_content(tmp_path, pack, name):
    images = pixels(5, 3, 2)
    (tmp_path / name).write_bytes(pack(idx_bytes(images)))
    source = md.data.open_images(str(tmp_path / name))
    assert (source.shape, source.count, source.names) == ((1, 3, 2), 5, None)
    assert np.array_equal(whole(source, 2), images[:, None])
    assert np.array_equal(md.data.read_idx(tmp_path / name), images[:, None])


def test_files_of_numpy_are_told_by_content(tmp_path):
    images = pixels(2, 3, 2)
    with (tmp_path / "a.bin").open("wb") as file:
        np.save(file, images)
    assert np.array_equal(whole(md.data.open_images(tmp_path / "a.bin")), images[:, None])


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((4, 5, 6, 3), (0, 3, 1, 2)),
        ((4, 5, 6, 1), (0, 3, 1, 2)),
        ((4, 3, 5, 6), (0, 1, 2, 3)),
        ((4, 1, 5, 6), (0, 1, 2, 3)),
    ],
)
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_channels_stand_first_or_last(tmp_path, shape, axes, suffix):
    images = pixels(*shape)
    if suffix == "npy":
        np.save(tmp_path / "a.npy", images)
    else:
        np.savez(tmp_path / "a.npz", images)
    source = md.data.open_images(tmp_path / f"a.{suffix}")
    assert np.array_equal(whole(source), images.transpose(axes))


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_truth_values_become_0_and_1(tmp_path, suffix):
    images = pixels(4, 5, 6) > 127
    if suffix == "npy":
        np.save(tmp_path / "a.npy", images)
    else:
        np.savez(tmp_path / "a.npz", images)
    read = whole(md.data.open_images(tmp_path / f"a.{suffix}"))
    assert np.array_equal(read, images[:, None].astype(np.uint8))


BAD_ARRAYS = {
    "float": (np.zeros((2, 3, 4), np.float32), "values of type float32; allowed: uint8 or bool"),
    "int64": (np.zeros((2, 3, 4), np.int64), "values of type int64"),
    "objects": (np.array([None, 1]), "values of type object"),
    "one image": (np.zeros((3, 4), np.uint8), r"the shape \(3, 4\); allowed: \(N, H, W\)"),
    "video": (np.zeros((1, 2, 3, 4, 5), np.uint8), "the shape"),
    "alpha": (np.zeros((2, 5, 5, 4), np.uint8), "1 or 3 channels"),
    "ambiguous": (np.zeros((2, 3, 5, 3), np.uint8), "can stand first or last"),
    "ambiguous grey": (np.zeros((2, 1, 5, 3), np.uint8), "can stand first or last"),
    "no images": (np.zeros((0, 5, 5), np.uint8), "at least one image"),
    "no pixels": (np.zeros((2, 0, 5), np.uint8), "at least one image"),
}


@pytest.mark.parametrize("bad", BAD_ARRAYS)
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_other_arrays_are_refused(tmp_path, bad, suffix):
    array, message = BAD_ARRAYS[bad]
    path = tmp_path / f"a.{suffix}"
    np.save(path, array) if suffix == "npy" else np.savez(path, images=array)
    with pytest.raises(md.InputError, match=rf"^IMAGES: .*a\.{suffix}.*{message}"):
        md.data.open_images(path, "IMAGES")


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '|u1', 'fortran_order': False, 'shape': (1, 2, 2), ",
        b"{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 2, 2), }",
        b"{'descr': '|u1', 'fortran_order': False, 'shape': (1, 2, 2), 3: 4}",
        b"{'descr': '|u1', 'fortran_order': False, 'shape': 'large', }",
        b"('shape",
        b"",
    ],
)
def test_broken_headers_of_arrays(tmp_path, header):
    array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(4)
    (tmp_path / "a.npy").write_bytes(array)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images.npy", array)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(md.InputError, match=name):
            md.data.open_images(tmp_path / name)


def test_npz_files_with_several_arrays_or_none(tmp_path):
    np.savez(tmp_path / "two.npz", b=pixels(2, 3, 4), a=pixels(2, 3, 4))
    with pytest.raises(md.InputError, match="has the arrays a, b; one alone or one named images"):
        md.data.open_images(tmp_path / "two.npz")
    np.savez(tmp_path / "none.npz")
    with pytest.raises(md.InputError, match="has the arrays none"):
        md.data.open_images(tmp_path / "none.npz")


def test_packed_arrays_in_fortrans_order_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", np.asfortranarray(pixels(4, 5, 6)))
    with pytest.raises(md.InputError, match="Fortran's order"):
        md.data.open_images(tmp_path / "a.npz")


def exhaust(path):
    return list(md.data.open_images(path).batches(2))


def read_or_message(path):
    """All images, or what the error says."""
    try:
        return np.concatenate(exhaust(path))
    except md.InputError as error:
        return str(error)


@pytest.mark.parametrize(
    "writer", ["npy", "npz, named", "npz, packed", "idx", "idx.gz"], ids=lambda name: name
)
def test_truncated_files_are_named_wherever_they_end(tmp_path, writer):
    """At every length: an error that says which file, nothing else."""
    images = pixels(3, 4, 2)
    if writer in WRITERS:
        WRITERS[writer](tmp_path, images)
        (path,) = tmp_path.iterdir()
    else:
        path = tmp_path / writer
        data = idx_bytes(images)
        path.write_bytes(gzip.compress(data) if writer.endswith("gz") else data)
    data = path.read_bytes()
    exhaust(path)
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(md.InputError, match=path.name):
            exhaust(path)


def test_flipped_bits_in_packed_files_are_found(tmp_path):
    """Their checksums are looked at although they are read in pieces."""
    images = pixels(3, 4, 2)
    packed = {"a.npz": io.BytesIO(), "a.gz": io.BytesIO(gzip.compress(idx_bytes(images)))}
    np.savez_compressed(packed["a.npz"], images)
    for name, stream in packed.items():
        data = bytearray(stream.getvalue())
        path = tmp_path / name
        for place in range(len(data)):
            data[place] ^= 0x10
            path.write_bytes(data)
            data[place] ^= 0x10
            read = read_or_message(path)
            if isinstance(read, str):
                assert name in read
            else:
                assert np.array_equal(read, images[:, None]), place


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (idx_bytes(np.arange(5)), "holds labels"),
        (gzip.compress(idx_bytes(np.arange(5))), "holds labels"),
        (idx_bytes(pixels(2, 3, 4)) + b"x", "holds 25 bytes of data; its header announces 24"),
        (gzip.compress(idx_bytes(pixels(2, 3, 4)) + b"x"), "more data than its header announces"),
        (gzip.compress(b"something else"), "0x00000803"),
        (idx_bytes(pixels(2, 3, 4, 1)), "0x00000803"),
        (idx_bytes(pixels(0, 3, 4), (0, 3, 4)), "at least one image"),
        (b"plain text", "none of: a folder of PNG files, a .npy file"),
        (b"", "none of"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(md.InputError, match=rf"^images: .*file.*{message}"):
        exhaust(path)


def test_missing_files_and_bad_sizes(tmp_path):
    with pytest.raises(md.InputError, match="IMAGES: no file or folder at 'nowhere'"):
        md.data.open_images("nowhere", "IMAGES")
    np.save(tmp_path / "a.npy", pixels(2, 3, 4))
    with pytest.raises(md.InputError, match=r"size: .*got 0"):
        md.data.open_images(tmp_path / "a.npy").batches(0)


@pytest.mark.parametrize("kind", ["npy", "npz", "npz packed", "idx", "idx.gz"])
def test_memory_does_not_grow_with_the_file(tmp_path, kind):
    count, height, width = 2000, 64, 64  # 8 MB
    path = tmp_path / "a"
    zeros = np.zeros((count, height, width), np.uint8)
    with path.open("wb") as file:
        if kind == "npy":
            np.save(file, zeros)
        elif kind.startswith("npz"):
            (np.savez_compressed if "packed" in kind else np.savez)(file, zeros)
        elif kind == "idx":
            file.write(idx_bytes(zeros))
        else:
            file.write(gzip.compress(idx_bytes(zeros), compresslevel=1))
    del zeros
    md.data.open_images(path).batches(1)  # imports are not counted
    tracemalloc.start()
    try:
        total = sum(len(batch) for batch in md.data.open_images(path).batches(10))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == count
    assert peak < 1_000_000


def test_a_mapped_file_larger_than_what_is_read(tmp_path):
    """A terabyte on paper: the file has a hole where its pixels are not."""
    path = tmp_path / "a.npy"
    with path.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (10**6, 1000, 1000)}
        np.lib.format.write_array_header_1_0(file, header)
        first = pixels(2, 1000, 1000)
        start = file.tell()
        file.write(first.tobytes())
        try:
            file.truncate(start + 10**12)
        except OSError:
            pytest.skip("no sparse files here")
    source = md.data.open_images(path)
    assert source.count == 10**6
    assert np.array_equal(next(source.batches(2)), first[:, None])


# PNG


def test_names_are_sorted_and_other_things_in_the_folder(tmp_path):
    image = Image.fromarray(pixels(4, 3))
    for name in ("b.png", "a10.PNG", "a9.png"):
        image.save(tmp_path / name, format="PNG")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / "sub.png").mkdir()
    image.save(tmp_path / "sub.png" / "inside.png")
    assert md.data.open_images(tmp_path).names == ("a10", "a9", "b")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(md.InputError, match=r"holds notes\.txt; only PNG"):
        md.data.open_images(tmp_path)
    (tmp_path / "notes.txt").rename(tmp_path / "b.PNG")
    with pytest.raises(md.InputError, match=r"holds b\.PNG and b\.png"):
        md.data.open_images(tmp_path)


def test_an_empty_folder(tmp_path):
    (tmp_path / "sub").mkdir()
    with pytest.raises(md.InputError, match=r"^IMAGES: .*no PNG files"):
        md.data.open_images(tmp_path, "IMAGES")


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(rows, width, height, bits, colour, extra=b""):
    """A PNG file from packed rows, written by the specification."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    packed = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + extra + packed + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("bits", "row", "expected"),
    [
        (1, b"\xa0", [255, 0, 255]),
        (2, b"\x1b", [0, 85, 170]),
        (4, b"\x0f\x80", [0, 255, 136]),
        (8, b"\x01\x80\xfe", [1, 128, 254]),
    ],
)
def test_fewer_bits_are_spread_over_0_to_255(tmp_path, bits, row, expected):
    (tmp_path / "a.png").write_bytes(png([row], 3, 1, bits, 0))
    assert whole(md.data.open_images(tmp_path)).tolist() == [[[expected]]]


def test_grey_of_different_bits_is_one_kind(tmp_path):
    """Programs that shrink PNG files save black and white pictures among grey ones in 1 bit."""
    (tmp_path / "a.png").write_bytes(png([b"\x80\x01"], 2, 1, 8, 0))
    (tmp_path / "b.png").write_bytes(png([b"\x40"], 2, 1, 1, 0))
    assert whole(md.data.open_images(tmp_path)).tolist() == [[[[128, 1]]], [[[0, 255]]]]


def animation():
    stream = io.BytesIO()
    frames = [Image.fromarray(pixels(4, 3, seed=s)) for s in range(2)]
    frames[0].save(stream, "PNG", save_all=True, append_images=frames[1:])
    return stream.getvalue()


def saved(image, form="PNG"):
    stream = io.BytesIO()
    image.save(stream, form)
    return stream.getvalue()


BAD_PNGS = {
    "palette": (lambda: saved(Image.fromarray(pixels(4, 3)).convert("P")), "has a palette"),
    "grey and alpha": (lambda: saved(Image.new("LA", (3, 4))), "alpha channel"),
    "RGB and alpha": (lambda: saved(Image.new("RGBA", (3, 4))), "alpha channel"),
    "16-bit grey": (lambda: saved(Image.new("I;16", (3, 4))), "16 bits a channel"),
    "16-bit RGB": (lambda: png([bytes(18)] * 4, 3, 4, 16, 2), "16 bits a channel"),
    "transparent grey": (
        lambda: png([bytes(3)] * 4, 3, 4, 8, 0, chunk(b"tRNS", b"\0\1")),
        "transparent colour",
    ),
    "animation": (animation, "an animation"),
    "JPEG by another name": (lambda: saved(Image.new("L", (3, 4)), "JPEG"), "not a PNG file"),
    "empty": (lambda: b"", "truncated"),
    "no width": (lambda: png([], 0, 4, 8, 0), "broken PNG file"),
}


@pytest.mark.parametrize("bad", BAD_PNGS)
def test_other_pngs_are_refused_before_anything_is_read(tmp_path, bad):
    make, message = BAD_PNGS[bad]
    (tmp_path / "a.png").write_bytes(png([bytes(3)] * 4, 3, 4, 8, 0))
    (tmp_path / "b.png").write_bytes(make())
    with pytest.raises(md.InputError, match=rf"^images: .*b\.png.*{message}"):
        md.data.open_images(tmp_path)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: png([bytes(4)] * 4, 4, 4, 8, 0), "a.png is 3 x 4 grey, c.png is 4 x 4 grey"),
        (lambda: png([bytes(9)] * 4, 3, 4, 8, 2), "a.png is 3 x 4 grey, c.png is 3 x 4 RGB"),
    ],
)
def test_mixed_folders_name_both_files(tmp_path, other, message):
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_bytes(png([bytes(3)] * 4, 3, 4, 8, 0))
    (tmp_path / "c.png").write_bytes(other())
    with pytest.raises(md.InputError, match=message):
        md.data.open_images(tmp_path)


def test_truncated_pngs_are_named_before_anything_is_read(tmp_path):
    path = write_pngs(tmp_path / "folder", pixels(1, 4, 3)) / "00.png"
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(md.InputError, match=r"00\.png is"):
            md.data.open_images(path.parent)


def test_flipped_bits_in_pngs_are_found(tmp_path):
    images = pixels(1, 4, 3)
    path = write_pngs(tmp_path / "folder", images) / "00.png"
    data = bytearray(path.read_bytes())
    for place in range(len(data)):
        data[place] ^= 1
        path.write_bytes(data)
        data[place] ^= 1
        read = read_or_message(path.parent)
        if isinstance(read, str):
            assert "00.png" in read
        else:
            assert place >= len(data) - 4  # the checksum of the end, which has no content
            assert np.array_equal(read, images[:, None])


def test_a_png_that_changes_while_it_is_read(tmp_path):
    folder = write_pngs(tmp_path / "folder", pixels(2, 4, 3))
    batches = md.data.open_images(folder).batches(1)
    next(batches)
    Image.fromarray(pixels(5, 3)).save(folder / "01.png")
    with pytest.raises(md.InputError, match=r"01\.png has changed"):
        next(batches)
    source = md.data.open_images(write_pngs(tmp_path / "other", pixels(2, 4, 3)))
    (tmp_path / "other" / "01.png").unlink()
    with pytest.raises(md.InputError, match=r"01\.png cannot be read"):
        list(source.batches(1))


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


# Sets for training and test


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
    encoded = [saved(Image.fromarray(image)) for image in images]
    write_parquet(tmp_path / "train-00000-of-00002.parquet", encoded[:2], [1, 0], column)
    write_parquet(tmp_path / "train-00001-of-00002.parquet", encoded[2:3], [5], column)
    write_parquet(tmp_path / "test-00000-of-00001.parquet", encoded[3:], [2, 2], column)
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
BAD_PARQUET = {
    "size": ({"image": [GOOD, saved(Image.new("L", (4, 4)))]}, r"row 1: the image has the shape"),
    "channels": ({"image": [GOOD, saved(Image.new("RGB", (3, 4)))]}, r"row 1: the image has the"),
    "16 bits": ({"image": [png([bytes(18)] * 4, 3, 4, 16, 2)]}, "row 0: the image has 16 bits"),
    "CMYK": ({"image": [saved(Image.new("CMYK", (3, 4)), "JPEG")]}, "row 0.*mode CMYK"),
    "text": ({"image": [GOOD, b"text"]}, "row 1: the image cannot be read as PNG or JPEG"),
    "bytes elsewhere": ({"image": [GOOD, None]}, "row 1: the image has no bytes"),
    "no label": ({"image": [GOOD, GOOD], "label": pd.array([1, None], "Int64")}, "row 1: label"),
    "texts as labels": ({"image": [GOOD], "label": ["cat"]}, "label is .*whole numbers"),
    "no images": ({"picture": [GOOD]}, "columns picture; one of img and image is needed"),
    "two images": ({"img": [GOOD], "image": [GOOD]}, "columns img, image; one of"),
    "bare bytes": ({"image": "bare"}, "a struct of bytes and path"),
    "empty": ({"image": []}, "train has no images|a struct of bytes"),
}


@pytest.mark.parametrize("bad", BAD_PARQUET)
def test_broken_parquet(tmp_path, bad):
    columns, message = BAD_PARQUET[bad]
    columns = {
        name: [{"bytes": data, "path": "x"} for data in values]
        if name != "label" and values != "bare"
        else values
        for name, values in columns.items()
    }
    if columns.get("image") == "bare":
        columns = {"image": [GOOD]}
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


def test_encrypted_members_are_refused(tmp_path):
    """The flag alone: Python cannot write encrypted archives."""
    stream = io.BytesIO()
    np.savez(stream, images=pixels(2, 4, 3))
    data = bytearray(stream.getvalue())
    with zipfile.ZipFile(stream) as archive:
        central = archive.start_dir
    data[6] |= 1
    data[central + 8] |= 1
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(md.InputError, match=r"a\.npz.*cannot be read.*encrypted"):
        md.data.open_images(tmp_path / "a.npz")
