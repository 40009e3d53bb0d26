import pytest

import modicum as md
from modicum.storage import StorageFolder
from modicum.yaml_io import parse_yaml


@pytest.mark.parametrize("as_uri", [False, True])
def test_round_trips_on_a_path_and_on_a_uri(tmp_path, as_uri):
    folder = StorageFolder(f"file://{tmp_path}/run" if as_uri else tmp_path / "run")
    assert not folder.exists("a", "b.json")
    assert folder.folders("a") == []
    folder.write_json({"x": [1, 2.5, None]}, "a", "b.json")
    folder.write_text("é", "a", "c", "d.txt")
    assert folder.read_json("a", "b.json") == {"x": [1, 2.5, None]}
    assert folder.read_text("a", "c", "d.txt") == "é"
    assert folder.folders("a") == ["c"]
    assert (tmp_path / "run" / "a" / "b.json").exists()


def test_writes_replace_whole_files_and_leave_nothing_beside(tmp_path):
    folder = StorageFolder(tmp_path)
    for content in ("first, rather long", "second"):
        folder.write_text(content, "f.txt")
    assert (tmp_path / "f.txt").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["f.txt"]


def test_numbers_with_exponents_are_numbers():
    assert parse_yaml("[1e-4, 1.5e3, -2E+2, 1e4x, 0.1]") == [1e-4, 1500.0, -200.0, "1e4x", 0.1]


def test_repeated_keys_are_refused_at_any_depth():
    with pytest.raises(md.InputError, match=r"line 3.*'b' stands twice"):
        parse_yaml("a:\n  b: 1\n  b: 2\n")


def test_anchors_and_merges_still_work():
    assert parse_yaml("x: &x {a: 1, b: 2}\ny: {<<: *x, b: 3}\n")["y"] == {"a": 1, "b": 3}
