"""Log-probabilities of completions under a language model, both completions of a prompt at once.

B: rows of a batch, T: tokens of a row, C: scored tokens of all rows, V: vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import modicum as md
from modicum_algorithms.preference.data.prompts import Ids

# Parts of a row, and the parts that each attends to.
_PROMPT, _FIRST, _TAIL, _SECOND = range(4)
_COLUMNS = 3
_SEES = torch.tensor(
    [
        [True, False, False, False],
        [True, True, False, False],
        [True, True, True, False],
        [True, False, False, True],
    ]
)
_TOLERANCE = 1e-2


@dataclass(frozen=True)
class Example:
    """A prompt with its completions, as tokens.

    Attributes:
        prompt: Tokens of the prompt x, at least one.
        first: Tokens of a completion; in training, the preferred one.
        second: Tokens of another completion of the same prompt; may be empty.
        tail: Tokens that follow the first completion and are scored separately: the oracle's
            rationale.
    """

    prompt: Ids
    first: Ids
    second: Ids = ()
    tail: Ids = ()

    @property
    def tokens(self) -> int:
        """Length of the row, with the prompt once."""
        return len(self.prompt) + len(self.first) + len(self.tail) + len(self.second)


@dataclass(frozen=True)
class Rows:
    """Examples as tensors.

    A row holds the prompt once, then the first completion with its tail, then the second
    completion, which does not attend to the first and continues the positions of the prompt.

    Attributes:
        ids_BT: Tokens, padded on the right.
        positions_BT: Position of each token in its completed text.
        mask_B1TT: Attention mask; True where a token attends to another.
        rows_C: Row of each scored token.
        sources_C: Index of the token that predicts the scored token.
        targets_C: The scored tokens.
        columns_C: Column of the sum that the token belongs to: 0 first, 1 second, 2 tail.
    """

    ids_BT: Tensor
    positions_BT: Tensor
    mask_B1TT: Tensor
    rows_C: Tensor
    sources_C: Tensor
    targets_C: Tensor
    columns_C: Tensor

    @classmethod
    def of(cls, examples: Sequence[Example], device: torch.device | str = "cpu") -> Rows:
        """The rows of examples, at least one, padded to the longest."""
        size, width = len(examples), max(example.tokens for example in examples)
        ids_BT = np.zeros((size, width), dtype=np.int64)
        positions_BT = np.zeros((size, width), dtype=np.int64)
        parts_BT = np.full((size, width), _PROMPT, dtype=np.int64)
        lengths = np.array([example.tokens for example in examples])
        scored: list[tuple[np.ndarray, ...]] = []
        for row, e in enumerate(examples):
            assert e.prompt, "a prompt needs a token from which the next one is predicted"
            P, F, R, S = len(e.prompt), len(e.first), len(e.tail), len(e.second)
            ids_BT[row, : e.tokens] = (*e.prompt, *e.first, *e.tail, *e.second)
            positions_BT[row, : e.tokens] = np.r_[: P + F + R, P : P + S]
            parts_BT[row, P : e.tokens] = np.repeat([_FIRST, _TAIL, _SECOND], [F, R, S])
            sources = np.r_[P - 1 : P + F + R - 1, P + F + R - 1 : e.tokens - 1]
            if S:
                sources[F + R] = P - 1  # The second completion follows the prompt as well.
            columns = np.repeat([0, 2, 1], [F, R, S])
            scored.append((np.full(F + R + S, row), sources, ids_BT[row, P : e.tokens], columns))
        rows_C, sources_C, targets_C, columns_C = (
            np.concatenate(x) for x in zip(*scored, strict=True)
        )
        real_BT = torch.from_numpy(np.arange(width) < lengths[:, None])
        parts = torch.from_numpy(parts_BT)
        mask_BTT = _SEES[parts[:, :, None], parts[:, None, :]]
        mask_BTT &= torch.ones(width, width, dtype=torch.bool).tril() & real_BT[:, None, :]
        # Attention of a token that sees nothing is NaN, which would spread.
        mask_BTT |= torch.eye(width, dtype=torch.bool)
        tensors = (ids_BT, positions_BT, rows_C, sources_C, targets_C, columns_C)
        ids, positions, rows, sources_, targets, columns_ = (
            torch.from_numpy(array).to(device) for array in tensors
        )
        return cls(ids, positions, mask_BTT[:, None].to(device), rows, sources_, targets, columns_)


class CompletionScorer(nn.Module):
    """The module that is trained: log-probabilities of completions.

    If the model allows it (`choose_layout`), a prompt is computed once for both of its completions,
    and logits only where a token is scored.

    Args:
        model: A causal language model of the transformers library, with or without adapters.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.shares_prompts = True

    def forward(self, examples: Sequence[Example]) -> Tensor:
        """Log-probabilities summed over each completion, fp32, shape (B, 3).

        The columns are the first completion, the second, and the tail; an absent one has 0.
        """
        device = self.model.get_input_embeddings().weight.device
        if self.shares_prompts:
            return self._sums(Rows.of(examples, device), len(examples), whole_model=False)
        firsts = [Example(e.prompt, e.first, tail=e.tail) for e in examples]
        seconds = [Example(e.prompt, e.second) for e in examples]
        first_B3 = self._sums(Rows.of(firsts, device), len(examples), whole_model=True)
        second_B3 = self._sums(Rows.of(seconds, device), len(examples), whole_model=True)
        return torch.stack([first_B3[:, 0], second_B3[:, 0], first_B3[:, 2]], dim=1)

    def choose_layout(self, examples: Sequence[Example]) -> bool:
        """Share prompts from now on if that gives the model's own numbers for the examples."""
        with torch.no_grad():
            self.shares_prompts = False
            wanted = self(examples)
            self.shares_prompts = True
            try:
                difference = (self(examples) - wanted).abs()
                agrees = bool((difference <= _TOLERANCE * wanted.abs().clamp(min=1)).all())
            except Exception:  # Models refuse a custom mask in many ways.
                agrees = False
        self.shares_prompts = agrees
        return agrees

    def _sums(self, rows: Rows, size: int, *, whole_model: bool) -> Tensor:
        logits_CV = (self._plain_logits(rows) if whole_model else self._logits(rows)).float()
        picked_C = logits_CV.gather(1, rows.targets_C[:, None])[:, 0]
        log_probabilities_C = picked_C - logits_CV.logsumexp(1)
        sums = torch.zeros(size * _COLUMNS, device=logits_CV.device)
        places_C = rows.rows_C * _COLUMNS + rows.columns_C
        return sums.index_add(0, places_C, log_probabilities_C).view(size, _COLUMNS)

    def _logits(self, rows: Rows) -> Tensor:
        """Logits of the scored tokens only, from the last hidden states of the decoder."""
        model = getattr(self.model, "get_base_model", lambda: self.model)()
        hidden_BTD = model.base_model(
            input_ids=rows.ids_BT,
            attention_mask=rows.mask_B1TT,
            position_ids=rows.positions_BT,
            use_cache=False,
        ).last_hidden_state
        return model.get_output_embeddings()(hidden_BTD[rows.rows_C, rows.sources_C])

    def _plain_logits(self, rows: Rows) -> Tensor:
        """Logits of the unmodified model; no scored token sees the padding on the right."""
        mask_BT = torch.ones_like(rows.ids_BT)
        logits_BTV = self.model(
            input_ids=rows.ids_BT, attention_mask=mask_BT, use_cache=False
        ).logits
        return logits_BTV[rows.rows_C, rows.sources_C]


def trained_weights(engine: md.training.Engine) -> dict[str, Tensor]:
    """The trained weights of a scored model by the model's own names, fp32, on the first worker."""
    return {name.removeprefix("model."): weight for name, weight in engine.weights().items()}
