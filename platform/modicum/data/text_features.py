"""Features of texts: TF-IDF with truncated SVD, or the states of a Hugging Face encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modicum.data.digest import digest_folder
from modicum.errors import InputError

_BATCH = 64
_SVD_SEED = 0


def tfidf_features(
    fit: Sequence[str], *others: Sequence[str], dimensions: int = 128
) -> list[np.ndarray]:
    """TF-IDF features of words and word pairs, reduced by truncated SVD, without a download.

    The vocabulary and the projection are fitted on the first group of texts only.

    Args:
        fit: Texts on which to fit, those of the training split.
        *others: Further groups of texts to transform.
        dimensions: Dimensions of the features, fewer if the vocabulary is smaller.

    Returns:
        For each group of texts an array (number of texts, dimensions), float32. Rows have length
        one; a text without known words has a row of zeros.

    Raises:
        InputError: The texts on which to fit hold too few words.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import normalize

    vectoriser = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2)
    if len(fit) < 10:
        vectoriser.set_params(min_df=1)
    try:
        fitted = vectoriser.fit_transform(fit)
    except ValueError as error:
        raise InputError(f"features: the training texts hold no usable words ({error})") from error
    size = min(dimensions, fitted.shape[1] - 1, fitted.shape[0])
    if size < 1:
        raise InputError("features: the training texts hold too few different words for TF-IDF")
    reduction = TruncatedSVD(n_components=size, random_state=_SVD_SEED)
    groups = [reduction.fit_transform(fitted)]
    groups += [reduction.transform(vectoriser.transform(texts)) for texts in others]
    return [normalize(group).astype(np.float32) for group in groups]


def encoder_digest(encoder: str) -> str:
    """Identity of an encoder: its name on the hub, or a digest of its files for a folder."""
    folder = Path(encoder).expanduser()
    return f"folder:{digest_folder(folder)}" if folder.is_dir() else f"hub:{encoder}"


def encode_texts(
    texts: Sequence[str], encoder: str, *, max_tokens: int = 256, device: str | None = None
) -> np.ndarray:
    """Mean-pooled last hidden states of a Hugging Face encoder.

    The mean is taken over all tokens but padding; the pooling layers of common checkpoints are
    untrained. Texts are batched by length, so padding costs little.

    Args:
        texts: The texts.
        encoder: Name on the hub, or a folder that `save_pretrained` wrote.
        max_tokens: Length to which longer texts are truncated.
        device: Torch device; None for a GPU if there is one.

    Returns:
        Array (number of texts, hidden size), float32.

    Raises:
        InputError: transformers is not installed, or the encoder cannot be loaded.
    """
    try:
        import torch
        from transformers import AutoModel, AutoTokenizer
    except ModuleNotFoundError as error:
        raise InputError(
            f"features: {encoder!r} needs the package {error.name!r} (extra 'weak')"
        ) from error
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(encoder)
        model: Any = AutoModel.from_pretrained(encoder)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"features: the encoder {encoder!r} cannot be loaded ({reason})"
        ) from error
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model = model.to(place).eval()
    order = np.argsort([len(text) for text in texts], kind="stable")
    pooled = np.zeros((len(texts), model.config.hidden_size), dtype=np.float32)
    with torch.inference_mode():
        for start in range(0, len(texts), _BATCH):
            rows = order[start : start + _BATCH]
            tokens = tokenizer(
                [texts[row] for row in rows],
                padding=True,
                truncation=True,
                max_length=max_tokens,
                return_tensors="pt",
            ).to(place)
            states = model(**tokens).last_hidden_state
            weights = tokens["attention_mask"].unsqueeze(-1).to(states.dtype)
            means = (states * weights).sum(1) / weights.sum(1).clamp(min=1)
            pooled[rows] = means.float().cpu().numpy()
    return pooled
