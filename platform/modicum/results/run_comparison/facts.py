"""Facts of a run beside its results: settings, versions, time and budget."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from modicum.experiment.config import flatten
from modicum.results.formatting import show, show_duration
from modicum.results.records import StudyRecords
from modicum.run_folder.plan_file import read_plan

# A longer list of values is shortened to their number.
_MOST_VALUES = 6


def overview(run: StudyRecords) -> dict[str, str]:
    """Name, trials by status, time and budget of a run."""
    provenance = run.provenance()
    starts = [provenance, *provenance.get("earlier", [])]
    seconds = [start["seconds"] for start in starts if "seconds" in start]
    trial_seconds = [t.seconds for t in run.trials if t.status == "finished" and t.seconds]
    counts = run.status_counts()
    return {
        "study": str(run.spec.get("name", "–")),
        "experiment": f"{run.experiment['name']} {run.experiment['version']}",
        "started": str(min((s["started"] for s in starts if "started" in s), default="–")),
        "trials": ", ".join(f"{count} {status}" for status, count in counts.items() if count),
        "wall time": show_duration(sum(seconds)) if seconds else "–",
        "mean time of a trial": show_duration(sum(trial_seconds) / len(trial_seconds))
        if trial_seconds
        else "–",
        f"budget of all trials ({run.budget_words})": show(_budget_spent(run)),
    }


def _budget_spent(run: StudyRecords) -> float:
    if run.frame.empty:
        return 0.0
    done = run.frame[run.frame["status"] == "finished"]
    return float(done.groupby("trial_id")["budget"].last().sum())


def settings(run: StudyRecords) -> dict[str, str]:
    """Values of every setting over a run's trials, and the other fields of its study file."""
    values: dict[str, list[Any]] = {}
    for trial in run.trials:
        for name, value in trial.columns.items():
            values.setdefault(name, []).append(value)
    fields = {
        name: value
        for name, value in run.spec.items()
        if name not in {"name", "description", "space", "experiment", "seeds", "tracking"}
    }
    return {
        **{name: _listed(found) for name, found in values.items()},
        "seeds": _listed(trial.seed for trial in run.trials),
        **{f"study: {name}": show(value) for name, value in flatten(fields).items()},
    }


def versions(run: StudyRecords) -> dict[str, str]:
    """Versions of the code, packages, hardware and data of a run."""
    provenance = run.provenance()
    digests: dict[str, list[str]] = {}
    for entry in read_plan(run.folder)["trials"]:
        for role, digest in entry["digests"].items():
            digests.setdefault(f"data: {role}", []).append(digest[:12])
    hardware = provenance.get("hardware", {})
    commits = _listed(trial.commit for trial in run.trials if trial.commit is not None)
    return {
        "experiment": str(run.experiment["name"]),
        "experiment version": str(run.experiment["version"]),
        "commit of trials": commits,
        "python": str(provenance.get("python", "–")),
        **provenance.get("packages", {}),
        **{f"hardware: {name}": show(value) for name, value in hardware.items()},
        **{role: _listed(found) for role, found in digests.items()},
    }


def _listed(values: Iterable[Any]) -> str:
    texts = list(dict.fromkeys(show(value) for value in values))
    if len(texts) > _MOST_VALUES:
        return f"{len(texts)} values, {texts[0]} … {texts[-1]}"
    return ", ".join(texts) or "–"


def unlike(tables: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    """Keep the facts that differ among runs, with the text of each run."""
    names = dict.fromkeys(name for table in tables for name in table)
    rows = {name: [table.get(name, "–") for table in tables] for name in names}
    return {name: values for name, values in rows.items() if len(set(values)) > 1}
