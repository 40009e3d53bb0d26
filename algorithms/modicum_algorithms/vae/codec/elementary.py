"""exp, ln and softplus from correctly rounded operations alone.

The functions of a C library, NumPy or PyTorch differ in the last bit between machines. Tables made
with them would differ too, and a file from one machine would not decode on another. IEEE 754 fixes
each bit of +, −, ×, ÷, floor and scaling by a power of two, so only these are used here, one at a
time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# ln 2 in two parts; the first ends in zeros, so that integer multiples of it are exact.
_LN2_HIGH = float.fromhex("0x1.62e42fee00000p-1")
_LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
_EXPONENTIAL_TERMS = 14
_ARTANH_TERMS = 18


def exponential(x: Floats) -> Floats:
    """exp(x) to a few units in the last place, for x between -700 and 700."""
    halvings = np.floor(x / _LN2_HIGH + 0.5)
    rest = x - halvings * _LN2_HIGH
    rest = rest - halvings * _LN2_LOW
    # Taylor series by Horner's rule; |rest| is at most ln(2)/2.
    total = np.ones_like(rest)
    for term in range(_EXPONENTIAL_TERMS, 0, -1):
        total = total * rest
        total = total / term
        total = total + 1
    return np.ldexp(total, halvings.astype(np.int64))


def logarithm(x: Floats) -> Floats:
    """ln(x) to a few units in the last place, for positive normal x."""
    mantissa, exponent = np.frexp(x)
    small = mantissa < 0.75
    mantissa = np.where(small, mantissa * 2, mantissa)
    exponent = exponent - small
    series = _twice_artanh((mantissa - 1) / (mantissa + 1))
    return exponent * _LN2_HIGH + (exponent * _LN2_LOW + series)


def softplus(x: Floats) -> Floats:
    """ln(1 + exp(x)), for x between -700 and 700."""
    power = exponential(-np.abs(x))
    return np.maximum(x, 0) + _twice_artanh(power / (power + 2))


def sigmoid(x: Floats) -> Floats:
    """1/(1 + exp(-x)), for x between -700 and 700."""
    return 1 / (exponential(-x) + 1)


def _twice_artanh(s: Floats) -> Floats:
    """ln((1 + s)/(1 − s)) = 2 (s + s³/3 + s⁵/5 + …) for |s| up to 1/3."""
    square = s * s
    total = np.zeros_like(s)
    for term in range(_ARTANH_TERMS, -1, -1):
        total = total * square
        total = total + 1 / (2 * term + 1)
    return total * s * 2
