"""The index of a folder of runs, its notes and comparisons."""

import shutil

import pytest
from playwright.sync_api import expect
from typer.testing import CliRunner

import modicum as md
from modicum.cli.main import app
from modicum.errors import InputError
from modicum.monitoring.run_index import RunIndex
from programs import served_program
from toys import Descent

HOSTILE = "<img/src=x/onerror=window.owned=1>"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Fast and slow descent in two runs, one of them there twice; a folder without a run."""
    folder = tmp_path_factory.mktemp("runs")
    for method in ("fast", "slow"):
        study = md.Study(Descent, {"method": method, "rate": md.grid(0.25, 0.5)}, seeds=3)
        study.run(folder / method, runner="local", quiet=True)
    shutil.copytree(folder / "fast", folder / "again")
    (folder / "empty").mkdir()
    return folder


def note(*arguments):
    return CliRunner().invoke(app, ["note", *map(str, arguments)])


def test_the_index_has_the_best_value_and_state_of_each_run(runs):
    """Rate 0.5 of fast halves the loss in each of four steps, and is the better one."""
    cards = {card["name"]: card for card in RunIndex(str(runs)).cards()}
    assert list(cards) == ["again", "fast", "slow"]
    values = md.load_results(runs / "fast").values("test/loss", {"rate": 0.5})
    best = cards["fast"]
    assert best["best"] == pytest.approx(sum(value for _, value in values) / 3)
    assert (best["metric"], best["best_settings"]) == ("test/loss", "rate = 0.5")
    assert (best["counts"], best["total"]) == ({"finished": 6}, 6)
    assert best["status"]["state"] == "ended"
    assert best["best"] == cards["again"]["best"] < cards["slow"]["best"]


def test_notes_and_tags_are_kept_and_shown(runs):
    index = RunIndex(str(runs))
    index.cards()
    assert note(runs / "slow", "Too slow.", "--tag", "a", "--tag", "b").exit_code == 0
    shown = note(runs / "slow", "--untag", "a", "--tag", "b")
    assert shown.output == "tags: b\nnote: Too slow.\n"
    card = RunIndex(str(runs)).cards()[2]
    assert (card["tags"], card["note"]) == (["b"], "Too slow.")


@pytest.mark.parametrize(
    ("where", "options", "said"),
    [
        ("fast", ["--tag", "two words"], "tags: expected words of at most 40 characters"),
        ("fast", ["--untag", "absent"], "--untag: the run has no tag 'absent'"),
        ("empty", ["--tag", "word"], "no run here"),
    ],
)
def test_what_cannot_be_noted_is_refused(runs, where, options, said):
    refused = note(runs / where, *options)
    assert isinstance(refused.exception, InputError)
    assert said in str(refused.exception)
    assert not (runs / where / "note.json").exists()


def test_runs_are_compared_by_name_alone(runs):
    index = RunIndex(str(runs))
    blocks = index.compare(["fast", "slow"])
    assert blocks[1]["title"] == "Settings that differ"
    assert ["method", "fast", "slow"] in blocks[1]["rows"]
    for names in (["fast"], ["fast", "empty"], ["fast", "../runs0/slow"], ["fast", ""]):
        with pytest.raises(InputError):
            index.compare(names)


def test_a_damaged_run_does_not_hide_the_others(runs, tmp_path):
    shutil.copytree(runs / "fast", tmp_path / "good")
    shutil.copytree(runs / "slow", tmp_path / "bad")
    (tmp_path / "bad" / "plan.json").write_text("{")
    bad, good = RunIndex(str(tmp_path)).cards()
    assert "no plan" in bad["trouble"]
    assert good["best"] is not None


@pytest.mark.slow
def test_runs_are_found_compared_and_opened_in_a_browser(browser, runs):
    assert note(runs / "again", HOSTILE, "--tag", HOSTILE).exit_code == 0
    with served_program("-m", "modicum", "dashboard", runs) as url:
        page = browser.new_page(viewport={"width": 390, "height": 844})
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        rows = page.locator("#runs tbody tr")
        expect(rows).to_have_count(3, timeout=30_000)
        expect(rows.filter(has_text=HOSTILE)).to_have_count(1)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.get_by_role("button", name="best").click()
        assert page.locator("#runs tbody td:nth-child(2) a").all_text_contents()[2] == "slow"
        for name in ("fast", "slow"):
            page.get_by_label(f"Compare {name}").check()
        page.get_by_role("button", name="Compare 2 runs").click()
        expect(page.locator("#comparison")).to_contain_text("Settings that differ")
        page.get_by_role("link", name="all runs").click()
        page.get_by_label("Find runs").fill("slow")
        expect(rows).to_have_count(1)
        rows.locator("a").click()
        expect(page.locator("#state")).to_have_text("Ended", timeout=30_000)
        expect(page.locator("#explorer tbody tr")).to_have_count(6, timeout=30_000)
        page.locator("#explorer tbody a").first.click()
        expect(page.locator("#trial-page pre")).to_contain_text("step 3")
        assert page.evaluate("window.owned") is None
        assert errors == []
        page.close()
