"""Images in NumPy and idx files: what is read is what was written, and bad files are named."""

import gzip
import io
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

import modicum as md
from image_files import (
    exhaust,
    idx_bytes,
    pixels,
    read_or_message,
    whole,
    write_pngs,
)

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


def save(path, images):
    np.save(path, images) if path.suffix == ".npy" else np.savez(path, images=images)


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
    save(tmp_path / f"a.{suffix}", images)
    source = md.data.open_images(tmp_path / f"a.{suffix}")
    assert np.array_equal(whole(source), images.transpose(axes))


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_truth_values_become_0_and_1(tmp_path, suffix):
    images = pixels(4, 5, 6) > 127
    save(tmp_path / f"a.{suffix}", images)
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
    save(path, array)
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


OTHER_FILES = {
    "labels": (idx_bytes(np.arange(5)), "holds labels"),
    "packed labels": (gzip.compress(idx_bytes(np.arange(5))), "holds labels"),
    "too long": (
        idx_bytes(pixels(2, 3, 4)) + b"x",
        "holds 25 bytes of data; its header announces 24",
    ),
    "packed and too long": (
        gzip.compress(idx_bytes(pixels(2, 3, 4)) + b"x"),
        "more data than its header announces",
    ),
    "packed text": (gzip.compress(b"something else"), "0x00000803"),
    "four axes": (idx_bytes(pixels(2, 3, 4, 1)), "0x00000803"),
    "no image": (idx_bytes(pixels(0, 3, 4), (0, 3, 4)), "at least one image"),
    "text": (b"plain text", "none of: a folder of PNG files, a .npy file"),
    "empty": (b"", "none of"),
}


# gzip.compress writes the time, so names that pytest makes of the bytes differ between processes.
@pytest.mark.parametrize(("content", "message"), OTHER_FILES.values(), ids=OTHER_FILES)
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
