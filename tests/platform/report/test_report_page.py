"""The report in a browser."""

import subprocess

import pytest

import modicum as md
from toys import Descent

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    space = {
        "method": md.grid("fast", "slow"),
        "rate": md.grid(0.25, 0.5, 0.75),
        "fail_seed": md.grid(-1),
    }
    study = md.Study(
        Descent,
        space,
        seeds=3,
        name="browser",
        report={
            "rows": "method",
            "columns": "rate",
            "targets": [{"metric": "test/loss", "value": 0.5}],
            "baseline": {"method": "slow"},
        },
    )
    study.run(folder / "run", runner="local", quiet=True)
    return folder / "run" / "report.html"


def browse(chromium, tmp_path, *arguments):
    return subprocess.run(
        [
            *(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
            *("--no-first-run", "--disable-background-networking", "--disable-sync"),
            *("--disable-component-update", f"--user-data-dir={tmp_path}/profile"),
            *map(str, arguments),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )


def measure(chromium, tmp_path, page, width):
    """Widths of the page and its content, from a script in the page."""
    script = (
        "<script>addEventListener('load',()=>{document.body.dataset.sizes="
        "[document.documentElement.scrollWidth,innerWidth,document.querySelectorAll('svg').length,"
        "getComputedStyle(document.body).backgroundColor,"
        "getComputedStyle(document.querySelector('svg text')).fill].join(';')})</script>"
    )
    copy = tmp_path / "copy.html"
    copy.write_text(page.read_text().replace("</body>", script + "</body>"))
    done = browse(chromium, tmp_path, f"--window-size={width},900", "--dump-dom", f"file://{copy}")
    return done.stdout.split('data-sizes="')[1].split('"')[0].split(";")


@pytest.mark.parametrize("width", [500, 1280])
def test_nothing_sticks_out_on_a_phone_or_a_laptop(chromium, tmp_path, page, width):
    scroll, inner, pictures, *_ = measure(chromium, tmp_path, page, width)
    assert int(scroll) <= int(inner)
    # A box plot, and a curve for each of three rates.
    assert int(pictures) == 4


def test_the_page_asks_nobody_for_anything(page):
    text = page.read_text()
    for loads in ("<link", "<script src", "src=", "@import", "url(http"):
        assert loads not in text


def test_pictures_take_the_pages_text_colour(chromium, tmp_path, page):
    *_, ground, ink = measure(chromium, tmp_path, page, 1280)
    assert ground == "rgb(255, 255, 255)"
    assert ink == "rgb(28, 28, 30)"


def test_a_screenshot_is_not_blank(chromium, tmp_path, page):
    image = tmp_path / "page.png"
    browse(chromium, tmp_path, f"--screenshot={image}", "--window-size=1000,1400", f"file://{page}")
    from matplotlib.image import imread

    pixels = imread(image)
    assert pixels.shape[:2] == (1400, 1000)
    assert 0.005 < (pixels[..., :3].mean(-1) < 0.5).mean() < 0.5
