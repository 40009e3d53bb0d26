"""Fluency of texts: the mean log-probability of a token under a language model."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from modicum.data.digest import digest_arrays
from modicum.errors import InputError
from modicum.models.hugging_face import LoadedModel, load_pretrained
from modicum.oracles.local.scoring import NoScore
from modicum.oracles.protocol import digest

# Line breaks of raw reviews; predictable as they are, they would count as fluent.
_LINE_BREAK = re.compile(r"<br\s*/?>")
_WORD = re.compile(r"\w+(?:'\w+)?|[^\w\s]")
_UNKNOWN = 0  # Number of all words outside the vocabulary.
_LARGEST_KEY = 2**63


class Fluency(Protocol):
    """A language model that measures the fluency of texts.

    Attributes:
        kind: Name of the class in a saved oracle.
    """

    kind: ClassVar[str]

    @property
    def version(self) -> str:
        """Identity of the model: the same version gives the same numbers."""
        ...

    def mean_log_probabilities(self, texts: Sequence[str]) -> list[float | NoScore]:
        """Mean log-probability of a token (natural logarithm), for each text."""
        ...

    def save(self, folder: Path) -> None:
        """Write the files that `load` needs to an existing folder."""
        ...


class HuggingFaceFluency:
    """Fluency by a causal language model of the transformers library.

    A text's first token counts only if the tokenizer has a beginning-of-text token, from which it
    can be predicted. A text longer than the model's context has no score.

    Args:
        model: Name on the hub, or a folder that `save_pretrained` wrote.
        revision: Branch, tag or commit on the hub.
        batch_size: Number of texts in a batch.
        device: Torch device; None for a GPU if there is one.
        dtype: Data type of the weights, such as `float32`; `auto` for the checkpoint's own.

    Raises:
        InputError: transformers is not installed, or there is no such language model.
    """

    kind: ClassVar[str] = "hugging_face"

    def __init__(
        self,
        model: str,
        *,
        revision: str | None = None,
        batch_size: int = 8,
        device: str | None = None,
        dtype: str = "auto",
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size: must be at least 1, got {batch_size}")
        self._batch_size = batch_size
        self._settings = {"model": model, "revision": revision, "dtype": dtype}
        self._loaded: LoadedModel = load_pretrained(
            "AutoModelForCausalLM", model, revision=revision, device=device, dtype=dtype
        )

    @property
    def version(self) -> str:
        """The model's identity: its files' digest, or its name and commit on the hub."""
        return digest(self.kind, self._loaded.identity)[:16]

    def mean_log_probabilities(self, texts: Sequence[str]) -> list[float | NoScore]:
        """See `Fluency`. Tokens are the tokenizer's, without its special tokens."""
        tokenizer, context = self._loaded.tokenizer, self._loaded.context
        first = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        encoded = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        numbers = [first + list(ids) for ids in encoded]
        scores: list[float | NoScore] = [
            NoScore("too_long", f"it has {len(ids)} tokens, the model's context {context}")
            if context is not None and len(ids) > context
            else NoScore("unreadable", "it has no token that could be predicted")
            for ids in numbers
        ]
        usable = [n for n, ids in enumerate(numbers) if 1 < len(ids) <= (context or len(ids))]
        usable.sort(key=lambda n: len(numbers[n]))
        for start in range(0, len(usable), self._batch_size):
            rows = usable[start : start + self._batch_size]
            means = self._means([numbers[row] for row in rows])
            for row, mean in zip(rows, means, strict=True):
                scores[row] = mean
        return scores

    def save(self, folder: Path) -> None:
        """Write the model's name and identity; the model itself is not copied."""
        described = {**self._settings, "version": self.version}
        (folder / "hugging_face.json").write_text(json.dumps(described))

    @classmethod
    def load(cls, folder: Path) -> HuggingFaceFluency:
        """Load the model that `save` named.

        Raises:
            InputError: The model is missing, or has changed since.
        """
        described = json.loads((folder / "hugging_face.json").read_text())
        version = described.pop("version")
        fluency = cls(**described)
        if fluency.version != version:
            raise InputError(
                f"fluency: the language model {described['model']!r} is not the one that the "
                "oracle was saved with"
            )
        return fluency

    def _means(self, numbers: Sequence[Sequence[int]]) -> list[float]:
        import torch
        from torch.nn.functional import cross_entropy

        lengths = [len(ids) for ids in numbers]
        ids_BT = torch.zeros(len(numbers), max(lengths), dtype=torch.long)
        mask_BT = torch.zeros_like(ids_BT)
        for row, ids in enumerate(numbers):
            ids_BT[row, : len(ids)] = torch.tensor(ids)
            mask_BT[row, : len(ids)] = 1
        ids_BT, mask_BT = ids_BT.to(self._loaded.device), mask_BT.to(self._loaded.device)
        model: Any = self._loaded.model
        with torch.inference_mode():
            logits_BTV = model(input_ids=ids_BT, attention_mask=mask_BT).logits[:, :-1]
            losses_BT = cross_entropy(
                logits_BTV.float().transpose(1, 2), ids_BT[:, 1:], reduction="none"
            )
            sums_B = (losses_BT * mask_BT[:, 1:]).double().sum(1)
        return [-total / (n - 1) for total, n in zip(sums_B.tolist(), lengths, strict=True)]


@dataclass(frozen=True)
class _Counts:
    """N-grams of one length that occurred in training.

    An n-gram is a number in base V + 1; its first word is the highest digit.
    """

    keys: np.ndarray
    counts: np.ndarray

    def contexts(self, base: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Contexts (n-grams without their last words).

        Returns:
            Sorted keys, occurrences, and numbers of different words that follow.
        """
        keys, starts, kinds = np.unique(self.keys // base, return_index=True, return_counts=True)
        totals = np.add.reduceat(self.counts, starts) if len(keys) else self.counts
        return keys, totals, kinds


@dataclass(frozen=True, eq=False)
class NGramFluency:
    """An interpolated n-gram model of words and punctuation, without torch.

    Witten and Bell's interpolation, as in Chen and Goodman (1998):
    p(w|h) = (c(hw) + T(h) p(w|h')) / (c(h) + T(h)). T(h) is the number of different words that
    follow h in training; h' is the context h without its first word. A context that never occurred
    has p(w|h'), and the shortest model is interpolated with the uniform distribution over the
    vocabulary. All unknown words share one place in the vocabulary, and its probability equally.

    Attributes:
        order: Number of words in an n-gram.
        vocabulary: Known words; the first entry stands for all unknown words.
        unknown_words: Number of words that share the probability of the first entry.
        counts: N-grams of length 1 to `order`.
    """

    order: int
    vocabulary: Sequence[str]
    unknown_words: int
    counts: Sequence[_Counts]

    kind: ClassVar[str] = "ngram"

    @classmethod
    def fit(
        cls,
        texts: Iterable[str],
        *,
        order: int = 3,
        vocabulary_size: int = 30_000,
        min_count: int = 2,
    ) -> Self:
        """Count n-grams.

        Args:
            texts: Training texts.
            order: Number of words in an n-gram.
            vocabulary_size: Most known words; the most frequent words are known.
            min_count: Fewest occurrences of a known word.

        Raises:
            InputError: A setting is out of range, or the texts hold no words.
        """
        for field, value in [("order", order), ("min_count", min_count)]:
            if value < 1:
                raise InputError(f"{field}: must be at least 1, got {value}")
        if vocabulary_size < 1 or (vocabulary_size + 2) ** order >= _LARGEST_KEY:
            raise InputError(
                f"vocabulary_size: must be at least 1 and, plus 2, to the power of order "
                f"({order}), below 2^63, got {vocabulary_size}"
            )
        seen: dict[str, int] = {}
        numbers = [
            np.array([seen.setdefault(word, len(seen)) for word in _words(text)], dtype=np.int64)
            for text in texts
        ]
        if not seen:
            raise InputError("texts: hold no words to fit a language model on")
        words = list(seen)
        counts_W = np.bincount(np.concatenate(numbers), minlength=len(words))
        frequent = [w for w in range(len(words)) if counts_W[w] >= min_count]
        frequent.sort(key=lambda w: (-counts_W[w], words[w]))
        known = frequent[:vocabulary_size]
        renumbered_W = np.full(len(words), _UNKNOWN, dtype=np.int64)
        renumbered_W[known] = np.arange(1, len(known) + 1)
        vocabulary = ["", *(words[w] for w in known)]
        keys = _NGrams.of([renumbered_W[text] for text in numbers], order, len(vocabulary))
        return cls(
            order=order,
            vocabulary=vocabulary,
            unknown_words=len(words) - len(known) + 1,
            counts=[
                _Counts(*np.unique(keys.of_length(length), return_counts=True))
                for length in range(1, order + 1)
            ],
        )

    def mean_log_probabilities(self, texts: Sequence[str]) -> list[float | NoScore]:
        """See `Fluency`. Tokens are words and punctuation marks, in lower case."""
        numbers = [
            np.array([self._number_of.get(w, _UNKNOWN) for w in _words(text)], dtype=np.int64)
            for text in texts
        ]
        lengths_N = np.array([len(words) for words in numbers])
        log_probabilities = np.log(self._probabilities(numbers))
        sums_N = np.bincount(
            np.repeat(np.arange(len(texts)), lengths_N),
            weights=log_probabilities,
            minlength=len(texts),
        )
        nothing = NoScore("unreadable", "it holds no words")
        return [
            float(total / length) if length else nothing
            for total, length in zip(sums_N, lengths_N, strict=True)
        ]

    @cached_property
    def version(self) -> str:
        """Digest of the vocabulary and the counts."""
        settings = (self.kind, str(self.order), str(self.unknown_words))
        return digest(*settings, digest_arrays(self._arrays()), *self.vocabulary)[:16]

    def save(self, folder: Path) -> None:
        """See `Fluency`."""
        from safetensors.numpy import save_file

        described = {
            "order": self.order,
            "unknown_words": self.unknown_words,
            "vocabulary": list(self.vocabulary),
        }
        (folder / "ngram.json").write_text(json.dumps(described))
        save_file(self._arrays(), str(folder / "ngram.safetensors"))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load the model that `save` wrote."""
        from safetensors.numpy import load_file

        described = json.loads((folder / "ngram.json").read_text())
        arrays = load_file(folder / "ngram.safetensors")
        lengths = range(1, described["order"] + 1)
        counts = [_Counts(arrays[f"keys_{n}"], arrays[f"counts_{n}"]) for n in lengths]
        return cls(counts=counts, **described)

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays: dict[str, np.ndarray] = {}
        for length, counts in enumerate(self.counts, start=1):
            arrays |= {f"keys_{length}": counts.keys, f"counts_{length}": counts.counts}
        return arrays

    @cached_property
    def _number_of(self) -> dict[str, int]:
        return {word: n for n, word in enumerate(self.vocabulary) if n != _UNKNOWN}

    @cached_property
    def _contexts(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        return [counts.contexts(len(self.vocabulary) + 1) for counts in self.counts]

    def _probabilities(self, texts: Sequence[np.ndarray]) -> np.ndarray:
        """p(w|h) of every word of every text, as one array."""
        size = len(self.vocabulary)
        ngrams = _NGrams.of(texts, self.order, size)
        probabilities = np.full(ngrams.words, 1 / size)
        for length, (counts, contexts) in enumerate(
            zip(self.counts, self._contexts, strict=True), start=1
        ):
            keys = ngrams.of_length(length)
            context_keys, totals, kinds = contexts
            seen = _look_up(counts.keys, counts.counts, keys)
            total = _look_up(context_keys, totals, keys // (size + 1))
            different = _look_up(context_keys, kinds, keys // (size + 1))
            probabilities = np.divide(
                seen + different * probabilities,
                total + different,
                out=probabilities,
                where=total > 0,
            )
        unknown = ngrams.of_length(1) == _UNKNOWN
        return np.asarray(np.where(unknown, probabilities / self.unknown_words, probabilities))


@dataclass(frozen=True)
class _NGrams:
    """N-grams that end at the words of some texts."""

    # Words of all texts as one array, with order - 1 start symbols (number V) before each text.
    padded: np.ndarray
    places: np.ndarray  # Positions of the words in `padded`.
    base: int  # V + 1.

    @classmethod
    def of(cls, texts: Sequence[np.ndarray], order: int, vocabulary: int) -> _NGrams:
        start = np.full(order - 1, vocabulary, dtype=np.int64)
        empty = np.empty(0, dtype=np.int64)
        padded = np.concatenate([empty, *itertools.chain(*((start, text) for text in texts))])
        return cls(padded, np.flatnonzero(padded != vocabulary), vocabulary + 1)

    @property
    def words(self) -> int:
        """Number of words."""
        return len(self.places)

    def of_length(self, length: int) -> np.ndarray:
        """Keys of the n-grams of one length, in the order of the words."""
        keys = np.zeros(self.words, dtype=np.int64)
        for back in range(length - 1, -1, -1):
            keys = keys * self.base + self.padded[self.places - back]
        return keys


def _look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Values of wanted keys among sorted keys; zero for keys that are missing."""
    places = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return np.where(keys[places] == wanted, values[places], 0)


def _words(text: str) -> list[str]:
    return _WORD.findall(_LINE_BREAK.sub(" ", text).lower())
