"""Settings of training: optimiser, precision, adapters, and the workers of a group."""

from __future__ import annotations

from typing import Literal

from modicum.errors import InputError
from modicum.experiment.config import Config, setting
from modicum.experiment.resources import Bundle, Resources
from modicum.models.language_models import Precision

Offload = Literal["none", "optimizer", "parameters"]

# The trial of a worker group only waits, but Ray Tune refuses a trial without a CPU.
_WAITING = Bundle(cpus=0.01)


class TrainingSettings(Config):
    """Settings of gradient descent, and of the workers that share it.

    The distribution of the work (workers, ZeRO, offload, micro-batches) is no part of a trial's
    identity, because it changes the speed and not the result.
    """

    learning_rate: float = setting(1e-6, description="Learning rate of AdamW.", gt=0)
    warmup: int = setting(
        0, description="Length of the linear learning rate warm-up.", unit="updates", ge=0
    )
    weight_decay: float = setting(0.0, description="Decoupled weight decay of AdamW.", ge=0)
    gradient_clipping: float | None = setting(
        None, description="Maximum norm of the whole gradient; no clipping by default.", gt=0
    )
    precision: Precision = setting(
        "fp32",
        description="Precision of weights and activations; the optimiser's copy of the weights is "
        "fp32. fp16 needs GPUs.",
    )
    lora_rank: int = setting(0, description="Rank of LoRA adapters; 0 trains all weights.", ge=0)
    lora_alpha: float = setting(16.0, description="Scale of the adapters times their rank.", gt=0)
    lora_dropout: float = setting(0.0, description="Dropout of the adapters' input.", ge=0, lt=1)
    lora_targets: str = setting(
        "auto",
        description="Layers with adapters: names separated by commas, all-linear, or auto for "
        "peft's choice.",
    )
    workers: int = setting(
        0,
        description="Number of Ray Train workers that share the model by DeepSpeed; 0 trains in "
        "the trial's process, without either.",
        ge=0,
        le=1024,
        identity=False,
    )
    workers_at_least: int | None = setting(
        None,
        description="Minimum number of workers to continue with when machines are lost.",
        ge=1,
        identity=False,
    )
    cpus_per_worker: float = setting(
        0.99,
        description="Cores of each worker, or of the trial's process if it has no workers.",
        unit="CPUs",
        gt=0,
        identity=False,
    )
    gpus_per_worker: float = setting(
        0.0, description="GPUs of each worker.", unit="GPUs", ge=0, identity=False
    )
    zero_stage: Literal[0, 1, 2, 3] = setting(
        0,
        description="DeepSpeed's ZeRO stage, which shards nothing (0), optimiser states (1), also "
        "gradients (2), also weights (3).",
        identity=False,
    )
    offload: Offload = setting(
        "none",
        description="Tensors that DeepSpeed keeps in CPU memory: optimiser states, or with ZeRO 3 "
        "also parameters.",
        identity=False,
    )
    micro_batch_size: int = setting(
        16,
        description="Examples of a worker's micro-batch; gradients are accumulated over the "
        "micro-batches of a batch.",
        unit="examples",
        ge=1,
        identity=False,
    )
    activation_checkpointing: bool = setting(
        False, description="Recompute activations in the backward pass.", identity=False
    )
    save_every: int = setting(
        0,
        description="Updates between checkpoints of weights and optimiser within a round; 0 for "
        "none.",
        unit="updates",
        ge=0,
        identity=False,
    )
    restarts: int = setting(
        2,
        description="Maximum number of restarts after the loss of a worker.",
        ge=0,
        identity=False,
    )
    collective_timeout: float = setting(
        3600.0,
        description="Timeout of workers that wait for each other, oracle answers included.",
        unit="s",
        gt=0,
        identity=False,
    )

    def check(self, name: str = "training") -> None:
        """Check for settings under `name` that are valid alone and incompatible with each other.

        Raises:
            InputError: Two settings are incompatible; names them.
        """
        if self.gpus_per_worker > 1:
            raise InputError(
                f"{name}.gpus_per_worker: must be at most 1, since a worker computes on one GPU, "
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
        # With bf16 and fp16, stage 0 is stage 1.
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
        """Resources of a trial with these settings."""
        one = Bundle(cpus=self.cpus_per_worker, gpus=self.gpus_per_worker)
        if self.workers == 0:
            return Resources(trial=one)
        return Resources(trial=_WAITING, nested=(one,) * self.workers)
