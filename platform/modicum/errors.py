"""Exceptions that the command line prints as one sentence, and helpers that raise them."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

# Errors quote the user's value, shortened.
_QUOTED = reprlib.Repr()
_QUOTED.maxlevel, _QUOTED.maxstring, _QUOTED.maxother = 4, 200, 200
_QUOTED.maxlist = _QUOTED.maxtuple = _QUOTED.maxdict = 20

Model = TypeVar("Model", bound=BaseModel)

_TYPE_NAME = re.compile(r"int|float|str|bool|(list|dict|tuple)\[.*\]")


class InputError(ValueError):
    """A mistake in the user's input: one sentence that names the field and what is allowed.

    The command line prints it without a traceback and exits with 2. It is raised before anything
    starts, so nothing is lost.
    """


class StorageError(OSError):
    """The run folder can no longer be written: a full disk, or a read-only file system.

    Files in the folder stay. The same run continues once the folder can be written again.

    Args:
        number: Error number of the system (`errno`), or None.
        sentence: Message for the user.
    """

    def __init__(self, number: int | None, sentence: str) -> None:
        super().__init__(number, sentence)

    def __str__(self) -> str:
        return str(self.strerror)


def unknown_name(kind: str, name: object, allowed: Iterable[str]) -> InputError:
    """Create an `InputError` for an unknown name that suggests the most similar one."""
    names = sorted(allowed)
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    listing = ", ".join(names) if names else "none"
    return InputError(f"unknown {kind} {name!r}{hint} (allowed: {listing})")


def reason_of(error: BaseException, model: type[BaseModel] | None = None) -> str:
    """First line of an exception's message; the name of its class if the message is empty.

    Of a `ValidationError` of `model` it is the sentence of `from_validation`.
    """
    if model is not None and isinstance(error, ValidationError):
        return str(from_validation(error, model))
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def require_choice(field: str, value: object, choices: Any) -> None:
    """Check that the user's value of a field is one of the choices of a `Literal`.

    Raises:
        InputError: It is not; names the field and the choices.
    """
    if value not in get_args(choices):
        allowed = ", ".join(map(str, get_args(choices)))
        raise InputError(f"{field}: must be one of {allowed}, got {value!r}")


def validated(model: type[Model], values: object, where: str = "") -> Model:
    """Create settings, such as a `Config`, from the user's values by name.

    Errors are one sentence, after the name of the input (`where`) if it has one.

    Raises:
        InputError: A name is unknown, or a value is not allowed.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise from_validation(error, model, where, values) from None


def from_validation(
    error: ValidationError, model: type[BaseModel], where: str = "", given: object = None
) -> InputError:
    """Turn a `ValidationError` of pydantic into one sentence about its first problem.

    Args:
        error: The error of pydantic.
        model: The validated model; its field names are the allowed keys.
        where: Name of the input, for example `"study quickstart.yaml"`.
        given: The raw input, quoted in place of pydantic's converted value.
    """
    errors = error.errors(include_url=False)
    first = errors[0]
    # pydantic puts the type names of a union's branches into the path.
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
        # The field takes a number or certain words: name the words, too.
        words = [e for e in errors[1:] if e["type"] == "literal_error"]
        message += "".join(
            f", or: {_lower_first(e['msg'])}" for e in words if e["loc"][:-1] == first["loc"][:-1]
        )
    value = _value_at(given, first["loc"], default=first.get("input"))
    # A list that stands for one value is most often meant as a grid.
    hint = "; to try each of them, write {grid: […]}" if isinstance(value, list) else ""
    got = f"(got {_QUOTED.repr(value)}{hint if where == 'space' else ''})"
    return InputError(f"{prefix}{path + ': ' if path else ''}{_lower_first(message)} {got}")


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
        candidates = [] if field is None else [field.annotation, *get_args(field.annotation)]
        current = next(
            (c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None
        )
    return current
