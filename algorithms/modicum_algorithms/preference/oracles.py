"""The oracle that the settings describe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import modicum as md
from modicum_algorithms.preference.config import OracleConfig
from modicum_algorithms.preference.data.corpora import imdb_file, imdb_reviews


def check_oracle(config: OracleConfig) -> None:
    """Refuse an oracle whose parts are missing, as far as that can be known for free.

    Raises:
        InputError: A model, a template, or the training data of the classifier is missing.
    """
    if config.oracle in {"endpoint", "classifier"} and config.model is None:
        raise md.InputError(f"model: oracle {config.oracle} needs the name of a model")
    if config.oracle == "endpoint":
        _endpoint_oracle(config, run="check")
    if config.oracle == "sentiment":
        if config.model is None:
            imdb_file("train")
        elif not Path(config.model).is_dir():
            raise md.InputError(f"model: no folder of a saved sentiment oracle at {config.model!r}")


@contextmanager
def open_oracle(config: OracleConfig, *, run: str, seed: int) -> Iterator[md.oracles.Oracle]:
    """Context with the oracle; the lease on an endpoint's gate ends with it.

    Spending is recorded under the name of the run; the seed is that of flipped judgements.

    Raises:
        InputError: The model, or the training data of the classifier, is missing.
    """
    oracle, rate = _build(config, run), config.error_rate
    try:
        if rate == 0:
            yield oracle
        else:
            yield md.oracles.NoisyOracle(oracle, error_first=rate, error_second=rate, seed=seed)
    finally:
        if isinstance(oracle, md.oracles.EndpointOracle):
            oracle.close()


def oracle_digests(config: OracleConfig) -> dict[str, str]:
    """Digests of the data that define the oracle, for a trial's identity."""
    if config.oracle == "sentiment":
        if config.model is None:
            return {"oracle": md.data.digest_files([imdb_file("train")])}
        return {"oracle": md.data.digest_folder(Path(config.model))}
    if config.oracle == "endpoint":
        return {"oracle": md.oracles.Template.load(config.template).digest}
    return {}


def _build(config: OracleConfig, run: str) -> md.oracles.Oracle:
    if config.oracle == "endpoint":
        return _endpoint_oracle(config, run)
    if config.oracle == "vader":
        return md.oracles.VaderOracle()
    if config.oracle == "classifier":
        assert config.model is not None
        return md.oracles.ClassifierOracle(config.model, label=config.label)
    if config.model is not None:
        return md.oracles.SentimentOracle.load(config.model)

    def train(folder: Path) -> None:
        md.oracles.SentimentOracle.fit(*imdb_reviews("train")).save(folder)

    # Trained on IMDB once and then cached.
    key = f"sentiment-oracle-{md.data.digest_files([imdb_file('train')])}"
    return md.oracles.SentimentOracle.load(md.data.cached_folder(key, "oracle.json", train))


def _endpoint_oracle(config: OracleConfig, run: str) -> md.oracles.EndpointOracle:
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
