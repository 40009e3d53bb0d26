"""A page for each notebook: its cells, and what they printed and drew when they were last run."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat


def notebook_pages(root: Path) -> dict[str, str | bytes]:
    """Pages and their pictures by address.

    Args:
        root: Folder of the repository.
    """
    made: dict[str, str | bytes] = {}
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        parts: list[str] = []
        for number, cell in enumerate(nbformat.read(path, as_version=4).cells):
            if cell.cell_type == "markdown":
                parts.append(cell.source)
                continue
            parts.append(f"````python\n{cell.source}\n````")
            for order, output in enumerate(cell.outputs):
                picture = f"{path.stem}_{number}_{order}.png"
                for text, image in _shown(output, picture):
                    parts.append(text)
                    if image is not None:
                        made[f"notebooks/{picture}"] = image
        made[f"notebooks/{path.stem}.md"] = "\n\n".join(parts) + "\n"
    return made


def _plain_tables(html: str) -> str:
    """Tables of pandas without its own style, so that they look like the site's."""
    html = re.sub(r"<style.*?</style>\s*", "", html, flags=re.DOTALL)
    return re.sub(r"<table[^>]*>", "<table>", html)


def _shown(output: Any, picture: str) -> Iterator[tuple[str, bytes | None]]:
    """One output in the richest form that a page can show."""
    if output.output_type == "stream":
        yield f"````text\n{output.text.rstrip()}\n````", None
        return
    data = output.get("data", {})
    if "image/png" in data:
        image = base64.b64decode(data["image/png"])
        yield f'<div class="notebook-output" markdown>\n![Output]({picture})\n</div>', image
    elif "text/html" in data:
        yield f'<div class="notebook-output">\n{_plain_tables(data["text/html"])}\n</div>', None
    elif "text/markdown" in data:
        yield data["text/markdown"], None
    elif "text/plain" in data:
        yield f"````text\n{data['text/plain']}\n````", None
