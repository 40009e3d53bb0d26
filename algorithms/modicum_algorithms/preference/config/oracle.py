"""Settings of the oracle."""

from __future__ import annotations

from typing import Literal

import modicum as md

OracleKind = Literal["endpoint", "sentiment", "vader", "classifier"]
_ENDPOINT = {"oracle": ("endpoint",)}


class OracleConfig(md.Config):
    """Settings of an experiment that asks an oracle for judgements."""

    oracle: OracleKind = md.setting(
        "vader",
        description="Oracle: a language model behind an endpoint, the sentiment classifier "
        "trained on IMDB's training reviews, the VADER lexicon, or a Hugging Face classifier.",
    )
    model: str | None = md.setting(
        None,
        description="The model's name at the endpoint, the name or folder of a classifier, or "
        "the folder of a saved sentiment oracle to use instead of the one trained on IMDB.",
        used_by={"oracle": ("endpoint", "classifier", "sentiment")},
    )
    label: str | None = md.setting(
        None,
        description="Class whose probability decides, for a classifier with several classes.",
        used_by={"oracle": ("classifier",)},
    )
    template: str = md.setting(
        "summarisation",
        description="Prompt template: sentiment, summarisation, or a file of your own (.yaml).",
        used_by=_ENDPOINT,
    )
    temperature: float = md.setting(
        0.0, description="Sampling temperature of the oracle's model.", ge=0, le=2,
        used_by=_ENDPOINT,
    )  # fmt: skip
    max_tokens: int = md.setting(
        256, description="Maximum length of an answer in tokens.", ge=1, used_by=_ENDPOINT
    )
    both_orders: bool = md.setting(
        False,
        description="Ask about each pair in both orders and report how often the winner agrees.",
        used_by=_ENDPOINT,
    )
    error_rate: float = md.setting(
        0.0, description="Share of the judgements that are flipped at random.", ge=0, le=1
    )
    endpoint: md.oracles.Endpoint = md.oracles.Endpoint()
