"""Pairs of the length of TL;DR's posts and summaries, with winners that the endpoint knows."""

from __future__ import annotations

import random

from modicum.oracles.protocol import Pair, Winner

VOCABULARY = "the my we was it told year friend moved job never because money house asked then"
POST_WORDS, SUMMARY_WORDS = 270, 25  # About the lengths in TL;DR.


def pairs(count: int, seed: int) -> list[Pair]:
    """Pairs with markers of quality, by which the endpoint knows the winners."""
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
    """The winner by the markers of quality."""
    first, second = (float(each.rpartition("=")[2]) for each in (pair.first, pair.second))
    return "first" if first > second else "second"
