"""Constructor parameters of the scikit-learn estimators, taken from the methods' configs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from pydantic import ValidationError

import modicum as md
from modicum_algorithms.weak.config import EndModelConfig


def parameter_names(config: type[EndModelConfig], prefix: str) -> dict[str, str]:
    """An estimator's parameters, each with the setting of the experiments that it stands for.

    A parameter has the setting's name without the method's prefix, unless another setting has that
    name: `temperature` is `weasel_temperature`, but `snorkel_learning_rate` keeps its name.
    """
    fields = config.model_fields
    short = {field: field.removeprefix(prefix) for field in fields}
    return {
        field if name != field and name in fields else name: field for field, name in short.items()
    }


def constructor(parameters: Mapping[str, Any]) -> Callable[..., None]:
    """An `__init__` that stores keyword parameters with these defaults, as scikit-learn expects."""

    def __init__(self: Any, **given: Any) -> None:  # noqa: N807
        unknown = sorted(given.keys() - parameters.keys())
        if unknown:
            raise TypeError(f"{type(self).__name__} has no parameter {unknown[0]!r}")
        for name, value in (dict(parameters) | given).items():
            setattr(self, name, value)

    keyword = inspect.Parameter.KEYWORD_ONLY
    __init__.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD),
            *(inspect.Parameter(name, keyword, default=v) for name, v in parameters.items()),
        ]
    )
    return __init__


def described(config: type[EndModelConfig], names: Mapping[str, str]) -> str:
    """The parameters' descriptions, one line each, for an estimator's docstring."""
    fields = config.model_fields
    return "\n".join(f"    {name}: {fields[field].description}" for name, field in names.items())


def checked_config(
    config: type[EndModelConfig], names: Mapping[str, str], values: Mapping[str, Any]
) -> EndModelConfig:
    """The config with an estimator's parameters, of which NumPy scalars count as Python's.

    Raises:
        InputError: A value is outside its limits; the message names the parameter.
    """
    plain = {
        field: value.item() if isinstance(value := values[name], np.generic) else value
        for name, field in names.items()
    }
    try:
        return config(**plain)
    except ValidationError as error:
        raise _as_input_error(error, names) from error


def _as_input_error(error: ValidationError, names: Mapping[str, str]) -> md.InputError:
    """The first problem with the settings, under the parameter's name."""
    errors = error.errors(include_url=False)
    first = errors[0]
    # A setting of two types, a number or `validated`, has one message for each.
    about = [e["msg"] for e in errors if e["loc"][:1] == first["loc"][:1]]
    message = ", or: ".join(text.removeprefix("Value error, ") for text in about)
    if not first["loc"]:  # about several settings, which the message names
        return md.InputError(message)
    name = next(name for name, field in names.items() if field == str(first["loc"][0]))
    return md.InputError(f"{name}: {message[:1].lower()}{message[1:]} (got {first['input']!r})")
