"""An oracle that asks a reward model or a classifier of the transformers library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from modicum.errors import InputError, require_choice, unknown_name
from modicum.models.hugging_face import load_pretrained
from modicum.oracles.local.scoring import NoScore, Score, Text, judge_by_score
from modicum.oracles.protocol import Failure, Judgement, Pair, digest

Form = Literal["joined", "pair", "chat"]


class ClassifierOracle:
    """Oracle that prefers the completion which a sequence classification model scores higher.

    The score is the logit of a model with one logit, such as a reward model; else the log-odds of a
    named class, which order texts as the class's probability does but do not round to 1. The scores
    of a text in two different batches may differ in the last digits.

    Args:
        model: Name on the hub, or a folder that `save_pretrained` wrote.
        label: The class whose probability counts; None for a model with one logit.
        form: Form of the model's input: `joined`, prompt and completion as one text; `pair`, as
            the tokenizer's pair of texts; `chat`, as a user's and an assistant's turn in the
            tokenizer's chat template.
        max_tokens: Most tokens of a text. Texts that are longer, or longer than the model's
            context, are failures: no text is ever truncated.
        revision: Branch, tag or commit on the hub.
        batch_size: Number of texts in a batch; without a padding token the batch size is one.
        device: Torch device; None for a GPU if there is one.
        dtype: Data type of the weights, such as `float32`; `auto` for the checkpoint's own. Ties
            are common in bfloat16.

    Attributes:
        name: Name of the model.
        version: Digest of the model's identity (digest of a folder's files, or name and commit on
            the hub), the label, the form and `max_tokens`.

    Raises:
        InputError: transformers is not installed, there is no such model, or a setting does not
            fit the model.
    """

    def __init__(
        self,
        model: str,
        *,
        label: str | None = None,
        form: Form = "joined",
        max_tokens: int | None = None,
        revision: str | None = None,
        batch_size: int = 16,
        device: str | None = None,
        dtype: str = "auto",
    ) -> None:
        require_choice("form", form, Form)
        for field, value in [("batch_size", batch_size), ("max_tokens", max_tokens)]:
            if value is not None and value < 1:
                raise InputError(f"{field}: must be at least 1, got {value}")
        self._loaded = load_pretrained(
            "AutoModelForSequenceClassification",
            model,
            revision=revision,
            device=device,
            dtype=dtype,
        )
        self._label = _label_number(self._loaded.model.config, label)
        if form == "chat" and not self._loaded.tokenizer.chat_template:
            raise InputError(
                f"form: {model!r} has no chat template (allowed with it: joined, pair)"
            )
        self._form = form
        limits = [n for n in (max_tokens, self._loaded.context) if n is not None]
        self._limit = min(limits, default=None)
        self._padded = _let_pad(self._loaded.model, self._loaded.tokenizer)
        self._batch_size = batch_size if self._padded else 1
        self.name = model
        self.version = digest(self._loaded.identity, str(label), form, str(max_tokens))[:16]

    def judge(self, pairs: Sequence[Pair], *, repeat: int = 0) -> list[Judgement | Failure]:
        """Judge pairs, in order; all repeats have the same answers. See `Oracle`."""
        return judge_by_score(pairs, self._scores, name=self.name, version=self.version)

    def _scores(self, texts: Sequence[Text]) -> list[Score | NoScore]:
        encoded = [self._encode(*text) for text in texts]
        lengths = [len(tokens["input_ids"]) for tokens in encoded]
        scores: list[Score | NoScore] = [
            NoScore("unreadable", "it has no tokens")
            if length == 0
            else NoScore("too_long", f"it has {length} tokens, {self._limit} are allowed")
            for length in lengths
        ]
        usable = [n for n, length in enumerate(lengths) if 0 < length <= (self._limit or length)]
        usable.sort(key=lambda n: lengths[n])  # Texts of one length need little padding.
        for start in range(0, len(usable), self._batch_size):
            rows = usable[start : start + self._batch_size]
            values = self._values([encoded[row] for row in rows])
            for row, value in zip(rows, values, strict=True):
                scores[row] = Score(value, lengths[row])
        return scores

    def _encode(self, prompt: str, completion: str) -> dict[str, Any]:
        tokenizer = self._loaded.tokenizer
        if self._form == "pair":
            return dict(tokenizer(prompt, completion, verbose=False))
        if self._form == "joined":
            return dict(tokenizer(prompt + completion, verbose=False))
        turns = [
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": completion},
        ]
        text = tokenizer.apply_chat_template(turns, tokenize=False)
        # The template writes the special tokens itself.
        return dict(tokenizer(text, add_special_tokens=False, verbose=False))

    def _values(self, encoded: Sequence[dict[str, Any]]) -> list[float]:
        import torch

        batch = {name: [tokens[name] for tokens in encoded] for name in encoded[0]}
        if self._padded:
            inputs = self._loaded.tokenizer.pad(batch, return_tensors="pt")
        else:
            inputs = {name: torch.tensor(values) for name, values in batch.items()}
        inputs = {name: values.to(self._loaded.device) for name, values in inputs.items()}
        with torch.inference_mode():
            logits_BC = self._loaded.model(**inputs).logits.double()
        if self._label is None:
            return [float(value) for value in logits_BC[:, 0]]
        log_odds_B = logits_BC[:, self._label]
        if self._loaded.model.config.problem_type != "multi_label_classification":
            others = [c for c in range(logits_BC.shape[1]) if c != self._label]
            log_odds_B = log_odds_B - logits_BC[:, others].logsumexp(1)
        return [float(value) for value in log_odds_B]


def _label_number(config: Any, label: str | None) -> int | None:
    """The number of a class's logit; None for a model with one logit."""
    if config.num_labels == 1:
        if label is not None:
            raise InputError(f"label: must be None for a model with one logit, got {label!r}")
        return None
    numbers = {str(name): int(number) for name, number in config.label2id.items()}
    if label not in numbers:
        raise unknown_name("label", label, numbers)
    return numbers[label]


def _let_pad(model: Any, tokenizer: Any) -> bool:
    """Give model and tokenizer the padding token that one of them has; False if none has one."""
    if tokenizer.pad_token_id is None and model.config.pad_token_id is not None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(model.config.pad_token_id)
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    return tokenizer.pad_token_id is not None
