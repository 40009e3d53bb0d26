"""Checkpoint files of an engine: whole tensors by name, in one file per worker.

The files do not depend on how the model was sharded, so any number of workers can load them, in any
ZeRO stage.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

WEIGHT = "weight"
MOMENTS = ("exp_avg", "exp_avg_sq")
_COUNTERS = "counts.json"


@dataclass(frozen=True)
class Counters:
    """Counters of an engine.

    Attributes:
        updates: Updates since the start or the last reset.
        steps: Updates in which Adam took a step; with fp16, fewer where gradients overflowed.
        loss_scale: State of fp16's loss scale, by DeepSpeed's names.
    """

    updates: int
    steps: int
    loss_scale: Mapping[str, Any] = field(default_factory=dict)


def write_tensors(folder: Path, rank: int, tensors: Mapping[str, Tensor]) -> None:
    """Write one worker's tensors, each named by `tensor_name`."""
    contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, folder / f"part-{rank:05d}.safetensors")


def write_counters(folder: Path, counters: Counters) -> None:
    """Write the counters; only one worker does."""
    (folder / _COUNTERS).write_text(json.dumps(asdict(counters)))


def read_counters(folder: Path) -> Counters:
    """Read the counters of a checkpoint."""
    return Counters(**json.loads((folder / _COUNTERS).read_text()))


def tensor_name(kind: str, name: str) -> str:
    """Name of a parameter's weight or moment in the files."""
    return f"{kind}:{name}"


@contextmanager
def open_tensors(folder: Path) -> Iterator[Callable[[str, str], Tensor]]:
    """Yield a function that reads a parameter's weight or moment by kind and name."""
    with ExitStack() as stack:
        files: dict[str, Any] = {}
        for path in sorted(folder.glob("part-*.safetensors")):
            file = stack.enter_context(safe_open(path, framework="pt"))
            files.update(dict.fromkeys(file.keys(), file))
        yield lambda kind, name: files[tensor_name(kind, name)].get_tensor(tensor_name(kind, name))
