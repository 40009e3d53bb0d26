import sys

import pytest


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with a class from one module, and another module, both imported on first use."""
    folder = tmp_path / "lazily"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "import modicum as md\n"
        "__getattr__ = md.lazy_exports(__name__, {'Thing': 'heavy', 'part': 'part'})\n"
    )
    (folder / "heavy.py").write_text("class Thing: pass\n")
    (folder / "part.py").write_text("VALUE = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    import lazily

    yield lazily
    for name in [name for name in sys.modules if name.split(".")[0] == "lazily"]:
        del sys.modules[name]


def test_a_name_is_imported_on_first_use(package):
    assert "lazily.heavy" not in sys.modules
    assert package.Thing is sys.modules["lazily.heavy"].Thing


def test_a_submodule_stands_for_itself(package):
    assert "lazily.part" not in sys.modules
    assert package.part.VALUE == 3


def test_an_unknown_name_is_an_attribute_error(package):
    with pytest.raises(AttributeError, match=r"'lazily' has no attribute 'Other'"):
        _ = package.Other
