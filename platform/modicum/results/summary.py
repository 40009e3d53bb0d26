"""Summary of a run folder in `summary.json`."""

from __future__ import annotations

from modicum.results.cells import values_by_seed
from modicum.results.layout import ReportLayout
from modicum.results.statistics import summarise


def write_summary(layout: ReportLayout) -> None:
    """Write `summary.json`: n, mean, sd and interval of each cell, and the failures."""
    records = layout.records
    cells = []
    for metric in layout.metrics:
        for key, seeds in values_by_seed(records, metric, records.varied).items():
            summary = summarise(list(seeds.values()))
            settings = dict(zip(records.varied, key, strict=True))
            cells.append({"metric": metric, "settings": settings, **vars(summary)})
    failures = [
        {"trial_id": t.id, "seed": t.seed, "error": t.error, "settings": t.columns}
        for t in records.failed
    ]
    content = {"trials": records.status_counts(), "cells": cells, "failures": failures}
    records.folder.write_json(content, "summary.json")
