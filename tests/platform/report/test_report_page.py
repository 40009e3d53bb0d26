"""The report in a browser: what it shows without a script, and what a reader can do with one."""

import csv
import io

import pytest
from playwright.sync_api import expect

import modicum as md
from toys import Descent, DescentConfig

pytestmark = pytest.mark.slow

HOSTILE = "</script><script>window.owned=1</script>'\"<img src=x onerror=window.owned=1>"
PLAIN = {"method": "fast", "rate": 0.5, "label": "plain"}


class NamedConfig(DescentConfig):
    label: str = md.setting("plain", description="A name.")


class Named(Descent):
    """Descent whose label may be anything, and whose trials fail with it under seed 2."""

    Config = NamedConfig
    name = "named"

    def run(self, config, trial):
        if trial.seed == 2 and config.label == HOSTILE:
            raise ValueError(config.label)
        yield from super().run(config, trial)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    space = {
        "method": md.grid("fast", "slow"),
        "rate": md.grid(0.25, 0.5, 0.75),
        "label": md.grid("plain", HOSTILE),
        "steps": 12,
    }
    report = {"rows": "method", "columns": "rate", "baseline": {"method": "slow"}}
    study = md.Study(Named, space, seeds=3, name="browser", report=report)
    return study.run(tmp_path_factory.mktemp("page") / "run", runner="local", quiet=True)


@pytest.fixture(scope="module")
def address(results):
    return f"file://{results.folder.display('report.html')}"


@pytest.fixture
def page(browser, address):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    page.goto(address)
    yield page
    assert page.evaluate("window.owned") is None
    context.close()
    assert errors == []


def rows_of(page):
    return page.locator("#explorer tbody tr")


def column_of(page, name):
    names = page.locator("#explorer thead th").all_text_contents()
    place = names.index(name) + 1
    return page.locator(f"#explorer tbody td:nth-child({place})").all_text_contents()


def downloaded(page, act):
    with page.expect_download() as found:
        act()
    return found.value


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_sticks_out_on_a_phone_or_a_laptop(page, width):
    page.set_viewport_size({"width": width, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    rows_of(page).first.locator("a").click()
    expect(page.locator("#trial-page h1")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_texts_of_pictures_can_be_read_on_a_phone(page):
    page.set_viewport_size({"width": 390, "height": 844})
    heights = (
        "[...document.querySelectorAll('svg text')].map(t => t.getBoundingClientRect().height)"
    )
    assert min(page.evaluate(heights)) > 10


def test_the_page_without_a_script_has_every_picture(browser, address):
    """Curves for each rate and label, box plots for each label, in the page's text colour."""
    context = browser.new_context(java_script_enabled=False, color_scheme="dark")
    page = context.new_page()
    page.goto(address)
    assert page.locator("figure svg").count() == 2 * 3 + 2
    expect(page.locator("#explorer")).to_contain_text("needs JavaScript")
    ink = page.locator("svg text").first.evaluate("e => getComputedStyle(e).fill")
    assert ink == "rgb(236, 236, 240)"
    context.close()


def test_the_page_asks_nobody_for_anything(browser, results, address):
    context = browser.new_context()
    page = context.new_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.wait_for_load_state("networkidle")
    assert asked == [page.url]
    assert "default-src 'none'" in results.folder.read_text("report.html")
    context.close()


def test_trials_are_found_and_sorted(page):
    """36 trials; of those with rate above 0.3 and the method slow 12; with the label plain 6."""
    expect(rows_of(page)).to_have_count(36)
    search = page.get_by_label("Filter trials")
    search.fill("rate>0.3 method=slow")
    expect(rows_of(page)).to_have_count(12)
    page.locator("#explorer").get_by_label("label", exact=True).select_option("plain")
    expect(rows_of(page)).to_have_count(6)
    page.get_by_role("button", name="test/loss").click()
    losses = [float(text) for text in column_of(page, "test/loss ↑")]
    assert losses == sorted(losses)
    assert len(set(losses)) == 6
    page.get_by_role("button", name="test/loss").click()
    assert [float(text) for text in column_of(page, "test/loss ↓")] == losses[::-1]


def test_files_have_what_is_shown(page, results):
    """CSV of the chosen trials and their records, with values in full; PNG of curves and boxes."""
    page.get_by_label("Filter trials").fill("method=fast rate=0.5 label=plain")
    expect(rows_of(page)).to_have_count(3)
    trials = downloaded(page, page.get_by_role("button", name="CSV of the trials").click)
    read = list(csv.DictReader(io.StringIO(trials.path().read_text())))
    losses = {settings["seed"]: v for settings, v in results.values("test/loss", PLAIN)}
    assert {int(row["seed"]): float(row["test/loss"]) for row in read} == losses
    records = downloaded(page, page.get_by_role("button", name="CSV of their records").click)
    read = list(csv.DictReader(io.StringIO(records.path().read_text())))
    assert [float(row["budget"]) for row in read] == 3 * [10.0 * n for n in range(1, 13)]
    for figure in (page.locator("#explorer figure"), page.locator("figure:has(svg)").first):
        picture = downloaded(page, figure.get_by_role("button", name="PNG").click)
        assert picture.path().read_bytes().startswith(b"\x89PNG")
        assert picture.path().stat().st_size > 5000


def test_curves_have_values_under_the_pointer(page, results):
    """At the right end of each curve is its mean over seeds, as the table has it."""
    figure = page.locator("figure").filter(has_text="rate = 0.5").first
    expect(figure.locator("svg")).to_have_count(0)
    plot = figure.locator(".u-over")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    page.mouse.move(box["x"] + box["width"] - 3, box["y"] + 20)
    expect(figure.locator(".keys")).to_contain_text("budget (samples) 120:")
    shown = figure.locator(".key").nth(1).locator("output").text_content()
    curves = results.curves("test/loss", "method", {"rate": 0.5, "label": "plain"})
    assert float(shown) == pytest.approx(curves["slow",][-1].summary.mean, rel=1e-3)


def test_curves_are_grouped_and_drawn_against_what_the_reader_chooses(page):
    explorer = page.locator("#explorer")
    expect(explorer.locator(".key")).to_have_count(2)
    explorer.get_by_label("group by").select_option("rate")
    assert explorer.locator(".key").all_text_contents() == ["0.25", "0.5", "0.75"]
    expect(explorer.locator(".keys")).to_contain_text("rate")
    explorer.get_by_label("against").select_option("step")
    explorer.get_by_label("log y").check()
    explorer.get_by_label("smooth").fill("0.9")
    plot = explorer.locator(".u-over").bounding_box()
    page.mouse.move(plot["x"] + 3, plot["y"] + 20)
    expect(explorer.locator(".keys")).to_contain_text("step 1:")


def test_a_trial_has_a_page_of_its_own(page, results):
    failed = results.failed[0]
    page.get_by_label("Filter trials").fill("failed")
    rows_of(page).filter(has_text=failed.id).locator("a").click()
    trial = page.locator("#trial-page")
    expect(trial.locator("h1")).to_have_text(f"Trial {failed.id} failed")
    expect(trial).to_contain_text(f"ValueError: {HOSTILE}")
    expect(trial.locator("pre")).to_contain_text("Traceback")
    expect(page.locator("h2", has_text="Provenance")).to_be_hidden()
    page.go_back()
    expect(page.locator("h2", has_text="Provenance")).to_be_visible()
    done = next(trial for trial in results.trials if trial.status == "finished")
    page.goto(f"{page.url.partition('#')[0]}#trial={done.id}")
    expect(trial.locator("h1")).to_have_text(f"Trial {done.id} finished")
    expect(trial.locator("figure")).to_have_count(3)
    expect(trial.locator("tbody tr")).to_have_count(12)
    expect(trial.locator("pre")).to_contain_text("step 11:")
