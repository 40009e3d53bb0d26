"""A page for each experiment with every setting and metric: what `modicum describe` tells."""

from __future__ import annotations

import inspect
import re
from itertools import groupby

from modicum.experiment.config import SettingInfo, settings_of
from modicum.experiment.experiment import Experiment
from modicum.experiment.metric import Metric
from modicum.experiment.registry import experiment_names, get_experiment

_LIMITS = {
    "ge": "at least {}",
    "gt": "above {}",
    "le": "at most {}",
    "lt": "below {}",
    "min_length": "length at least {}",
    "max_length": "length at most {}",
}
_GOALS = {"max": "more is better", "min": "less is better", None: ""}


def experiment_pages() -> dict[str, str]:
    """Pages by address, of all experiments that are installed."""
    return {f"options/{name}.md": page(get_experiment(name)) for name in experiment_names()}


def page(experiment: Experiment) -> str:
    """What an experiment is, its settings in groups, and its metrics."""
    settings = settings_of(experiment.Config).values()
    groups = [
        f"## {_group_title(name)}\n\n" + "\n".join(map(_setting, members))
        for name, members in groupby(
            settings, lambda info: info.name.rpartition(".")[0].partition(".")[0]
        )
    ]
    rows = "\n".join(_metric(*item) for item in experiment.metrics.items())
    return f"""# Options of `{experiment.name}`

{_prose(inspect.cleandoc(type(experiment).__doc__ or ""))}

Version {experiment.version}; the budget is counted in `{experiment.budget_unit}`. The same on the
command line: `modicum describe {experiment.name}`. In a study file settings stand under `space`
([study files](../studies.md)).

{"".join(groups)}
## Metrics

| metric | what | unit | goal |
|---|---|---|---|
{rows}
"""


def _group_title(prefix: str) -> str:
    return f"Settings of `{prefix}`" if prefix else "Settings"


def _setting(info: SettingInfo) -> str:
    kinds = " or ".join(f"`{kind}`" for kind in info.kind.split(" | "))
    facts = [kinds, "required" if info.required else f"default `{info.default}`"]
    if info.unit:
        facts.append(f"in {info.unit}")
    facts += [_LIMITS[rule].format(value) for rule, value in info.limits.items()]
    facts += [
        f"only where `{other}` is {' or '.join(f'`{value}`' for value in values)}"
        for other, values in (info.used_by or {}).items()
    ]
    if info.sets_budget:
        facts.append("sets the budget")
    if not info.identity:
        facts.append("not part of a trial's identity")
    return f"""### `{info.name}` {{ #{info.name} }}

{"; ".join(facts)}
{{ .setting-facts }}

{_prose(info.description)}
"""


def _metric(name: str, metric: Metric) -> str:
    cells = [f"`{name}`", _prose(metric.description), metric.unit or "", _GOALS[metric.goal]]
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _prose(text: str) -> str:
    """Outside code, characters that Markdown would read as markup stand for themselves."""
    parts = re.split(r"(`[^`]*`)", text)
    parts[::2] = [re.sub(r"([*_<\[\]])", r"\\\1", part) for part in parts[::2]]
    return "".join(parts)
