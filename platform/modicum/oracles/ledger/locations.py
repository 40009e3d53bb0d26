"""Default locations of ledger files."""

from __future__ import annotations

import os
import re
from pathlib import Path

from modicum.oracles.protocol import digest

LEDGERS_VARIABLE = "MODICUM_LEDGERS"


def ledgers_folder() -> Path:
    """The folder of ledgers: `MODICUM_LEDGERS`, or `~/.local/share/modicum/ledgers`."""
    named = os.environ.get(LEDGERS_VARIABLE)
    if named:
        return Path(named).expanduser().absolute()
    return Path.home() / ".local" / "share" / "modicum" / "ledgers"


def default_ledger(owner: str, prefix: str = "") -> Path:
    """The ledger file of an owner who names none; different owners have different files."""
    words = re.sub(r"[^A-Za-z0-9]+", "-", owner).strip("-")[:60]
    return ledgers_folder() / f"{prefix}{words}-{digest(owner)[:8]}.sqlite"
