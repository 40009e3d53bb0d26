"""A tiny language model, and computations that train it on a worker group."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from modicum.errors import InputError
from modicum.experiment.trial import Trial
from modicum.training import TrainingSettings, Update, Worker, build_engine, loading, run_on_workers

EXAMPLES, TOKENS, VOCABULARY = 8, 12, 61
UPDATES = 5
SETTINGS: dict[str, Any] = {
    "learning_rate": 1e-2,
    "weight_decay": 0.1,
    "warmup": 3,
    "gradient_clipping": 0.5,
}


class Scorer(nn.Module):
    """Logits of a batch of token ids."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids_BT: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=ids_BT).logits


def tiny_gpt2() -> Any:
    """GPT-2 of 2 layers and 32 dimensions, with the same weights each time."""
    from transformers import GPT2Config, GPT2LMHeadModel

    state = torch.get_rng_state()
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY, n_positions=32, n_embd=32, n_layer=2, n_head=2, attn_pdrop=0,
            embd_pdrop=0, resid_pdrop=0, bos_token_id=0, eos_token_id=60, pad_token_id=0,
        )
    )  # fmt: skip
    torch.set_rng_state(state)
    return model


def build(settings: TrainingSettings, folder: Path | None = None) -> Scorer:
    """Model in the precision of the settings; loaded from a folder, with adapters, if given."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[settings.precision]
    if folder is None:
        return Scorer(tiny_gpt2().to(dtype))
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    model.activation_checkpointing_enable()
    state = torch.get_rng_state()
    torch.manual_seed(0)
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=["c_attn"], fan_in_fan_out=True)
    adapted = get_peft_model(model, lora)
    torch.set_rng_state(state)
    return Scorer(adapted.train())


def batch(step: int) -> torch.Tensor:
    """Examples of an update."""
    generator = torch.Generator().manual_seed(step)
    return torch.randint(VOCABULARY, (EXAMPLES, TOKENS), generator=generator)


def loss(logits_BTV: torch.Tensor, ids_BT: torch.Tensor) -> torch.Tensor:
    """A micro-batch's share of the mean negative log-likelihood of all examples."""
    losses = nn.functional.cross_entropy(
        logits_BTV[:, :-1].flatten(0, 1).float(), ids_BT[:, 1:].flatten(), reduction="sum"
    )
    return losses / (EXAMPLES * (TOKENS - 1))


def train(
    engine: Any, worker: Worker, micro_batches: int = 1, steps: Sequence[int] = range(UPDATES)
) -> list[Update]:
    """Update on the same global batches for any number of workers and micro-batches."""
    return [
        engine.update(
            worker.share(batch(step)).chunk(micro_batches),
            # The engine averages over workers, and the sum is wanted.
            lambda logits, ids: loss(logits, ids) * worker.size,
        )
        for step in steps
    ]


def logits(engine: Any) -> list[Any]:
    """Output of the model for some examples."""
    with torch.no_grad():
        found: list[Any] = engine(batch(99)).float().tolist()
    return found


def generated(model: Any) -> list[Any]:
    """Greedy continuations."""
    prompt_BT = batch(98)[:2, :4]
    with torch.no_grad():
        found: list[Any] = model.generate(
            prompt_BT, attention_mask=torch.ones_like(prompt_BT), max_new_tokens=8, do_sample=False
        ).tolist()
    return found


def numbers(updates: list[Update]) -> list[tuple[float, float]]:
    return [(update.loss, update.gradient_norm) for update in updates]


def check_engines(worker: Worker, arguments: Any) -> Iterator[dict[str, Any]]:
    """Yield the results of each case's engine; then the last worker raises an `InputError`."""
    for case in arguments["cases"]:
        settings = TrainingSettings(workers=worker.size, **SETTINGS, **case)
        module = build(settings)
        engine = build_engine(module, settings, worker)
        seen: dict[str, Any] = {"trained": numbers(train(engine, worker))}
        seen["trained_logits"] = logits(engine)
        with engine.at_start():
            seen["start_logits"] = logits(engine)
        seen["trained_logits_again"] = logits(engine)
        with engine.whole():
            seen["generated"] = generated(module.model)
        seen["weights"] = engine.weights()
        name = f"{worker.size}/{settings.precision}-{settings.zero_stage}"
        worker.keep_state(name, engine.save)
        seen["went_on"] = numbers(train(engine, worker, steps=range(UPDATES, UPDATES + 3)))
        engine.reset()
        seen["updates_after_reset"] = engine.updates
        seen["trained_again"] = numbers(train(engine, worker))
        again = build_engine(build(settings), settings, worker)
        with worker.kept_state(name) as folder:
            assert folder is not None
            again.load(folder)
        seen["went_on_elsewhere"] = numbers(train(again, worker, steps=range(UPDATES, UPDATES + 3)))
        engine.reset()
        seen["accumulated"] = numbers(train(engine, worker, EXAMPLES // worker.size))
        yield seen
    if arguments.get("pretrained"):
        yield {"adapters": adapters(worker, Path(arguments["pretrained"]))}
    if arguments.get("kept"):
        yield {"loaded": go_on(worker, arguments["kept"], zero_stage=0)}
    if worker.rank == worker.size - 1:
        raise InputError("prompts: must be more, got none")
    worker.gather(None)


def adapters(worker: Worker, folder: Path, **case: Any) -> dict[str, Any]:
    """Train LoRA adapters with activation checkpointing on weights that were loaded sharded."""
    case = case or {"zero_stage": 3, "workers": worker.size}
    settings = TrainingSettings(**SETTINGS, **case)
    with loading(settings, worker):
        module = build(settings, folder)
    shares = [p.ds_tensor.numel() / p.ds_numel for p in module.parameters() if hasattr(p, "ds_id")]
    before = sum(shares) / len(shares) if shares else 1.0
    engine = build_engine(module, settings, worker)
    updates = numbers(train(engine, worker))
    return {"updates": updates, "share": before, "weights": sorted(engine.weights())}


def go_on(worker: Worker, name: str, **case: Any) -> list[tuple[float, float]]:
    """Continue from a state that another group has kept."""
    settings = TrainingSettings(**{"workers": worker.size, **SETTINGS, **case})
    engine = build_engine(build(settings), settings, worker)
    with worker.kept_state(name) as folder:
        assert folder is not None
        engine.load(folder)
    return numbers(train(engine, worker, steps=range(UPDATES, UPDATES + 3)))


def killed_once(worker: Worker, arguments: Any) -> Iterator[Any]:
    """Yield the loss of each update; the last worker is killed once, after a state was kept."""
    settings = TrainingSettings(workers=worker.size, **SETTINGS, zero_stage=arguments["zero_stage"])
    engine = build_engine(build(settings), settings, worker)
    losses = worker.journal.read("losses") or []
    with worker.kept_state("training") as folder:
        if folder is not None:
            engine.load(folder)
    yield from losses[: engine.updates]
    for step in range(engine.updates, UPDATES):
        (update,) = train(engine, worker, steps=[step])
        losses = [*losses[:step], update.loss]
        if step == 2:
            worker.keep_state("training", engine.save)
            if worker.first:
                worker.journal.write("losses", losses)
        yield update.loss
        if step == 3 and worker.alone(lambda: worker.journal.read("killed") is None):
            if worker.first:
                worker.journal.write("killed", os.getpid())
            worker.gather(None)
            if worker.rank == worker.size - 1:
                os.kill(os.getpid(), signal.SIGKILL)
    worker.gather(None)


def wait_for_ever(worker: Worker, arguments: Any) -> Iterator[list[int]]:
    """Yield the process ids of the workers, without end."""
    while True:
        yield worker.gather(os.getpid())


def fail(worker: Worker, arguments: None) -> Iterator[None]:
    """Raise an error that no restart of the group would mend."""
    yield from ()
    raise InputError("prompts: none")


class KillableTrial:
    """An actor that runs a trial on a worker group."""

    def start(self, trial: Trial) -> tuple[int, list[int]]:
        """Return the process ids of this actor and of its workers, which continue."""
        self.values = run_on_workers(wait_for_ever, None, TrainingSettings(workers=2), trial)
        return os.getpid(), next(self.values)
