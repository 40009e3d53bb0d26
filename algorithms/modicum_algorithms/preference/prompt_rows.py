"""Where a data set, or a file of one's own, has its prompts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PromptRows:
    """Where a data set, or a file of one's own, has its prompts.

    Attributes:
        split: The data set's split; all of them if None. A file has none.
        column: The column with the prompts.
    """

    split: str | None = None
    column: str = "prompt"
