"""YAML as users expect it: `1e-4` is a number, a repeated key is an error."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from modicum.errors import InputError, reason_of

# Aliases of aliases expand a few lines to gigabytes.
_MOST_VALUES = 1_000_000


class _Loader(yaml.SafeLoader):
    pass


# YAML 1.1, which PyYAML reads, takes 1e-4 for text; YAML 1.2 takes it for a number.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*)(\.[\d_]*)?[eE][-+]?\d+$"),
    list("-+0123456789"),
)


def _construct(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node, deep=True)
        if isinstance(key, list | dict):
            raise yaml.constructor.ConstructorError(
                None, None, "a key must be a name, not a list or a mapping", key_node.start_mark
            )
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} stands twice", key_node.start_mark
            )
        seen.add(key)
    loader.flatten_mapping(node)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _construct)


def parse_yaml(text: str | bytes, where: str = "YAML") -> Any:
    """Parse one YAML document, from bytes as UTF-8.

    Raises:
        InputError: The YAML is broken, with the line, or it holds more than a million values.
    """
    try:
        content = yaml.load(text, Loader=_Loader)
        if _values(content, {}) > _MOST_VALUES:
            raise InputError(
                f"{where}: at most {_MOST_VALUES:,} values are allowed, repeated aliases included"
            )
        return content
    except RecursionError as error:
        raise InputError(f"{where}: broken YAML: nested too deeply") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or reason_of(error)
        raise InputError(f"{where}: broken YAML{line}: {problem}") from error
    except InputError:
        raise
    except ValueError as error:  # A number with thousands of digits, or an impossible date.
        raise InputError(f"{where}: broken YAML: {error}") from error


def _values(content: Any, known: dict[int, int]) -> int:
    """Count the values of a document; those that aliases repeat count each time, by `known`."""
    if not isinstance(content, dict | list):
        return 1
    if id(content) not in known:
        parts = content.values() if isinstance(content, dict) else content
        known[id(content)] = 1 + sum(_values(part, known) for part in parts)
    return known[id(content)]


def parse_settings(pairs: Sequence[str], option: str) -> dict[str, Any]:
    """Parse settings such as `method=iwl`, with values in YAML, into values by name.

    Raises:
        InputError: A setting has no `=`, or its value is broken YAML.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign or not name:
            raise InputError(f"{option}: expected key=value, got {pair!r}")
        found[name] = parse_yaml(value, f"{option} {name}")
    return found


def read_yaml(path: Path) -> Any:
    """Read a YAML file.

    Raises:
        InputError: The file does not exist, is not text, or is broken YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error})") from error
    return parse_yaml(text, str(path))


def dump_yaml(content: Any) -> str:
    """Format plain data as YAML, with keys in the given order."""
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
