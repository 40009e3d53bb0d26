"""The names that settings choose from; imports nothing heavy."""

from __future__ import annotations

from typing import Literal

RecognitionName = Literal["auto", "convolutional", "digits", "mlp"]
