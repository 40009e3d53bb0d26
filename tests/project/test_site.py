"""The documentation as a site: it builds without a warning, stands alone, and fits its screen."""

import os
import re
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

import modicum as md
from conftest import ROOT

pytestmark = pytest.mark.slow

SHOWN = ["index", "tutorial", "weak", "options/preference", "results/weak"]
WIDTHS = {"desktop": 1280, "phone": 390}


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    return folder


@pytest.fixture(scope="module")
def address(site):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_pages_fit_the_screen_and_load_nothing_from_elsewhere(browser, address, width):
    page = browser.new_page(viewport={"width": width, "height": 900})
    asked, wrong = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("response", lambda response: response.status < 400 or wrong.append(response.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    for name in SHOWN:
        page.goto(f"{address}/{name}.html")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        assert page.locator("article h1").is_visible()
    page.close()
    assert [url for url in asked if not url.startswith((address, "data:"))] == []
    assert wrong == []


def test_a_setting_is_found_by_searching(browser, address):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(f"{address}/index.html")
    page.get_by_placeholder("Search").fill("weasel_temperature")
    page.locator(".md-search-result__link").first.wait_for()
    found = page.locator(".md-search-result__link").evaluate_all("all => all.map(a => a.href)")
    assert any("options/weak.html" in link for link in found)
    page.close()


def test_pages_open_from_disk(browser, site):
    page = browser.new_page()
    page.goto((site / "index.html").as_uri())
    page.locator("article").get_by_role("link", name="Tutorial").click()
    assert page.locator("article h1").inner_text().startswith("Tutorial")
    page.close()


def test_the_api_reference_shows_what_docstrings_say(site):
    """Each public name has an entry, and what it may raise stands there."""
    shown = {path.stem: path.read_text() for path in (site / "api").glob("*.html")}
    identifiers = set(re.findall(r'id="(modicum[\w.]*)"', "".join(shown.values())))
    modules = {"data", "oracles", "training"}
    assert {f"modicum.{name}" for name in set(md.__all__) - modules} <= identifiers
    assert "modicum_algorithms.vae.refine.refine_encoder" in identifiers
    part = shown["studies"].split('id="modicum.Study"')[1]
    assert "Parameters" in part
    assert "Raises" in part
    # Fields of settings come with their descriptions.
    assert "Rate limit of requests, which are spread evenly." in shown["oracles"]
