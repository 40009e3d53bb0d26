"""Folders of PNG files: what is read is what was written, and bad files are named."""

import io

import numpy as np
import pytest
from PIL import Image

import modicum as md
from image_files import chunk, pixels, png, read_or_message, saved, whole, write_pngs


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
