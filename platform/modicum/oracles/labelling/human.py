"""A human as an oracle."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from modicum.errors import InputError
from modicum.oracles.endpoint.ledger import Ledger
from modicum.oracles.endpoint.settings import ledgers_folder
from modicum.oracles.labelling.session import DEFAULT_WORDING, Asking, Session
from modicum.oracles.labelling.store import LedgerStore
from modicum.oracles.protocol import Failure, Judgement, Pair, digest


class Human:
    """Somebody who is asked in the browser or in the terminal, and whose answers are remembered.

    Args:
        name: Who it is; answers are kept apart by it.
        ledger: File of the ledger; one of this human's own in the folder of ledgers if None.
        wording: The question that stands above every pair.
        both_orders: Ask about each pair in both orders, for its flag `consistent`.
        terminal: Ask in the terminal instead of the browser.
        port: Of the page; 0 for one that is free.
        open_browser: Open the page, where there is a screen; else its address is printed only.

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
        self.ledger = (ledger or own_ledger(name)).expanduser().absolute()
        self._terminal = terminal
        self._port = port
        self._open_browser = open_browser

    @property
    def name(self) -> str:
        """`human:NAME`."""
        return self._asking.model

    @property
    def version(self) -> str:
        """Identifies the wording."""
        return self._asking.version

    def judge(self, pairs: Sequence[Pair], *, repeat: int = 0) -> list[Judgement | Failure]:
        """Ask about the pairs that the ledger has no answer to, and wait for the answers.

        Pairs still open when the human stops are failures (`unavailable`). Not to be called where
        an event loop runs already.

        Raises:
            InputError: The ledger is in use or damaged, or the port is taken.
        """
        with self.session(pairs, repeat) as session:
            if not session.progress.finished:
                self.ask(session)
            return session.judgements()

    @contextlib.contextmanager
    def session(self, pairs: Sequence[Pair], repeat: int = 0) -> Iterator[Session]:
        """A session about pairs, while the ledger is open.

        Raises:
            InputError: The ledger is in use or damaged.
        """
        asking = Asking(self._asking.name, self._asking.wording, self._asking.both_orders, repeat)
        ledger = Ledger(self.ledger)
        try:
            yield Session(pairs, LedgerStore(ledger), asking)
        finally:
            ledger.close()

    def ask(self, session: Session) -> None:
        """Ask until the human is finished or stops.

        Raises:
            InputError: The port is taken.
            KeyboardInterrupt: The human pressed Ctrl-C; all answers given are in the ledger.
        """
        if self._terminal:
            from rich.console import Console

            from modicum.oracles.labelling.terminal import label_at_terminal

            label_at_terminal(session, Console())
            return
        from modicum.oracles.labelling.server import serve

        asyncio.run(serve(session, self._port, self._announce))

    def _announce(self, url: str) -> None:
        print(f"label at {url}", flush=True)
        print("Ctrl-C stops; every answer is kept as it is given", file=sys.stderr, flush=True)
        if self._open_browser and _has_screen():
            import webbrowser

            # Some browsers are waited for until they close.
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()


def own_ledger(name: str) -> Path:
    """Where a human's answers lie if no file is named."""
    words = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:60]
    return ledgers_folder() / f"human-{words}-{digest(name)[:8]}.sqlite"


def _has_screen() -> bool:
    """Without one, a browser would be a text browser in the terminal."""
    if sys.platform in {"darwin", "win32"}:
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
