"""An endpoint that speaks OpenAI's protocol: where it is, what it allows, what it may cost."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import ConfigDict, ValidationError, field_validator, model_validator

from modicum.errors import InputError, from_validation
from modicum.experiment.config import Config, setting
from modicum.oracles.endpoint.budget import Budget, Price
from modicum.oracles.protocol import digest
from modicum.yaml_io import parse_yaml

OPENAI = "https://api.openai.com/v1"
LEDGERS_VARIABLE = "MODICUM_LEDGERS"
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")


class Limits(Config):
    """What an endpoint lets its clients do, all of them together."""

    requests_per_minute: float | None = setting(
        None, identity=False, description="Requests, spread evenly.", unit="requests/minute", gt=0
    )
    tokens_per_minute: float | None = setting(
        None, identity=False, description="Tokens read and written.", unit="tokens/minute", gt=0
    )
    concurrent_requests: int = setting(
        32,
        identity=False,
        description="Requests under way at once.",
        unit="requests",
        ge=1,
        le=10_000,
    )


class Endpoint(Config):
    """Where questions go. Whoever names the same endpoint on a cluster shares one gate.

    Works with OpenAI, vLLM, llama.cpp, Ollama and what else speaks the chat completions protocol.
    The key never stands here: it is read on the machine that uses it.

    Raises:
        InputError: A setting is not allowed; says which. A key put here by mistake is not quoted.
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
        description="Tells gates apart; the URL if left out. Where a provider limits each model by "
        "itself, give each a name.",
        min_length=1,
        max_length=80,
    )
    base_url: str = setting(OPENAI, description="URL up to and without /chat/completions.")
    key_variable: str | None = setting(
        None,
        identity=False,
        description="Environment variable with the key, on the machines that send requests; "
        "OPENAI_API_KEY for OpenAI, no key for other URLs, if left out.",
    )
    key_file: Path | None = setting(
        None, identity=False, description="File with the key, on those machines."
    )
    limits: Limits = Limits()
    prices: dict[str, Price] = setting(
        {}, identity=False, description="What each model costs, by its name."
    )
    budget: Budget = Budget()
    workers: int = setting(
        2, identity=False, description="Actors that send requests.", ge=1, le=1000
    )
    timeout: float = setting(
        60.0,
        identity=False,
        description="Wait for an answer so long.",
        unit="seconds",
        gt=0,
        le=3600,
    )
    attempts: int = setting(
        10, identity=False, description="Requests for one answer before giving up.", ge=1, le=1000
    )
    first_wait: float = setting(
        0.5,
        identity=False,
        description="Wait before asking again; doubles each time.",
        unit="seconds",
        gt=0,
    )
    longest_wait: float = setting(
        60.0, identity=False, description="The longest such wait.", unit="seconds", gt=0, le=3600
    )
    structured_output: bool = setting(
        True,
        identity=False,
        description="Ask for JSON; given up for good where the endpoint refuses it.",
    )
    completion_limit: Literal["max_tokens", "max_completion_tokens"] | None = setting(
        None,
        identity=False,
        description="Name of the parameter that bounds an answer; by the URL if left out.",
    )
    ledger: Path | None = setting(
        None,
        identity=False,
        description="File of the ledger on the cluster's head node; if left out, one of this "
        f"endpoint's own under {LEDGERS_VARIABLE}, or under ~/.local/share/modicum/ledgers.",
    )
    lease: float = setting(
        60.0,
        identity=False,
        description="The gate outlives its last client by so long.",
        unit="seconds",
        gt=0,
    )

    @classmethod
    def load(cls, path: Path) -> Endpoint:
        """Settings from a YAML file.

        Raises:
            InputError: There is no such file, or a setting is not allowed.
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
            raise ValueError("must hold no key: name an environment variable in key_variable")
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
            raise ValueError("key_variable and key_file: give one of the two")
        return self

    @property
    def gate(self) -> str:
        """Name of the endpoint's gate on a cluster."""
        return self.name or self.base_url

    @property
    def key_name(self) -> str | None:
        """Environment variable that holds the key, or None where there is none."""
        if self.key_variable is None and self.key_file is None and self.base_url == OPENAI:
            return "OPENAI_API_KEY"
        return self.key_variable

    def dollars(self, model: str, prompt_tokens: int, completion_tokens: int) -> float:
        """What a model charges for so many tokens; zero where its price is not known."""
        price = self.prices.get(model)
        return 0.0 if price is None else price.of(prompt_tokens, completion_tokens)

    @property
    def limit_parameter(self) -> str:
        """Parameter of a request that bounds its answer's tokens."""
        by_url = "max_completion_tokens" if self.base_url == OPENAI else "max_tokens"
        return self.completion_limit or by_url

    @property
    def ledger_file(self) -> Path:
        """Where the ledger lies; the same for every client that does not name one."""
        if self.ledger is not None:
            return self.ledger.expanduser().absolute()
        words = re.sub(r"[^A-Za-z0-9]+", "-", self.gate).strip("-")[:60]
        return ledgers_folder() / f"{words}-{digest(self.gate)[:8]}.sqlite"


def ledgers_folder() -> Path:
    """Where ledgers lie: `MODICUM_LEDGERS`, or `~/.local/share/modicum/ledgers`."""
    named = os.environ.get(LEDGERS_VARIABLE)
    if named:
        return Path(named).expanduser().absolute()
    return Path.home() / ".local" / "share" / "modicum" / "ledgers"


def read_key(endpoint: Endpoint) -> str | None:
    """The endpoint's key, on the machine where it is used; None where it needs none.

    Raises:
        InputError: The variable is unset here, or the file cannot be read. Never quotes a key.
    """
    if endpoint.key_file is not None:
        # The path is not quoted: it may be a key, put there by mistake.
        path = endpoint.key_file.expanduser()
        try:
            key = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            kind = getattr(error, "strerror", None) or "it is not text"
            raise InputError(f"key_file: the file cannot be read ({kind})") from None
        if not _is_a_key(key):
            raise InputError("key_file: the file must hold one key and nothing else")
        return key
    if endpoint.key_name is None:
        return None
    key = os.environ.get(endpoint.key_name, "").strip()
    if not key:
        raise InputError(
            f"key_variable: {endpoint.key_name} is not set where requests are sent; set it before "
            "Ray is started there, or name a key_file"
        )
    if not _is_a_key(key):
        raise InputError(f"key_variable: {endpoint.key_name} must hold one key and nothing else")
    return key


def _is_a_key(text: str) -> bool:
    """Whether it is one word that a header can hold."""
    return len(text.split()) == 1 and text.isascii() and text.isprintable()
