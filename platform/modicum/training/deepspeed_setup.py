"""Setting up DeepSpeed: its process group, its optimiser and its configuration."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

import torch
from torch import nn

from modicum.errors import InputError
from modicum.library_logging import quiet_loggers
from modicum.training.engine import adamw
from modicum.training.settings import TrainingSettings
from modicum.training.worker import Worker

BUCKET = 50_000_000
"""Maximum number of gradients or weights that DeepSpeed's workers exchange at once."""
# Buckets also hold at most this fraction (1/8) of all gradients; with ZeRO 3, a worker holds about
# two buckets of whole weights at a time.
_BUCKETS = 8


def init_deepspeed(settings: TrainingSettings, worker: Worker) -> None:
    """Initialise DeepSpeed with the process group and the worker's device.

    Raises:
        InputError: fp16 without GPUs.
    """
    if settings.precision == "fp16" and worker.device.type == "cpu":
        raise InputError("training.precision: fp16 needs GPUs; fp32 and bf16 do not, got 'fp16'")
    # DeepSpeed would detect hardware that Ray has not given to this worker. It reads the variable
    # when it is imported.
    os.environ["DS_ACCELERATOR"] = worker.device.type
    import deepspeed

    # On CPUs, DeepSpeed would compile communication through shared memory, which takes a minute and
    # a compiler; gloo does the same.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    with quiet_deepspeed():
        deepspeed.init_distributed(
            dist_backend="nccl" if worker.device.type == "cuda" else "gloo",
            auto_mpi_discovery=False,
            verbose=False,
        )


@contextmanager
def quiet_deepspeed() -> Iterator[None]:
    """Context without DeepSpeed's log and printed messages."""
    with quiet_loggers("DeepSpeed"), redirect_stdout(io.StringIO()):
        yield


def effective_zero_stage(settings: TrainingSettings) -> int:
    """ZeRO stage that DeepSpeed runs in: at least 1 with bf16 and fp16."""
    return max(settings.zero_stage, 0 if settings.precision == "fp32" else 1)


def adam_optimizer(
    parameters: Sequence[nn.Parameter], settings: TrainingSettings, worker: Worker
) -> torch.optim.Optimizer:
    """AdamW of torch, or DeepSpeed's on the CPU when a GPU worker offloads."""
    if settings.offload != "none" and worker.device.type == "cuda":
        from deepspeed.ops.adam import DeepSpeedCPUAdam

        on_cpu: torch.optim.Optimizer = DeepSpeedCPUAdam(
            parameters,
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            adamw_mode=True,
        )
        return on_cpu
    return adamw(parameters, settings)


def deepspeed_config(
    settings: TrainingSettings, worker: Worker, trained: Sequence[nn.Parameter]
) -> dict[str, Any]:
    """DeepSpeed's configuration; the number of trained weights bounds the size of buckets."""
    stage = effective_zero_stage(settings)
    numbers = sum(getattr(p, "ds_numel", p.numel()) for p in trained)
    bucket = min(BUCKET, numbers // _BUCKETS + 1)
    on_cpu = {"device": "cpu", "pin_memory": worker.device.type == "cuda"}
    zero: dict[str, Any] = {
        "stage": stage,
        "overlap_comm": worker.device.type == "cuda",
        "reduce_bucket_size": bucket,
        "allgather_bucket_size": BUCKET,
        "stage3_prefetch_bucket_size": bucket,
        "stage3_max_live_parameters": 2 * bucket,
        "stage3_max_reuse_distance": 2 * bucket,
        "stage3_param_persistence_threshold": 0,  # Every weight is sharded.
    }
    if settings.offload != "none":
        zero["offload_optimizer"] = on_cpu
    if settings.offload == "parameters":
        zero["offload_param"] = on_cpu
    return {
        # The engine sets the boundary of accumulation itself, update by update.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": (settings.gradient_clipping or 0.0) if stage else 0.0,
        "bf16": {"enabled": settings.precision == "bf16"},
        "fp16": {"enabled": settings.precision == "fp16"},
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }
