"""Failed trials and provenance, as a report shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modicum.report.texts import describe
from modicum.results.formatting import show_duration
from modicum.results.records import StudyRecords

_LOG_LINES = 40


def failures(records: StudyRecords, most: int | None) -> list[dict[str, Any]]:
    """List failed trials, with the end of their tracebacks.

    Args:
        records: The study.
        most: Largest number of trials; None for all.
    """
    found = []
    for trial in records.failed[:most]:
        place = ("trials", trial.id, "error.txt")
        trace = records.folder.read_text(*place) if records.folder.exists(*place) else ""
        found.append(
            {
                "where": describe({n: trial.columns.get(n) for n in records.varied}) or trial.id,
                "seed": trial.seed,
                "error": trial.error or "",
                "file": records.folder.display(*place),
                "trace": "\n".join(trace.splitlines()[-_LOG_LINES:]),
            }
        )
    return found


def provenance(records: StudyRecords) -> list[dict[str, str]]:
    """List command, time, memory, seeds, code, hardware and packages of the latest run.

    The list is empty if the run folder has no `provenance.json`.
    """
    last = records.provenance()
    if not last:
        return []
    runs = [*last.get("earlier", []), last]
    hardware = last["hardware"]
    packages = [f"{name} {version}" for name, version in last["packages"].items()]
    facts = {
        "command": last["command"],
        "started": last["started"],
        "wall time": _wall_time(runs),
        "peak memory": _peak_memory(runs),
        "seeds": _seeds(records),
        "commit": last["commit"] or "unknown",
        "hardware": f"{hardware['processor']}, {hardware['cores']} cores, "
        f"{hardware['memory_gib']} GiB",
        "packages": ", ".join([f"Python {last['python']}", *packages]),
    }
    return [{"name": name, "text": text} for name, text in facts.items()]


def _wall_time(runs: list[Mapping[str, Any]]) -> str:
    """Time of all runs in the folder; a killed or unfinished run states none."""
    spent = [run["seconds"] for run in runs if "seconds" in run]
    if not spent:
        return "unknown"
    total = show_duration(sum(spent))
    if len(spent) < len(runs):
        return f"{total} in {len(spent)} of {len(runs)} runs; the others did not finish"
    return total if len(runs) == 1 else f"{total} in {len(runs)} runs"


def _peak_memory(runs: list[Mapping[str, Any]]) -> str:
    peaks = [run["peak_memory_gib"] for run in runs if "peak_memory_gib" in run]
    if not peaks:
        return "unknown"
    return f"{max(peaks):.2f} GiB (the driver and all processes started by it)"


def _seeds(records: StudyRecords) -> str:
    seeds = sorted({trial.seed for trial in records.trials})
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))
