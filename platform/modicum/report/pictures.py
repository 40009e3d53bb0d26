"""Pictures of a report, as SVG."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from matplotlib.figure import Figure

from modicum.report.texts import describe
from modicum.results.curves import curves_by_row
from modicum.results.figures import plot_boxes, plot_curves, plot_progress
from modicum.results.layout import ReportLayout
from modicum.results.svg import to_svg

_WIDE = 8.0  # inches
_CURVE_NOTE = "Mean over seeds; shaded: 95% interval."
_BOX_NOTE = "Box: quartiles; whiskers: 1.5 times their distance; dots: seeds."


def curve_pictures(
    layout: ReportLayout, metric: str, group: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Draw a metric against the budget, where a row has more than one point."""
    for where in layout.curve_groups(group):
        curves = curves_by_row(layout.records, metric, layout.rows, where)
        if any(len(points) > 1 for points in curves.values()):
            title = f"{metric} against {layout.records.budget_words}{beyond(where, group)}"
            figure = plot_curves(layout.records, metric, layout.rows, where)
            yield _picture(title, _CURVE_NOTE, figure)


def progress_pictures(layout: ReportLayout, group: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Draw the study's metrics against another metric, for each value of the columns."""
    for picture in layout.spec.pictures:
        for where in layout.column_groups(group):
            figure = plot_progress(
                layout.records, picture.against, picture.metrics, layout.rows, where
            )
            if figure.axes[0].lines:
                title = f"{', '.join(picture.metrics)} against {picture.against}"
                yield _picture(title + beyond(where, group), _CURVE_NOTE, figure)


def box_picture(layout: ReportLayout, metric: str, group: Mapping[str, Any]) -> dict[str, Any]:
    """Draw box plots of a metric over seeds."""
    figure = plot_boxes(layout.records, metric, layout.rows, layout.columns, group)
    return _picture(f"{metric} over seeds", _BOX_NOTE, figure)


def beyond(where: Mapping[str, Any], group: Mapping[str, Any]) -> str:
    """Write the settings of a picture that are not those of its group, to end a title."""
    own = {name: value for name, value in where.items() if name not in group}
    return f", {describe(own)}" if own else ""


def _picture(title: str, note: str, figure: Figure) -> dict[str, Any]:
    # A wide picture has a row of the page to itself.
    wide = bool(figure.get_figwidth() > _WIDE)
    return {"title": title, "note": note, "svg": to_svg(figure), "wide": wide}
