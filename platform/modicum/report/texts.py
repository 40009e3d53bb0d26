"""Settings, counts and intervals as a report writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modicum.results.formatting import show_number, show_settings
from modicum.results.statistics import Summary


def describe(settings: Mapping[str, Any]) -> str:
    """Write settings as `name = value, ...`, without those that have no effect."""
    return show_settings({name: v for name, v in settings.items() if v is not None})


def whole(summary: Summary) -> bool:
    """Test if a summary is one whole number, as sizes and counts are."""
    return summary.mean.is_integer() and not summary.sd


def show_count(summary: Summary) -> str:
    """Write `mean (n)`, for a whole number."""
    return f"{summary.mean:.0f} ({summary.n})"


def interval(summary: Summary) -> str:
    """Write the 95% interval of a mean; empty for one value."""
    if summary.low is None:
        return ""
    return f"95% interval {show_number(summary.low)} to {show_number(summary.high)}"


def signed_interval(low: float | None, high: float | None) -> str:
    """Write the interval of a difference; empty where it is undefined."""
    return "" if low is None or high is None else f"{low:+.4f} to {high:+.4f}"
