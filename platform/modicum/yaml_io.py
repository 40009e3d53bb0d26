"""YAML as users expect it: `1e-4` is a number, a repeated key is an error."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from modicum.errors import InputError

# Aliases of aliases make a file of a few lines into gigabytes.
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
                None, None, "a key must be a name, not a list", key_node.start_mark
            )
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} stands twice", key_node.start_mark
            )
        seen.add(key)
    loader.flatten_mapping(node)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _construct)


def parse_yaml(text: str, where: str = "YAML") -> Any:
    """Parse one YAML document.

    Raises:
        InputError: Broken YAML, with the line; or more of it than anybody writes.
    """
    try:
        content = yaml.load(text, Loader=_Loader)
        if _values(content, {}) > _MOST_VALUES:
            raise InputError(
                f"{where}: with its aliases it holds more than {_MOST_VALUES:,} values"
            )
        return content
    except RecursionError as error:
        raise InputError(f"{where}: broken YAML: nested too deeply") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error)
        raise InputError(f"{where}: broken YAML{line}: {problem}") from error
    except InputError:
        raise
    except ValueError as error:  # Of a number with thousands of digits, or a day that is none.
        raise InputError(f"{where}: broken YAML: {error}") from error


def _values(content: Any, known: dict[int, int]) -> int:
    """How many values a document holds, counting what an alias repeats as often as it does.

    Args:
        content: What was parsed; not recursive.
        known: Counts of its parts by identity.
    """
    if not isinstance(content, dict | list):
        return 1
    if id(content) not in known:
        parts = content.values() if isinstance(content, dict) else content
        known[id(content)] = 1 + sum(_values(part, known) for part in parts)
    return known[id(content)]


def parse_settings(pairs: Sequence[str], option: str) -> dict[str, Any]:
    """Settings by name from texts such as `method=iwl`, each value as YAML.

    Args:
        pairs: The texts.
        option: Where they stand, for errors.

    Raises:
        InputError: A text has no `=`, or its value is broken YAML.
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
        InputError: No such file, not text, or broken YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error})") from error
    return parse_yaml(text, str(path))


def dump_yaml(content: Any) -> str:
    """Plain data as YAML, keys in the order given."""
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
