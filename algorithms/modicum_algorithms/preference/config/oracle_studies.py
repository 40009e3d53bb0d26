"""Settings of the experiments that compare an oracle with known judgements or with itself."""

from __future__ import annotations

from typing import Literal

import modicum as md
from modicum_algorithms.preference.config.oracle import OracleConfig


class JudgedPairsConfig(OracleConfig):
    """Settings of an experiment on pairs whose winner is known."""

    pairs: str = md.setting(
        "tldr",
        description="Pairs: tldr (posts with a model's and a human's summary, judged by GPT-4) or "
        "imdb (extracts of a positive and a negative review), both under MODICUM_DATA; or a file "
        "with the columns prompt, first, second and preferred.",
        identity=False,
    )


class OracleAgreementConfig(JudgedPairsConfig):
    """Settings of `oracle_agreement`."""

    count: int = md.setting(
        1000, description="Number of pairs, drawn at random.", unit="pairs", ge=1
    )
    extract_words: int = md.setting(
        32, description="Length of the extracts from IMDB's reviews.", unit="words", ge=1
    )


class OracleConsistencyConfig(JudgedPairsConfig):
    """Settings of `oracle_consistency`."""

    count: int = md.setting(50, description="Number of pairs, drawn at random.", unit="pairs", ge=1)
    opinions: int = md.setting(2, description="Judgements of each pair.", ge=2)
    order: Literal["same", "drawn"] = md.setting(
        "same",
        description="Order in which the repeated judgements see a pair: always the same, or drawn "
        "anew for each judgement, so that a position bias counts too.",
    )
