"""Labelling at the keyboard of a terminal."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from modicum.oracles.labelling.session import Session
from modicum.oracles.protocol import Letter
from modicum.oracles.questions import Question

if TYPE_CHECKING:
    from rich.console import Console

_HELP = "a or b, with the reason after it if you like; s skip, u undo, q stop"
# Control characters, by which a text could move the cursor or clear the screen.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def label_at_terminal(
    session: Session, console: Console, read: Callable[[str], str] = input
) -> None:
    """Ask until everything is answered and confirmed, or until `q` or the end of the input.

    Args:
        session: The labelling session.
        console: Console that shows the pairs.
        read: Function that shows a prompt and returns one line.
    """
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
