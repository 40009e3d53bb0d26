"""Wordings of questions: a system message, and a user message with fields for a pair's texts."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path

from modicum.errors import InputError, unknown_name
from modicum.oracles.protocol import digest
from modicum.yaml_io import parse_yaml

FIELDS = ("prompt", "completion_a", "completion_b")
_FIELD = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_SHIPPED = files("modicum.oracles") / "templates"

# Structured output: the form of an answer, for endpoints that support it.
RESPONSE_FORMAT = {
    "type": "json_schema",
    "json_schema": {
        "name": "judgement",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {
                "comparison": {"type": "string"},
                "preferred": {"type": "string", "enum": ["A", "B"]},
            },
            "required": ["comparison", "preferred"],
            "additionalProperties": False,
        },
    },
}
# Bytes that structured output adds to a request; endpoints may charge for them.
RESPONSE_FORMAT_BYTES = len(json.dumps(RESPONSE_FORMAT))


@dataclass(frozen=True)
class Template:
    """The wording of a question, with `{{prompt}}`, `{{completion_a}}` and `{{completion_b}}`.

    The two templates of the thesis (figure 6.1) are shipped: `Template.load("sentiment")` and
    `Template.load("summarisation")`. A template file of your own has the same three keys.

    Attributes:
        name: Name that is shown in results.
        system: The system message; may be empty.
        user: The user message. Every field must occur in it.

    Raises:
        InputError: The user message lacks a field, or a message has an unknown field.
    """

    name: str
    system: str
    user: str

    def __post_init__(self) -> None:
        found = set(_FIELD.findall(self.user))
        for field in sorted(found | set(_FIELD.findall(self.system))):
            if field not in FIELDS:
                raise unknown_name("template field", field, FIELDS)
        missing = [f"{{{{{field}}}}}" for field in FIELDS if field not in found]
        if missing:
            raise InputError(f"template {self.name}: the user message lacks {', '.join(missing)}")

    @classmethod
    def load(cls, name: str) -> Template:
        """Load a shipped template by its name, or a template file by its path (.yaml).

        Raises:
            InputError: There is no such template, or the file does not hold one.
        """
        if name.endswith((".yaml", ".yml")):
            path = Path(name).expanduser()
            if not path.is_file():
                raise InputError(f"template: no file at {name!r}")
            try:
                text = path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                raise InputError(f"template: {name!r} must be UTF-8 text") from None
        else:
            shipped = [f.name.removesuffix(".yaml") for f in _SHIPPED.iterdir()]
            if name not in shipped:
                raise unknown_name("template", name, shipped)
            text = (_SHIPPED / f"{name}.yaml").read_text(encoding="utf-8")
        values = parse_yaml(text, f"template {name}")
        keys = {"name", "system", "user"}
        if not isinstance(values, dict) or set(values) != keys:
            raise InputError(f"template {name}: must have exactly the keys name, system and user")
        wrong = [key for key in sorted(keys) if not isinstance(values[key], str)]
        if wrong:
            raise InputError(f"template {name}: {wrong[0]} must be text")
        return cls(**values)

    @cached_property
    def digest(self) -> str:
        """Identity of the wording: part of an oracle's version and of every question's key."""
        return digest(self.system, self.user)[:16]

    def render(self, prompt: str, completion_a: str, completion_b: str) -> tuple[str, str]:
        """System and user message about a pair, in the order in which it is shown.

        Fields are replaced in one pass, so a text that looks like a field stays as it is.
        """
        values = {"prompt": prompt, "completion_a": completion_a, "completion_b": completion_b}

        def value(match: re.Match[str]) -> str:
            return values[match[1]]

        return _FIELD.sub(value, self.system), _FIELD.sub(value, self.user)
