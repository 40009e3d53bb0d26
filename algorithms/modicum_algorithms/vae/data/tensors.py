"""The images of a trial as tensors on its device."""

from __future__ import annotations

import json
from dataclasses import dataclass

import torch
from torch import Tensor

import modicum as md
from modicum_algorithms.vae.config import DataConfig
from modicum_algorithms.vae.data import datasets


@dataclass(frozen=True)
class Images:
    """A data set as tensors (N, C, H, W), uint8, with keys that identify the two splits."""

    data: datasets.ImageData
    train: Tensor
    test: Tensor
    train_key: str
    test_key: str


def load_images(config: DataConfig, trial: md.Trial, samples: int | None) -> Images:
    """The images of a trial on its device, drawn by its seed; all if `samples` is None.

    Raises:
        InputError: The images cannot be read, or the trial asks for a GPU and there is none.
    """
    seed = trial.seed_for("images")
    data = datasets.load(config.dataset, binarisation=config.binarisation, seed=seed)
    if samples is not None:
        data = data.subset(samples, seed)
    digests = datasets.data_digests(config.dataset)
    drawn = seed if config.binarisation == "sampling" else None
    chosen = None if samples is None else [samples, seed]
    test_key = json.dumps([digests, config.binarisation, drawn], sort_keys=True)
    device = _device(config)
    return Images(
        data=data,
        # Copied, because torch warns of arrays that are read-only.
        train=torch.from_numpy(data.train_NCHW.copy()).to(device),
        test=torch.from_numpy(data.test_NCHW.copy()).to(device),
        train_key=json.dumps([test_key, chosen]),
        test_key=test_key,
    )


def _device(config: DataConfig) -> torch.device:
    if not config.gpus:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise md.InputError("gpus: must be 0 where PyTorch sees no GPU")
    return torch.device("cuda")
