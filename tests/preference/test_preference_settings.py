"""Every setting of the family has its default in one place: `config.py`."""

import ast
import dataclasses

from conftest import ROOT
from modicum.experiment.config import settings_of
from modicum_algorithms.preference.config import (
    OracleAgreementConfig,
    OracleConsistencyConfig,
    PreferenceConfig,
    Recipe,
)
from setting_defaults import defaults

FAMILY = ROOT / "algorithms" / "modicum_algorithms" / "preference"
# Other things under the name of a setting: an acquisition of prompts, a generator's seed.
OTHERS = {("acquisition.py", "prompts"), ("inspection.py", "seed")}


def names():
    """Names of all settings, without those of the platform's own settings (`training.…`)."""
    found = {field.name for field in dataclasses.fields(Recipe)}
    for config in (PreferenceConfig, OracleAgreementConfig, OracleConsistencyConfig):
        for name in settings_of(config):
            group, _, last = name.rpartition(".")
            if group in {"", "generation"}:
                found.add(last)
    return found


def test_the_settings_have_defaults_in_config_alone():
    settings = names()
    assert {"oracle", "epochs", "batch_size", "actors", "count", "matrix_learning_rate"} <= settings
    found = {
        (path.name, name)
        for path in FAMILY.rglob("*.py")
        if path.name != "config.py"
        for name, _ in defaults(ast.parse(path.read_text()))
    }
    assert {(file, name) for file, name in found if name in settings} <= OTHERS
