"""Acquisition functions: which pairs of completions to ask the oracle about (section 6.3.1).

Shapes: S candidates (a prompt, or a prompt with two completions), N samples, D dimensions of an
embedding, K chosen.
"""

from modicum_algorithms.preference.methods.acquisition.candidates import (
    QUANTITIES,
    Acquisition,
    Candidates,
    best,
    choose,
)
from modicum_algorithms.preference.methods.acquisition.certainty import (
    certainty,
    certainty_per_cost,
    uncertainty,
)
from modicum_algorithms.preference.methods.acquisition.diverse_certainty import DiverseCertainty
from modicum_algorithms.preference.methods.acquisition.entropy import entropy
from modicum_algorithms.preference.methods.acquisition.registry import (
    BUILT_IN,
    Stages,
    acquisition_names,
    get_acquisition,
)

__all__ = [
    "BUILT_IN",
    "QUANTITIES",
    "Acquisition",
    "Candidates",
    "DiverseCertainty",
    "Stages",
    "acquisition_names",
    "best",
    "certainty",
    "certainty_per_cost",
    "choose",
    "entropy",
    "get_acquisition",
    "uncertainty",
]
