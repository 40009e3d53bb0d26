"""The command `modicum note`."""

from __future__ import annotations

from typing import Annotated

import typer

from modicum.errors import InputError


def note(
    folder: Annotated[str, typer.Argument(help="Run folder or URI.", show_default=False)],
    text: Annotated[
        str | None, typer.Argument(help="Text of the note; left as it is if left out.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Add a tag. Repeatable.")] = None,
    untag: Annotated[list[str] | None, typer.Option(help="Remove a tag. Repeatable.")] = None,
) -> None:
    """Write a note and tags about a run, which `modicum dashboard` shows and finds; print them."""
    from modicum.run_folder.note_file import read_note, write_note
    from modicum.run_folder.plan_file import PLAN
    from modicum.storage import StorageFolder

    storage = StorageFolder(folder)
    if not storage.exists(PLAN):
        raise InputError(f"{folder}: no run here (there is no {PLAN})")
    found = read_note(storage)
    absent = [name for name in untag or [] if name not in found.tags]
    if absent:
        raise InputError(f"--untag: the run has no tag {absent[0]!r}")
    if text is not None or tag or untag:
        kept = [name for name in found.tags if name not in (untag or [])]
        tags = list(dict.fromkeys([*kept, *(tag or [])]))
        found = write_note(storage, tags, found.text if text is None else text)
    print(f"tags: {' '.join(found.tags) or 'none'}")
    print(f"note: {found.text or 'none'}")
