"""Prompts of every source: their limits, splits and mistakes."""

import json
import lzma
import re

import pyarrow as pa
import pyarrow.parquet
import pytest
from transformers import AutoTokenizer

import modicum as md
from modicum_algorithms.preference.config import PreferenceConfig
from modicum_algorithms.preference.data.prompts import (
    Prompt,
    check_prompts,
    prompt_digests,
    read_prompts,
)
from modicum_algorithms.preference.pretraining import model_location


def source(name, split=None, column=None, **limits):
    """Settings that name a source, and perhaps its split and column."""
    chosen = {"prompts_split": split, "prompts_column": column, **limits}
    given = {key: value for key, value in chosen.items() if value is not None}
    return PreferenceConfig(prompts=str(name), **given)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(model_location("packaged"))


@pytest.fixture(scope="module")
def real_data():
    import os
    from pathlib import Path

    named = os.environ.get("MODICUM_DATA")
    if not named or not (Path(named) / "tldr").is_dir():
        pytest.skip("MODICUM_DATA with imdb and tldr is not set")


def both(name, tokenizer, seed=0, **limits):
    config = source(name, **limits)
    return [read_prompts(config, split, tokenizer, seed) for split in ("train", "test")]


@pytest.mark.parametrize("name", ["packaged", "tldr"])
def test_splits_share_no_prompt_and_have_no_doubles(name, tokenizer, request):
    if name == "tldr":
        request.getfixturevalue("real_data")
    train, test = both(name, tokenizer)
    texts = [prompt.text for prompt in (*train, *test)]
    assert len(texts) == len(set(texts))
    assert len(train) > len(test) > 0


def test_reviews_of_imdb_are_long_and_without_markup(tmp_path, tokenizer, monkeypatch):
    """Of 201 characters and more; `<br />` is no part of a sentence."""
    (tmp_path / "imdb").mkdir()
    for split, mark in (("train", "A"), ("test", "B")):
        texts = [f"{mark} fine<br /><br />film. " + "x" * 201, f"{mark} short one", "y" * 200]
        rows = "\n".join(json.dumps({"text": text, "label": 1}) for text in texts)
        with lzma.open(tmp_path / "imdb" / f"{split}.jsonl.xz", "wt") as file:
            file.write(rows)
    monkeypatch.setenv("MODICUM_DATA", str(tmp_path))
    train, test = both("imdb", tokenizer)
    assert len(train) == len(test) == 1
    assert train[0].text.startswith("A fine film")
    assert test[0].text.startswith("B fine film")


def test_reviews_are_cut_to_lengths_drawn_uniformly(tokenizer):
    limits = {"prompt_tokens_min": 3, "prompt_tokens_max": 5}
    train, _ = both("packaged", tokenizer, **limits)
    lengths = [len(tokenizer(prompt.text)["input_ids"]) for prompt in train]
    # A cut may end in white space, which is removed.
    assert {3, 4, 5} <= set(lengths) <= {2, 3, 4, 5}
    again, _ = both("packaged", tokenizer, **limits)
    other, _ = both("packaged", tokenizer, seed=1, **limits)
    assert train == again != other


def test_a_cut_within_a_letter_leaves_no_part_of_it(tokenizer, tmp_path, monkeypatch):
    (tmp_path / "imdb").mkdir()
    row = json.dumps({"text": "€" * 201, "label": 1})
    with lzma.open(tmp_path / "imdb" / "train.jsonl.xz", "wt") as file:
        file.write(row)
    monkeypatch.setenv("MODICUM_DATA", str(tmp_path))
    # A letter of three bytes, each a token of the packaged model's.
    config = source("imdb", prompt_tokens_min=4, prompt_tokens_max=4)
    assert read_prompts(config, "train", tokenizer, 0) == [Prompt("€")]


def test_posts_keep_to_their_limits(real_data, tokenizer):
    """566 of 1,945 posts have 200 to 1,000 characters; 381 prompts, title included, do."""
    posts = [prompt for part in both("tldr", tokenizer) for prompt in part]
    assert 400 < len(posts) <= 566
    for prompt in posts:
        post = re.search(r"POST: (.*)\nTL;DR:", prompt.text, re.DOTALL)[1]
        assert 200 <= len(post) <= 1000
        assert not re.search(r"SUBREDDIT: r/(offmychest|tifu)\b", prompt.text, re.IGNORECASE)
        assert prompt.text.endswith("TL;DR:")
        assert prompt.human.strip()
    whole = [
        prompt for part in both("tldr", tokenizer, counted_characters="prompt") for prompt in part
    ]
    assert 250 < len(whole) <= 381


def test_prompts_of_ones_own(tmp_path, tokenizer):
    texts = [f"Prompt {n}:  " for n in range(40)] + ["Prompt 1:"]
    (tmp_path / "p.txt").write_text("\n".join(texts) + "\n\n")
    (tmp_path / "p.jsonl").write_text(
        "\n".join(json.dumps({"prompt": text, "human": "yes"}) for text in texts)
    )
    table = pa.table({"prompt": texts, "human": ["yes"] * len(texts)})
    pyarrow.parquet.write_table(table, tmp_path / "p.parquet")
    for suffix, human in (("txt", None), ("jsonl", "yes"), ("parquet", "yes")):
        train, test = both(str(tmp_path / f"p.{suffix}"), tokenizer)
        assert {p.text for p in (*train, *test)} == {f"Prompt {n}:" for n in range(40)}
        assert Prompt("Prompt 3:", human) in (*train, *test)


def test_a_data_set_that_the_datasets_library_wrote(tmp_path, tokenizer):
    import datasets

    datasets.Dataset.from_dict({"prompt": [f"Say {n}" for n in range(20)]}).save_to_disk(
        tmp_path / "set"
    )
    train, test = both(f"hf:{tmp_path / 'set'}", tokenizer)
    assert len(train) + len(test) == 20


@pytest.fixture(scope="module")
def two_splits(tmp_path_factory):
    """Two splits of a data set with other names than ours; the same text in both is one prompt."""
    import datasets

    place = tmp_path_factory.mktemp("sets") / "set"
    datasets.DatasetDict(
        {
            split: datasets.Dataset.from_dict(
                {"question": ["Both"] + [f"{split} {n}" for n in range(9)], "human": ["yes"] * 10}
            )
            for split in ("prefs", "gen")
        }
    ).save_to_disk(place)
    return f"hf:{place}"


@pytest.mark.parametrize(("split", "expected"), [(None, 19), ("gen", 10)])
def test_a_split_and_a_column_of_a_data_set(two_splits, tokenizer, split, expected):
    config = source(two_splits, split, "question", opponent="human")
    check_prompts(config)
    found = [
        prompt for part in ("train", "test") for prompt in read_prompts(config, part, tokenizer, 0)
    ]
    assert len(found) == expected
    assert Prompt("gen 3", "yes") in found
    assert (Prompt("prefs 3", "yes") in found) == (split is None)


def test_other_rows_of_the_same_data_set_are_other_prompts(two_splits):
    chosen = [(), ("gen",), ("prefs",), (None, "question")]
    digests = [prompt_digests(source(two_splits, *rows)) for rows in chosen]
    assert all(a != b for n, a in enumerate(digests) for b in digests[:n])


def test_a_column_of_a_file(tmp_path, tokenizer):
    place = tmp_path / "p.jsonl"
    place.write_text("\n".join(json.dumps({"text": f"t{n} "}) for n in range(20)))
    found = [
        prompt.text
        for part in ("train", "test")
        for prompt in read_prompts(source(place, None, "text"), part, tokenizer, 0)
    ]
    assert sorted(found) == sorted(f"t{n}" for n in range(20))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (("train", "question"), r"^prompts_split: .* has splits prefs, gen, got 'train'"),
        (("gen",), r"^prompts: .*, row 1: must have a text as prompt"),
        (("gen", "text"), r"^prompts_column: .* columns question, human, got 'text'"),
        (("gen", "human"), None),
    ],
)
def test_rows_that_a_data_set_has_not(two_splits, tokenizer, rows, message):
    config = source(two_splits, *rows)
    if message is None:
        assert len(read_prompts(config, "train", tokenizer, 0)) <= 1
        return
    with pytest.raises(md.InputError, match=message):
        read_prompts(config, "train", tokenizer, 0)


def test_a_data_set_without_splits_has_none(tmp_path, tokenizer):
    import datasets

    datasets.Dataset.from_dict({"prompt": ["a"]}).save_to_disk(tmp_path / "set")
    with pytest.raises(md.InputError, match=r"^prompts_split: .* has no splits, got 'train'"):
        read_prompts(source(f"hf:{tmp_path / 'set'}", "train"), "train", tokenizer, 0)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (("packaged", "train"), r"^prompts_split: 'packaged' has no splits"),
        (("packaged", None, "text"), r"^prompts_column: 'packaged' has no columns"),
        (("hf:./nowhere",), r"^prompts: no folder at './nowhere'"),
        (("hf:",), r"^prompts: hf: needs a name"),
    ],
)
def test_rows_that_a_source_cannot_have(rows, message):
    with pytest.raises(md.InputError, match=message):
        check_prompts(source(*rows))


@pytest.mark.parametrize("name", ["imdb", "tldr"])
def test_what_is_missing_under_modicum_data_names_the_prompts(tmp_path, monkeypatch, name):
    monkeypatch.setenv("MODICUM_DATA", str(tmp_path))
    with pytest.raises(md.InputError, match=r"^prompts: no '(train|tldr).jsonl.xz' under"):
        check_prompts(source(name))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.jsonl", '{"text": "a"}', "row 1: must have a text as prompt"),
        ("p.jsonl", '{"prompt": "a", "human": 3}', "row 1: human must be a text"),
        ("p.jsonl", "{", "cannot be read"),
        ("p.txt", "\n", "must hold prompts to train with"),
        ("p.parquet", "no parquet", "cannot be read"),
    ],
)
def test_files_that_hold_no_prompts(tmp_path, tokenizer, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(md.InputError, match=f"^prompts: .*{message}"):
        both(str(tmp_path / name), tokenizer)


@pytest.mark.parametrize("name", ["nowhere.txt", "reviews", "prompts.csv"])
def test_sources_that_there_are_not(name):
    with pytest.raises(md.InputError, match=r"^prompts: must be imdb, tldr, packaged, hf:NAME or"):
        check_prompts(source(name))


def test_the_digest_is_of_the_contents(tmp_path):
    for name, text in (("a", "one"), ("b", "one"), ("c", "two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "p.txt").write_text(text)
    a, b, c = (prompt_digests(source(tmp_path / name / "p.txt")) for name in ("a", "b", "c"))
    assert a == b != c
