"""A human as an oracle, asked in the terminal or on a page in the browser."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from modicum.errors import InputError
from modicum.oracles.labelling.session import Asking, Session
from modicum.oracles.ledger.database import default_ledger
from modicum.oracles.ledger.ledger import Ledger
from modicum.oracles.protocol import Failure, Judgement, Letter, Pair
from modicum.oracles.questions import DEFAULT_WORDING, Question

if TYPE_CHECKING:
    from rich.console import Console


_HELP = "a or b, with the reason after it if you like; s skip, u undo, q stop"
# Control characters, by which a text could move the cursor or clear the screen.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def label_at_terminal(
    session: Session, console: Console, read: Callable[[str], str] = input
) -> None:
    """Ask until everything is answered and confirmed, or until `q` or the end of the input."""
    shown: Question | None = None
    while True:
        question = session.show()
        if question is None:
            _say(console, f"all {session.progress.total} answered; Enter to finish, u undo")
        elif question is not shown:
            _show(console, session, question)
        shown = question
        try:
            line = read("> ").strip()
        except EOFError:
            return
        command, _, rest = line.partition(" ")
        match command.lower():
            case "" if question is None:
                return
            case "a" | "b" if question is not None:
                letter: Letter = "A" if command.lower() == "a" else "B"
                session.judge(question.key, letter, rest)
            case "s" if question is not None:
                session.skip(question.key)
                shown = None
            case "u":
                undone = session.undo()
                shown = None
                if undone is None:
                    _say(console, "nothing to take back")
                elif undone.verdict is not None:
                    _say(console, f"taken back: {undone.verdict.letter}")
            case "q":
                return
            case _:
                _say(console, _HELP)


def _say(console: Console, text: str) -> None:
    console.print(text, style="dim", markup=False, highlight=False)


def _show(console: Console, session: Session, question: Question) -> None:
    from rich.panel import Panel
    from rich.text import Text

    progress = session.progress
    console.rule(f"{progress.answered + 1} of {progress.total}", style="dim")
    if question.prompt:
        console.print(Text(_plain(question.prompt)))
    for letter, completion in zip("AB", question.shown, strict=True):
        console.print(Panel(Text(_plain(completion) or "(empty)"), title=letter))
    console.print(Text(session.asking.wording, style="bold"))
    _say(console, _HELP)


def _plain(text: str) -> str:
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))


class Human:
    """A human who is asked in the browser or in the terminal, and whose answers are remembered.

    Args:
        name: Name of the human; each name has its own answers.
        ledger: File of the ledger; None for a file of this name in the folder of ledgers.
        wording: The question above every pair.
        both_orders: Ask about each pair in both orders, and report whether the winners agree.
        terminal: Ask in the terminal instead of the browser.
        port: Port of the page; 0 for a free one.
        open_browser: Open the page if there is a screen; otherwise only its address is printed.

    Raises:
        InputError: The name or the wording is empty.
    """

    def __init__(
        self,
        name: str,
        ledger: Path | None = None,
        *,
        wording: str = DEFAULT_WORDING,
        both_orders: bool = False,
        terminal: bool = False,
        port: int = 0,
        open_browser: bool = True,
    ) -> None:
        for field, text in (("name", name), ("wording", wording)):
            if not text.strip():
                raise InputError(f"human: {field} must not be empty")
        self._asking = Asking(name, wording, both_orders)
        self.ledger = (ledger or default_ledger(name, "human-")).expanduser().absolute()
        self._terminal = terminal
        self._port = port
        self._open_browser = open_browser

    @property
    def name(self) -> str:
        """`human:NAME`."""
        return self._asking.model

    @property
    def version(self) -> str:
        """Digest of the wording."""
        return self._asking.version

    def judge(self, pairs: Sequence[Pair], *, repeat: int = 0) -> list[Judgement | Failure]:
        """Ask about the pairs that the ledger does not answer, and wait for the answers.

        Pairs that are open when the human stops are failures (`unavailable`). Do not call this from
        a running event loop.

        Raises:
            InputError: The ledger is in use or damaged, or the port is taken.
        """
        with self.session(pairs, repeat) as session:
            if not session.progress.finished:
                self.ask(session)
            return session.judgements()

    @contextlib.contextmanager
    def session(self, pairs: Sequence[Pair], repeat: int = 0) -> Iterator[Session]:
        """A session about pairs; the ledger is open for the length of the block.

        Raises:
            InputError: The ledger is in use or damaged.
        """
        asking = Asking(self._asking.name, self._asking.wording, self._asking.both_orders, repeat)
        ledger = Ledger(self.ledger)
        try:
            yield Session(pairs, ledger, asking)
        finally:
            ledger.close()

    def ask(self, session: Session) -> None:
        """Ask until the human finishes or stops.

        Raises:
            InputError: The port is taken.
            KeyboardInterrupt: The human pressed Ctrl-C; all answers so far are in the ledger.
        """
        if self._terminal:
            from rich.console import Console

            label_at_terminal(session, Console())
            return
        from modicum.oracles.labelling.server import serve

        asyncio.run(serve(session, self._port, self._announce))

    def _announce(self, url: str) -> None:
        print(f"label at {url}", flush=True)
        print("Ctrl-C stops; every answer is saved at once", file=sys.stderr, flush=True)
        if self._open_browser and _has_screen():
            import webbrowser

            # The call may return only when the browser is closed.
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()


def _has_screen() -> bool:
    """True if there is a screen; without one, a text browser would open in the terminal."""
    if sys.platform in {"darwin", "win32"}:
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
