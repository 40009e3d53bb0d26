"""A library that sets up its logger once, when it is imported."""

import logging

_LOGGER = logging.getLogger(__name__)
_LOGGER.addHandler(logging.StreamHandler())
_LOGGER.propagate = False


def say(text: str) -> None:
    """Log a line."""
    _LOGGER.warning(text)
