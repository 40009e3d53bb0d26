"""A page with the source of each module that the documentation links to."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from site_links import page_of


def source_pages(root: Path, paths: Iterable[str]) -> dict[str, str]:
    """Pages by address; search leaves them out.

    Args:
        root: Folder of the repository.
        paths: Python files, relative to it.
    """
    return {page_of(path) or "": _page(path, (root / path).read_text()) for path in paths}


def _page(path: str, source: str) -> str:
    return f"""---
search:
  exclude: true
---
# {path}

````python
{source.rstrip()}
````
"""
