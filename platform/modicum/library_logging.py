"""Silencing what other libraries say about themselves."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_loggers(*names: str, level: int = logging.ERROR) -> Iterator[None]:
    """Let loggers say nothing below a level for a block, and what they said before after it."""

    def loud_enough(record: logging.LogRecord) -> bool:
        return record.levelno >= level

    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(level)  # Goes for the loggers below it, too.
        logger.addFilter(loud_enough)  # A library that is imported in the block sets its own level.
    try:
        yield
    finally:
        for logger, before in zip(loggers, levels, strict=True):
            logger.setLevel(before)
            logger.removeFilter(loud_enough)


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Let transformers draw no bars for a block, those of downloads included.

    Nor does DeepSpeed log anything, which saving a model imports wherever it is installed.
    """
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    if shown:
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        with quiet_loggers("DeepSpeed"):
            yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
