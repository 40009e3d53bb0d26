"""Ids of the environments, and the names that settings choose from; imports nothing heavy."""

from __future__ import annotations

from typing import Literal

MNIST_GAME = "modicum/MnistGame-v0"
PIXEL_CART_POLE = "modicum/PixelCartPole-v0"

MethodName = Literal["solipsistic", "ppo", "dqn"]
DynamicsName = Literal["memory", "markov"]
RecognitionName = Literal["auto", "convolutional", "digits", "mlp"]
TransitionName = Literal["gru", "residual"]
StateBound = Literal["none", "tanh"]
ContrastName = Literal["same_time", "any_time", "information_bottleneck", "none"]
RewardName = Literal["bernoulli", "gaussian"]
ImaginedReturn = Literal["sum", "survival"]
StartFrames = Literal["first", "any"]
Shown = Literal["picture", "observation"]
