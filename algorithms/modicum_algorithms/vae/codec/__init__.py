"""Lossless compression with bits back: entropy coder, file format, files of images."""

from __future__ import annotations

import importlib

import modicum as md


def require_constriction(user: str) -> None:
    """Check that the entropy coder's package is installed.

    Args:
        user: Command or setting that needs the package, for the error.

    Raises:
        InputError: The package is not installed.
    """
    try:
        importlib.import_module("constriction")
    except ModuleNotFoundError as error:
        raise md.InputError(
            f"{user} needs the package 'constriction', which is not installed; the extra 'vae' "
            "brings it: pip install 'modicum[vae]'"
        ) from error
