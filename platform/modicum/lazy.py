"""Names of a package that are imported when they are first used."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_exports(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's `__getattr__` (PEP 562), so that importing the package loads nothing heavy.

    `__getattr__ = lazy_exports(__name__, {"Study": "study", "data": "data"})`

    Args:
        package: `__name__` of the package.
        homes: The submodule that defines each name, relative to the package; a name that equals
            its submodule stands for the submodule itself.
    """

    def get_attribute(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(f"{package}.{homes[name]}")
        return module if homes[name] == name else getattr(module, name)

    return get_attribute
