"""A check, before trials start, that every node of the cluster can write the run folder."""

from __future__ import annotations

import os
from pathlib import Path
from secrets import token_hex
from typing import Any

from modicum.errors import InputError
from modicum.storage import StorageFolder

# Longest wait for the nodes' answers, seconds. Ray needs half of it to notice that a node has died.
_PATIENCE = 60.0


def require_shared_folder(folder: StorageFolder) -> None:
    """Refuse a folder on this machine's filesystem that some node with CPUs cannot write.

    Each node writes the checkpoints of its trials. A node that does not answer is about to count as
    dead, and passes. Must be called inside
    `modicum.ray_support.connection.connected`. A folder on an object store passes unchecked.

    Args:
        folder: The run folder, for checkpoints.

    Raises:
        InputError: Some nodes cannot write the folder; names the nodes.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    # A node that has just died counts as alive for some seconds.
    alive = [node for node in nodes if node["Alive"]]
    if folder.local is None or len(alive) == 1:
        return
    able = [node for node in alive if node["Resources"].get("CPU")]
    probe = f".seen-{token_hex(8)}"
    folder.write_text("", probe)
    try:
        task = ray.remote(num_cpus=0)(_writes)
        asked = {
            task.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(folder.path(probe)): node
            for node in able
        }
        answered, _ = ray.wait([*asked], num_returns=len(asked), timeout=_PATIENCE)
        blind = [
            f"{asked[answer]['NodeManagerAddress']} ({asked[answer]['NodeID'][:8]})"
            for answer in answered
            if _says_no(answer)
        ]
    finally:
        folder.remove(probe)
    if blind:
        raise InputError(
            f"--out {folder.uri!r}: the study saves checkpoints, and some nodes cannot write this "
            f"folder ({', '.join(blind)}); give a path that all nodes share, or a URI such as "
            "s3://bucket/run"
        )


def _says_no(answer: Any) -> bool:
    import ray

    try:
        return not ray.get(answer)
    except ray.exceptions.RayError:
        return False  # The node has died.


def _writes(path: str) -> bool:
    return Path(path).is_file() and os.access(path, os.W_OK)
