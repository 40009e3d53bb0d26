"""Openings that the rule for prose in CONTRIBUTING.md excludes, in docstrings and settings."""

import ast
import re
from collections.abc import Iterator

import pytest

from conftest import ROOT

# Words that open a sentence about something that the reader has not been told.
NO_OPENING = (
    "How It Its Of Such So That Their Them These They This Those What When Where Which Who Why"
)
SUMMARY = re.compile(rf"({'|'.join([*NO_OPENING.split(), 'As', 'Whether'])})\b")
TEXT = re.compile(rf"({'|'.join([*NO_OPENING.split(), 'As in', 'As of'])})\b")
ITEM = re.compile(r"    \*{0,2}\w[\w, *]*: (.*)")
SECTION = re.compile(r"(Args|Attributes):")
FILES = [
    path
    for source in (ROOT / "platform" / "modicum", ROOT / "algorithms" / "modicum_algorithms")
    for path in sorted(source.rglob("*.py"))
]


def offences(source: str) -> Iterator[str]:
    """Summaries, texts of arguments and attributes, and settings that open with such a word."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _in_docstring(ast.get_docstring(node) or "")
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "setting":
            for keyword in node.keywords:
                text = getattr(keyword.value, "value", None)
                if keyword.arg == "description" and isinstance(text, str) and SUMMARY.match(text):
                    yield text


def _in_docstring(text: str) -> Iterator[str]:
    summary, *rest = text.splitlines() or [""]
    if SUMMARY.match(summary):
        yield summary
    listed = False
    for line in rest:
        if line and not line.startswith(" "):
            listed = SECTION.fullmatch(line) is not None
        item = ITEM.fullmatch(line)
        if listed and item is not None and TEXT.match(item[1]):
            yield line.strip()


def test_the_rule_finds_what_it_should():
    found = offences('''
"""What a module does."""
def f(rate, size):
    """Whether it works.

    Args:
        rate: Of the optimiser.
        size: Rows in a mini-batch. So many.
    """
x = md.setting(1, description="How many there are.")
y = md.setting(1, description="Number of rows. Whether that is much does not matter.")
''')
    assert sorted(found) == [
        "How many there are.",
        "What a module does.",
        "Whether it works.",
        "rate: Of the optimiser.",
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_docstrings_and_settings_open_with_a_noun_or_a_verb(path):
    assert list(offences(path.read_text())) == []
