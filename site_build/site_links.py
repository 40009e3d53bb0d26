"""Links as they stand in the repository, and where they lead in the site.

Pages are written so that their links work where the repository is browsed. In the site, files
outside `docs` have pages of their own, made at build time; a file without one is named, not linked.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath

COPIED = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changes.md"}
_LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]*)\]\((?P<path>[^)#:\s]+)(?P<anchor>#[^)\s]*)?\)")
_DESCRIBE = re.compile(r"(?<!\[)`modicum describe (\w+)`")
_STUDY = re.compile(r"(?<!\[)`(tune_configs/[\w/.]+\.yaml)`")
_FENCE = re.compile(r"^(`{3,}).*?^\1`*$", flags=re.DOTALL | re.MULTILINE)
_TITLES = ("#", "???")
_SOURCES = ("platform/", "algorithms/", "tests/")


def copied_pages(root: Path) -> dict[str, str]:
    """The root's own pages, by their address in the site."""
    return {uri: (root / name).read_text() for name, uri in COPIED.items()}


def place_of(uri: str) -> str:
    """The file of the repository that a page of the site shows: its links start from there."""
    for name, copied in COPIED.items():
        if uri == copied:
            return name
    if uri.startswith("notebooks/"):
        return str(PurePosixPath(uri).with_suffix(".ipynb"))
    return f"docs/{uri}"


def page_of(path: str) -> str | None:
    """The page, with its anchor, that shows a file of the repository; None if there is none."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path == "README.md":
        return "index.md"
    if path in COPIED:
        return COPIED[path]
    if path.startswith("notebooks/"):
        return str(PurePosixPath(path).with_suffix(".md"))
    if path.startswith("tune_configs/") and path.endswith(".yaml"):
        name = PurePosixPath(path)
        family = name.parent.name if len(name.parts) > 2 else "weak"
        return f"study_files/{family}.md#{name.name.removesuffix('.yaml')}"
    if path.startswith(_SOURCES) and path.endswith(".py"):
        return f"source/{path.removesuffix('.py')}.md"
    return None


def turned(markdown: str, uri: str) -> str:
    """A page's text with its links to files of the repository leading to pages of the site.

    A study file or a `modicum describe` that is named in prose leads to its page, too.

    Args:
        markdown: The text.
        uri: The page's own address in the site.
    """
    here, there = posixpath.dirname(place_of(uri)), posixpath.dirname(uri)

    def study(named: re.Match[str]) -> str:
        return f"[{named.group()}]({posixpath.relpath(named[1], here or '.')})"

    def description(named: re.Match[str]) -> str:
        return f"[{named.group()}]({posixpath.relpath(f'options/{named[1]}.md', there or '.')})"

    def turn(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(here, link["path"]))
        page, _, own_anchor = (page_of(path) or "").partition("#")
        if not page:
            return link["text"]
        anchor = link["anchor"] or (f"#{own_anchor}" if own_anchor else "")
        return f"[{link['text']}]({posixpath.relpath(page, there or '.')}{anchor})"

    def part(text: str) -> str:
        if text.startswith(_TITLES):
            return text
        return _DESCRIBE.sub(description, _LINK.sub(turn, _STUDY.sub(study, text)))

    # Links may break over two lines, titles may not.
    return _outside_fences(
        markdown,
        lambda text: "".join(map(part, re.split(r"^((?:#+|\?{3}) .*\n)", text, flags=re.M))),
    )


def linked_sources(texts: Mapping[str, str]) -> list[str]:
    """Python files of the repository that pages link to.

    Args:
        texts: Text of the pages by address.
    """
    found = set()
    for uri, text in texts.items():
        for path in links(text):
            target = posixpath.normpath(posixpath.join("docs", posixpath.dirname(uri), path))
            if target.startswith(_SOURCES) and target.endswith(".py"):
                found.add(target)
    return sorted(found)


def links(markdown: str) -> Iterable[str]:
    """Paths that a text links to, without their anchors; those in code are none."""
    return [link["path"] for link in _LINK.finditer(_FENCE.sub("", markdown))]


def _outside_fences(markdown: str, change: Callable[[str], str]) -> str:
    parts, end = [], 0
    for fence in _FENCE.finditer(markdown):
        parts += [change(markdown[end : fence.start()]), fence.group()]
        end = fence.end()
    return "".join([*parts, change(markdown[end:])])
