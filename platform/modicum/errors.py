"""The exceptions that the command line explains in one sentence."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

# What was given is quoted in errors, but not pages of it.
_QUOTED = reprlib.Repr()
_QUOTED.maxlevel, _QUOTED.maxstring, _QUOTED.maxother = 4, 200, 200
_QUOTED.maxlist = _QUOTED.maxtuple = _QUOTED.maxdict = 20

Model = TypeVar("Model", bound=BaseModel)

_TYPE_NAME = re.compile(r"int|float|str|bool|(list|dict|tuple)\[.*\]")


class InputError(ValueError):
    """A mistake in what the user gave: one sentence naming the field and what is allowed.

    The command line prints it without a traceback and exits with 2. It is raised before
    anything starts, so nothing is half done and nothing is lost.
    """


class StorageError(OSError):
    """The run folder cannot be written any more: a full disk, or a file system gone read-only.

    What is in the folder stays; the same run goes on from there once it can be written again.

    Args:
        number: The system's number of the error (`errno`), where there is one.
        sentence: What is said to the user.
    """

    def __init__(self, number: int | None, sentence: str) -> None:
        super().__init__(number, sentence)

    def __str__(self) -> str:
        return str(self.strerror)


def unknown_name(kind: str, name: object, allowed: Iterable[str]) -> InputError:
    """An `InputError` for a name that does not exist, with the nearest one suggested."""
    names = sorted(allowed)
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    listing = ", ".join(names) if names else "none"
    return InputError(f"unknown {kind} {name!r}{hint} (allowed: {listing})")


def reason_of(error: BaseException) -> str:
    """The first line of what an exception says; its name where it says nothing.

    Args:
        error: The exception.
    """
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def require_choice(field: str, value: object, choices: Any) -> None:
    """Refuse a name that is none of a `Literal`'s.

    Args:
        field: To name in the error.
        value: What the user gave.
        choices: The `Literal`.

    Raises:
        InputError: Naming the field and what is allowed.
    """
    if value not in get_args(choices):
        allowed = ", ".join(map(str, get_args(choices)))
        raise InputError(f"{field}: must be one of {allowed}, got {value!r}")


def validated(model: type[Model], values: Mapping[str, Any]) -> Model:
    """Settings from values by name, with one sentence about the first mistake among them.

    Args:
        model: The settings, such as a `Config`.
        values: The values that the user gave.

    Raises:
        InputError: A name is unknown, or a value is not allowed.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise from_validation(error, model, given=values) from error


def from_validation(
    error: ValidationError, model: type[BaseModel], where: str = "", given: object = None
) -> InputError:
    """Turn pydantic's report into one sentence about its first problem.

    Args:
        error: What pydantic raised.
        model: The model that was validated; its field names are the allowed keys.
        where: What was validated, for example `"study quickstart.yaml"`.
        given: The raw input; its value is quoted instead of pydantic's converted one.
    """
    errors = error.errors(include_url=False)
    first = errors[0]
    # Branches of a union stand in the path as the names of their types.
    path = ".".join(str(p) for p in first["loc"] if not _TYPE_NAME.fullmatch(str(p)))
    prefix = f"{where}: " if where else ""
    if first["type"] == "extra_forbidden":
        parent = _model_at(model, first["loc"][:-1])
        allowed = list(parent.model_fields) if parent is not None else []
        return InputError(f"{prefix}{unknown_name('setting', path, allowed)}")
    message = first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if first["type"] in {"missing", "value_error"}:
        return InputError(f"{prefix}{path + ': ' if path else ''}{_lower_first(message)}")
    if first["loc"] and _TYPE_NAME.fullmatch(str(first["loc"][-1])):
        # A number or certain words: say the words, too.
        words = [e for e in errors[1:] if e["type"] == "literal_error"]
        message += "".join(
            f", or: {_lower_first(e['msg'])}" for e in words if e["loc"][:-1] == first["loc"][:-1]
        )
    value = _value_at(given, first["loc"], default=first.get("input"))
    return InputError(f"{prefix}{path}: {_lower_first(message)} (got {_QUOTED.repr(value)})")


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def _value_at(given: object, path: tuple[int | str, ...], default: object) -> object:
    value = given
    for part in path:
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        else:
            return default
    return value


def _model_at(model: type[BaseModel], path: tuple[int | str, ...]) -> type[BaseModel] | None:
    current: type[BaseModel] | None = model
    for part in path:
        field = current.model_fields.get(str(part)) if current is not None else None
        candidates = [] if field is None else [field.annotation, *_arguments(field.annotation)]
        current = next(
            (c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None
        )
    return current


def _arguments(annotation: object) -> list[object]:
    return list(getattr(annotation, "__args__", ()))
