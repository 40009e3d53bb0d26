"""Which oracle an experiment asks: settings that experiments share, and what they describe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

import modicum as md
from modicum_algorithms.preference import pair_sources

OracleKind = Literal["endpoint", "sentiment", "vader", "classifier"]
ORACLES = get_args(OracleKind)
_ENDPOINT = {"oracle": ("endpoint",)}


class OracleConfig(md.Config):
    """Settings of an experiment that asks an oracle."""

    oracle: OracleKind = md.setting(
        "vader",
        description="Who judges: a model behind an endpoint, the sentiment classifier trained on "
        "IMDB's training reviews, the VADER lexicon, or a Hugging Face classification model.",
    )
    model: str | None = md.setting(
        None,
        description="The endpoint's name for the model; a classification model's name or folder; "
        "the folder of a saved sentiment oracle, in the place of the one trained on IMDB.",
        used_by={"oracle": ("endpoint", "classifier", "sentiment")},
    )
    label: str | None = md.setting(
        None,
        description="Class whose probability counts, of a classification model with several.",
        used_by={"oracle": ("classifier",)},
    )
    template: str = md.setting(
        "summarisation",
        description="Wording: sentiment, summarisation, or a file of your own (.yaml).",
        used_by=_ENDPOINT,
    )
    temperature: float = md.setting(
        0.0, description="Of the model's sampling.", ge=0, le=2, used_by=_ENDPOINT
    )
    max_tokens: int = md.setting(
        256, description="Tokens that an answer may have.", ge=1, used_by=_ENDPOINT
    )
    both_orders: bool = md.setting(
        False,
        description="Ask in both orders, and report how often the winner is the same.",
        used_by=_ENDPOINT,
    )
    error_rate: float = md.setting(
        0.0, description="Share of judgements that are flipped at random.", ge=0, le=1
    )
    endpoint: md.oracles.Endpoint = md.oracles.Endpoint()


def check_oracle(config: OracleConfig) -> None:
    """Find mistakes that cost nothing to find.

    Raises:
        InputError: A model or template is missing, or the data that a classifier is trained on.
    """
    if config.oracle in {"endpoint", "classifier"} and config.model is None:
        raise md.InputError(f"model: oracle {config.oracle} needs the name of a model")
    if config.oracle == "endpoint":
        build_endpoint_oracle(config, run="check")
    if config.oracle == "sentiment":
        if config.model is None:
            pair_sources.imdb_file("train")
        elif not Path(config.model).is_dir():
            raise md.InputError(f"model: no folder of a saved sentiment oracle at {config.model!r}")


@contextmanager
def open_oracle(config: OracleConfig, *, run: str, seed: int) -> Iterator[md.oracles.Oracle]:
    """The oracle that settings describe; an endpoint's gate is let go afterwards.

    Args:
        config: The settings.
        run: Name under which spending is added up.
        seed: Of the judgements that are flipped.

    Raises:
        InputError: There is no such model, or the data to train a classifier is missing.
    """
    oracle = _build(config, run)
    rate = config.error_rate
    try:
        if rate == 0:
            yield oracle
        else:
            yield md.oracles.NoisyOracle(oracle, error_first=rate, error_second=rate, seed=seed)
    finally:
        if isinstance(oracle, md.oracles.EndpointOracle):
            oracle.close()


def _build(config: OracleConfig, run: str) -> md.oracles.Oracle:
    if config.oracle == "endpoint":
        return build_endpoint_oracle(config, run)
    if config.oracle == "vader":
        return md.oracles.VaderOracle()
    if config.oracle == "classifier":
        assert config.model is not None
        return md.oracles.ClassifierOracle(config.model, label=config.label)
    if config.model is not None:
        return md.oracles.SentimentOracle.load(config.model)
    return imdb_sentiment_oracle()


def build_endpoint_oracle(config: OracleConfig, run: str) -> md.oracles.EndpointOracle:
    """The oracle behind the settings' endpoint.

    Raises:
        InputError: A value is not allowed.
    """
    assert config.model is not None
    return md.oracles.EndpointOracle(
        config.model,
        config.template,
        endpoint=config.endpoint,
        temperature=config.temperature,
        max_tokens=config.max_tokens,
        both_orders=config.both_orders,
        run=run,
    )


def imdb_sentiment_oracle() -> md.oracles.SentimentOracle:
    """The sentiment oracle trained on IMDB's training reviews; once on each machine, then kept.

    Raises:
        InputError: IMDB is not under `MODICUM_DATA`.
    """
    key = f"sentiment-oracle-{md.data.digest_files([pair_sources.imdb_file('train')])}"

    def train(folder: Path) -> None:
        md.oracles.SentimentOracle.fit(*pair_sources.imdb_reviews("train")).save(folder)

    return md.oracles.SentimentOracle.load(md.data.cached_folder(key, "oracle.json", train))


def oracle_digests(config: OracleConfig) -> dict[str, str]:
    """Digests of the data that an oracle is made of, for a trial's identity."""
    if config.oracle == "sentiment" and config.model is None:
        return {"oracle": md.data.digest_files([pair_sources.imdb_file("train")])}
    if config.oracle == "sentiment" and config.model is not None:
        return {"oracle": md.data.digest_folder(Path(config.model))}
    if config.oracle == "endpoint":
        return {"oracle": md.oracles.Template.load(config.template).digest}
    return {}
