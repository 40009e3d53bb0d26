"""A page for each family with its study files: what they are, how they are run, and their YAML."""

from __future__ import annotations

import re
from pathlib import Path

FAMILIES = {
    "weak": "weak supervision",
    "vae": "amortized inference",
    "solipsistic": "solipsistic learning",
    "preference": "active preference learning",
}
_PAGE = re.compile(r"docs/([\w/]+\.md)")
_FIELD = re.compile(r"^# (?=[A-Z][\w ]*: )", flags=re.MULTILINE)


def study_pages(root: Path) -> dict[str, str]:
    """Pages by address.

    Args:
        root: Folder of the repository.
    """
    configs = root / "tune_configs"
    pages = {}
    for family, title in FAMILIES.items():
        paths = sorted((configs / family).glob("*.yaml"), key=lambda path: path.stem)
        if family == "weak":
            paths = [configs / "quickstart.yaml", *paths]
        sections = [_section(path, path.relative_to(root).as_posix()) for path in paths]
        pages[f"study_files/{family}.md"] = (
            f"# Studies of {title}\n\nEvery study that comes with Modicum, as the file has it "
            "([what the fields mean](../studies.md)).\n\n" + "\n".join(sections)
        )
    return pages


def _section(path: Path, shown: str) -> str:
    comments, body = split_header(path.read_text())
    fields = [_field(text) for text in _FIELD.split(comments) if text.strip()]
    name = path.name.removesuffix(".yaml")
    return f"""## {name} {{ #{name} }}

{"".join(fields)}
??? abstract "`{shown}`"

    ```yaml
{_indented(body)}
    ```
"""


def split_header(text: str) -> tuple[str, str]:
    """The comments at the top of a study file, and the rest."""
    lines = text.splitlines(keepends=True)
    first = next(i for i, line in enumerate([*lines, ""]) if not line.startswith("#"))
    return "".join(lines[:first]), "".join(lines[first:])


def _field(text: str) -> str:
    """`What it is: …` as a paragraph; what is to be typed as a block."""
    joined = " ".join(line.lstrip("# ").rstrip() for line in text.splitlines())
    name, sign, value = _PAGE.sub(r"[\g<0>](../\1)", joined).partition(": ")
    if name == "Run":
        return f"```sh\n{value}\n```\n\n"
    return f"**{name}**: {value}\n\n" if sign else f"{joined}\n\n"


def _indented(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.rstrip().splitlines())
