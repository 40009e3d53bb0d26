"""The page on which a human judges pairs, in a real browser with real keys and clicks."""

import asyncio
import json
import queue
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress

import pytest
from playwright.sync_api import expect

from modicum.oracles.labelling.human import Human
from modicum.oracles.labelling.server import serve
from modicum.oracles.ledger.database import open_to_read
from modicum.oracles.protocol import Pair

pytestmark = pytest.mark.slow

COMMAND = "import typer; from modicum.cli.oracle import label; typer.run(label)"
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
PAIRS = [Pair(f"prompt {i}", f"good {i}", f"bad {i}") for i in range(5)]
PHONE = {"width": 390, "height": 844}
PAUSE = 350  # Milliseconds: a pair's first 300 take no answer.


@contextmanager
def running(folder, pairs):
    """The command as a process, and the address that it prints; ended as by Ctrl-C."""
    file = folder / "pairs.jsonl"
    rows = [{"prompt": p.prompt, "first": p.first, "second": p.second} for p in pairs]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["--name", "ada", "--ledger", folder / "ledger.sqlite", "--no-open"]
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *map(str, [file, *arguments, "--out", folder / "o.jsonl"])],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process, process.stdout.readline().removeprefix("label at ").strip()
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert "Traceback" not in errors
    finally:
        process.kill()


@contextmanager
def serving(folder, pairs):
    """The address of a server in a thread of this process, which starts sooner."""
    addresses = queue.Queue()
    loop = asyncio.new_event_loop()

    async def serve_until_cancelled(session):
        with suppress(asyncio.CancelledError):
            await serve(session, 0, addresses.put)

    def work():
        asyncio.set_event_loop(loop)
        with Human("ada", folder / "ledger.sqlite").session(pairs) as session:
            loop.run_until_complete(serve_until_cancelled(session))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield addresses.get(timeout=30)
    finally:
        loop.call_soon_threadsafe(lambda: [task.cancel() for task in asyncio.all_tasks(loop)])
        thread.join(30)
        loop.close()


@contextmanager
def visiting(browser, url, **options):
    """A page at an address, whose script must not have failed when it is left."""
    context = browser.new_context(viewport={"width": 1280, "height": 800} | options)
    page = context.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(url)
    expect(page.locator("#count")).not_to_be_empty()
    yield page
    context.close()
    assert errors == []


def see(page, prompt):
    """Wait until a pair is shown, and until it takes answers."""
    expect(page.locator("#prompt")).to_have_text(prompt)
    page.wait_for_timeout(PAUSE)


def key_of(page, word):
    """The key of the completion that starts with a word."""
    return "a" if page.text_content("#A").startswith(word) else "b"


def winners(folder):
    rows = [json.loads(line) for line in (folder / "o.jsonl").read_text().splitlines()]
    return {row["prompt"]: row["winner"] for row in rows}


def answered(folder):
    count = "SELECT COUNT(*) FROM requests WHERE state = 'answered'"
    return open_to_read(folder / "ledger.sqlite").execute(count).fetchone()[0]


def test_keys_undo_and_reload_keep_what_was_meant(browser, tmp_path):
    assert {pair.order for pair in PAIRS} == {"given", "swapped"}
    meant = ["good", "bad", "good", "good", "bad"]
    with running(tmp_path, PAIRS) as (process, url), visiting(browser, url) as page:
        for i in range(2):
            see(page, f"prompt {i}")
            page.keyboard.press(key_of(page, meant[i]))
        see(page, "prompt 2")
        assert page.text_content("#count") == "2 of 5 answered"
        assert page.evaluate("document.getElementById('bar').value") == 2
        # A slip, taken back by Backspace; then two more by U.
        page.keyboard.press(key_of(page, "bad"))
        see(page, "prompt 3")
        page.keyboard.press("Backspace")
        see(page, "prompt 2")
        slip = key_of(page, "bad").upper()
        assert page.text_content("#note") == f"Taken back: you had chosen {slip}."
        page.keyboard.press("u")
        see(page, "prompt 1")
        page.keyboard.press("U")
        see(page, "prompt 0")
        assert page.is_disabled("#undo")
        assert answered(tmp_path) == 0
        arrows = {"a": "ArrowLeft", "b": "ArrowRight"}
        for i in range(3):
            see(page, f"prompt {i}")
            page.keyboard.press(arrows[key_of(page, meant[i])])
        see(page, "prompt 3")
        page.reload()
        see(page, "prompt 3")
        assert page.text_content("#count") == "3 of 5 answered"
        for i in (3, 4):
            see(page, f"prompt {i}")
            page.click(f"#vote{key_of(page, meant[i]).upper()}")
        page.wait_for_selector("#finish")
        assert page.text_content("#done") == "All 5 are answered."
        assert page.is_hidden("#question")
        assert page.is_hidden("#votes")
        page.keyboard.press("a")
        page.keyboard.press("u")
        see(page, "prompt 4")
        page.keyboard.press(key_of(page, meant[4]))
        page.click("#finish")
        expect(page.locator("#after")).to_contain_text("You can close this page")
        assert process.wait(30) == 0
    expected = {"good": "first", "bad": "second"}
    assert winners(tmp_path) == {f"prompt {i}": expected[meant[i]] for i in range(5)}


def test_typing_a_reason_does_not_vote(browser, tmp_path):
    with serving(tmp_path, PAIRS) as url, visiting(browser, url) as page:
        see(page, "prompt 0")
        page.keyboard.press("r")
        assert page.evaluate("document.activeElement.id") == "rationale"
        page.keyboard.type("abusr because")
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Backspace")
        page.wait_for_timeout(PAUSE)
        assert page.text_content("#prompt") == "prompt 0"
        assert answered(tmp_path) == 0
        page.keyboard.press("Enter")
        page.keyboard.press("a")
        see(page, "prompt 1")
        assert page.input_value("#rationale") == ""
        rationale = "SELECT rationale FROM requests WHERE state = 'answered'"
        ledger = open_to_read(tmp_path / "ledger.sqlite")
        assert ledger.execute(rationale).fetchall() == [("abusr becaus",)]
        # Taken back, the reason is there to be changed.
        page.keyboard.press("u")
        see(page, "prompt 0")
        assert page.input_value("#rationale") == "abusr becaus"


def test_texts_are_shown_and_never_executed(browser, tmp_path):
    pair = Pair(f"prompt {HOSTILE}", f"first {HOSTILE}\n  second line", "")
    with serving(tmp_path, [pair]) as url, visiting(browser, url) as page:
        requests = []
        page.on("request", lambda request: requests.append(request.url))
        page.reload()
        see(page, pair.prompt)
        shown = {page.text_content("#A"), page.text_content("#B")}
        assert shown == {pair.first, "(empty)"}
        assert page.title() == "0/1 · Which of the two is better?"
        assert page.locator("main img, main script").count() == 0
        base = url.split("/?")[0]
        assert {u.split("?")[0] for u in requests if not u.startswith("data:")} == {
            f"{base}/",
            f"{base}/api/state",
        }
        # And if something got in, the page's policy would not let it run.
        page.evaluate(
            "document.body.append(Object.assign(document.createElement('script'), "
            "{textContent: 'document.title = \"owned\"'}))"
        )
        assert page.title() != "owned"


def test_a_double_click_answers_one_pair(browser, tmp_path):
    with serving(tmp_path, PAIRS) as url, visiting(browser, url) as page:
        see(page, "prompt 0")
        page.dblclick("#voteA")
        see(page, "prompt 1")
        for _ in range(4):
            page.keyboard.press("b")
        see(page, "prompt 2")
        # A key held down repeats itself.
        page.keyboard.down("a")
        see(page, "prompt 3")
        for _ in range(3):
            page.keyboard.down("a")
            page.wait_for_timeout(50)
        page.keyboard.up("a")
        page.wait_for_timeout(PAUSE)
        assert page.text_content("#prompt") == "prompt 3"
        assert answered(tmp_path) == 3


def test_two_tabs_make_one_answer(browser, tmp_path):
    with (
        serving(tmp_path, PAIRS) as url,
        visiting(browser, url) as one,
        visiting(browser, url) as two,
    ):
        see(one, "prompt 0")
        see(two, "prompt 0")
        one.keyboard.press("a")
        see(one, "prompt 1")
        two.keyboard.press("b")
        see(two, "prompt 1")
        assert two.text_content("#note") == "Nothing changed: it was answered before."
        verdicts = open_to_read(tmp_path / "ledger.sqlite").execute(
            "SELECT verdict FROM requests WHERE state = 'answered'"
        )
        assert verdicts.fetchall() == [("A",)]


def test_a_command_that_ended_is_noticed_and_nothing_is_lost(browser, tmp_path):
    with running(tmp_path, PAIRS) as (process, url), visiting(browser, url) as page:
        see(page, "prompt 0")
        page.keyboard.press("a")
        see(page, "prompt 1")
        process.kill()
        process.wait(30)
        page.keyboard.press("a")
        page.wait_for_selector("#note.bad")
        assert "is the command still running" in page.text_content("#note")
        assert page.text_content("#prompt") == "prompt 1"
        assert answered(tmp_path) == 1
    with serving(tmp_path, PAIRS) as url, visiting(browser, url) as page:
        see(page, "prompt 1")


def test_on_a_phone_nothing_is_cut_off(browser, tmp_path):
    pairs = [Pair("p " * 2000, "first " * 200, "x" * 400)]
    with serving(tmp_path, pairs) as url, visiting(browser, url, **PHONE) as page:
        see(page, pairs[0].prompt)
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        a, b = (page.locator(f"article:has(#{letter})").bounding_box() for letter in "AB")
        assert b["y"] >= a["y"] + a["height"]
        # What is below the edge of the prompt is seen to be there, until it is scrolled to.
        prompt = page.locator("#prompt.more-below")
        assert prompt.count() == 1
        page.evaluate("document.getElementById('prompt').scrollTop = 1e6")
        expect(prompt).to_have_count(0)
        # Scrolled to the end, the last line stands above the buttons, which are always in reach.
        page.evaluate("window.scrollTo(0, 1e6)")
        last = page.locator("article:has-text('B')").last.bounding_box()
        footer = page.locator("footer").bounding_box()
        assert last["y"] + last["height"] <= footer["y"]
        assert footer["y"] + footer["height"] <= PHONE["height"] + 1
    with serving(tmp_path, pairs) as url, visiting(browser, url) as page:
        see(page, pairs[0].prompt)
        a, b = (page.locator(f"article:has(#{letter})").bounding_box() for letter in "AB")
        assert a["y"] == b["y"]
        assert b["x"] >= a["x"] + a["width"]


def test_focus_is_seen(browser, tmp_path):
    with serving(tmp_path, PAIRS) as url, visiting(browser, url) as page:
        see(page, "prompt 0")
        reached = []
        for _ in range(4):
            page.keyboard.press("Tab")
            focused = page.evaluate(
                "(e => [e.id, getComputedStyle(e).outlineStyle])(document.activeElement)"
            )
            reached.append(focused)
        assert reached == [[i, "solid"] for i in ("voteA", "voteB", "rationale", "skip")]
        # A button that has the focus is pressed by the space bar; keys still work beside it.
        page.locator("#voteB").focus()
        page.keyboard.press("Space")
        see(page, "prompt 1")
        page.keyboard.press("a")
        see(page, "prompt 2")


def test_text_stands_out_from_its_ground_in_both_schemes(browser, tmp_path):
    with serving(tmp_path, PAIRS) as url, visiting(browser, url) as page:
        see(page, "prompt 0")
        grounds = set()
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
            for selector in ("#wording", "#count", "#prompt", "#A", "#voteA", "#skip", "label"):
                assert contrast(page, selector) >= 4.5, (scheme, selector)
        assert len(grounds) == 2


def contrast(page, selector):
    """WCAG's contrast of an element's text to what is painted below it (4.5 is asked for)."""
    colours = page.evaluate(
        """selector => {
          const element = document.querySelector(selector);
          let below = element;
          while (getComputedStyle(below).backgroundColor === "rgba(0, 0, 0, 0)")
            below = below.parentElement;
          return [getComputedStyle(element).color, getComputedStyle(below).backgroundColor]
            .map(colour => colour.match(/[0-9.]+/g).slice(0, 3).map(Number));
        }""",
        selector,
    )

    def luminance(rgb):
        parts = [v / 255 for v in rgb]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
        return sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    dark, light = sorted(map(luminance, colours))
    return (light + 0.05) / (dark + 0.05)
