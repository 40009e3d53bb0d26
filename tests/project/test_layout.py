"""Rules of the repository that nothing else would notice broken."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT


def test_no_package_file_directly_in_the_source_roots():
    """platform/__init__.py would shadow Python's own module for anything started here."""
    assert not (ROOT / "platform" / "__init__.py").exists()
    assert not (ROOT / "algorithms" / "__init__.py").exists()
    done = subprocess.run(
        [sys.executable, "-c", "import platform; print(platform.python_version())"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == ".".join(map(str, sys.version_info[:3]))


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        ("import modicum", {"ray", "torch", "pandas", "scipy", "sklearn", "matplotlib", "numpy"}),
        ("import modicum.cli.main", {"ray", "torch", "pandas", "scipy", "sklearn", "matplotlib"}),
        ("import modicum.oracles", {"ray", "torch", "transformers", "openai", "sklearn", "numpy"}),
        (
            "from modicum.oracles import *",
            {"ray", "torch", "transformers", "openai", "sklearn", "vaderSentiment"},
        ),
        (
            "import modicum_algorithms.weak.experiment",
            {"ray", "torch", "transformers", "sklearn", "pandas"},
        ),
        (
            "import modicum_algorithms.vae.cli",
            {"ray", "torch", "numpy", "constriction", "PIL", "pandas"},
        ),
    ],
)
def test_heavy_packages_are_imported_where_they_are_used(statement, heavy):
    code = f"{statement}; import sys; print(' '.join({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_constraints_hold_names_and_versions_only():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert all(re.fullmatch(r"#.*|[a-z0-9-]+==[A-Za-z0-9.]+", line) for line in lines)
    assert "torch==2.13.0" in lines


def test_every_study_file_says_what_it_is_and_how_to_run_it():
    files = [
        path for path in (ROOT / "tune_configs").rglob("*.yaml") if ".reference" not in path.name
    ]
    assert files
    for path in files:
        head = [line for line in path.read_text().splitlines() if line.startswith("#")]
        text = "\n".join(head)
        assert "What it is" in text, path
        assert "Takes" in text, path
        assert f"modicum run {Path(path).relative_to(ROOT)}" in text, path
