"""The format of compressed files, byte by byte, and what is around it: names, pixels, models."""

import hashlib
import io
import json
import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import modicum as md
from modicum_algorithms.vae.codec.compress import BinaryPixels
from modicum_algorithms.vae.codec.container import ContainerReader, ContainerWriter, FileError
from modicum_algorithms.vae.codec.file_names import PackedNames, pack_names, unpack_names
from modicum_algorithms.vae.codec.header import _DICTIONARY, Header
from modicum_algorithms.vae.model_spec import ModelSpec
from modicum_algorithms.vae.networks import build_vae
from modicum_algorithms.vae.saved_models import model_hash, pack_model, unpack_model

HASH = bytes(range(32))
NAMES = PackedNames(runs=["b", "a", ("x", 1, 1, 2, "")], sorted=False)


def header(**changes):
    values = {
        "settings": {"mode": "portable"},
        "shape": (1, 2, 2),
        "levels": 256,
        "chunk_images": 3,
        "source": "png",
        "names": None,
        "environment": None,
    }
    return Header(**(values | changes))


def written(chunks, model=None, one=1, **changes):
    """A file's bytes."""
    file = io.BytesIO()
    described = header(embedded=model is not None, **changes)
    writer = ContainerWriter(file, described, HASH, model)
    for words, images in chunks:
        writer.add(words, images)
    assert writer.finish(one) == len(file.getvalue())
    return file.getvalue()


def two_chunks():
    images = np.arange(16, dtype=np.uint8).reshape(4, 1, 2, 2)
    return [
        (np.array([1, 2**32 - 1], np.uint32), images[:3]),
        (np.array([7], np.uint32), images[3:]),
    ]


@pytest.fixture
def read(tmp_path):
    """Read bytes as a file."""

    def reading(data):
        (tmp_path / "a.mbb").write_bytes(data)
        return ContainerReader(tmp_path / "a.mbb")

    return reading


def test_every_byte_is_where_the_description_says():
    """Taken apart without the reader."""
    data = written(two_chunks(), one=255, names=NAMES)
    magic, version, length, crc = struct.unpack_from("<4sHII", data)
    assert (magic, version) == (b"\x8fMBB", 1)
    packed = data[46 : 46 + length]
    assert data[14:46] == HASH
    assert crc == zlib.crc32(HASH + packed)
    inflate = zlib.decompressobj(wbits=-15, zdict=_DICTIONARY)
    described = json.loads(inflate.decompress(packed))
    assert described["shape"] == [1, 2, 2]
    assert described["settings"] == {"mode": "portable"}

    first = 46 + length
    pixels = bytes(range(16))
    words = struct.pack("<II", 1, 2**32 - 1)
    heads = struct.pack("<IIII", 3, 2, zlib.crc32(words), zlib.crc32(pixels[:12]))
    assert data[first : first + 24] == heads + words
    second, words = first + 24, struct.pack("<I", 7)
    head = struct.pack("<IIII", 1, 1, zlib.crc32(words), zlib.crc32(pixels[12:]))
    assert data[second : second + 20] == head + words
    table = second + 20
    offsets = struct.pack("<QQ", first, second)
    end = struct.pack("<QB", 4, 255) + hashlib.sha256(pixels).digest() + struct.pack("<Q", table)
    crc = zlib.crc32(data[:first] + heads + head + offsets + end)
    assert data[table:] == offsets + end + struct.pack("<I", crc) + b"BBM\x8f"


@pytest.mark.parametrize("model", [None, (b"{}", b"weights")])
def test_what_is_written_is_read(read, model):
    with read(written(two_chunks(), model, one=255, names=NAMES)) as reader:
        assert (reader.images, reader.one, reader.model_hash) == (4, 255, HASH)
        assert reader.embedded == model
        assert reader.header.names == NAMES
        for _ in range(2):
            found = [(c.number, c.count, c.words.tolist()) for c in reader.chunks()]
            assert found == [(0, 3, [1, 2**32 - 1]), (1, 1, [7])]


# `two_chunks` as the first program that wrote format version 1 put them.
VERSION_1 = bytes.fromhex(
    "8f4d4242010030000000b4a5a6dd000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d"
    "1e1fc3ef675437e91821bb0818e6686e3246724f415e3ac235f028564a020a262ae9442b5528e918ea80ccc4"
    "16cf44b91c00030000000200000014ff337765c9709201000000ffffffff0100000001000000a5e793bce8c3"
    "766d070000005e0000000000000076000000000000000400000000000000ffbe45cb2605bf36bebde684841a"
    "28f0fd43c69850a3dce5fedba69928ee3a89918a000000000000008eca993542424d8f"
)


def test_files_of_version_1_stay_readable(read):
    """A change that this test notices needs another format version."""
    with read(VERSION_1) as reader:
        assert reader.header == header(names=NAMES, embedded=False)
        assert (reader.images, reader.one, reader.model_hash) == (4, 255, HASH)
        assert [chunk.words.tolist() for chunk in reader.chunks()] == [[1, 2**32 - 1], [7]]


def sealed(data, **end):
    """The file with other values in its end record, and the checksum that fits them.

    The chunks of `two_chunks` and what comes before them must not be changed.
    """
    images, one, digest, table = struct.unpack("<QB32sQ", data[-57:-8])
    record = struct.pack(
        "<QB32sQ", end.get("images", images), end.get("one", one), digest, end.get("table", table)
    )
    offsets = [offset for (offset,) in struct.iter_unpack("<Q", data[table:-57])]
    heads = b"".join(data[offset : offset + 16] for offset in offsets)
    new = end.get("offsets", struct.pack(f"<{len(offsets)}Q", *offsets))
    crc = zlib.crc32(data[: offsets[0]] + heads + new + record)
    return data[:table] + new + record + struct.pack("<I", crc) + b"BBM\x8f"


def test_files_that_are_refused(read):
    good = written(two_chunks())
    assert sealed(good) == good
    first = 46 + struct.unpack_from("<I", good, 6)[0]

    def problem(data):
        with pytest.raises(FileError) as error:
            read(data)
        return str(error.value).partition(": ")[2]

    assert problem(b"") == "is not a file of modicum compress"
    assert problem(b"\x89PNG" + good[4:]) == "is not a file of modicum compress"
    assert problem(good[:4]) == "truncated"
    assert problem(good[:60]) == "truncated"
    assert problem(good[:-1]) == "truncated, or with something after its end"
    assert problem(good + b"\0") == "truncated, or with something after its end"
    later = good[:4] + struct.pack("<H", 9) + good[6:]
    assert problem(later) == "was written by format version 9, this program reads 1"
    assert problem(later[:6]) == "was written by format version 9, this program reads 1"
    other = good[:50] + bytes([good[50] ^ 1]) + good[51:]
    assert problem(other) == "checksum of the header does not fit"
    # Lengths of gigabytes, of the header and of a chunk, are not allocated.
    assert problem(good[:6] + b"\xff\xff\xff\xff" + good[10:]) == "truncated"
    head = struct.pack("<II", 3, 2**31)
    assert problem(good[:first] + head + good[first + 8 :]) == "chunk 0 has an impossible length"
    last = len(good) - 57 - 16 - 4
    flipped = good[:last] + b"\xff" + good[last + 1 :]
    assert problem(flipped) == "chunk 1: checksum of the words does not fit"
    assert problem(sealed(good, images=5)) == "its end record contradicts its chunks"
    assert problem(sealed(good, one=7)) == "its end record contradicts its chunks"
    moved = struct.pack("<QQ", first, first + 25)
    assert problem(sealed(good, offsets=moved)) == "chunk 1 is not where its table says"
    assert "not where its end record says" in problem(sealed(good, table=2**62))
    model = written(two_chunks(), (b"{}", b"weights"))
    assert problem(model.replace(b"weights", b"wEights")) == "checksum of the model does not fit"


def test_chunks_of_another_file_are_refused(read):
    """With all their checksums, and in a file of the same lengths."""
    chunks = two_chunks()[:1] * 2
    other = [(words, 255 - images) for words, images in chunks]
    one, two = written(chunks), written(other)
    size = 24
    table = len(one) - 57 - 16
    mixed = one[: table - size] + two[table - size : table] + one[table:]
    assert len(mixed) == len(one)
    assert mixed != one
    with pytest.raises(FileError, match="checksum of its table of chunks"):
        read(mixed)


def test_a_header_that_unpacks_to_gigabytes_is_refused(read):
    deflate = zlib.compressobj(9, wbits=-15, zdict=_DICTIONARY)
    packed = deflate.compress(b" " * 2**27) + deflate.flush()
    good = written(two_chunks())
    old = struct.unpack_from("<I", good, 6)[0]
    start = struct.pack("<4sHII", b"\x8fMBB", 1, len(packed), zlib.crc32(HASH + packed)) + HASH
    with pytest.raises(FileError, match="header cannot be understood"):
        read(start + packed + good[46 + old :])


@pytest.mark.parametrize(
    "changes",
    [{"shape": (1, 2**20, 2**20)}, {"chunk_images": 2**40}],
    ids=["large images", "large chunks"],
)
def test_chunks_that_memory_could_not_hold_are_refused(read, changes):
    with pytest.raises(FileError, match="too large"):
        read(written(two_chunks(), **changes))


def test_a_file_that_cannot_be_read_is_no_broken_file(tmp_path):
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(md.InputError, match="cannot be read") as error:
            ContainerReader(path)
        assert not isinstance(error.value, FileError)


LETTERS = st.text(st.sampled_from("0189ab._-é"), min_size=1, max_size=12)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.one_of(
            LETTERS.map(lambda name: [name]),
            st.tuples(st.integers(0, 120), st.integers(1, 30), st.integers(1, 4), LETTERS).map(
                lambda run: [f"{run[3]}{run[0] + i:0{run[2]}d}" for i in range(run[1])]
            ),
        )
    )
)
def test_names_come_back(groups):
    names = [name for group in groups for name in group]
    assert list(unpack_names(pack_names(names), len(names))) == names
    # In the order in which a folder's files are read.
    names.sort(key=lambda name: f"{name}.png")
    assert list(unpack_names(pack_names(names), len(names))) == names


def test_names_that_count_up_are_short():
    def packed(*names):
        found = pack_names(names)
        return found.runs, found.sorted

    assert packed(*[f"{n:05d}" for n in range(10000)]) == ([("", 0, 5, 10000, "")], False)
    assert packed(*sorted(str(n) for n in range(10000))) == ([("", 0, 1, 10000, "")], True)
    # Digits are kept: 9 is not 09, and 10 follows both.
    assert packed("a9", "a10", "a09", "a10x") == ([("a", 9, 1, 2, ""), "a09", "a10x"], False)
    assert packed("1", "10", "100", "11", "2") == (
        [("", 1, 1, 2, ""), ("", 10, 2, 2, ""), "100"],
        True,
    )


@pytest.mark.parametrize(
    ("runs", "count"),
    [
        (["a"], 2),
        ([("a", 0, 1, 10**12, "")], 3),
        ([("a", 0, 1, -1, ""), "b", "c"], 1),
        ([("a", 0, 10**9, 1, "")], 1),
        (["../a"], 1),
        (["..\\a"], 1),
        ([("/tmp/", 0, 1, 1, "")], 1),
    ],
)
@pytest.mark.parametrize("in_order", [False, True])
def test_impossible_names_are_refused_before_they_are_made(runs, count, in_order):
    with pytest.raises(ValueError, match="name"):
        unpack_names(PackedNames(runs=runs, sorted=in_order), count)


def test_binary_pixels():
    """Read in pieces; the first piece does not show yet which value stands for one."""
    binary = BinaryPixels(None)
    images = np.zeros((5, 1, 2, 2), np.uint8)
    images[3, 0, 1, 1] = images[4, 0, 0] = 255
    assert not binary.read(images[:2]).any()
    assert binary.one is None
    pixels = binary.read(images[2:])
    assert pixels.sum(axis=(1, 2, 3)).tolist() == [0, 1, 2]
    assert binary.one == 255
    images[:] = 1
    with pytest.raises(md.InputError, match="image 5 has a pixel of value 1 beside 255"):
        binary.read(images)


@pytest.mark.parametrize(("values", "name"), [([0, 1, 7], "c"), ([7, 1, 1], "a"), ([1, 255], "b")])
def test_the_first_image_with_other_pixels_is_named(values, name):
    images = np.zeros((len(values), 1, 2, 2), np.uint8)
    images[:, 0, 0, 1] = values
    with pytest.raises(md.InputError, match=f"image '{name}' has a pixel of value"):
        BinaryPixels(("a", "b", "c")).read(images)


def test_a_full_disk_is_told_as_such():
    """/dev/full takes nothing."""
    file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    with pytest.raises(OSError, match="No space"), file:
        ContainerWriter(file, header(embedded=False), HASH, None)


@pytest.mark.parametrize("network", ["mlp", "resnet"])
def test_an_embedded_model_is_the_same_model(network):
    spec = ModelSpec(
        shape=(3, 4, 8),
        likelihood="autoregressive_logistic",
        network=network,
        latent_size=4,
        hidden_units=5,
        channels=3,
    )
    model = build_vae(spec, seed=3)
    again = unpack_model(*pack_model(model))
    assert model_hash(again) == model_hash(model)
    assert not again.training


def test_an_embedded_model_of_impossible_size_takes_no_memory():
    model = build_vae(ModelSpec(shape=(1, 2, 2), likelihood="bernoulli", hidden_units=3), seed=0)
    _, weights = pack_model(model)
    for changes, message in (
        ({"hidden_units": 100_000}, "do not fit together"),
        ({"hidden_layers": 20}, "do not fit together"),
        ({"latent_size": 3}, "do not fit together"),
        ({"hidden_layers": 10**9}, "hidden_layers: .*less than or equal to 20"),
    ):
        spec = model.spec.model_copy(update=changes).model_dump_json().encode()
        with pytest.raises(ValueError, match=message):
            unpack_model(spec, weights)
    with pytest.raises(ValueError, match=r".+"):
        unpack_model(b"{}", weights)
    with pytest.raises(ValueError, match=r".+"):
        unpack_model(pack_model(model)[0], weights[:-3])
