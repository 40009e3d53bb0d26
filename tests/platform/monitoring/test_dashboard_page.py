"""The live page in a real browser, while a real study runs."""

import json
import time

import pytest
from playwright.sync_api import expect

from programs import python_program, served_program
from waiting import comes_true

pytestmark = pytest.mark.slow

HOSTILE = '<img src=x onerror="window.owned=1"><script>window.owned=1</script>'
# Whatever a study may choose says something that would run if it were markup. Of its trials the
# first fails, the second ends soon, and the others last longer than the test.
STUDY = f"""
import sys
import modicum as md
from toys import Descent, DescentConfig

hostile = {HOSTILE!r}

class HostileConfig(DescentConfig):
    label: str = md.setting("", description="A name.")

class Hostile(Descent):
    Config = HostileConfig
    name = "hostile"
    selection_metric = None
    metrics = {{hostile: md.Metric(hostile, goal="min")}}

    def run(self, config, trial):
        trial.log.info("log %s", hostile)
        if trial.seed == 0:
            raise ValueError("error " + hostile)
        seconds = 0.02 if trial.seed == 1 else 0.2
        for record in super().run(config.model_copy(update={{"seconds": seconds}}), trial):
            loss = record.metrics["test/loss"]
            yield md.Record(budget=record.budget, metrics={{hostile: loss}})

space = {{"label": md.grid(hostile, "x" * 300), "steps": 150}}
study = md.Study(Hostile, space, seeds=4, description=hostile,
                 tracking={{"tensorboard": False}})
results = study.run(sys.argv[1], runner="local", quiet=True)
"""


@pytest.fixture(scope="module")
def page(browser):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.set_default_timeout(30_000)
    yield page
    page.close()
    assert errors == []


def check_harmless(page):
    assert page.evaluate("window.owned") is None
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 2


def check_fits(page):
    for width, height in ((390, 844), (1280, 900)):
        page.set_viewport_size({"width": width, "height": height})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width


def test_a_study_is_watched_and_stopped(page, tmp_path):
    out = tmp_path / "run"
    with python_program("-c", STUDY, out) as study, dashboard_of(out) as url:
        page.goto(url)
        expect(page.locator("h1").first).to_have_text("hostile", timeout=30_000)
        state, rows = page.locator("#state"), page.locator("#trials tbody tr")
        expect(state).to_have_text("Running", timeout=30_000)
        expect(rows).to_have_count(8)
        # It changes by itself as trials end.
        counts = page.locator("#counts")
        expect(counts).to_contain_text("1 failed", timeout=30_000)
        expect(counts).to_contain_text("1 finished", timeout=30_000)
        expect(page).to_have_title("2/8 · Running", timeout=30_000)
        expect(page.locator("#report")).to_contain_text("Failed trials", timeout=30_000)
        check_fits(page)

        failed = rows.filter(has_text="failed").first
        expect(failed).to_contain_text(f"ValueError: error {HOSTILE}")
        failed.get_by_role("button", name="log").click()
        log = page.locator("#log-text")
        expect(log).to_contain_text(f"log {HOSTILE}")
        expect(log).to_contain_text("Traceback")
        check_fits(page)
        check_harmless(page)
        page.locator("#log").get_by_role("button", name="Close").click()

        page.locator("#query").fill("running")
        expect(rows).to_have_count(1)
        running = rows.first.locator("td").first.text_content()
        page.locator("#query").fill("")
        row = rows.filter(has_text=running)
        row.get_by_role("button", name="stop").click()
        confirm = page.locator("#confirm")
        expect(confirm).to_contain_text(f"Stop trial {running}?")
        # Whoever changes their mind has asked for nothing.
        confirm.get_by_role("button", name="Go on running").click()
        assert not list((out / "control").glob("*"))
        row.get_by_role("button", name="stop").click()
        confirm.get_by_role("button", name="Stop").click()
        expect(row.locator("td").nth(1)).to_have_text("stopped", timeout=30_000)
        assert study.poll() is None

        page.locator("#stop-study").click()
        expect(confirm).to_contain_text("Stop the study?")
        confirm.get_by_role("button", name="Stop").click()
        expect(state).to_have_text("Stopped on request", timeout=30_000)
        expect(page.locator("#stop-study")).to_be_hidden()
        expect(page.locator("#trials .danger")).to_have_count(0)
        expect(counts).to_contain_text("2 stopped", timeout=30_000)
        expect(counts).to_contain_text("4 pending")
        assert study.wait(60) == 0
        expect(page.locator("#report figure").first).to_be_visible(timeout=30_000)
        expect(page.locator("#report")).to_contain_text(HOSTILE)
        check_fits(page)
        check_harmless(page)

        status = json.loads((out / "status.json").read_text())
        status |= {"state": "running", "updated": time.time() - 300}
        (out / "status.json").write_text(json.dumps(status))
        expect(state).to_contain_text("No sign of life for 5 min", timeout=30_000)
        expect(page.locator("#stop-study")).to_be_hidden()
    expect(state).to_have_text("The dashboard does not answer", timeout=30_000)


def dashboard_of(out):
    """The command as a user starts it, once the study has begun."""
    assert comes_true((out / "plan.json").exists)
    return served_program("-m", "modicum", "dashboard", out)
