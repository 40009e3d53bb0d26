"""Settings of the family stand in one place; everything else takes them from there."""

import ast
import inspect

import pytest
from sklearn.base import clone

import modicum as md
from conftest import ROOT
from modicum_algorithms.weak import config, estimators
from modicum_algorithms.weak.experiments import config as experiments
from modicum_algorithms.weak.parameters import parameter_names
from setting_defaults import defaults

WEAK = ROOT / "algorithms" / "modicum_algorithms" / "weak"
CONFIGS = [
    found
    for module in (config, experiments)
    for found in vars(module).values()
    if isinstance(found, type) and issubclass(found, md.Config) and found is not md.Config
]
# Not a setting, though it shares the name of one: a function from pairs to arrays.
OTHERS = {("judges.py", "features")}


def test_each_setting_has_its_default_in_one_place():
    """Under its own name, and under the short one of an estimator."""
    own = [
        name
        for found in CONFIGS
        for name in found.__annotations__
        if not found.model_fields[name].is_required()
    ]
    short = {
        name
        for prefix in ("snorkel_", "weasel_", "denoise_")
        for name, field in parameter_names(config.WeakMethodConfig, prefix).items()
        if name != field
    }
    places = {}
    for path in sorted(WEAK.rglob("*.py")):
        for name, _ in defaults(ast.parse(path.read_text())):
            if name in short | set(own) and (path.name, name) not in OTHERS:
                places.setdefault(name, []).append(str(path.relative_to(WEAK)))
    # Two experiments may have different settings of one name.
    several = {name: own.count(name) for name in own}
    wrong = {
        name: where
        for name, where in places.items()
        if len(where) > several.get(name, 1) or {w.rsplit("/")[-1] for w in where} != {"config.py"}
    }
    assert not wrong


def test_constructors_are_those_of_the_configs():
    """Names and defaults; a signature for editors, and nothing else is taken."""
    for kind in vars(estimators).values():
        if not hasattr(kind, "config_class"):
            continue
        signature = inspect.signature(kind)
        assert set(signature.parameters) == set(kind().get_params())
        for name, field in kind.names.items():
            default = kind.config_class.model_fields[field].default
            assert signature.parameters[name].default == (
                None if name == "max_iterations" else default
            )
        with pytest.raises(TypeError, match="no parameter 'strong_fraction'"):
            kind(strong_fraction=0.1)
        changed = clone(kind(hidden_units=7))
        assert changed.get_params()["hidden_units"] == 7
        assert "hidden_units: Units in each hidden layer." in kind.__doc__
