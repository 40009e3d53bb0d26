"""Loading models of the transformers library, with checks for completeness and an identity."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modicum.data.cache import cached_folder
from modicum.data.digest import digest_files, digest_folder
from modicum.errors import InputError
from modicum.library_logging import quiet_transformers

_GGUF = ".gguf"
_NO_LIMIT = 10**9  # Tokenizers without a limit have a number above this.


@dataclass(frozen=True)
class LoadedModel:
    """A model with its tokenizer."""

    model: Any  # The model in evaluation mode, on the device.
    tokenizer: Any
    device: Any
    context: int | None  # Most tokens of a text; None if there is no limit.
    # Digest of a folder's files or of a GGUF file, or name and commit on the hub; and the data type
    # of the weights. Other weights have another identity.
    identity: str


@dataclass(frozen=True)
class Checkpoint:
    """Location of a checkpoint."""

    name: str  # Name on the hub, or absolute path of a folder.
    revision: str | None = None  # Branch, tag or commit on the hub.
    gguf_file: str | None = None

    @property
    def folder(self) -> Path | None:
        """The folder; None for a checkpoint on the hub."""
        return Path(self.name) if Path(self.name).is_absolute() else None


def find_model(
    name: str, *, revision: str | None = None, gguf_file: str | None = None, field: str = "model"
) -> Checkpoint:
    """Find a checkpoint: a folder or GGUF file of that path, else a name on the hub.

    A folder with one GGUF file and no `config.json` stands for this file.

    Raises:
        InputError: There is no such folder or file, or a folder has several GGUF files.
    """
    path = Path(name).expanduser()
    if path.suffix == _GGUF:
        if not path.is_file():
            raise InputError(f"{field}: no file at {name!r}")
        return Checkpoint(str(path.parent.absolute()), gguf_file=path.name)
    if not name.strip() or not path.is_dir():
        if not name.strip() or path.is_absolute() or name[0] == "." or name.count("/") > 1:
            raise InputError(f"{field}: no folder at {name!r}")
        return Checkpoint(name, revision, gguf_file)
    found = sorted(file.name for file in path.glob(f"*{_GGUF}"))
    if gguf_file is None and found and not (path / "config.json").is_file():
        if len(found) > 1:
            raise InputError(
                f"{field}: {name!r} has several GGUF files; name one of {', '.join(found)}"
            )
        gguf_file = found[0]
    if gguf_file is not None and gguf_file not in found:
        raise InputError(
            f"gguf_file: no {gguf_file!r} in {name!r} (there: {', '.join(found) or 'none'})"
        )
    return Checkpoint(str(path.absolute()), gguf_file=gguf_file)


def load_pretrained(
    kind: str,
    name: str,
    *,
    revision: str | None = None,
    gguf_file: str | None = None,
    device: str | None = None,
    dtype: str = "auto",
    field: str = "model",
) -> LoadedModel:
    """Load a checkpoint.

    `kind` is a class of transformers. Without a device, a GPU is used if there is one. With the
    type `auto`, weights have the checkpoint's own, which is float32 for GGUF. Weights that
    DeepSpeed shards while they are loaded stay where DeepSpeed puts them.

    Raises:
        InputError: transformers is not installed, the checkpoint cannot be loaded, or it lacks
            weights that `kind` needs, such as a head, which would be initialised at random.
    """
    try:
        import torch
        import transformers
        from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
    except ModuleNotFoundError as error:
        raise InputError(
            f"{field}: {name!r} needs the package {error.name!r} (extra 'oracles')"
        ) from error
    if dtype != "auto" and not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise InputError(
            f"dtype: must be 'auto' or a type of torch such as 'float32', got {dtype!r}"
        )
    found = find_model(name, revision=revision, gguf_file=gguf_file, field=field)
    # Downloads keep their progress bars, because they take long.
    with _loading(name, field), quiet_transformers() if found.folder else nullcontext():
        if found.gguf_file is not None:
            file = _gguf_path(found)
            place = str(_unpacked_gguf(kind, file))
            identity = f"gguf:{digest_files([file])}:{dtype}"
        else:
            place, identity = found.name, None
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(place, revision=revision)
        model, about = getattr(transformers, kind).from_pretrained(
            place, revision=revision, dtype=dtype, output_loading_info=True
        )
    missing = sorted(about["missing_keys"])
    if missing:
        raise InputError(
            f"{field}: {name!r} has no weights for {missing[0]!r}, which {kind} needs; it was "
            "trained for something else"
        )
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    sharded: bool = is_deepspeed_zero3_enabled()  # type: ignore[no-untyped-call]
    if not sharded:
        model.to(chosen)
    return LoadedModel(
        model=model.eval(),
        tokenizer=tokenizer,
        device=chosen,
        context=_context(model, tokenizer),
        identity=identity or _identity(found, model, dtype),
    )


@contextmanager
def _loading(name: str, field: str) -> Iterator[None]:
    """Turn an error of transformers in the block into an `InputError` that names the model."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, struct.error, SafetensorError) as error:
        if isinstance(error, InputError):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{field}: {name!r} cannot be loaded ({reason})") from error


def _gguf_path(found: Checkpoint) -> Path:
    """The GGUF file, downloaded if it is on the hub."""
    from transformers.utils.hub import cached_file

    assert found.gguf_file is not None
    path = cached_file(found.name, found.gguf_file, revision=found.revision)
    assert path is not None
    return Path(path)


def _unpacked_gguf(kind: str, file: Path) -> Path:
    """A folder with the weights in float32, created once on each machine.

    Weights from a GGUF file cannot be sharded while they are loaded, and unpacking them takes many
    times as long as reading them.
    """

    def unpack(folder: Path) -> None:
        import torch
        import transformers

        where = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
        model: Any = getattr(transformers, kind).from_pretrained(
            **where,
            dtype=torch.float32,
            quantization_config=transformers.GgufConfig(dequantize=True),
        )
        transformers.AutoTokenizer.from_pretrained(**where).save_pretrained(folder)
        model.save_pretrained(folder)

    return cached_folder(f"gguf-{kind}-{digest_files([file])}", "config.json", unpack)


def _context(model: Any, tokenizer: Any) -> int | None:
    """Most tokens of a text, by the tokenizer, the configuration and the position embeddings."""
    limits = [tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None)]
    for name, module in model.named_modules():
        padding = getattr(module, "padding_idx", None)
        if name.endswith("position_embeddings") and padding is not None:
            # RoBERTa and similar models number positions from the padding token's number.
            limits.append(module.num_embeddings - padding - 1)
    return min((n for n in limits if n is not None and 0 < n < _NO_LIMIT), default=None)


def _identity(found: Checkpoint, model: Any, dtype: str) -> str:
    if found.folder is not None:
        return f"folder:{digest_folder(found.folder)}:{dtype}"
    commit = getattr(model.config, "_commit_hash", None) or found.revision
    return f"hub:{found.name}@{commit}:{dtype}"
