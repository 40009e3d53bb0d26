"""Packages that the codec needs and the rest of the family does not."""

from __future__ import annotations

import importlib

import modicum as md


def require_constriction(user: str) -> None:
    """Check that the entropy coder is there.

    Args:
        user: What needs it, for the message.

    Raises:
        InputError: It is not installed.
    """
    try:
        importlib.import_module("constriction")
    except ModuleNotFoundError as error:
        raise md.InputError(
            f"{user} needs the package 'constriction', which is not installed; the extra 'vae' "
            "brings it: pip install 'modicum[vae]'"
        ) from error
