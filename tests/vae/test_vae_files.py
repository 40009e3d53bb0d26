"""Compressed files: what goes in comes out, and a broken file never gives wrong images."""

import collections
import re
import resource
import signal
import struct
import subprocess
import sys
import textwrap
import time
import zlib

import numpy as np
import pytest
import torch

import modicum as md
from modicum_algorithms.vae.codec import compress as compress_module
from modicum_algorithms.vae.codec.coder import BitsBackCoder
from modicum_algorithms.vae.codec.compress import compress_images, default_chunk_images
from modicum_algorithms.vae.codec.container import ContainerReader, FileError
from modicum_algorithms.vae.codec.decompress import decompress_file
from modicum_algorithms.vae.codec.header import Environment
from modicum_algorithms.vae.config import CoderSettings
from modicum_algorithms.vae.model_spec import ModelSpec
from modicum_algorithms.vae.networks import build_vae

PORTABLE = CoderSettings(mode="portable")
PINNED = CoderSettings(mode="pinned", inference_steps=2, coder_batch=4)


def small_vae(likelihood="bernoulli", shape=(1, 4, 4), seed=0):
    spec = ModelSpec(
        shape=shape, likelihood=likelihood, latent_size=2, hidden_layers=1, hidden_units=8
    )
    return build_vae(spec, seed).eval()


@pytest.fixture(scope="module")
def binary_model():
    return small_vae()


def binary_images(count, seed=0, one=1, shape=(1, 4, 4)):
    draws = np.random.default_rng(seed).random((count, *shape))
    return (draws < 0.3).astype(np.uint8) * np.uint8(one)


def source(images_NCHW, names=None):
    def read(size):
        for start in range(0, len(images_NCHW), size):
            yield images_NCHW[start : start + size].copy()

    return md.data.ImageSource(images_NCHW.shape[1:], len(images_NCHW), names, read)


@pytest.mark.parametrize("settings", [PORTABLE, PINNED], ids=["portable", "pinned"])
@pytest.mark.parametrize("embed", [False, True], ids=["referenced", "embedded"])
@pytest.mark.parametrize(
    ("likelihood", "shape"),
    [
        ("bernoulli", (1, 4, 4)),
        ("discretised_logistic", (1, 4, 4)),
        ("autoregressive_logistic", (3, 4, 8)),
    ],
)
def test_images_come_back(tmp_path, likelihood, shape, embed, settings):
    model = small_vae(likelihood, shape)
    if likelihood == "bernoulli":
        images = binary_images(23, one=255)
    else:
        images = np.random.default_rng(1).integers(0, 256, (23, *shape), dtype=np.uint8)
    out = tmp_path / "a.mbb"
    report = compress_images(
        source(images), model, out, settings=settings, chunk_images=10, embed_model=embed
    )
    assert (report.images, report.bytes) == (23, out.stat().st_size)
    assert report.bits_per_dimension == 8 * report.bytes / images.size
    decompress_file(out, tmp_path / "restored", None if embed else model)
    restored = np.load(tmp_path / "restored" / "images.npy")
    expected = images[:, 0] if shape[0] == 1 else np.moveaxis(images, 1, -1)
    assert restored.dtype == np.uint8
    np.testing.assert_array_equal(restored, expected)
    with ContainerReader(out) as reader:
        assert (reader.header.environment is None) == (settings is PORTABLE)
        assert [chunk.count for chunk in reader.chunks()] == [10, 10, 3]


def test_files_get_their_names_back(tmp_path):
    from PIL import Image

    model = small_vae("autoregressive_logistic", (3, 4, 4))
    images = np.random.default_rng(1).integers(0, 256, (5, 3, 4, 4), dtype=np.uint8)
    names = ("b", "a", "009", "010", "é 1")
    compress_images(source(images, names), model, tmp_path / "a", settings=PORTABLE)
    report = decompress_file(tmp_path / "a", tmp_path / "png", model)
    assert report.format == "png"
    assert {p.name for p in (tmp_path / "png").iterdir()} == {f"{name}.png" for name in names}
    for name, image in zip(names, images, strict=True):
        restored = np.array(Image.open(tmp_path / "png" / f"{name}.png"))
        np.testing.assert_array_equal(restored, np.moveaxis(image, 0, -1))
    decompress_file(tmp_path / "a", tmp_path / "npy", model, image_format="npy")
    restored = np.load(tmp_path / "npy" / "images.npy")
    np.testing.assert_array_equal(restored, np.moveaxis(images, 1, -1))


def test_an_array_as_png_files_is_numbered(tmp_path, binary_model):
    images = binary_images(3, one=255)
    compress_images(source(images), binary_model, tmp_path / "a", settings=PORTABLE)
    decompress_file(tmp_path / "a", tmp_path / "png", binary_model, image_format="png")
    again = md.data.open_images(tmp_path / "png")
    assert again.names == ("00000", "00001", "00002")
    np.testing.assert_array_equal(next(again.batches(3)), images)


def test_the_same_images_give_the_same_bytes(tmp_path, binary_model):
    for name in "ab":
        compress_images(source(binary_images(9)), binary_model, tmp_path / name, settings=PORTABLE)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_pinned_file_of_one_thread_under_two(tmp_path, binary_model):
    before = torch.get_num_threads()
    images = binary_images(9)
    try:
        torch.set_num_threads(1)
        compress_images(source(images), binary_model, tmp_path / "a", settings=PINNED)
        torch.set_num_threads(2)
        decompress_file(tmp_path / "a", tmp_path / "b", binary_model)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    with ContainerReader(tmp_path / "a") as reader:
        assert reader.header.settings["threads"] == 1
    np.testing.assert_array_equal(np.load(tmp_path / "b" / "images.npy"), images[:, 0])


def test_a_pinned_file_of_another_machine(tmp_path, binary_model, monkeypatch):
    """It is tried with a warning; here its results are the same."""
    images = binary_images(9)
    elsewhere = Environment(torch="2.0.0", machine="arm64", instructions="SVE256")
    with monkeypatch.context() as patch:
        patch.setattr(Environment, "here", lambda: elsewhere)
        compress_images(source(images), binary_model, tmp_path / "a", settings=PINNED)
    with pytest.warns(UserWarning, match=r"with torch 2\.0\.0 on arm64 with SVE256, this is torch"):
        decompress_file(tmp_path / "a", tmp_path / "b", binary_model)
    np.testing.assert_array_equal(np.load(tmp_path / "b" / "images.npy"), images[:, 0])


@pytest.mark.parametrize(
    ("settings", "verify"), [(PINNED, False), (PORTABLE, True)], ids=["pinned", "verify"]
)
def test_a_chunk_that_does_not_decode_leaves_no_file(
    tmp_path, binary_model, monkeypatch, settings, verify
):
    class Faulty(BitsBackCoder):
        def decode(self, words, count):
            return super().decode(words, count) ^ np.uint8(1)

    monkeypatch.setattr(compress_module, "BitsBackCoder", Faulty)
    with pytest.raises(FileError, match="chunk 0: does not decode to the images"):
        compress_images(
            source(binary_images(3)),
            binary_model,
            tmp_path / "a",
            settings=settings,
            verify=verify,
        )
    assert list(tmp_path.iterdir()) == []


def test_another_model_is_refused(tmp_path, binary_model):
    other = small_vae(seed=1)
    compress_images(source(binary_images(3)), binary_model, tmp_path / "a", settings=PORTABLE)
    with pytest.raises(FileError, match=r"needs the model with hash .*, --model has "):
        decompress_file(tmp_path / "a", tmp_path / "b", other)
    with pytest.raises(FileError, match=r"needs the model with hash .*; name it with --model"):
        decompress_file(tmp_path / "a", tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_images_that_do_not_fit_leave_no_file(tmp_path, binary_model):
    def refused(images, match, names=None, **more):
        with pytest.raises(md.InputError, match=match):
            compress_images(
                source(images, names), binary_model, tmp_path / "a", settings=PORTABLE, **more
            )
        assert list(tmp_path.iterdir()) == []

    refused(binary_images(3, shape=(1, 4, 5)), r"got \(1, 4, 5\)")
    refused(binary_images(0), "must be at least one")
    refused(binary_images(3), "--chunk-images: .* 1 to", chunk_images=2**40)
    for name in ("b\udc80", "b/c", "b\\c", "b\0"):
        refused(binary_images(2), f"the name {re.escape(repr(name))} cannot", names=("a", name))
    grey = binary_images(7)
    grey[5, 0, 3, 3] = 128
    refused(grey, "image 'f' has a pixel of value 128", names=tuple("abcdefg"), chunk_images=2)


def test_a_disk_that_fills_up_leaves_nothing(tmp_path, binary_model):
    """A limit on the size of files stands for the disk."""
    out = tmp_path / "out" / "a"
    out.parent.mkdir()
    images = source(binary_images(3000))
    compress_images(images, binary_model, tmp_path / "whole", settings=PORTABLE)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(md.InputError, match=r"--out: .* cannot be written"):
            compress_images(images, binary_model, out, settings=PORTABLE)
        with pytest.raises(md.InputError, match=r"--out: .* cannot be written"):
            decompress_file(tmp_path / "whole", out, binary_model)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(out.parent.iterdir()) == []


class Parts:
    """A file taken apart by the format's description."""

    def __init__(self, data):
        self.data = data
        self.table = struct.unpack_from("<Q", data, len(data) - 16)[0]
        length = len(data) - 57 - self.table
        self.offsets = list(struct.unpack_from(f"<{length // 8}Q", data, self.table))
        self.chunks = [
            data[start:end]
            for start, end in zip(self.offsets, [*self.offsets[1:], self.table], strict=True)
        ]

    def places(self):
        """Where a part starts or ends."""
        return [0, 4, 6, 10, 14, 46, *self.offsets, *(o + 16 for o in self.offsets), self.table]

    def sealed(self, chunks):
        """A file of these chunks without an embedded model, whose every checksum fits, but for
        those of the pixels.
        """
        start = check = self.data[: self.offsets[0]]
        body = table = b""
        for chunk in chunks:
            count, length, _, pixels = struct.unpack_from("<IIII", chunk)
            head = struct.pack("<IIII", count, length, zlib.crc32(chunk[16:]), pixels)
            table += struct.pack("<Q", len(start) + len(body))
            body += head + chunk[16:]
            check += head
        end = self.data[-57:-16] + struct.pack("<Q", len(start) + len(body))
        crc = zlib.crc32(check + table + end)
        return start + body + table + end + struct.pack("<I", crc) + self.data[-4:]


def mutated(random, parts, other):
    """A kind of damage and the damaged file."""
    data = parts.data
    size = len(data)
    place = int(random.integers(size))
    length = int(random.integers(1, 60))
    kind = str(
        random.choice(
            ["cut", "flip", "overwrite", "splice", "join", "swap", "delete", "repeat", "append"]
        )
    )
    if kind == "cut":
        places = [*parts.places(), size - 57, size - 4, size]
        near = max(0, int(random.choice(places)) + int(random.integers(-1, 1)))
        return kind, data[: near if random.random() < 0.5 else place]
    if kind == "flip":
        flipped = bytearray(data)
        for where in random.integers(size, size=random.integers(1, 4)):
            flipped[where] ^= 1 << int(random.integers(8))
        return kind, bytes(flipped)
    if kind == "overwrite":
        return kind, data[:place] + random.bytes(min(length, size - place)) + data[place + length :]
    if kind == "splice":
        return kind, data[:place] + other[place : place + length] + data[place + length :]
    if kind == "join":
        return kind, data[:place] + other[place + int(random.integers(-2, 3)) :]
    if kind == "swap":
        chunks = list(parts.chunks)
        i, j = random.choice(len(chunks), 2, replace=False)
        chunks[i], chunks[j] = chunks[j], chunks[i]
        return kind, data[: parts.offsets[0]] + b"".join(chunks) + data[parts.table :]
    if kind == "delete":
        return kind, data[:place] + data[place + length :]
    if kind == "repeat":
        return kind, data[: place + length] + data[place:]
    return kind, data + random.bytes(length)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory, binary_model):
    """Files by mode: their images, their parts, and another file of the same model."""
    folder = tmp_path_factory.mktemp("damaged")
    files = {}
    for settings in (PORTABLE, PINNED):
        images = binary_images(40)
        for name, content in (("a", images), ("b", binary_images(40, seed=1))):
            compress_images(
                source(content),
                binary_model,
                folder / name,
                settings=settings,
                chunk_images=10,
                embed_model=settings is PINNED,
                overwrite=True,
            )
        parts = Parts((folder / "a").read_bytes())
        files[settings.mode] = images, parts, (folder / "b").read_bytes()
    return files


def outcome(folder, data, images, model):
    """`refused` or `exact`; anything else is raised, and a refused file leaves nothing."""
    file, out = folder / "file", folder / "out"
    file.write_bytes(data)
    try:
        decompress_file(file, out, model)
    except FileError:
        assert [path.name for path in folder.iterdir()] == ["file"]
        return "refused"
    np.testing.assert_array_equal(np.load(out / "images.npy"), images[:, 0])
    (out / "images.npy").unlink()
    out.rmdir()
    return "exact"


@pytest.mark.parametrize("mode", ["portable", "pinned"])
def test_a_damaged_file_is_refused_or_exact(tmp_path, damaged, binary_model, mode):
    images, parts, other = damaged[mode]
    random = np.random.default_rng(5)
    model = binary_model if mode == "portable" else None
    counts = collections.Counter()
    assert outcome(tmp_path, parts.data, images, model) == "exact"
    while counts.total() < 400:
        kind, data = mutated(random, parts, other)
        # What puts back what was there, or makes all of the other file, is no damage.
        if data not in (parts.data, other):
            counts[kind, outcome(tmp_path, data, images, model)] += 1
    assert {found for _, found in counts} == {"refused"}
    assert len(counts) == 9


def test_words_that_only_decoding_can_judge(tmp_path, damaged, binary_model):
    """Every checksum of the file fits, but for those of the pixels."""
    images, parts, _ = damaged["portable"]
    assert parts.sealed(parts.chunks) == parts.data
    random = np.random.default_rng(6)
    for _ in range(80):
        chunks = list(parts.chunks)
        number = int(random.integers(len(chunks)))
        chunk = bytearray(chunks[number])
        kind = random.integers(4)
        if kind == 0:
            chunk[int(random.integers(16, len(chunk)))] ^= 1 << int(random.integers(8))
        elif kind == 1:
            chunk[16:] = random.bytes(len(chunk) - 16)
        elif kind == 2:
            chunk[16:] = chunk[16 : 16 + 4 * int(random.integers((len(chunk) - 16) // 4))]
        else:
            chunk[16:] += random.bytes(4 * int(random.integers(1, 5)))
        chunk[4:8] = struct.pack("<I", (len(chunk) - 16) // 4)
        chunks[number] = bytes(chunk)
        if chunks != parts.chunks:
            assert outcome(tmp_path, parts.sealed(chunks), images, binary_model) == "refused"
    # Chunks that change places decode, each by itself; the whole is told apart.
    swapped = [parts.chunks[1], parts.chunks[0], *parts.chunks[2:]]
    (tmp_path / "file").write_bytes(parts.sealed(swapped))
    with pytest.raises(FileError, match="checksum of all pixels does not fit"):
        decompress_file(tmp_path / "file", tmp_path / "out", binary_model)
    assert not (tmp_path / "out").exists()


def test_a_pinned_file_that_decodes_otherwise_says_why(tmp_path, binary_model):
    compress_images(source(binary_images(40)), binary_model, tmp_path / "a", settings=PINNED)
    parts = Parts((tmp_path / "a").read_bytes())
    words = bytearray(parts.chunks[0])
    words[16 + 9] ^= 4
    (tmp_path / "b").write_bytes(parts.sealed([bytes(words)]))
    with pytest.raises(FileError, match=r"chunk 0: .*; it was written in pinned mode with torch"):
        decompress_file(tmp_path / "b", tmp_path / "out", binary_model)
    assert not (tmp_path / "out").exists()


def started(script, *arguments):
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)])


def test_a_killed_run_leaves_what_was_there(tmp_path):
    """SIGKILL after the first chunk."""
    out, marker = tmp_path / "a.mbb", tmp_path / "marker"
    out.write_text("earlier")
    script = """
    import pathlib, sys, time
    import numpy as np
    import modicum as md
    from modicum_algorithms.vae.codec.compress import compress_images
    from modicum_algorithms.vae.config import CoderSettings
    from modicum_algorithms.vae.model_spec import ModelSpec
    from modicum_algorithms.vae.networks import build_vae

    def read(size):
        yield np.zeros((size, 1, 4, 4), np.uint8)
        pathlib.Path(sys.argv[2]).touch()
        time.sleep(100)

    images = md.data.ImageSource((1, 4, 4), 50, None, read)
    model = build_vae(ModelSpec(shape=(1, 4, 4), likelihood="bernoulli", latent_size=2), 0).eval()
    out = pathlib.Path(sys.argv[1])
    settings = CoderSettings(mode="portable")
    compress_images(images, model, out, settings=settings, chunk_images=20, overwrite=True)
    """
    process = started(script, out, marker)
    try:
        while not marker.exists():
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert out.read_text() == "earlier"


@pytest.mark.slow
def test_memory_does_not_grow_with_the_images(tmp_path):
    """Peak memory of 8 and of 256 MiB of images, compressed and restored."""
    script = """
    import pathlib, re, sys
    import numpy as np
    import modicum as md
    from modicum_algorithms.vae.codec.compress import compress_images
    from modicum_algorithms.vae.codec.decompress import decompress_file
    from modicum_algorithms.vae.config import CoderSettings
    from modicum_algorithms.vae.model_spec import ModelSpec
    from modicum_algorithms.vae.networks import build_vae

    folder = pathlib.Path(sys.argv[1])
    spec = ModelSpec(shape=(1, 32, 32), likelihood="bernoulli", latent_size=2, hidden_layers=0)
    model = build_vae(spec, 0).eval()
    source = md.data.open_images(folder / "images.idx")
    settings = CoderSettings(mode="portable")
    compress_images(source, model, folder / "a", settings=settings, chunk_images=2048)
    decompress_file(folder / "a", folder / "restored", model)
    with (folder / "restored" / "images.npy").open("rb") as file:
        file.seek(-source.count * 1024, 2)
        for batch in source.batches(2048):
            assert file.read(batch.size) == batch.tobytes()
    # The peak of this program; getrusage counts the one that started it, too.
    print(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1])
    """
    peaks = []
    for count in (8192, 262144):
        folder = tmp_path / str(count)
        folder.mkdir()
        with (folder / "images.idx").open("wb") as file:
            file.write(struct.pack(">IIII", 0x803, count, 32, 32))
            # Most is a hole in the file; an image in a thousand has a pixel.
            for number in range(0, count, 1000):
                file.seek(16 + 1024 * number + 99)
                file.write(b"\1")
            file.truncate(16 + 1024 * count)
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), str(folder)],
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(int(done.stdout) / 1024)
    assert peaks[1] - peaks[0] < 48, peaks


def test_the_default_chunk_suits_the_images():
    """Never more than 16 MiB of pixels, but an image at least."""

    def images(shape):
        return default_chunk_images(ModelSpec(shape=shape, likelihood="bernoulli"))

    assert images((1, 28, 28)) == 16384
    assert images((3, 32, 32)) == 5461
    assert images((3, 4000, 4000)) == 1
