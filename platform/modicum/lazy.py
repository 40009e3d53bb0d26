"""Package attributes that are imported on first use."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_exports(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a `__getattr__` for a package (PEP 562), which imports a name when it is first used.

    `__getattr__ = lazy_exports(__name__, {"Study": "study", "data": "data"})`

    Args:
        package: `__name__` of the package.
        homes: Submodule that defines each name, relative to the package; `.models.saved` is
            relative to the parent package. A name that equals its submodule stands for the
            submodule itself.
    """

    def get_attribute(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(f".{homes[name]}", package)
        return module if homes[name] == name else getattr(module, name)

    return get_attribute
