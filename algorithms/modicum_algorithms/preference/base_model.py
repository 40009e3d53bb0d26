"""A small GPT-2 pretrained on texts, where there is no language model to start from.

Shapes: B rows of a batch, T tokens of a row, V vocabulary.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import modicum as md
from modicum_algorithms.preference import packaged_reviews, pair_sources

if TYPE_CHECKING:
    import torch
    from torch import Tensor

END_OF_TEXT = "<|endoftext|>"
_HELD_OUT_ROWS = 256
_REPORT = "pretraining.json"


@dataclass(frozen=True)
class Recipe:
    """How a model is made; the defaults are those for IMDB.

    Attributes:
        vocabulary: Tokens of byte-level BPE, at most.
        context: Tokens that the model takes at most, and the length of a row.
        width: Of the hidden states.
        layers: Blocks.
        heads: Of attention, in each block.
        passes: Over the texts; each text is cut to one row.
        batch_size: Rows of an update.
        learning_rate: Of AdamW, for embeddings and vectors, at its highest. Rates rise over the
            warm-up, and fall by a cosine.
        matrix_learning_rate: Of Muon, for the blocks' matrices, at its highest.
        weight_decay: Of these matrices.
        warmup: Share of the updates.
        held_out: Share of the texts that is kept for validation.
        seed: Of initial weights and order.

    Raises:
        InputError: The heads do not divide the width.
    """

    vocabulary: int = 4096
    context: int = 128
    width: int = 224
    layers: int = 4
    heads: int = 4
    passes: int = 1
    batch_size: int = 16
    learning_rate: float = 3e-3
    matrix_learning_rate: float = 0.02
    weight_decay: float = 0.05
    warmup: float = 0.05
    held_out: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise md.InputError(f"heads: must divide the width of {self.width}, got {self.heads}")


@dataclass(frozen=True)
class Pretraining:
    """What came of it.

    Attributes:
        parameters: Of the model.
        tokens: Seen in training.
        train_loss: Mean over the last tenth of the updates, in nats a token.
        validation_loss: On the held-out texts, in nats a token.
        seconds: Training without the tokenizer.
    """

    parameters: int
    tokens: int
    train_loss: float
    validation_loss: float
    seconds: float

    @property
    def perplexity(self) -> float:
        """Of the held-out texts, by token."""
        return math.exp(self.validation_loss)


IMDB = Recipe()
PACKAGED = Recipe(
    vocabulary=1024,
    width=96,
    layers=2,
    heads=4,
    passes=3,
    batch_size=8,
    learning_rate=1e-2,
    matrix_learning_rate=0.05,
)
_PACKAGED_REVIEWS = 4000


def imdb_model() -> Path:
    """Folder of the model pretrained on IMDB's training reviews; once on each machine, then kept.

    It takes about six minutes of one core.

    Raises:
        InputError: IMDB is not under `MODICUM_DATA`.
    """

    def train(folder: Path) -> None:
        pretrain(
            [pair_sources.clean_review(text) for text in pair_sources.imdb_reviews("train")[0]],
            folder,
            IMDB,
        )

    return md.data.cached_folder(imdb_model_key(), _REPORT, train)


def imdb_model_key() -> str:
    """Changes with the reviews and the recipe.

    Raises:
        InputError: IMDB is not under `MODICUM_DATA`.
    """
    data = md.data.digest_files([pair_sources.imdb_file("train")])
    return f"imdb-model-{data}-{_digest(IMDB)}"


def packaged_model() -> Path:
    """Folder of a tiny model of the packaged reviews, which needs no data; made in seconds."""

    def train(folder: Path) -> None:
        texts = packaged_reviews.packaged_reviews(_PACKAGED_REVIEWS, PACKAGED.seed)
        pretrain(texts, folder, PACKAGED)

    return md.data.cached_folder(packaged_model_key(), _REPORT, train)


def packaged_model_key() -> str:
    """Changes with the packaged sentences and the recipe."""
    key = _digest(PACKAGED, _PACKAGED_REVIEWS, packaged_reviews.packaged_text())
    return f"packaged-model-{key}"


def pretrain_on_file(file: Path, folder: Path, recipe: Recipe | None = None) -> Pretraining:
    """Train a model on the texts of a file, which stand one a line or between empty lines.

    Args:
        file: UTF-8. If it has an empty line between others, these separate the texts.
        folder: As in `pretrain`.
        recipe: As in `pretrain`.

    Raises:
        InputError: There is no such file, it is no text, or it has fewer than two texts.
    """
    try:
        content = file.expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise md.InputError(
            f"texts: {str(file)!r} is not a readable text file ({error})"
        ) from error
    separator = r"\n\s*\n" if re.search(r"\n\s*\n", content) else r"\n"
    return pretrain(
        [" ".join(text.split()) for text in re.split(separator, content)], folder, recipe
    )


def pretrain(texts: Sequence[str], folder: Path, recipe: Recipe | None = None) -> Pretraining:
    """Train a tokenizer and a GPT-2 on texts, and write them as transformers does.

    Args:
        texts: At least two, in any order.
        folder: Where they are written to; also has `pretraining.json`, which this returns.
        recipe: How; `Recipe()` by default.

    Raises:
        InputError: There are fewer than two texts.
    """
    import torch

    recipe = recipe or Recipe()
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
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = _new_model(tokenizer, recipe).to(device)
    started = time.monotonic()
    with md.quiet_loggers("transformers"):  # Rows begin or end with what texts are padded with.
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
    """Rows of equal length; each begins with the beginning of a text.

    Texts are laid end to end, with the end-of-text token behind each, until the row is full;
    what does not fit is left out. A last row that is not full ends with end-of-text tokens.
    Completions of beginnings are asked of the model later, so beginnings are what it sees.

    Returns:
        (rows, `context`) token numbers.
    """
    import torch

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
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

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


def _new_model(tokenizer: Any, recipe: Recipe) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    end = tokenizer.eos_token_id
    config = GPT2Config(
        vocab_size=len(tokenizer),
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
    # On CPUs, several times as fast as the fused kernel in bf16.
    return GPT2LMHeadModel._from_config(config, attn_implementation="eager")


def _descend(
    model: Any, rows_NT: Tensor, recipe: Recipe, generator: torch.Generator
) -> Iterator[float]:
    """Train; yields the loss of every update."""
    import torch

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
    """Muon for the blocks' matrices: in as many updates, it gets much further than AdamW alone."""
    import torch

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
    """The learning rate of a step, as a share of the highest."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _loss(model: Any, rows_BT: Tensor) -> Tensor:
    """Mean loss of every token but the first, in bf16 where the machine multiplies in it."""
    import torch

    rows_BT = rows_BT.to(model.device)
    kind = rows_BT.device.type
    with torch.autocast(kind, dtype=torch.bfloat16, enabled=_multiplies_bf16(kind)):
        logits_BTV = model(input_ids=rows_BT, use_cache=False).logits
    return torch.nn.functional.cross_entropy(
        logits_BTV[:, :-1].flatten(0, 1).float(), rows_BT[:, 1:].flatten()
    )


def _multiplies_bf16(kind: str) -> bool:
    import torch

    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported())


def _mean_loss(model: Any, rows_NT: Tensor, batch_size: int) -> float:
    import torch

    with torch.no_grad():
        batches = rows_NT.split(batch_size)
        return sum(_loss(model, rows_BT).item() * len(rows_BT) for rows_BT in batches) / len(
            rows_NT
        )


def _digest(recipe: Recipe, *parts: object) -> str:
    """Changes with the recipe and what else a model depends on."""
    described = json.dumps([asdict(recipe), *parts], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()[:16]
