"""Pairs as long as posts and summaries of TL;DR, of which the endpoint knows the truth."""

from __future__ import annotations

import random

from modicum.oracles.protocol import Pair, Winner

VOCABULARY = "the my we was it told year friend moved job never because money house asked then"
POST_WORDS, SUMMARY_WORDS = 270, 25  # TL;DR's posts and summaries, about.


def pairs(count: int, seed: int) -> list[Pair]:
    """Pairs of which the server knows the better one."""
    draws = random.Random(seed)
    vocabulary = VOCABULARY.split()

    def text(words: int) -> str:
        return " ".join(draws.choices(vocabulary, k=words))

    def summary() -> str:
        return f"{text(SUMMARY_WORDS)} quality={draws.random():.6f}"

    return [
        Pair(prompt=f"{text(POST_WORDS)} {seed}-{number}", first=summary(), second=summary())
        for number in range(count)
    ]


def better(pair: Pair) -> Winner:
    """The winner by the markers."""
    first, second = (float(each.rpartition("=")[2]) for each in (pair.first, pair.second))
    return "first" if first > second else "second"
