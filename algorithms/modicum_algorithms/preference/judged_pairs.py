"""What experiments share that ask an oracle about pairs with a known winner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import modicum as md
from modicum_algorithms.preference.oracle_settings import (
    OracleConfig,
    check_oracle,
    oracle_digests,
)
from modicum_algorithms.preference.pair_sources import SOURCES_DESCRIPTION, source_files


class JudgedPairsConfig(OracleConfig):
    """Settings of the oracle and of what it is asked."""

    pairs: str = md.setting("tldr", description=SOURCES_DESCRIPTION, identity=False)


C = TypeVar("C", bound=JudgedPairsConfig)


class JudgedPairsExperiment(md.Experiment[C]):
    """An experiment that asks an oracle about pairs with a known winner."""

    budget_unit = "oracle_calls"

    def check(self, config: C) -> None:
        """Find what is missing before anything starts."""
        check_oracle(config)
        source_files(config.pairs)

    def data_digests(self, config: C) -> Mapping[str, str]:
        """Digests of the pairs and of what the oracle is made of."""
        pairs = md.data.digest_files(source_files(config.pairs))
        return {"pairs": pairs, **oracle_digests(config)}
