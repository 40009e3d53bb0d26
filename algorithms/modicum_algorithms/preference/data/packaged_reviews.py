"""Reviews of invented films, composed of sentences that come with the package.

They need no download. The beginning of a review leaves its opinion open, so that it serves as a
prompt.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from importlib import resources

_SLOT = re.compile(r"\{(\w+)\}")


def packaged_reviews(count: int, seed: int) -> list[str]:
    """Distinct reviews: an opening, one to three sentences of one opinion, an ending.

    Every second review is favourable.
    """
    sections = _sections()
    generator = random.Random(seed)
    reviews: dict[str, None] = {}
    while len(reviews) < count:
        opinion = ("good", "bad")[len(reviews) % 2]
        sentences = [generator.choice(sections["opening"])]
        sentences += generator.sample(sections[opinion], generator.randint(1, 3))
        sentences.append(generator.choice(sections[f"{opinion} ending"]))
        reviews[" ".join(_filled(sentence, sections, generator) for sentence in sentences)] = None
    return list(reviews)


def packaged_text() -> str:
    """The file with the sentences and names of the reviews."""
    return (resources.files(__package__) / "reviews.txt").read_text(encoding="utf-8")


def _sections() -> dict[str, list[str]]:
    """Lines by the heading above them; headings begin with `#`."""
    sections: dict[str, list[str]] = {}
    for line in filter(None, packaged_text().splitlines()):
        if line.startswith("# "):
            lines = sections.setdefault(line.removeprefix("# "), [])
        else:
            lines.append(line)
    return sections


def _filled(sentence: str, sections: Mapping[str, Sequence[str]], generator: random.Random) -> str:
    """A sentence with distinct names in its slots and a capital first letter."""
    used: set[str] = set()

    def name(slot: re.Match[str]) -> str:
        chosen = generator.choice([n for n in sections[slot[1]] if n not in used])
        used.add(chosen)
        return chosen

    filled = _SLOT.sub(name, sentence)
    return filled[0].upper() + filled[1:]
