"""Files and folders that appear whole or not at all."""

import pytest

import modicum as md
from modicum.atomic_files import whole_file, whole_folder


def _write_and_fail(file):
    file.write(b"two")
    file.flush()
    raise KeyError


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "a"
    with pytest.raises(KeyError), whole_file(path, "--out", overwrite=False) as file:
        _write_and_fail(file)
    assert list(tmp_path.iterdir()) == []
    with whole_file(path, "--out", overwrite=False) as file:
        file.write(b"one")
        assert not path.exists()
    assert path.read_bytes() == b"one"
    with (
        pytest.raises(md.InputError, match="--overwrite replaces it"),
        whole_file(path, "--out", overwrite=False),
    ):
        pass
    with pytest.raises(KeyError), whole_file(path, "--out", overwrite=True) as file:
        _write_and_fail(file)
    assert path.read_bytes() == b"one"
    with whole_file(path, "--out", overwrite=True) as file:
        file.write(b"two")
    assert path.read_bytes() == b"two"
    with pytest.raises(md.InputError, match="is a folder"), whole_file(tmp_path, "--out", True):
        pass
    with (
        pytest.raises(md.InputError, match="cannot be written"),
        whole_file(path / "b", "-o", True),
    ):
        pass
    assert [p.name for p in path.parent.iterdir()] == ["a"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "a"
    for _ in range(2):
        with whole_folder(path, "--out") as folder:
            (folder / "x").write_text("x")
            assert not (path / "x").exists()
        assert (path / "x").read_text() == "x"
        # Once more, over an empty folder.
        (path / "x").unlink()
    with (
        pytest.raises(KeyError),
        whole_folder(path, "--out") as folder,
        (folder / "x").open("wb") as file,
    ):
        _write_and_fail(file)
    assert list(path.iterdir()) == []
    (path / "y").write_text("y")
    with pytest.raises(md.InputError, match="is not empty"), whole_folder(path, "--out"):
        pass
    deeper = tmp_path / "b" / "c" / "d"
    with (
        pytest.raises(KeyError),
        whole_folder(deeper, "--out") as folder,
        (folder / "x").open("wb"),
    ):
        raise KeyError
    assert [p.name for p in tmp_path.iterdir()] == ["deep"]
    with pytest.raises(md.InputError, match="is a file"), whole_folder(path / "y", "--out"):
        pass
    with pytest.raises(md.InputError, match="cannot be written"), whole_folder(path / "y/z", "-o"):
        pass
    assert [p.name for p in path.parent.iterdir()] == ["a"]
