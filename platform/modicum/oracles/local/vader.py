"""VADER: sentiment of English texts by a lexicon and a few rules, without training."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from importlib import metadata
from typing import Any

from modicum.errors import InputError
from modicum.oracles.local.scoring import Score, Text, joined, judge_by_score
from modicum.oracles.protocol import Failure, Judgement, Pair


class VaderOracle:
    """Oracle that prefers the text (prompt and completion) with the higher compound score.

    Source: Hutto and Gilbert (2014). The score is within [-1, 1] and rounded to four decimals, so
    ties are common: a text without words of the lexicon scores 0, a long one-sided text nearly 1.

    Attributes:
        name: `vader`.
        version: Version of the package vaderSentiment.

    Raises:
        InputError: The package vaderSentiment is not installed.
    """

    def __init__(self) -> None:
        self.name = "vader"
        try:
            self.version = metadata.version("vaderSentiment")
        except metadata.PackageNotFoundError as error:
            raise InputError(
                "VaderOracle: needs the package 'vaderSentiment' (extra 'oracles')"
            ) from error

    def judge(self, pairs: Sequence[Pair], *, repeat: int = 0) -> list[Judgement | Failure]:
        """Judge pairs, in order; all repeats have the same answers. See `Oracle`."""
        return judge_by_score(pairs, self._scores, name=self.name, version=self.version)

    @cached_property
    def _analyser(self) -> Any:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

        return SentimentIntensityAnalyzer()

    def _scores(self, texts: Sequence[Text]) -> list[Score]:
        return [
            Score(float(self._analyser.polarity_scores(text)["compound"])) for text in joined(texts)
        ]
