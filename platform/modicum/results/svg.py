"""Figures as SVG, for a page that chooses the colour of its text."""

from __future__ import annotations

import io
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Placeholder for the text colour of the page, until the SVG is written.
INK = "#010203"
# Style rule at the start of every SVG by matplotlib, and attributes of equal effect.
_RULES = """ <defs>
  <style type="text/css">*{stroke-linejoin: round; stroke-linecap: butt}</style>
 </defs>
"""
_INHERITED = 'stroke-linejoin="round" stroke-linecap="butt"'


def to_svg(figure: Figure) -> str:
    """Write a figure as transparent SVG, whose text takes the colour of the page."""
    style: Any = {
        "svg.fonttype": "none",
        # Identifiers in the SVG derive from the salt; without it they differ from run to run.
        "svg.hashsalt": "modicum",
        "font.family": "sans-serif",
    }
    for axes in figure.axes:
        _ink(axes)
    stream = io.StringIO()
    with matplotlib.rc_context(style):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue().replace(INK, "currentColor")
    # The rule would apply to the whole page, and a content policy may forbid it.
    text = text.replace(_RULES, "", 1).replace("<svg", f"<svg {_INHERITED}", 1)
    return text[text.index("<svg") :]


def _ink(axes: Axes) -> None:
    axes.tick_params(which="both", color=INK, labelcolor=INK)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    for spine in axes.spines.values():
        spine.set_color(INK)
    legend = axes.get_legend()
    if legend is not None:
        for text in legend.get_texts():
            text.set_color(INK)
