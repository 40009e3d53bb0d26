"""Likelihoods p(x|z) of images, as torch distributions over a whole image (section 4.5.1).

Images are floats with pixel values 0 and 1, or 0 to 255. `log_prob` is in nats, one number for each
image. Shapes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Independent, constraints
from torch.nn.functional import logsigmoid

from modicum_algorithms.vae.config import LikelihoodName

# Bernoulli probabilities stay in [1e-3, 1 - 1e-3], as in the authors' code.
MINIMUM_PROBABILITY = 1e-3
LOGIT_LIMIT = math.log((1 - MINIMUM_PROBABILITY) / MINIMUM_PROBABILITY)

# Range of the logistic's log scale, in units of half the range of pixel values.
LOG_SCALE_MINIMUM, LOG_SCALE_MAXIMUM = -7.0, 2.0
LEVELS = 256


def bernoulli(logits_BCHW: Tensor) -> Independent[Bernoulli]:
    """Independent Bernoulli pixels, with probabilities clipped away from 0 and 1."""
    clipped_BCHW = logits_BCHW.clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
    return Independent(Bernoulli(logits=clipped_BCHW, validate_args=False), 3, validate_args=False)


class DiscretisedLogistic(Distribution):
    """Logistic distributions integrated over the 256 bins of a pixel's value.

    P(x) = σ((x̃ + h − μ)/s) − σ((x̃ − h − μ)/s) with x̃ = x/127.5 − 1 and h = 1/255; the bins of 0
    and 255 reach to infinity, so the probabilities sum to one (Salimans et al. 2017).

    Args:
        mean_BCHW: μ, in units of x̃.
        log_scale_BCHW: ln s, in units of x̃.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.independent(constraints.integer_interval(0, LEVELS - 1), 3)

    def __init__(self, mean_BCHW: Tensor, log_scale_BCHW: Tensor) -> None:
        self.mean_BCHW = mean_BCHW
        self.log_scale_BCHW = log_scale_BCHW.clamp(LOG_SCALE_MINIMUM, LOG_SCALE_MAXIMUM)
        shape = mean_BCHW.shape
        super().__init__(shape[:-3], shape[-3:], validate_args=False)

    def means_given(self, x_BCHW: Tensor) -> Tensor:
        """μ of each channel of each pixel, given the pixel's other channels."""
        return self.mean_BCHW

    def log_prob(self, value: Tensor) -> Tensor:
        """Log probability of whole images, nats.

        Args:
            value: (B, C, H, W) pixel values 0 to 255.

        Returns:
            (B,).
        """
        inverse_scale = (-self.log_scale_BCHW).exp()
        centred = value / 127.5 - 1 - self.means_given(value)
        upper = inverse_scale * (centred + 1 / 255)
        lower = inverse_scale * (centred - 1 / 255)
        # ln(σ(u) − σ(l)) = ln σ(u) + ln σ(−l) + ln(1 − exp(l − u)), exact in both tails.
        width = inverse_scale * (2 / 255)
        inside = logsigmoid(upper) + logsigmoid(-lower) + torch.log(-torch.expm1(-width))
        log_probability = torch.where(
            value < 0.5,
            logsigmoid(upper),
            torch.where(value > LEVELS - 1.5, logsigmoid(-lower), inside),
        )
        return log_probability.sum((-3, -2, -1))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Pixel values 0 to 255."""
        with torch.no_grad():
            shape = torch.Size(sample_shape) + self.mean_BCHW.shape
            return self._values(self.mean_BCHW.expand(shape), self._noise(shape))

    def _noise(self, shape: torch.Size) -> Tensor:
        """Standard logistic noise, times the scale."""
        uniform = torch.rand(shape, device=self.mean_BCHW.device).clamp(1e-7, 1 - 1e-7)
        return uniform.logit() * self.log_scale_BCHW.exp()

    @staticmethod
    def _values(mean: Tensor, noise: Tensor) -> Tensor:
        return ((mean + noise + 1) * 127.5).round().clamp(0, LEVELS - 1)


class AutoregressiveLogistic(DiscretisedLogistic):
    """Discretised logistic with channels linear in the earlier channels (Salimans et al. 2017).

    μ_G' = μ_G + a x̃_R and μ_B' = μ_B + b x̃_R + c x̃_G, for each pixel.

    Args:
        mean_BCHW: μ of the three channels.
        log_scale_BCHW: ln s.
        coefficients_BCHW: a, b and c.
    """

    def __init__(
        self, mean_BCHW: Tensor, log_scale_BCHW: Tensor, coefficients_BCHW: Tensor
    ) -> None:
        self.coefficients_BCHW = coefficients_BCHW
        super().__init__(mean_BCHW, log_scale_BCHW)

    def means_given(self, x_BCHW: Tensor) -> Tensor:
        """μ' of each channel, from the earlier channels of the same pixel."""
        red, green, _ = (x_BCHW / 127.5 - 1).unbind(-3)
        a, b, c = self.coefficients_BCHW.unbind(-3)
        mean_red, mean_green, mean_blue = self.mean_BCHW.unbind(-3)
        means = (mean_red, mean_green + a * red, mean_blue + b * red + c * green)
        return torch.stack(torch.broadcast_tensors(*means), -3)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Pixel values 0 to 255, sampled one channel after the other."""
        with torch.no_grad():
            shape = torch.Size(sample_shape) + self.mean_BCHW.shape
            noise = self._noise(shape)
            x = torch.full(shape, 127.5, device=self.mean_BCHW.device)
            for channel in range(3):
                mean = self.means_given(x)[..., channel, :, :]
                x[..., channel, :, :] = self._values(mean, noise[..., channel, :, :])
            return x


# Parameters of each channel of each pixel, which the decoder outputs.
PARAMETERS: dict[LikelihoodName, int] = {
    "bernoulli": 1,
    "discretised_logistic": 2,
    "autoregressive_logistic": 3,
}


def likelihood(name: LikelihoodName, parameters_BCHW: Tensor) -> Distribution:
    """p(x|z) from a decoder's output.

    Args:
        name: Name of the distribution.
        parameters_BCHW: Parameters of the distribution, stacked along the channels (their number is
            in `PARAMETERS`): logits; or means and log scales; or means, log scales and
            coefficients.
    """
    if name == "bernoulli":
        return bernoulli(parameters_BCHW)
    parts = parameters_BCHW.chunk(PARAMETERS[name], dim=-3)
    if name == "discretised_logistic":
        return DiscretisedLogistic(*parts)
    return AutoregressiveLogistic(*parts)
