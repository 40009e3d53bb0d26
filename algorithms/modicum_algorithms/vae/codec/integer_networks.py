"""Encoders and decoders in exact integers, so that every machine computes the same bits.

Floating-point sums depend on their order, and thereby on batch size, threads and processor. Here
weights and activations are fixed-point numbers, held as integers in float64, and all sums stay
below 2^53, so that no addition rounds and order does not matter. Shapes: B batch, C channels, H
height, W width, L latent dimensions, K inputs of one output, P places of a convolution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import unfold

import modicum as md
from modicum_algorithms.vae.codec.elementary import Floats
from modicum_algorithms.vae.codec.symbols import LatticePosterior, Pixels, parameter_bits
from modicum_algorithms.vae.codec.tables import (
    LATENT_LIMIT,
    LATTICE_BITS,
    Integers,
    level_of_raw,
)
from modicum_algorithms.vae.networks import VAE, ResidualBlock, ScaleImage

# Fraction bits of activations and of their sums; weights have the difference.
ACTIVATION_BITS = 12
SUM_BITS = 30
# Activations are clamped to ±2048.
ACTIVATION_LIMIT = 2.0**23
EXACT_LIMIT = 2.0**53
# Numbers in an unfolded piece of a batch, small enough for the processor's cache.
_UNFOLDED_NUMBERS = 2**19
_AFFINE = (nn.Linear, nn.Conv2d)

Operation = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Format:
    """A fixed-point format: an integer n stands for n / (2^bits × divisor).

    Attributes:
        bits: Fraction bits.
        limit: Largest absolute value of n.
        divisor: Divisor beside the power of two.
    """

    bits: int
    limit: float
    divisor: int = 1


PIXEL_FORMAT = {2: Format(0, 1.0), 256: Format(0, 255.0)}
LATENT_FORMAT = Format(LATTICE_BITS, float(LATENT_LIMIT))
_ACTIVATIONS = Format(ACTIVATION_BITS, ACTIVATION_LIMIT)


class IntegerNetwork:
    """A network of this family, converted to integers.

    Args:
        network: Linear layers, convolutions, ReLUs, residual blocks and rearrangements; the last
            layer is linear or a convolution.
        inputs: Format of the inputs.
        output_bits: Fraction bits of the outputs.

    Raises:
        InputError: A layer has no integer form, or its weights are too large.
    """

    def __init__(self, network: nn.Sequential, inputs: Format, output_bits: int) -> None:
        layers = list(network)
        affine = [place for place, layer in enumerate(layers) if isinstance(layer, _AFFINE)]
        if not affine or any(isinstance(layer, ResidualBlock) for layer in layers[affine[-1] :]):
            raise md.InputError("model: the coder needs networks that end in a linear layer")
        self._operations: list[Operation] = []
        form = inputs
        for place, layer in enumerate(layers):
            follower = layers[place + 1] if place + 1 < len(layers) else None
            previous = layers[place - 1] if place else None
            if isinstance(layer, _AFFINE):
                bits = output_bits if place == affine[-1] else ACTIVATION_BITS
                relu = isinstance(follower, nn.ReLU)
                self._operations.append(_affine(layer, form, bits, relu))
                form = _ACTIVATIONS
            elif isinstance(layer, ScaleImage):
                if layer.levels != 2:
                    # The numerator of x/127.5 − 1 = (2x − 255)/255.
                    self._operations.append(lambda x: x.mul(2).sub_(255))
                    form = Format(0, form.limit, divisor=255)
            elif isinstance(layer, ResidualBlock):
                self._operations.append(_Residual(layer))
            elif isinstance(layer, nn.ReLU):
                if not isinstance(previous, _AFFINE):
                    self._operations.append(lambda h: h.clamp(min=0))
            elif isinstance(layer, nn.PixelShuffle | nn.Flatten | nn.Unflatten):
                self._operations.append(layer)
            else:
                name = type(layer).__name__
                raise md.InputError(f"model: the coder has no integer form of a {name}")

    @torch.no_grad()
    def __call__(self, inputs: Tensor) -> Tensor:
        """Evaluate the network on integers in float64; the inputs stay as they are."""
        h = inputs
        for operation in self._operations:
            h = operation(h)
        return h


class PortableNetworks:
    """A model's encoder and decoder in integers.

    Raises:
        InputError: A layer has no integer form, or its weights are too large.
    """

    def __init__(self, model: VAE) -> None:
        spec = model.spec
        self._encoder = IntegerNetwork(
            model.encoder.network, PIXEL_FORMAT[spec.levels], LATTICE_BITS
        )
        self._decoder = IntegerNetwork(
            model.decoder.network, LATENT_FORMAT, parameter_bits(spec.likelihood)
        )

    def posterior(self, x_BCHW: Pixels) -> LatticePosterior:
        """q(z|x) of each image."""
        outputs = self._encoder(torch.from_numpy(x_BCHW).double())
        mean, raw = (half.flatten(1).numpy() for half in outputs.chunk(2, dim=1))
        return LatticePosterior.within_prior(mean, level_of_raw(raw))

    def parameters(self, z_BL: Integers) -> Floats:
        """Parameters of p(x|z) of each image, as integers."""
        outputs: Floats = self._decoder(torch.from_numpy(z_BL).double()).numpy()
        return outputs


def _affine(layer: nn.Linear | nn.Conv2d, inputs: Format, bits: int, relu: bool) -> Operation:
    if isinstance(layer, nn.Linear):
        return _Linear(layer, inputs, bits, relu)
    return _Convolution(layer, inputs, bits, relu)


class _Rounding:
    """Rounding of sums with SUM_BITS to the nearest activation, clamped, with or without a ReLU."""

    def __init__(self, bits: int, relu: bool) -> None:
        self.half = 2.0 ** (SUM_BITS - bits - 1)
        self._factor = 2.0 ** (bits - SUM_BITS)
        self._low = 0.0 if relu else -ACTIVATION_LIMIT

    def __call__(self, sums: Tensor) -> Tensor:
        """Round in place; `half` has been added already."""
        return sums.mul_(self._factor).floor_().clamp_(self._low, ACTIVATION_LIMIT)


def _whole_weights(
    layer: nn.Linear | nn.Conv2d, inputs: Format, rounding: _Rounding
) -> tuple[Tensor, Tensor]:
    """Weights (outputs, K) and biases (outputs,) as integers; biases include half a unit.

    Raises:
        InputError: Sums could exceed 2^53.
    """
    weight = layer.weight.detach().double().flatten(1) / inputs.divisor
    weight = (weight * 2.0 ** (SUM_BITS - inputs.bits)).round()
    bias = torch.zeros(len(weight), dtype=torch.float64)
    if layer.bias is not None:
        bias = (layer.bias.detach().double() * 2.0**SUM_BITS).round()
    bias = bias + rounding.half
    largest = weight.abs().sum(1) * inputs.limit + bias.abs()
    # This comparison is also false for NaN.
    if not bool((largest < EXACT_LIMIT).all()):
        raise md.InputError(
            f"model: the weights of a {type(layer).__name__} are too large for exact sums, or not "
            "finite (mode 'pinned' takes finite ones of any size)"
        )
    return weight, bias


class _Linear:
    def __init__(self, layer: nn.Linear, inputs: Format, bits: int, relu: bool) -> None:
        self._rounding = _Rounding(bits, relu)
        weight, self._bias = _whole_weights(layer, inputs, self._rounding)
        self._weight_transposed = weight.T

    def __call__(self, h: Tensor) -> Tensor:
        return self._rounding(torch.addmm(self._bias, h, self._weight_transposed))


class _Convolution:
    """A convolution as a product of matrices: library convolutions may use inexact transforms."""

    def __init__(self, layer: nn.Conv2d, inputs: Format, bits: int, relu: bool) -> None:
        if layer.groups != 1 or isinstance(layer.padding, str) or layer.padding_mode != "zeros":
            raise md.InputError(
                "model: the coder takes convolutions with one group and numbers of padding zeros"
            )
        self._rounding = _Rounding(bits, relu)
        self._weight, bias = _whole_weights(layer, inputs, self._rounding)
        self._bias = bias[:, None]
        self._kernel, self._dilation = layer.kernel_size, layer.dilation
        self._padding, self._stride = layer.padding, layer.stride

    def __call__(self, h_BCHW: Tensor) -> Tensor:
        batch_size = len(h_BCHW)
        rows, columns = (
            (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            for size, padding, dilation, kernel, stride in zip(
                h_BCHW.shape[2:],
                self._padding,
                self._dilation,
                self._kernel,
                self._stride,
                strict=True,
            )
        )
        outputs, inputs = self._weight.shape
        result = torch.empty(batch_size, outputs, rows * columns, dtype=torch.float64)
        piece = max(1, _UNFOLDED_NUMBERS // (inputs * rows * columns))
        for start in range(0, batch_size, piece):
            unfolded_BKP = unfold(
                h_BCHW[start : start + piece],
                self._kernel,
                self._dilation,
                self._padding,
                self._stride,
            )
            sums = result[start : start + piece]
            torch.matmul(self._weight, unfolded_BKP, out=sums)
            self._rounding(sums.add_(self._bias))
        return result.view(batch_size, outputs, rows, columns)


class _Residual:
    def __init__(self, block: ResidualBlock) -> None:
        self._first = _Convolution(block.first, _ACTIVATIONS, ACTIVATION_BITS, relu=True)
        self._second = _Convolution(block.second, _ACTIVATIONS, ACTIVATION_BITS, relu=False)

    def __call__(self, h_BCHW: Tensor) -> Tensor:
        change_BCHW = self._second(self._first(h_BCHW.clamp(min=0)))
        return change_BCHW.add_(h_BCHW).clamp_(-ACTIVATION_LIMIT, ACTIVATION_LIMIT)
