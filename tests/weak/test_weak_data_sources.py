"""People's own data: tables and Hugging Face folders say what a WRENCH folder says."""

import json

import numpy as np
import pandas as pd
import pytest

import modicum as md
from modicum.data.tables.columns import read_columns
from modicum.data.tables.hugging_face import hub_arguments
from modicum_algorithms.weak.data import datasets

CLASSES = ("ham", "spam")
FUNCTIONS = ("free", "long")
# Text, features, votes of the two functions (-1 abstains), label (-1 unknown).
ROWS = {
    "train": [
        ('free, "now"\nor never', [0.5, -1.0], [1, 0], 1),
        ("see you", [0.25, 2.0], [-1, -1], -1),
        ("call me when it is free", [1.0, 1e-3], [1, 0], 0),
    ],
    "valid": [("hello there you", [0.0, 1.0], [-1, 0], 0), ("free NA", [3.0, 1.0], [1, -1], 1)],
    "test": [("see me", [1.0, 1.0], [-1, -1], 0)],
}


def frames(kind="text", named=True):
    """A data frame for each split, with names of classes or their numbers."""

    def vote(number):
        if named:
            return None if number == -1 else CLASSES[number]
        return number

    made = {}
    for split, rows in ROWS.items():
        columns = {"id": range(len(rows)), "label": [vote(row[3]) for row in rows]}
        for k, function in enumerate(FUNCTIONS):
            columns[f"vote_{function}"] = [vote(row[2][k]) for row in rows]
        if kind == "text":
            columns["text"] = [row[0] for row in rows]
        else:
            columns |= {f"feature_{d}": [row[1][d] for row in rows] for d in range(2)}
        made[split] = pd.DataFrame(columns)
    return made


WRITERS = {
    ".csv": lambda frame, path: frame.to_csv(path, index=False),
    ".parquet": lambda frame, path: frame.to_parquet(path, index=False),
    ".jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True),
}


def write_wrench(folder, kind):
    folder.mkdir()
    (folder / "label.json").write_text(json.dumps(dict(enumerate(CLASSES))))
    for split, rows in ROWS.items():
        content = {
            str(n): {
                "label": label,
                "weak_labels": votes,
                "data": {"text": text} if kind == "text" else {"feature": features},
            }
            for n, (text, features, votes, label) in enumerate(rows)
        }
        (folder / f"{split}.json").write_text(json.dumps(content))
    return str(folder)


def write_tables(folder, suffix, made):
    folder.mkdir(exist_ok=True)
    for split, frame in made.items():
        WRITERS[suffix](frame, folder / f"{split}{suffix}")
    return str(folder)


def write_one_table(path, made):
    """All splits in one file, the rows of the splits taking turns."""
    whole = pd.concat([frame.assign(split=split) for split, frame in made.items()])
    whole = whole.sort_values("id", kind="stable")
    WRITERS[path.suffix](whole, path)
    return str(path)


def write_hugging_face(folder, made, label=None):
    hugging_face = pytest.importorskip("datasets")
    sets = hugging_face.DatasetDict(
        {
            {"valid": "validation"}.get(split, split): hugging_face.Dataset.from_pandas(frame)
            for split, frame in made.items()
        }
    )
    if label is not None:
        sets = sets.cast_column("label", label)
    sets.save_to_disk(folder)
    return f"hf:{folder}"


def assert_same(ours, theirs):
    assert ours.classes == theirs.classes
    for split in md.data.SPLITS:
        mine, other = getattr(ours, split), getattr(theirs, split)
        for name in ("features_ND", "votes_NK", "labels_N"):
            array = np.asarray(getattr(mine, name))
            assert array.dtype == getattr(other, name).dtype
            np.testing.assert_array_equal(array, getattr(other, name), err_msg=f"{split} {name}")


@pytest.mark.parametrize("kind", ["text", "features"])
@pytest.mark.parametrize("named", [True, False], ids=["names", "numbers"])
@pytest.mark.parametrize("suffix", WRITERS)
def test_tables_say_what_wrench_folders_say(tmp_path, suffix, named, kind):
    """Texts with commas, quotes, line breaks and `NA` included; features by TF-IDF or given."""
    wrench = datasets.load(write_wrench(tmp_path / "wrench", kind), "auto")
    assert wrench.train.votes_NK.tolist() == [row[2] for row in ROWS["train"]]
    assert wrench.labeling_functions == ("0", "1")
    if not named:
        wrench = datasets.WeakData(("0", "1"), wrench.train, wrench.valid, wrench.test)
    made = frames(kind, named)
    folder = datasets.load(write_tables(tmp_path / "tables", suffix, made), "auto")
    one = datasets.load(write_one_table(tmp_path / f"one{suffix}", made), "auto")
    for table in (folder, one):
        assert_same(table, wrench)
        assert table.labeling_functions == FUNCTIONS


@pytest.mark.parametrize("kind", ["text", "features"])
def test_hugging_face_folders_say_what_wrench_folders_say(tmp_path, kind):
    wrench = datasets.load(write_wrench(tmp_path / "wrench", kind), "auto")
    named = datasets.load(write_hugging_face(tmp_path / "named", frames(kind)), "auto")
    assert_same(named, wrench)
    assert named.labeling_functions == FUNCTIONS
    hugging_face = pytest.importorskip("datasets")

    label = hugging_face.ClassLabel(names=list(CLASSES))
    numbered = write_hugging_face(tmp_path / "numbered", frames(kind, named=False), label)
    assert_same(datasets.load(numbered, "auto"), wrench)


def test_a_class_label_orders_the_classes(tmp_path):
    """By name alone, ham would come before spam."""
    hugging_face = pytest.importorskip("datasets")

    label = hugging_face.ClassLabel(names=["spam", "ham", "other"])
    name = write_hugging_face(tmp_path / "set", frames(named=False), label)
    data = datasets.load(name, "auto")
    assert data.classes == ("spam", "ham", "other")
    assert data.test.labels_N.tolist() == [0]
    assert data.train.votes_NK.tolist() == [[1, 0], [-1, -1], [1, 0]]


def test_one_hugging_face_table_with_a_split_column_and_lists(tmp_path):
    hugging_face = pytest.importorskip("datasets")
    rows = [
        {"split": split, "label": label, "weak_labels": votes, "feature": features}
        for split, group in ROWS.items()
        for _, features, votes, label in group
    ]
    hugging_face.Dataset.from_list(rows).save_to_disk(tmp_path / "set")
    data = datasets.load(f"hf:{tmp_path / 'set'}", "auto")
    expected = datasets.load(write_wrench(tmp_path / "wrench", "features"), "auto")
    assert_same(data, datasets.WeakData(("0", "1"), expected.train, expected.valid, expected.test))
    assert data.labeling_functions == ("0", "1")


def test_names_on_the_hub():
    assert hub_arguments("a/b") == {"path": "a/b", "name": None, "revision": None}
    assert hub_arguments("a/b:c@d1") == {"path": "a/b", "name": "c", "revision": "d1"}
    assert datasets.data_digests("hf:a/b@d1", "tfidf") == {
        "dataset": "hub:a/b@d1",
        "features": "tfidf",
    }


def test_lists_in_parquet_files(tmp_path):
    wrench = datasets.load(write_wrench(tmp_path / "wrench", "features"), "auto")
    for split, rows in ROWS.items():
        pd.DataFrame(
            {
                "features": [row[1] for row in rows],
                "weak_labels": [[None if v < 0 else CLASSES[v] for v in row[2]] for row in rows],
                "label": pd.Categorical([None if r[3] < 0 else CLASSES[r[3]] for r in rows]),
            }
        ).to_parquet(tmp_path / f"{split}.parquet")
    assert_same(datasets.load(str(tmp_path), "auto"), wrench)


def test_numbers_with_gaps_and_mixed_spellings_are_the_same_classes(tmp_path):
    """Tools write whole numbers beside missing ones as 1.0; people write -1, or nothing."""
    head = "label,vote_a,vote_b,feature_x\n"
    for split in md.data.SPLITS:
        (tmp_path / f"{split}.csv").write_text(head + "1.0,1,,5\n0,-1,0.0,1e2\n")
    data = datasets.load(str(tmp_path), "auto")
    assert data.classes == ("0", "1")
    assert data.train.labels_N.tolist() == [1, 0]
    assert data.train.votes_NK.tolist() == [[1, -1], [-1, 0]]
    assert data.train.features_ND.tolist() == [[5.0], [100.0]]


def test_names_may_be_mixed_with_minus_one_and_numbers(tmp_path):
    lines = [
        {"label": "spam", "vote_a": "ham", "vote_b": -1, "text": "one two"},
        {"label": "ham", "vote_a": -1, "vote_b": 1, "text": "two three"},
        {"label": "ham", "vote_b": 0, "text": "three one"},
    ]
    for split in md.data.SPLITS:
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    data = datasets.load(str(tmp_path), "auto")
    assert data.classes == CLASSES
    assert data.train.labels_N.tolist() == [1, 0, 0]
    assert data.train.votes_NK.tolist() == [[0, -1], [-1, 1], [-1, 0]]


@pytest.mark.parametrize("suffix", WRITERS)
def test_truth_values_are_classes(tmp_path, suffix):
    frame = pd.DataFrame({"label": [True, False], "vote_a": [False, None], "feature_x": [1, 2]})
    folder = write_tables(tmp_path / "set", suffix, dict.fromkeys(md.data.SPLITS, frame))
    data = datasets.load(folder, "auto")
    assert data.classes == ("False", "True")
    assert data.train.labels_N.tolist() == [1, 0]
    assert data.train.votes_NK.tolist() == [[0], [-1]]


def test_texts_and_features_may_stand_side_by_side(tmp_path):
    made = frames("text")
    for split, frame in frames("features").items():
        made[split][["feature_0", "feature_1"]] = frame[["feature_0", "feature_1"]]
    folder = write_tables(tmp_path / "set", ".csv", made)
    given = datasets.load(folder, "auto").train.features_ND
    assert given.tolist() == np.float32([row[1] for row in ROWS["train"]]).tolist()
    text = datasets.load(folder, "tfidf").train.features_ND
    other = datasets.load(write_wrench(tmp_path / "wrench", "text"), "tfidf").train.features_ND
    np.testing.assert_array_equal(text, other)


def test_columns_may_come_in_another_order_in_each_file(tmp_path):
    made = frames("features")
    folder = write_tables(tmp_path / "one", ".csv", made)
    made["valid"] = made["valid"][made["valid"].columns[::-1]]
    other = write_tables(tmp_path / "two", ".csv", made)
    assert_same(datasets.load(other, "auto"), datasets.load(folder, "auto"))


def test_digests_follow_contents_and_features_lie_beside_the_file(tmp_path):
    one = write_one_table(tmp_path / "one.csv", frames())
    arrays = {split: np.full((len(rows), 2), 7.0) for split, rows in ROWS.items()}
    np.savez(tmp_path / "f.npz", **arrays)
    assert datasets.load(one, "f.npz").test.features_ND.tolist() == [[7.0, 7.0]]
    before = datasets.data_digests(one, "auto")
    (tmp_path / "moved").mkdir()
    moved = write_one_table(tmp_path / "moved" / "one.csv", frames())
    assert datasets.data_digests(moved, "auto") == before
    changed = frames()
    changed["train"].loc[1, "label"] = "ham"
    assert datasets.data_digests(write_one_table(tmp_path / "one.csv", changed), "auto") != before
    assert datasets.load(one, "auto").train.labels_N.tolist() == [1, 0, 0]
    name = write_hugging_face(tmp_path / "set", frames())
    assert datasets.data_digests(name, "auto") == datasets.data_digests(name, "auto")
    other = write_hugging_face(tmp_path / "other", changed)
    assert datasets.data_digests(name, "auto") != datasets.data_digests(other, "auto")


def test_names_of_tables_under_the_data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MODICUM_DATA", str(tmp_path))
    write_one_table(tmp_path / "mine.csv", frames())
    (tmp_path / "wrench").mkdir()
    write_tables(tmp_path / "wrench" / "mine", ".jsonl", frames())
    assert_same(datasets.load("mine.csv", "auto"), datasets.load("mine", "auto"))
    with pytest.raises(md.InputError, match=r"no 'yours.csv'.*there: mine.csv"):
        datasets.load("yours.csv", "auto")


def test_the_embedded_set_is_read_like_the_others():
    data = datasets.load("breast_cancer", "auto")
    assert data.labeling_functions[0] == "mean texture"
    rows = datasets.read_rows("breast_cancer")
    assert (rows.classes, rows.labeling_functions) == (data.classes, data.labeling_functions)
    assert len(rows.labeling_functions) == rows.splits["test"].votes_NK.shape[1]
    np.testing.assert_array_equal(rows.splits["valid"].features_ND, data.valid.features_ND)


def test_rows_are_read_without_making_features(tmp_path):
    rows = datasets.read_rows(write_tables(tmp_path / "set", ".csv", frames()))
    assert rows.splits["train"].texts == [row[0] for row in ROWS["train"]]
    assert rows.splits["train"].features_ND is None


def changed(split, column, row, value):
    def change(made):
        frame = made[split]
        frame[column] = frame[column].astype(object)
        frame.loc[row, column] = value
        return made

    return change


def without(column, *splits):
    def change(made):
        for split in splits or made:
            made[split] = made[split].drop(columns=column)
        return made

    return change


def extra(split, **columns):
    def change(made):
        made[split] = made[split].assign(**columns)
        return made

    return change


def emptied(split):
    def change(made):
        made[split] = made[split].iloc[:0]
        return made

    return change


def one_class(made):
    return {
        split: frame.assign(label="ham", vote_free=None, vote_long=None)
        for split, frame in made.items()
    }


WRONG = {
    "vote outside the classes": (
        "text",
        changed("train", "vote_free", 2, "eggs"),
        r"train, row 2: vote_free 'eggs' is outside the classes \(by name: ham, spam; by number: "
        r"0 to 1",
    ),
    "vote number too large": (
        "text",
        changed("valid", "vote_long", 0, 2),
        "valid, row 0: vote_long",
    ),
    "vote below -1": ("text", changed("test", "vote_long", 0, -2), "test, row 0: vote_long"),
    "fractional vote": ("text", changed("test", "vote_long", 0, 0.5), "test, row 0: vote_long"),
    "no label column": ("text", without("label"), "train: label column is missing .there: id, "),
    "no label column in test": ("text", without("label", "test"), "test: label column is missing"),
    "no votes": ("text", without(["vote_free", "vote_long"]), r"train: vote_\* columns.* missing"),
    "votes missing in valid": (
        "text",
        without("vote_long", "valid"),
        r"valid: vote_\* columns must be those of train.*vote_long",
    ),
    "another vote in test": (
        "text",
        extra("test", vote_new=0),
        r"test: vote_\* columns must be those of train.*vote_new",
    ),
    "neither text nor features": ("text", without("text"), "train: text column, .* are missing"),
    "text in two of three": ("text", without("text", "test"), "test: text column"),
    "a feature missing in test": (
        "features",
        without("feature_1", "test"),
        r"test: feature_\* columns must be those of train.*feature_1",
    ),
    "NaN": (
        "features",
        changed("valid", "feature_1", 1, "nan"),
        "valid, row 1: feature_1 must hold finite numbers, got 'nan'",
    ),
    "infinity": ("features", changed("train", "feature_0", 2, "-inf"), "train, row 2: feature_0"),
    "too large for a feature": ("features", changed("train", "feature_0", 0, "1e300"), "feature_0"),
    "a word as a feature": ("features", changed("train", "feature_0", 0, "x"), "row 0: feature_0"),
    "no feature": ("features", changed("train", "feature_0", 1, None), "train, row 1: feature_0"),
    "test label unknown": (
        "text",
        changed("test", "label", 0, None),
        "every row of test needs a label, row 0 has none",
    ),
    "fractional label": (
        "text",
        changed("train", "label", 1, 0.5),
        "train, row 1: label '0.5' is neither a class name nor a whole number",
    ),
    "one class": ("text", one_class, "names 1 class; two are needed"),
    "empty split": ("text", emptied("valid"), "the split valid holds no rows"),
}


@pytest.mark.parametrize(("kind", "change", "message"), WRONG.values(), ids=WRONG.keys())
def test_wrong_tables(tmp_path, kind, change, message):
    folder = write_tables(tmp_path / "set", ".csv", change(frames(kind)))
    with pytest.raises(md.InputError, match=message) as raised:
        datasets.load(folder, "auto")
    assert str(raised.value).startswith(f"dataset: {folder}")
    assert "\n" not in str(raised.value)


GOOD = "label,vote_a,feature_x\n0,1,2\n1,0,3\n"
FILES = {
    "missing split": ({"train.csv": GOOD, "test.csv": GOOD}, "valid missing .there: train, test"),
    "split in two files": (
        {f"{s}.csv": GOOD for s in ("train", "valid", "validation", "test")},
        "valid stands in two files",
    ),
    "split in two formats": (
        {"train.csv": GOOD, "train.jsonl": "{}", "valid.csv": GOOD, "test.csv": GOOD},
        "train stands in two files",
    ),
    "too few values": ({"train.csv": GOOD + "0,1\n"}, "train.csv is not readable csv .*got 2"),
    "too many values": ({"train.csv": GOOD + "0,1,2,3\n"}, "train.csv is not readable csv .*got 4"),
    "empty file": ({"train.csv": ""}, "train.csv is not readable csv .*empty"),
    "double column": (
        {"train.csv": "label,vote_a,vote_a,text\n0,1,1,x\n"},
        "'vote_a' stands twice",
    ),
    "not UTF-8": ({"train.csv": b"label,vote_a,text\n0,1,\xff\xfe\n"}, "train.csv is not readable"),
    "broken JSON": ({"train.jsonl": '{"label": 0}\n{"la'}, "train.jsonl is not .* .line 2"),
    "a list in JSONL": ({"train.jsonl": "[1]\n"}, "line 1: expected an object"),
    "not parquet": ({"train.parquet": b"PAR"}, "train.parquet is not readable parquet"),
    "numbers with a gap": (
        {f"{s}.csv": "label,vote_a,feature_x\n0,0,1\n3,0,1\n" for s in md.data.SPLITS},
        "label numbers must be 0, 1, .* got 0, 3",
    ),
    "numbers from 1": (
        {f"{s}.csv": "label,vote_a,feature_x\n1,1,1\n2,1,1\n" for s in md.data.SPLITS},
        "label numbers must be 0, 1, .* got 1, 2",
    ),
    "nothing there": ({"readme.txt": "x"}, "neither label.json .* nor train, valid and test"),
}


@pytest.mark.parametrize(("files", "message"), FILES.values(), ids=FILES.keys())
def test_wrong_files(tmp_path, files, message):
    present = {name.split(".")[0] for name in files}
    for split in md.data.SPLITS:
        if present == {"train"} and split != "train":
            (tmp_path / f"{split}.csv").write_text(GOOD)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(md.InputError, match=message) as raised:
        datasets.load(str(tmp_path), "auto")
    assert "\n" not in str(raised.value)


def rows(**columns):
    """Two good rows of a JSONL file, with columns changed or (`...`) left out."""
    good = {"label": [0, 1], "vote_a": [1, 0], "text": ["one two", "two one"]}
    merged = {k: v for k, v in (good | columns).items() if v is not ...}
    return [dict(zip(merged, values, strict=True)) for values in zip(*merged.values(), strict=True)]


LISTS = {
    "ragged votes": (rows(vote_a=..., weak_labels=[[0, 1], [0]]), "row 1: weak_labels .* 2 as in"),
    "no votes in the lists": (rows(vote_a=..., weak_labels=[[], []]), "weak_labels must be lists"),
    "votes without a list": (rows(vote_a=..., weak_labels=[1, 0]), "weak_labels must hold a list"),
    "missing list": (rows(vote_a=..., weak_labels=[[0], None]), "row 1: weak_labels must be lists"),
    "vote outside": (
        rows(vote_a=..., weak_labels=[[0, 1], [1, 2]]),
        "row 1: weak_labels 2 is outs",
    ),
    "votes twice": (rows(weak_labels=[[0], [1]]), "votes stand in .* not in both"),
    "lists as one vote": (rows(vote_a=[[0], [1]]), "vote_a must hold class names or numbers"),
    "ragged features": (
        rows(text=..., feature=[[1.0], [1.0, 2.0]]),
        "row 1: feature must be lists",
    ),
    "NaN in features": (
        rows(text=..., features=[[1.0, 2.0], [1.0, float("nan")]]),
        "row 1: features must hold finite",
    ),
    "null in features": (
        rows(text=..., features=[[1.0, 2.0], [None, 1.0]]),
        "row 1: features must hold finite numbers, got None",
    ),
    "features twice": (rows(feature=[[1.0], [1.0]], feature_x=[1, 2]), "features stand in one of"),
    "nested features": (
        rows(text=..., feature=[[[1.0]], [[1.0]]]),
        "feature must hold finite numbers",
    ),
    "no text": (rows(text=["one", None]), "row 1: text must be given in every row"),
    "numbers as text": (rows(text=[1, 2]), "text must hold texts, not int64"),
}


@pytest.mark.parametrize(("lines", "message"), LISTS.values(), ids=LISTS.keys())
def test_wrong_lists_and_types(tmp_path, lines, message):
    for split in md.data.SPLITS:
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(md.InputError, match=message) as raised:
        datasets.load(str(tmp_path), "auto")
    assert str(raised.value).startswith(f"dataset: {tmp_path}, train")


def test_lists_that_differ_in_width_between_splits(tmp_path):
    for split in md.data.SPLITS:
        votes = [[0, 1], [1, 0]] if split != "test" else [[0], [1]]
        lines = rows(vote_a=..., weak_labels=votes)
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(md.InputError, match=r"splits differ in labeling functions: .*'test': 1"):
        datasets.load(str(tmp_path), "auto")
    for split in md.data.SPLITS:
        features = [[0.5], [1]] if split != "test" else [[0.5, 1], [1, 1]]
        lines = rows(text=..., feature=features)
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(md.InputError, match=r"differ in the number of features: .*'test': 2"):
        datasets.load(str(tmp_path), "auto")


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (None, "a single table needs a column split"),
        (["train", "valid", "tset"], "row 2: split must be train, valid .* got 'tset'"),
        (["train", "valid", None], "row 2: split must be .* got ''"),
        (["train", "train", "test"], "valid missing .there: train, test"),
    ],
)
def test_wrong_split_columns(tmp_path, split, message):
    frame = pd.DataFrame({"label": [0, 1, 0], "vote_a": [0, 1, 0], "feature_x": [1, 2, 3]})
    frame = frame if split is None else frame.assign(split=split)
    frame.to_csv(tmp_path / "mine.csv", index=False)
    with pytest.raises(md.InputError, match=message):
        datasets.load(str(tmp_path / "mine.csv"), "auto")


def test_wrong_hugging_face_names(tmp_path, monkeypatch):
    hugging_face = pytest.importorskip("datasets")
    for name, message in {
        "hf:": "dataset: hf: needs a name",
        "hf:./nowhere": "dataset: no folder at './nowhere'",
        f"hf:{tmp_path}": "was not written by save_to_disk",
    }.items():
        with pytest.raises(md.InputError, match=message):
            datasets.data_digests(name, "auto")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    with pytest.raises(md.InputError, match=r"dataset: hf:.*broken cannot be loaded"):
        datasets.load(f"hf:{tmp_path / 'broken'}", "auto")
    made = frames()
    del made["valid"]
    with pytest.raises(md.InputError, match=r"valid missing .there: train, test"):
        datasets.load(write_hugging_face(tmp_path / "two", made), "auto")
    made = frames(named=False)
    name = write_hugging_face(
        tmp_path / "label", made, hugging_face.ClassLabel(names=list(CLASSES))
    )
    loaded = hugging_face.load_from_disk(name.removeprefix("hf:"))
    other = hugging_face.ClassLabel(names=["spam", "ham"])
    loaded.cast_column("vote_free", other).save_to_disk(tmp_path / "votes")
    with pytest.raises(md.InputError, match=r"vote_free numbers the classes .* same ClassLabel"):
        datasets.load(f"hf:{tmp_path / 'votes'}", "auto")


def test_features_that_need_texts(tmp_path):
    folder = write_tables(tmp_path / "set", ".csv", frames("features"))
    with pytest.raises(md.InputError, match="features: 'tfidf' needs texts"):
        datasets.load(folder, "tfidf")


def test_vectorised_reading_against_a_loop_on_many_chunks():
    """Arrow tables come in chunks with dictionaries of their own."""
    import pyarrow as pa

    generator = np.random.default_rng(3)
    names = ["a", "b", "c"]
    tokens = [None, "a", "b", "c", "0", "2", "-1", " b "]
    meaning = {None: -1, "a": 0, "b": 1, "c": 2, "0": 0, "2": 2, "-1": -1, " b ": 1}
    votes = generator.choice(np.array(tokens, dtype=object), (90, 4))
    values = generator.normal(size=(90, 3))

    def chunked(column):
        column = list(column)
        return pa.chunked_array([pa.array(column[:7]), pa.array(column[7:40]), column[40:]])

    table = pa.table(
        {
            "label": chunked(generator.choice(names, 90)),
            "weak_labels": chunked(votes.tolist()),
            "feature": chunked(values.tolist()),
        }
    )
    wide = pa.table(
        {"label": table["label"], "feature": table["feature"]}
        | {f"vote_{k}": chunked(votes[:, k]) for k in range(4)}
    )
    expected = [[meaning[token] for token in row] for row in votes.tolist()]
    for form in (table, wide, wide.slice(11), table.slice(11)):
        rows_read = read_columns(dict.fromkeys(md.data.SPLITS, form), "here").splits["train"]
        assert rows_read.votes_NK.tolist() == expected[-len(form) :]
        assert rows_read.features_ND.tolist() == values.astype(np.float32)[-len(form) :].tolist()
        labels = table["label"].to_pylist()[-len(form) :]
        assert rows_read.labels_N.tolist() == [names.index(label) for label in labels]
