"""Every setting of the family, with its default, limits and description."""

from modicum_algorithms.preference.config.generation import GenerationSettings
from modicum_algorithms.preference.config.oracle import OracleConfig
from modicum_algorithms.preference.config.oracle_studies import (
    JudgedPairsConfig,
    OracleAgreementConfig,
    OracleConsistencyConfig,
)
from modicum_algorithms.preference.config.preference import PreferenceConfig
from modicum_algorithms.preference.config.pretraining import IMDB_RECIPE, PACKAGED_RECIPE, Recipe

__all__ = [
    "IMDB_RECIPE",
    "PACKAGED_RECIPE",
    "GenerationSettings",
    "JudgedPairsConfig",
    "OracleAgreementConfig",
    "OracleConfig",
    "OracleConsistencyConfig",
    "PreferenceConfig",
    "Recipe",
]
