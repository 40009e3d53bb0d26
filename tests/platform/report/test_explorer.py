"""The data of all trials in a report's page."""

import json

import numpy as np
import pytest

import modicum as md
from modicum.report.document import report_document
from modicum.report.explorer import _kept, _stretches, explorer, log_ends
from modicum.report.rendering import render_report
from modicum.results.layout import report_layout
from toys import Descent

HOSTILE = "</script><script>alert(1)</script>'&"


class Still(Descent):
    """Descent whose budget stands still."""

    name = "still"
    metrics = {**Descent.metrics, HOSTILE: md.Metric("Budget of `Descent`.")}  # noqa: RUF012

    def run(self, config, trial):
        for record in super().run(config, trial):
            metrics = {**record.metrics, HOSTILE: record.budget}
            yield md.Record(budget=100, metrics=metrics, checkpoint=record.checkpoint)


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    space = {"method": md.grid("fast", "slow"), "fail_seed": 1, "steps": 20}
    study = md.Study(Still, {**space, "checkpoints": True}, seeds=2, report={"rows": "method"})
    out = tmp_path_factory.mktemp("still") / "run"
    return report_layout(study.run(out, runner="local", quiet=True).records)


def test_every_trial_has_its_settings_records_and_files(layout):
    data = explorer(layout)
    assert data["settings"] == ["method"]
    assert data["group"] == "method"
    assert [metric["name"] for metric in data["metrics"]][:2] == ["test/loss", "start"]
    done, failed = data["trials"][0], data["trials"][1]
    frame = layout.records.frame[layout.records.frame["trial_id"] == done["id"]]
    assert done["rows"]["test/loss"] == pytest.approx(frame["test/loss"].tolist(), rel=1e-6)
    assert done["rows"]["step"] == list(range(1, 21))
    assert done["rows"][HOSTILE] == [10 * step for step in range(1, 21)]
    assert done["last"]["test/loss"] == frame["test/loss"].iloc[-1]
    assert done["settings"]["method"] == "fast"
    assert layout.records.folder.exists(*done["best_checkpoint"].split("/")[-3:])
    assert (failed["status"], failed["records"], failed["rows"]) == ("failed", 0, {"step": []})
    assert "told to fail" in failed["error"]
    logs = log_ends(layout.records)
    assert "step 19" in logs[done["id"]]
    assert logs[failed["id"]].rstrip().endswith("told to fail")


def test_names_of_a_study_cannot_end_the_pages_data(layout):
    """The data is read back as it was, and no other script is in the page than uPlot's and ours."""
    document = report_document(layout)
    page = render_report(document)
    assert page.count("<script") == 2
    text = page.split('id="explorer-data">')[1].split("</script>")[0]
    assert json.loads(text) == document["explorer"]


def test_a_budget_that_stands_still_gets_a_curve_against_the_step(layout):
    """Of seed 0 alone, as seed 1 fails: fast halves its loss in each step."""
    pictures = report_document(layout)["sections"][0]["pictures"]
    assert [picture["title"] for picture in pictures] == ["test/loss against the step"]
    plot = pictures[0]["plot"]
    assert (plot["x"], plot["legend"], plot["ticks"]) == ("step", "method", False)
    fast = next(line for line in plot["lines"] if line["label"] == "fast")
    assert [point[0] for point in fast["points"]] == list(range(1, 21))
    values = [point[1] for point in fast["points"]]
    assert values == pytest.approx([values[0] / 2**step for step in range(20)])


@pytest.mark.parametrize("most", [8, 50, 400])
def test_thinned_records_keep_the_extremes_of_every_stretch(most):
    """A naive twin: each stretch keeps where each metric is smallest, largest."""
    generator = np.random.default_rng(most)
    values = generator.normal(size=(1000, 4))
    values[generator.random((1000, 4)) < 0.3] = np.nan
    kept = set(_kept(values, most).tolist())
    assert len(kept) <= most + 6
    assert {0, 999} <= kept
    stretches = _stretches(1000, max(2, most // 4))
    assert [row for part in stretches for row in part] == list(range(1000))
    for part in stretches:
        for metric in (2, 3):
            found = [
                (values[row, metric], row)
                for row in part
                if values[row, metric] == values[row, metric]
            ]
            assert not found or {min(found)[1], max(found)[1]} <= kept


def test_a_page_of_many_records_says_what_was_thinned(layout):
    """20 records of 5 numbers in each of two trials; a page of 100 numbers has half of them."""
    assert explorer(layout)["note"] is None
    data = explorer(layout, most_numbers=100)
    assert "Curves of 2 trials are thinned" in data["note"]
    trial = data["trials"][0]
    assert trial["records"] == 20
    assert len(trial["rows"]["step"]) < 20
    assert trial["last"] == explorer(layout)["trials"][0]["last"]
