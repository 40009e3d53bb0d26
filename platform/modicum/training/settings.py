"""How a model is trained: optimiser, precision, and over which workers it is sharded."""

from __future__ import annotations

from typing import Literal

from modicum.errors import InputError
from modicum.experiment.config import Config, setting
from modicum.experiment.resources import Bundle, Resources
from modicum.models.language_models import Precision

Offload = Literal["none", "optimizer", "parameters"]

# Ray Tune refuses a trial without a CPU; the trial of a worker group only waits for it.
_WAITING = Bundle(cpus=0.01)


class TrainingSettings(Config):
    """Settings of gradient descent, and of the processes that share it.

    Where the work is done (workers, ZeRO, offload, micro-batches) is no part of a trial's
    identity: it changes how fast, not what.
    """

    learning_rate: float = setting(1e-6, description="Of Adam.", gt=0)
    warmup: int = setting(
        0, description="Updates over which the learning rate rises.", unit="updates", ge=0
    )
    weight_decay: float = setting(0.0, description="Decoupled, as in AdamW.", ge=0)
    gradient_clipping: float | None = setting(
        None, description="Largest norm of the whole gradient; none by default.", gt=0
    )
    precision: Precision = setting(
        "fp32",
        description="Of weights and activations; the optimiser's copy of the weights is fp32. "
        "fp16 needs GPUs.",
    )
    lora_rank: int = setting(0, description="Rank of LoRA's adapters; 0 trains all weights.", ge=0)
    lora_alpha: float = setting(16.0, description="Scale of the adapters, times their rank.", gt=0)
    lora_dropout: float = setting(0.0, description="On the adapters' input.", ge=0, lt=1)
    lora_targets: str = setting(
        "auto",
        description="Layers that get adapters: names separated by commas, all-linear, or auto "
        "for peft's choice.",
    )
    workers: int = setting(
        0,
        description="Processes of Ray Train that share the model by DeepSpeed; 0 trains in the "
        "trial's own process, without either.",
        ge=0,
        le=1024,
        identity=False,
    )
    workers_at_least: int | None = setting(
        None,
        description="Go on with fewer workers, down to so many, when machines are lost.",
        ge=1,
        identity=False,
    )
    cpus_per_worker: float = setting(
        0.99,
        description="Cores of each worker, or of the trial's own process.",
        unit="CPUs",
        gt=0,
        identity=False,
    )
    gpus_per_worker: float = setting(
        0.0, description="GPUs of each worker.", unit="GPUs", ge=0, identity=False
    )
    zero_stage: Literal[0, 1, 2, 3] = setting(
        0,
        description="What DeepSpeed shards: nothing, optimiser states (1), gradients (2), "
        "weights (3).",
        identity=False,
    )
    offload: Offload = setting(
        "none",
        description="What DeepSpeed keeps in the processors' memory: the optimiser's states, or "
        "with ZeRO 3 the weights, too.",
        identity=False,
    )
    micro_batch_size: int = setting(
        16,
        description="Examples that a worker takes at once; gradients are accumulated over the "
        "rest of the batch.",
        unit="examples",
        ge=1,
        identity=False,
    )
    activation_checkpointing: bool = setting(
        False, description="Compute activations again, rather than keep them.", identity=False
    )
    save_every: int = setting(
        0,
        description="Updates between two checkpoints of weights and optimiser; 0 keeps none "
        "within a round.",
        unit="updates",
        ge=0,
        identity=False,
    )
    restarts: int = setting(
        2, description="How often a group that lost a worker starts again.", ge=0, identity=False
    )
    collective_timeout: float = setting(
        3600.0,
        description="How long workers wait for each other, an oracle's answers included.",
        unit="s",
        gt=0,
        identity=False,
    )

    def check(self, name: str = "training") -> None:
        """Find settings that are valid one by one and cannot work together.

        Args:
            name: Of the setting that holds these.

        Raises:
            InputError: Naming the field.
        """
        if self.gpus_per_worker > 1:
            raise InputError(
                f"{name}.gpus_per_worker: must be at most 1, which is what a worker computes on, "
                f"got {self.gpus_per_worker:g}"
            )
        if self.precision == "fp16" and not (self.gpus_per_worker and self.workers):
            raise InputError(
                f"{name}.precision: fp16 needs GPUs ({name}.gpus_per_worker) and {name}.workers; "
                "fp32 and bf16 do not, got 'fp16'"
            )
        if self.workers_at_least is not None and self.workers_at_least > self.workers:
            raise InputError(
                f"{name}.workers_at_least: must be at most {name}.workers ({self.workers}), got "
                f"{self.workers_at_least}"
            )
        if self.workers == 0 and self.zero_stage:
            raise InputError(
                f"{name}.zero_stage: must be 0 with {name}.workers 0, which shares nothing, got "
                f"{self.zero_stage}"
            )
        # In 16 bits, stage 0 is 1.
        least = {"none": 0, "optimizer": 1 if self.precision == "fp32" else 0, "parameters": 3}
        if self.zero_stage < least[self.offload]:
            raise InputError(
                f"{name}.offload: {self.offload} needs {name}.zero_stage "
                f"{'3' if self.offload == 'parameters' else '1, 2 or 3'}, got {self.zero_stage}"
            )
        if self.offload != "none" and self.workers == 0:
            raise InputError(
                f"{name}.offload: must be none with {name}.workers 0, got {self.offload!r}"
            )

    @property
    def resources(self) -> Resources:
        """What a trial with these settings occupies."""
        one = Bundle(cpus=self.cpus_per_worker, gpus=self.gpus_per_worker)
        if self.workers == 0:
            return Resources(trial=one)
        return Resources(trial=_WAITING, nested=(one,) * self.workers)
