"""VADER: sentiment by a lexicon and a few rules; it learns nothing and reads English."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from importlib import metadata
from typing import Any

from modicum.errors import InputError
from modicum.oracles.local.scoring import Score, Text, joined, judge_by_score
from modicum.oracles.protocol import Failure, Judgement, Pair


class VaderOracle:
    """Prefers the text (prompt and completion) with the higher compound score.

    Hutto and Gilbert (2014). The score is within [-1, 1] and rounded to four decimals, so ties are
    common: texts without a word of the lexicon score 0, long one-sided ones nearly 1.

    Attributes:
        name: `vader`.
        version: The package's.

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
        """One answer for each pair; every repeat has the same. See `Oracle`."""
        return judge_by_score(pairs, self._scores, name=self.name, version=self.version)

    @cached_property
    def _analyser(self) -> Any:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

        return SentimentIntensityAnalyzer()

    def _scores(self, texts: Sequence[Text]) -> list[Score]:
        return [
            Score(float(self._analyser.polarity_scores(text)["compound"])) for text in joined(texts)
        ]
