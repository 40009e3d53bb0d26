"""Fluency by a causal language model of the transformers library."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from modicum.errors import InputError
from modicum.models.hugging_face import LoadedModel, load_pretrained
from modicum.oracles.local.scoring import NoScore
from modicum.oracles.protocol import digest


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
