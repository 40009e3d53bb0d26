"""Tags and notes that a user adds to a run, in the run folder's `note.json`."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, ValidationError

from modicum.errors import from_validation
from modicum.storage import StorageFolder

NOTE = "note.json"


def _words(tags: list[str]) -> list[str]:
    for tag in tags:
        if not re.fullmatch(r"[^\s,]{1,40}", tag):
            raise ValueError(f"expected words of at most 40 characters, got {tag!r}")
    return tags


class Note(BaseModel):
    """Tags and text about a run, which are no part of any trial's identity.

    Attributes:
        tags: Words to find the run by.
        text: A note about the run.
    """

    model_config = ConfigDict(extra="ignore")

    tags: Annotated[list[str], AfterValidator(_words)] = []
    text: Annotated[str, StringConstraints(max_length=2000)] = ""


def read_note(folder: StorageFolder) -> Note:
    """Tags and notes of a run; none without a readable file."""
    try:
        return Note.model_validate_json(folder.read_bytes(NOTE))
    except (OSError, ValidationError):
        return Note()


def write_note(folder: StorageFolder, tags: list[str], text: str) -> Note:
    """Write tags and notes of a run.

    Raises:
        InputError: A tag has spaces or commas, or something is too long.
        StorageError: The folder cannot be written.
    """
    try:
        note = Note(tags=tags, text=text)
    except ValidationError as error:
        raise from_validation(error, Note, "note") from error
    folder.write_json(note.model_dump(), NOTE)
    return note
