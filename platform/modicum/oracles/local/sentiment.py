"""Sentiment: VADER's rules, and a classifier trained on the data at hand with a term for fluency.

The trained oracle stands in for a large model that is asked which completion is more positive and
also grammatical and consistent (thesis, figure 6.1). Name it as a stand-in wherever you use its
judgements.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self

import numpy as np

from modicum.data.digest import digest_arrays
from modicum.errors import InputError
from modicum.models.saved import loading_model
from modicum.oracles.local.fluency import Fluency, HuggingFaceFluency, NGramFluency
from modicum.oracles.local.scoring import NoScore, Score, Text, joined, judge_by_score
from modicum.oracles.protocol import Failure, Judgement, Pair, digest

_FORMAT = 1
_ANALYSIS: Mapping[str, Any] = MappingProxyType(
    {"ngram_range": (1, 2), "sublinear_tf": True, "lowercase": True}
)
_KINDS: Mapping[str, type[NGramFluency] | type[HuggingFaceFluency]] = MappingProxyType(
    {kind.kind: kind for kind in (NGramFluency, HuggingFaceFluency)}
)


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


@dataclass(frozen=True, eq=False)
class SentimentOracle:
    """Oracle that prefers the text (prompt and completion) which is more positive and more fluent.

    score(text) = log-odds of positive + weight × mean log-probability per token

    The first term is logistic regression on TF-IDF features of words and word pairs; the second
    comes from a language model. Create an oracle by `fit` or `load`.

    Attributes:
        words: Words and word pairs, in the order of the two arrays.
        inverse_frequencies: Inverse document frequency of each word.
        coefficients: Regression coefficient of each word.
        intercept: Intercept of the regression.
        fluency: The language model; None for sentiment alone.
        fluency_weight: Weight of the language model's term.
        name: Name that is shown in results.
    """

    words: Sequence[str]
    inverse_frequencies: np.ndarray
    coefficients: np.ndarray
    intercept: float
    fluency: Fluency | None
    fluency_weight: float
    name: str

    @classmethod
    def fit(
        cls,
        texts: Sequence[str],
        labels: Sequence[int] | np.ndarray,
        *,
        fluency: Fluency | Literal["ngram"] | None = "ngram",
        fluency_weight: float = 0.5,
        min_count: int = 2,
        inverse_regularisation: float = 10.0,
        name: str = "sentiment",
    ) -> Self:
        """Train on labelled texts, without a download; tens of thousands of reviews take seconds.

        Args:
            texts: Training texts.
            labels: 1 for a positive text, 0 for a negative text; both must occur.
            fluency: A language model, `ngram` to train one on the same texts, or None.
            fluency_weight: Log-odds that one nat per token is worth.
            min_count: Fewest texts in which a word or word pair must occur.
            inverse_regularisation: C of the logistic regression.
            name: Name that is shown in results.

        Raises:
            InputError: An argument is not allowed; the message names it.
        """
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression

        labels_N = np.asarray(labels)
        if labels_N.shape != (len(texts),):
            raise InputError(
                f"labels: must be one for each of the {len(texts)} texts, got shape "
                f"{labels_N.shape}"
            )
        if set(np.unique(labels_N).tolist()) != {0, 1}:
            raise InputError("labels: must be 0 (negative) and 1 (positive), and both must occur")
        if isinstance(fluency, str) and fluency != "ngram":
            raise InputError(f"fluency: must be a language model, 'ngram' or None, got {fluency!r}")
        if not (math.isfinite(fluency_weight) and fluency_weight >= 0):
            raise InputError(f"fluency_weight: must be 0 or more, got {fluency_weight!r}")
        if min_count < 1:
            raise InputError(f"min_count: must be at least 1, got {min_count}")
        if not (math.isfinite(inverse_regularisation) and inverse_regularisation > 0):
            raise InputError(
                f"inverse_regularisation: must be above 0, got {inverse_regularisation!r}"
            )
        vectoriser = TfidfVectorizer(min_df=min_count, **_ANALYSIS)
        try:
            features = vectoriser.fit_transform(texts)
        except ValueError as error:
            raise InputError(
                f"texts: no word occurs in min_count ({min_count}) texts ({error})"
            ) from error
        regression = LogisticRegression(C=inverse_regularisation, max_iter=1000)
        regression.fit(features, labels_N)
        return cls(
            words=vectoriser.get_feature_names_out().tolist(),
            inverse_frequencies=vectoriser.idf_,
            coefficients=regression.coef_[0],
            intercept=float(regression.intercept_[0]),
            fluency=NGramFluency.fit(texts) if isinstance(fluency, str) else fluency,
            fluency_weight=float(fluency_weight),
            name=name,
        )

    @cached_property
    def version(self) -> str:
        """Digest of the classifier, the weight and the language model."""
        fluency = "" if self.fluency is None else self.fluency.version
        numbers = (self.intercept.hex(), self.fluency_weight.hex())
        return digest(digest_arrays(self._arrays()), fluency, *numbers, *self.words)[:16]

    def judge(self, pairs: Sequence[Pair], *, repeat: int = 0) -> list[Judgement | Failure]:
        """Judge pairs, in order; all repeats have the same answers. See `Oracle`."""
        return judge_by_score(pairs, self._scores, name=self.name, version=self.version)

    def log_odds(self, texts: Sequence[str]) -> np.ndarray:
        """The sentiment term alone: log-odds of positive, shape (number of texts,)."""
        return np.asarray(self._vectoriser.transform(texts) @ self.coefficients + self.intercept)

    def save(self, folder: str | Path) -> None:
        """Write the oracle to a new folder, as JSON and safetensors.

        A language model of the transformers library is saved by its name.

        Raises:
            InputError: The folder exists.
        """
        from safetensors.numpy import save_file

        folder = Path(folder)
        if folder.exists():
            raise InputError(f"folder: {folder} exists; name a new one")
        folder.mkdir(parents=True)
        if self.fluency is not None:
            self.fluency.save(folder)
        save_file(self._arrays(), str(folder / "classifier.safetensors"))
        (folder / "words.json").write_text(json.dumps(list(self.words)))
        described = {
            "format": _FORMAT,
            "name": self.name,
            "intercept": self.intercept,
            "fluency": None if self.fluency is None else self.fluency.kind,
            "fluency_weight": self.fluency_weight,
            "version": self.version,
        }
        (folder / "oracle.json").write_text(json.dumps(described, indent=1))

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Load the oracle that `save` wrote, of the same version.

        Raises:
            InputError: The folder holds no such oracle, or its files were changed.
        """
        from safetensors.numpy import load_file

        folder = Path(folder)
        with loading_model(folder, "sentiment oracle", "folder"):
            described = json.loads((folder / "oracle.json").read_text())
            if described["format"] != _FORMAT:
                raise InputError(
                    f"folder: {folder} has format {described['format']}, allowed is {_FORMAT}"
                )
            kind = described["fluency"]
            oracle = cls(
                words=json.loads((folder / "words.json").read_text()),
                **load_file(folder / "classifier.safetensors"),
                intercept=described["intercept"],
                fluency=None if kind is None else _KINDS[kind].load(folder),
                fluency_weight=described["fluency_weight"],
                name=described["name"],
            )
        if oracle.version != described["version"]:
            raise InputError(f"folder: the files in {folder} were changed after they were saved")
        return oracle

    @cached_property
    def _vectoriser(self) -> Any:
        from sklearn.feature_extraction.text import TfidfVectorizer

        numbers = {word: number for number, word in enumerate(self.words)}
        vectoriser = TfidfVectorizer(vocabulary=numbers, **_ANALYSIS)
        vectoriser.idf_ = self.inverse_frequencies
        return vectoriser

    def _scores(self, texts: Sequence[Text]) -> list[Score | NoScore]:
        whole = joined(texts)
        log_odds_N = self.log_odds(whole)
        if self.fluency is None:
            return [Score(float(value)) for value in log_odds_N]
        fluencies = self.fluency.mean_log_probabilities(whole)
        return [
            mean if isinstance(mean, NoScore) else Score(float(value + self.fluency_weight * mean))
            for value, mean in zip(log_odds_N, fluencies, strict=True)
        ]

    def _arrays(self) -> dict[str, np.ndarray]:
        return {
            "inverse_frequencies": self.inverse_frequencies,
            "coefficients": self.coefficients,
        }
