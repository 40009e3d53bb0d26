"""What an engine saves: whole tensors by name, in as many files as there are workers.

Nothing in it depends on how the model was sharded, so it can be loaded by fewer workers, by more,
or in another ZeRO stage.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

WEIGHT = "weight"
MOMENTS = ("exp_avg", "exp_avg_sq")
_COUNTS = "counts.json"


@dataclass(frozen=True)
class Counts:
    """What an engine counts.

    Attributes:
        updates: Updates since the start or the last reset.
        steps: Those in which Adam took a step; in fp16, fewer where gradients overflowed.
        loss_scale: State of fp16's loss scale, by DeepSpeed's names.
    """

    updates: int
    steps: int
    loss_scale: Mapping[str, Any] = field(default_factory=dict)


def write_part(folder: Path, rank: int, tensors: Mapping[str, Tensor]) -> None:
    """Write one worker's tensors, each under a name of `key`."""
    from safetensors.torch import save_file

    contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, folder / f"part-{rank:05d}.safetensors")


def write_counts(folder: Path, counts: Counts) -> None:
    """Write the counts; one worker does."""
    (folder / _COUNTS).write_text(json.dumps(asdict(counts)))


def read_counts(folder: Path) -> Counts:
    """The counts that were written."""
    return Counts(**json.loads((folder / _COUNTS).read_text()))


def key(kind: str, name: str) -> str:
    """Name of a parameter's weight or moment in the files."""
    return f"{kind}:{name}"


@contextmanager
def open_parts(folder: Path) -> Iterator[Callable[[str, str], Tensor]]:
    """A function that reads a parameter's weight or moment by kind and name."""
    from safetensors import safe_open

    with ExitStack() as stack:
        found: dict[str, Any] = {}
        for file in sorted(folder.glob("part-*.safetensors")):
            part = stack.enter_context(safe_open(file, framework="pt"))
            found.update(dict.fromkeys(part.keys(), part))
        yield lambda kind, name: found[key(kind, name)].get_tensor(key(kind, name))
