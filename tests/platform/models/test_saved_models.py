"""Models saved as folders: round trip, and folders that are damaged."""

import json

import numpy as np
import pytest
import torch

import modicum as md

DESCRIPTION = {"width": np.int64(3), "rate": np.float32(0.5), "names": ["a", "b"]}


def weights():
    generator = torch.Generator().manual_seed(0)
    whole = torch.randn(4, 3, generator=generator)
    return {
        "encoder": {"weight": whole, "bias": torch.zeros(4, dtype=torch.float64)},
        "decoder": {"weight": torch.nn.Parameter(whole.T), "count": torch.tensor(7)},
    }


@pytest.fixture
def folder(tmp_path):
    md.save_model(tmp_path / "deep" / "model", DESCRIPTION, weights())
    return tmp_path / "deep" / "model"


def load(folder):
    """A model as a family loads it: from its description and its weights."""
    with md.loading_model(folder, "thing", "model"):
        saved = md.load_model(folder)
        return saved.description["width"], saved.weights["encoder"]["weight"]


def test_round_trip(folder):
    saved = md.load_model(folder)
    assert saved.description == {"width": 3, "rate": 0.5, "names": ["a", "b"]}
    assert {name: set(part) for name, part in saved.weights.items()} == {
        "encoder": {"weight", "bias"},
        "decoder": {"weight", "count"},
    }
    for part, tensors in weights().items():
        for name, tensor in tensors.items():
            assert torch.equal(saved.weights[part][name], tensor)
            assert saved.weights[part][name].dtype == tensor.dtype
    assert sorted(path.name for path in folder.iterdir()) == [
        *("decoder.safetensors", "encoder.safetensors", "model.json"),
    ]


def test_the_description_has_a_name_of_its_own(tmp_path):
    md.save_model(tmp_path, {"width": 1}, {}, name="vae")
    assert json.loads((tmp_path / "vae.json").read_text()) == {"width": 1}
    assert md.load_model(tmp_path, name="vae") == md.SavedModel({"width": 1}, {})
    with pytest.raises(OSError, match=r"model\.json"):
        md.load_model(tmp_path)


def test_a_description_that_json_cannot_hold_is_refused(tmp_path):
    with pytest.raises(TypeError, match="set cannot be written as JSON"):
        md.save_model(tmp_path, {"names": {"a"}}, {})


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model.json", None),
        ("model.json", b""),
        ("model.json", b'{"height": 3}'),
        ("model.json", b"[3]"),
        ("model.json", b'{"width": "\xff"}'),
        ("encoder.safetensors", None),
        ("encoder.safetensors", b""),
        ("encoder.safetensors", b"not a file of weights"),
        ("decoder.safetensors", "cut"),
    ],
)
def test_damaged_folders_are_named(folder, file, content):
    if content is None:
        (folder / file).unlink()
    elif content == "cut":
        (folder / file).write_bytes((folder / file).read_bytes()[:-1])
    else:
        (folder / file).write_bytes(content)
    with pytest.raises(md.InputError, match=r"^model: '.*model' holds no saved thing$"):
        load(folder)


def test_weights_that_do_not_fit_the_model_are_a_damaged_folder(folder):
    def build():
        with md.loading_model(folder, "thing", "model"):
            torch.nn.Linear(5, 2).load_state_dict(md.load_model(folder).weights["encoder"])

    with pytest.raises(md.InputError, match="holds no saved thing"):
        build()


def test_other_errors_pass_as_they_are(folder):
    def refuse(error):
        with md.loading_model(folder, "thing", "model"):
            raise error

    with pytest.raises(md.InputError, match="its own words"):
        refuse(md.InputError("its own words"))
    with pytest.raises(KeyboardInterrupt):
        refuse(KeyboardInterrupt())
    with pytest.raises(AssertionError):
        refuse(AssertionError())
