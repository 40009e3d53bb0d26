"""Settings of an endpoint that speaks OpenAI's protocol."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import ConfigDict, ValidationError, field_validator, model_validator

from modicum.errors import InputError, from_validation
from modicum.experiment.config import Config, setting
from modicum.oracles.endpoint.budget import Budget, Price
from modicum.oracles.ledger.database import LEDGERS_VARIABLE, default_ledger
from modicum.yaml_io import parse_yaml

OPENAI = "https://api.openai.com/v1"
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")


class Limits(Config):
    """Limits of an endpoint, over all of its clients together."""

    requests_per_minute: float | None = setting(
        None,
        identity=False,
        description="Rate limit of requests, which are spread evenly.",
        unit="requests/minute",
        gt=0,
    )
    tokens_per_minute: float | None = setting(
        None,
        identity=False,
        description="Rate limit of tokens read and written.",
        unit="tokens/minute",
        gt=0,
    )
    concurrent_requests: int = setting(
        32,
        identity=False,
        description="Most requests under way at once.",
        unit="requests",
        ge=1,
        le=10_000,
    )


class Endpoint(Config):
    """An endpoint. All clients on a cluster that name the same endpoint share one gate.

    OpenAI, vLLM, llama.cpp, Ollama and any other server of the chat completions protocol will do.
    The settings never hold the key: it is read on the machine that uses it.

    Raises:
        InputError: A setting is not allowed. A key that is put here by mistake is not quoted.
    """

    model_config = ConfigDict(hide_input_in_errors=True)

    def __init__(self, **settings: Any) -> None:
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise from_validation(error, type(self), "endpoint", settings) from None

    name: str | None = setting(
        None,
        identity=False,
        description="Name of the gate; the URL if left out. If the provider limits each model "
        "separately, give each model's endpoint its own name.",
        min_length=1,
        max_length=80,
    )
    base_url: str = setting(OPENAI, description="URL without /chat/completions.")
    key_variable: str | None = setting(
        None,
        identity=False,
        description="Environment variable that holds the key on the machines that send requests. "
        "If left out: OPENAI_API_KEY for OpenAI, no key for other URLs.",
    )
    key_file: Path | None = setting(
        None,
        identity=False,
        description="File that holds the key on the machines that send requests.",
    )
    limits: Limits = Limits()
    prices: dict[str, Price] = setting(
        {}, identity=False, description="Price of each model, by its name."
    )
    budget: Budget = Budget()
    workers: int = setting(
        2, identity=False, description="Number of actors that send requests.", ge=1, le=1000
    )
    timeout: float = setting(
        60.0,
        identity=False,
        description="Longest wait for an answer.",
        unit="seconds",
        gt=0,
        le=3600,
    )
    attempts: int = setting(
        10,
        identity=False,
        description="Number of requests after which a question is given up.",
        ge=1,
        le=1000,
    )
    first_wait: float = setting(
        0.5,
        identity=False,
        description="Wait before the first repeated request; doubles each time.",
        unit="seconds",
        gt=0,
    )
    longest_wait: float = setting(
        60.0,
        identity=False,
        description="Longest wait before a repeated request.",
        unit="seconds",
        gt=0,
        le=3600,
    )
    structured_output: bool = setting(
        True,
        identity=False,
        description="Ask for JSON; switched off for good if the endpoint refuses it.",
    )
    completion_limit: Literal["max_tokens", "max_completion_tokens"] | None = setting(
        None,
        identity=False,
        description="Name of the request parameter that limits an answer's tokens; chosen by the "
        "URL if left out.",
    )
    ledger: Path | None = setting(
        None,
        identity=False,
        description="Ledger file on the cluster's head node. If left out: a file for this endpoint "
        f"under {LEDGERS_VARIABLE}, or under ~/.local/share/modicum/ledgers.",
    )
    lease: float = setting(
        60.0,
        identity=False,
        description="Time for which the gate outlives its last client.",
        unit="seconds",
        gt=0,
    )

    @classmethod
    def load(cls, path: Path) -> Endpoint:
        """Load settings from a YAML file.

        Raises:
            InputError: The file does not exist, or a setting is not allowed.
        """
        if not path.is_file():
            raise InputError(f"endpoint: no file at {str(path)!r}")
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise InputError(f"endpoint: {str(path)!r} must be UTF-8 text") from None
        values = parse_yaml(text, str(path))
        if not isinstance(values, dict):
            raise InputError(f"{path}: must hold settings (name: value)")
        return cls(**values)

    @field_validator("base_url")
    @classmethod
    def _is_a_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("must be a URL that starts with http:// or https://")
        try:
            _ = parts.port
        except ValueError:
            raise ValueError("must have a port from 0 to 65535, or none") from None
        if parts.username or parts.password or parts.query:
            raise ValueError("must not hold a key: name an environment variable in key_variable")
        return value.rstrip("/")

    @field_validator("key_variable")
    @classmethod
    def _is_a_name(cls, value: str | None) -> str | None:
        # The value is not quoted: it may be a key, put here by mistake.
        if value is not None and not (_VARIABLE.fullmatch(value) and len(value) <= 60):
            raise ValueError(
                "must be the name of an environment variable (capital letters, digits and _), "
                "not a key"
            )
        return value

    @model_validator(mode="after")
    def _has_one_key(self) -> Endpoint:
        if self.key_variable is not None and self.key_file is not None:
            raise ValueError("key_variable and key_file: give only one of the two")
        return self

    @property
    def gate(self) -> str:
        """Name of the endpoint's gate on a cluster."""
        return self.name or self.base_url

    @property
    def key_name(self) -> str | None:
        """Environment variable that holds the key; None if there is none."""
        if self.key_variable is None and self.key_file is None and self.base_url == OPENAI:
            return "OPENAI_API_KEY"
        return self.key_variable

    def dollars(self, model: str, prompt_tokens: int, completion_tokens: int) -> float:
        """Cost of a request in dollars; zero if the model's price is unknown."""
        price = self.prices.get(model)
        return 0.0 if price is None else price.of(prompt_tokens, completion_tokens)

    @property
    def limit_parameter(self) -> str:
        """Request parameter that limits an answer's tokens."""
        by_url = "max_completion_tokens" if self.base_url == OPENAI else "max_tokens"
        return self.completion_limit or by_url

    @property
    def ledger_file(self) -> Path:
        """The ledger's file; the same for all clients that name none."""
        if self.ledger is not None:
            return self.ledger.expanduser().absolute()
        return default_ledger(self.gate)
