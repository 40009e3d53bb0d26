"""A question as it is asked and remembered, and the verdict in its answer."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property

from modicum.oracles.protocol import Letter, Order, Pair, digest, show

# Question that is asked of a person.
DEFAULT_WORDING = "Which of the two is better?"
_VERDICT = re.compile(r"^\W*preferred\b\W*?:(?P<value>.*)$", re.IGNORECASE)
_REASON = re.compile(r"^\W*comparison\b\W*?:(?:\*\*|__)?(?P<text>.*)", re.IGNORECASE | re.DOTALL)
_LETTER = re.compile(
    # Possessive quantifiers avoid a time quadratic in the length of a run of spaces or quotes.
    r"[\s\"'“”‘’*_`(\[<]*+(?:(?:review|summary|completion|option|response|answer)\s+)?"
    r"[\s\"'“”‘’*_`(\[<]*+(?P<letter>[AB])[\s\"'“”‘’*_`)\]>.]*+",
    re.IGNORECASE,
)
_FENCE = re.compile(r"^\s*```\w*\n(.*?)\n?```\s*$", re.DOTALL)


@dataclass(frozen=True)
class Question:
    """Everything that determines an answer, and so the identity under which it is remembered."""

    prompt: str
    first: str
    second: str
    order: Order  # Order in which the completions are shown, `given` or `swapped`.
    model: str  # The model that is asked, or `human:NAME`.
    temperature: float  # Sampling temperature.
    template: str  # Digest of the wording.
    repeat: int = 0  # Number of the opinion; another number asks for another opinion.

    @classmethod
    def about(
        cls,
        pair: Pair,
        order: Order,
        *,
        model: str,
        template: str,
        repeat: int,
        temperature: float = 0.0,
    ) -> Question:
        """The question about a pair, with its completions shown in an order."""
        texts = (pair.prompt, pair.first, pair.second)
        return cls(*texts, order, model, temperature, template, repeat)

    @cached_property
    def key(self) -> str:
        """64 hexadecimal digits that differ where any field differs."""
        return digest(
            self.prompt,
            self.first,
            self.second,
            self.order,
            self.model,
            repr(float(self.temperature)),
            self.template,
            str(self.repeat),
        )

    @property
    def shown(self) -> tuple[str, str]:
        """The completions as A and B."""
        return show(Pair(self.prompt, self.first, self.second), self.order)


@dataclass(frozen=True)
class Verdict:
    """A letter, as the completions were shown, and the reason for it."""

    letter: Letter
    rationale: str | None


def read_verdict(answer: str) -> Verdict | None:
    """The verdict in an answer; None unless there is exactly one.

    An answer may be a JSON object with `preferred` (and `comparison`), may hold lines
    `Preferred: A`, or may end with a line that is a letter alone. Quotes or markup may surround the
    letter. Lines that disagree, both letters, other words beside the letter and empty answers are
    no verdict.
    """
    structured = _as_object(answer)
    if structured is not None:
        letter = _letter(structured.get("preferred"))
        return None if letter is None else Verdict(letter, _text(structured.get("comparison")))
    lines = answer.strip().splitlines()
    found = [(i, match["value"]) for i, line in enumerate(lines) if (match := _VERDICT.match(line))]
    if not found and lines:
        alone = [(i, line) for i, line in enumerate(lines[:-1]) if _letter(line) is not None]
        found = [*alone, (len(lines) - 1, lines[-1])]
    letters = {_letter(value) for _, value in found}
    if len(letters) != 1:
        return None
    letter = letters.pop()
    if letter is None:
        return None
    before = "\n".join(lines[: found[0][0]]).strip()
    reason = _REASON.match(before)
    return Verdict(letter, _text(reason["text"] if reason else before))


def _as_object(answer: str) -> dict[str, object] | None:
    """The answer as a JSON object: empty if it begins one that cannot be read; else None."""
    fenced = _FENCE.match(answer)
    text = (fenced[1] if fenced else answer).strip()
    if not text.startswith("{"):
        return None
    try:
        value = json.loads(text, object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _without_repetition(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key occurs twice")
    return dict(pairs)


def _letter(value: object) -> Letter | None:
    if not isinstance(value, str) or not (match := _LETTER.fullmatch(value)):
        return None
    return "A" if match["letter"].upper() == "A" else "B"


def _text(value: object) -> str | None:
    text = value.strip() if isinstance(value, str) else ""
    return text or None
