"""The state of a trial's process, put back for the next trial."""

from __future__ import annotations

import logging
import os
import sys
import types
import warnings
from collections.abc import Callable, Iterator, MutableMapping
from functools import partial
from typing import Any, NamedTuple

from modicum.experiment.experiment import Experiment

_PLAIN = (int, float, complex, str, bytes, bool)
_Content = list[Any] | dict[Any, Any] | set[Any] | None
# Containers with more entries are not looked into: they would be after every record.
_LARGEST = 10_000
_CODE = (types.ModuleType, type, types.FunctionType)


class ProcessState:
    """The state of this process before a trial.

    Held are the environment variables, the working folder, the filters of warnings, the error
    handling of NumPy, loggers (levels, handlers, filters), the flags of torch, and the globals of
    the modules of the experiment's package.

    Args:
        experiment: The trial's experiment.
    """

    def __init__(self, experiment: Experiment[Any]) -> None:
        import numpy as np

        self._environment = dict(os.environ)
        self._folder = os.getcwd()
        self._warnings = list(warnings.filters), warnings.showwarning
        self._restore_numpy = partial(np.seterr, **np.geterr())
        self._disabled = logging.root.manager.disable
        loggers = _loggers()
        self._known = {logger.name for logger in loggers}
        # Few of hundreds are set up.
        self._set_up = {
            logger.name: settings
            for logger in loggers
            if (settings := _settings(logger)) != _UNTOUCHED
        }
        self._levels = {
            handler: handler.level
            for settings in self._set_up.values()
            for handler in settings.handlers
        }
        self._modules = set(sys.modules)
        self._torch = [flag.read() for flag in _torch_flags()]
        self._globals = [
            (name, space, {key: (value, _content(value)) for key, value in _variables(space)})
            for name, space in _namespaces(type(experiment))
        ]

    def changed_globals(self) -> tuple[str, ...]:
        """Names of the package's module globals that are not what they were before the trial."""
        return tuple(sorted(f"{name}.{key}" for name, _, _, key in self._changes()))

    def restore(self) -> tuple[str, ...]:
        """Put back what has changed.

        Returns:
            What the next trial in this process might still notice: the names of changed globals,
            to which others may have referred, and what could not be put back, with the reason.
        """
        left = list(self.changed_globals())
        for what, put_back in (
            ("module globals", self._restore_globals),
            ("torch's flags", self._restore_torch),
            ("logging", self._restore_logging),
            ("numpy's error handling", self._restore_numpy),
            ("warnings", self._restore_warnings),
            ("environment", self._restore_environment),
            ("working folder", lambda: os.chdir(self._folder)),
        ):
            try:
                put_back()
            except Exception as error:
                left.append(f"{what} ({type(error).__name__}: {error})")
        return tuple(left)

    def _changes(
        self,
    ) -> Iterator[tuple[str, MutableMapping[str, Any], dict[str, tuple[Any, _Content]], str]]:
        """Changed globals: the module, its globals, what they were, and the name."""
        for module, space, before in self._globals:
            now = dict(_variables(space))
            for key in before.keys() | now.keys():
                if key not in before:
                    changed = not isinstance(now[key], _CODE)  # Else a lazy import.
                elif key not in now:
                    changed = True
                else:
                    value, content = before[key]
                    changed = not (_same(value, now[key]) and _holds(content, now[key]))
                if changed:
                    yield module, space, before, key

    def _restore_globals(self) -> None:
        for _, space, before, key in list(self._changes()):
            if key not in before:
                del space[key]
                continue
            space[key], content = before[key]
            if isinstance(content, list):
                space[key][:] = content
            elif content is not None:
                space[key].clear()
                space[key].update(content)

    def _restore_torch(self) -> None:
        flags = _torch_flags()
        for flag, before in zip(flags, self._torch or [f.default for f in flags], strict=True):
            if flag.read() != before:
                flag.write(before)

    def _restore_logging(self) -> None:
        if logging.root.manager.disable != self._disabled:
            logging.disable(self._disabled)
        # What a library set up when the trial imported it stays, as its module does. Ray's
        # connection outlives the trial.
        kept = {"ray", *(name.partition(".")[0] for name in set(sys.modules) - self._modules)}
        for logger in _loggers():
            if logger.name in self._known or logger.name.partition(".")[0] not in kept:
                _set_up(logger, self._set_up.get(logger.name, _UNTOUCHED))
        for handler, level in self._levels.items():
            handler.setLevel(level)

    def _restore_warnings(self) -> None:
        filters, warnings.showwarning = self._warnings
        # Also makes Python forget which warnings it has shown.
        warnings.resetwarnings()
        warnings.filters.extend(filters)  # type: ignore[attr-defined]

    def _restore_environment(self) -> None:
        for name in os.environ.keys() - self._environment.keys():
            del os.environ[name]
        for name, value in self._environment.items():
            if os.environ.get(name) != value:
                os.environ[name] = value


def _namespaces(kind: type[Experiment[Any]]) -> Iterator[tuple[str, MutableMapping[str, Any]]]:
    """Globals of the loaded modules of an experiment's package, by module."""
    package = kind.__module__.partition(".")[0]
    own = kind.run.__globals__
    alone = True
    for name, module in list(sys.modules.items()):
        inside = name.startswith(package) and name.partition(".")[0] == package
        if inside and isinstance(module, types.ModuleType):
            yield name, vars(module)
            alone = alone and vars(module) is not own
    if alone:
        # The class comes from a notebook: a worker does not have its module.
        yield kind.__module__, own


def _variables(space: MutableMapping[str, Any]) -> list[tuple[str, Any]]:
    return [(key, value) for key, value in list(space.items()) if not key.startswith("__")]


def _content(value: object) -> _Content:
    """A shallow copy of a mutable container; None of anything else, and of a large one."""
    if isinstance(value, list | dict | set) and len(value) <= _LARGEST:
        return value.copy()
    return None


def _same(one: object, other: object) -> bool:
    return one is other or (type(one) is type(other) and type(one) in _PLAIN and one == other)


def _holds(content: _Content, value: Any) -> bool:
    """Tell whether a container has the content that it had."""
    if content is None:
        return True
    if len(content) != len(value):
        return False
    if isinstance(content, list):
        return all(map(_same, content, value))
    if isinstance(content, dict):
        return all(key in value and _same(held, value[key]) for key, held in content.items())
    return bool(content == value)


class _LoggerSettings(NamedTuple):
    level: int
    propagate: bool
    disabled: bool
    handlers: tuple[logging.Handler, ...]
    filters: tuple[Any, ...]


_UNTOUCHED = _LoggerSettings(logging.NOTSET, True, False, (), ())


def _loggers() -> list[logging.Logger]:
    known = list(logging.root.manager.loggerDict.values())
    return [logging.root, *(item for item in known if isinstance(item, logging.Logger))]


def _settings(logger: logging.Logger) -> _LoggerSettings:
    return _LoggerSettings(
        logger.level,
        logger.propagate,
        logger.disabled,
        tuple(logger.handlers),
        tuple(logger.filters),
    )


def _set_up(logger: logging.Logger, before: _LoggerSettings) -> None:
    if _settings(logger) == before:
        return
    logger.setLevel(before.level)
    logger.propagate, logger.disabled = before.propagate, before.disabled
    logger.filters[:] = before.filters
    for handler in logger.handlers:
        if handler not in before.handlers:
            handler.close()
    logger.handlers[:] = before.handlers


class _TorchFlag(NamedTuple):
    read: Callable[[], Any]
    write: Callable[[Any], object]
    default: Any


def _torch_flags() -> list[_TorchFlag]:
    """Flags of torch with their values after its import; none unless it has been imported."""
    torch = sys.modules.get("torch")
    if torch is None:
        return []
    cpu, cudnn = torch.device("cpu"), torch.backends.cudnn

    def attribute(holder: Any, name: str, default: Any) -> _TorchFlag:
        return _TorchFlag(
            lambda: getattr(holder, name), lambda value: setattr(holder, name, value), default
        )

    return [
        _TorchFlag(torch.get_default_dtype, torch.set_default_dtype, torch.float32),
        _TorchFlag(
            torch.get_default_device,
            lambda device: torch.set_default_device(None if device == cpu else device),
            cpu,
        ),
        _TorchFlag(torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode, 0),
        _TorchFlag(
            torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest"
        ),
        _TorchFlag(torch.is_grad_enabled, torch.set_grad_enabled, True),
        _TorchFlag(torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly, False),
        attribute(cudnn, "enabled", True),
        attribute(cudnn, "benchmark", False),
        attribute(cudnn, "deterministic", False),
        attribute(cudnn, "allow_tf32", True),
        attribute(torch.utils.deterministic, "fill_uninitialized_memory", True),
    ]
