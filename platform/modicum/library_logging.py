"""Silencing the logs and progress bars of other libraries."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_loggers(*names: str, level: int = logging.ERROR) -> Iterator[None]:
    """Silence loggers below a level for a block."""

    def loud_enough(record: logging.LogRecord) -> bool:
        return record.levelno >= level

    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(level)  # Applies to child loggers, too.
        logger.addFilter(loud_enough)  # A library imported in the block sets the level again.
    try:
        yield
    finally:
        for logger, before in zip(loggers, levels, strict=True):
            logger.setLevel(before)
            logger.removeFilter(loud_enough)


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Disable the progress bars of transformers for a block, including those of downloads.

    DeepSpeed is silenced, too: saving a model imports it wherever it is installed.
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
