"""The names that settings choose from; imports nothing heavy."""

from __future__ import annotations

from typing import Literal

Binarisation = Literal["none", "threshold", "sampling"]
NetworkName = Literal["mlp", "resnet"]
LikelihoodName = Literal["bernoulli", "discretised_logistic", "autoregressive_logistic"]
MethodName = Literal["wake", "sleep", "reverse_sleep", "reverse_half_sleep", "denoising"]
SampleSource = Literal["prior", "aggregate_posterior"]
Schedule = Literal["constant", "linear"]
Precision = Literal["float32", "bfloat16"]
