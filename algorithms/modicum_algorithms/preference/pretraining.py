"""Pretraining of a small GPT-2 on texts, for trials without a language model to start from.

Shapes: B rows of a batch, T tokens of a row, V vocabulary.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

import modicum as md
from modicum_algorithms.preference.base_model import PACKAGED_REVIEWS, pretrained_key
from modicum_algorithms.preference.config import RECIPES, Recipe
from modicum_algorithms.preference.data.corpora import clean_review, imdb_reviews, packaged_reviews

END_OF_TEXT = "<|endoftext|>"
_HELD_OUT_ROWS = 256
_REPORT = "pretraining.json"


@dataclass(frozen=True)
class Pretraining:
    """Outcome of a pretraining.

    Attributes:
        parameters: Number of weights.
        tokens: Tokens seen in training.
        train_loss: Mean loss over the last tenth of the updates, in nats per token.
        validation_loss: Mean loss on the held-out texts, in nats per token.
        seconds: Time of the training, without that of the tokenizer.
    """

    parameters: int
    tokens: int
    train_loss: float
    validation_loss: float
    seconds: float

    @property
    def perplexity(self) -> float:
        """Perplexity per token of the held-out texts."""
        return math.exp(self.validation_loss)


def model_location(name: str) -> str:
    """Hub name, folder or file of θ0; `imdb` and `packaged` are pretrained first and cached.

    `imdb` takes about six minutes of one core, `packaged` a few seconds. The result is the same
    only on machines of one kind, so the trials of a study should share a cache or run on one
    machine.

    Raises:
        InputError: IMDB is not under `MODICUM_DATA`.
    """
    if name not in RECIPES:
        return name
    recipe = RECIPES[name]

    def train(folder: Path) -> None:
        if name == "imdb":
            texts = [clean_review(text) for text in imdb_reviews("train")[0]]
        else:
            texts = packaged_reviews(PACKAGED_REVIEWS, recipe.seed)
        pretrain(texts, folder, recipe)

    return str(md.data.cached_folder(pretrained_key(name), _REPORT, train))


def pretrain(texts: Sequence[str], folder: Path, recipe: Recipe) -> Pretraining:
    """Train a tokenizer and a GPT-2 on texts, and save them in the format of transformers.

    Args:
        texts: At least two texts, in any order.
        folder: Folder for the model, the tokenizer and `pretraining.json`, the returned outcome.
        recipe: Settings of the training.

    Raises:
        InputError: There are fewer than two texts.
    """
    texts = [text for text in texts if text.strip()]
    if len(texts) < 2:
        raise md.InputError(f"texts: at least two that are not empty are needed, got {len(texts)}")
    torch_generator = torch.Generator().manual_seed(recipe.seed)
    order = torch.randperm(len(texts), generator=torch_generator).tolist()
    held_out = max(1, round(recipe.held_out * len(texts)))
    tokenizer = _train_tokenizer(texts, recipe)
    validation_NT = pack([texts[i] for i in order[:held_out]], tokenizer, recipe.context)
    rows_NT = pack([texts[i] for i in order[held_out:]], tokenizer, recipe.context)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with md.seeded(recipe.seed):
        model = _new_model(tokenizer, recipe).to(device)
    started = time.monotonic()
    with md.quiet_loggers("transformers"):  # Rows hold the padding token.
        losses = list(_descend(model, rows_NT, recipe, torch_generator))
        validation_loss = _mean_loss(model, validation_NT[:_HELD_OUT_ROWS], recipe.batch_size)
    last = losses[-max(1, len(losses) // 10) :]
    result = Pretraining(
        parameters=model.num_parameters(),
        tokens=recipe.passes * rows_NT.numel(),
        train_loss=sum(last) / len(last),
        validation_loss=validation_loss,
        seconds=round(time.monotonic() - started, 1),
    )
    folder.mkdir(parents=True, exist_ok=True)
    with md.quiet_transformers():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / _REPORT).write_text(json.dumps(asdict(result), indent=1))
    return result


def pack(texts: Iterable[str], tokenizer: Any, context: int) -> Tensor:
    """Pack texts into rows of equal length; each row begins with the beginning of a text.

    Texts are concatenated, each followed by the end-of-text token, until the row is full; the
    excess is dropped. The last row is padded with end-of-text tokens. The model is later asked to
    continue the beginnings of texts, so it is trained on beginnings.

    Returns:
        Token ids, shape (rows, `context`).
    """
    rows: list[list[int]] = []
    row: list[int] = []
    for tokens in tokenizer(list(texts), truncation=True, max_length=context)["input_ids"]:
        row += [*tokens, tokenizer.eos_token_id]
        if len(row) >= context:
            rows.append(row[:context])
            row = []
    if row:
        rows.append(row + [tokenizer.eos_token_id] * (context - len(row)))
    return torch.tensor(rows)


def _train_tokenizer(texts: Sequence[str], recipe: Recipe) -> Any:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        model_max_length=recipe.context,
    )


def gpt2_config(recipe: Recipe, vocabulary: int, end: int) -> GPT2Config:
    """Configuration of the model of a recipe; `end` is the end-of-text token."""
    return GPT2Config(
        vocab_size=vocabulary,
        n_positions=recipe.context,
        n_embd=recipe.width,
        n_layer=recipe.layers,
        n_head=recipe.heads,
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
    )


def _new_model(tokenizer: Any, recipe: Recipe) -> Any:
    config = gpt2_config(recipe, len(tokenizer), tokenizer.eos_token_id)
    # On CPUs in bf16, this is several times as fast as the fused kernel.
    return GPT2LMHeadModel._from_config(config, attn_implementation="eager")


def _descend(
    model: Any, rows_NT: Tensor, recipe: Recipe, generator: torch.Generator
) -> Iterator[float]:
    """Train the model, yielding the loss of every update."""
    batches = [
        batch
        for _ in range(recipe.passes)
        for batch in torch.randperm(len(rows_NT), generator=generator).split(recipe.batch_size)
    ]
    optimizers = _optimizers(model, recipe)
    warmup = max(1, round(recipe.warmup * len(batches)))
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: _relative_rate(step, warmup, len(batches))
        )
        for optimizer in optimizers
    ]
    for batch in batches:
        loss = _loss(model, rows_NT[batch])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        for schedule in schedules:
            schedule.step()
        model.zero_grad()
        yield loss.item()


def _optimizers(model: Any, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, which needs far fewer updates; AdamW for the rest."""
    matrices = [p for p in model.transformer.h.parameters() if p.ndim == 2]
    taken = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in taken]
    return [
        torch.optim.Muon(
            matrices, lr=recipe.matrix_learning_rate, weight_decay=recipe.weight_decay
        ),
        torch.optim.AdamW(
            others, lr=recipe.learning_rate, weight_decay=0.0, betas=(0.9, 0.95), foreach=True
        ),
    ]


def _relative_rate(step: int, warmup: int, steps: int) -> float:
    """Learning rate of a step divided by the peak learning rate: warm-up, then a cosine decay."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _loss(model: Any, rows_BT: Tensor) -> Tensor:
    """Mean loss over all tokens but the first, in bf16 if the hardware multiplies in bf16."""
    rows_BT = rows_BT.to(model.device)
    kind = rows_BT.device.type
    with torch.autocast(kind, dtype=torch.bfloat16, enabled=_multiplies_bf16(kind)):
        logits_BTV = model(input_ids=rows_BT, use_cache=False).logits
    return torch.nn.functional.cross_entropy(
        logits_BTV[:, :-1].flatten(0, 1).float(), rows_BT[:, 1:].flatten()
    )


def _multiplies_bf16(kind: str) -> bool:
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported())


def _mean_loss(model: Any, rows_NT: Tensor, batch_size: int) -> float:
    with torch.no_grad():
        batches = rows_NT.split(batch_size)
        return sum(_loss(model, rows_BT).item() * len(rows_BT) for rows_BT in batches) / len(
            rows_NT
        )
