"""Numbers that show what a trained network has learned (figures 5.4, 5.6 and 5.7).

Shapes: N observations, S solipsistic states or their size, T time steps, F filters, H height,
W width, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import nn

import modicum as md
from modicum_algorithms.solipsistic.config import PIXEL_CART_POLE
from modicum_algorithms.solipsistic.environments import environment_id
from modicum_algorithms.solipsistic.methods.solipsistic.models import MarkovModel, MemoryModel
from modicum_algorithms.solipsistic.methods.solipsistic.policy import state_values
from modicum_algorithms.solipsistic.networks import Recognition

LEFT, RIGHT = 0, 1


@dataclass(frozen=True)
class DigitsInMarkovModel:
    """States, rewards and values that a Markov model gives to N images (figure 5.4).

    Attributes:
        states_NS: Probabilities p(s | x).
        rewards_N: Expected reward of each image.
        values_TN: Expected value V(s_t) of each image at t = 1 … T.
    """

    states_NS: np.ndarray[Any, Any]
    rewards_N: np.ndarray[Any, Any]
    values_TN: np.ndarray[Any, Any]


@torch.no_grad()
def digits_in_markov_model(
    model: MarkovModel, observations: np.ndarray[Any, Any], horizon: int
) -> DigitsInMarkovModel:
    """Recognise N raw images, and predict their rewards and values for T steps (equation 5.8)."""
    states_NS = model.recognise(torch.as_tensor(observations)).exp()
    # `state_values` counts the steps that are left, which fall as t rises.
    values_TS = state_values(model.transitions, model.expected_rewards, horizon).flip(0)
    return DigitsInMarkovModel(
        states_NS=states_NS.numpy(),
        rewards_N=(states_NS @ model.expected_rewards).numpy(),
        values_TN=(values_TS @ states_NS.T).numpy(),
    )


def scaled_rows(values_TN: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Rows shifted and scaled to the range from 0 to 1; a row of equal values becomes 0."""
    low, high = values_TN.min(1, keepdims=True), values_TN.max(1, keepdims=True)
    return (values_TN - low) / np.where(high > low, high - low, 1)


def scripted_observations(
    options: Mapping[str, Any], actions: Sequence[int]
) -> np.ndarray[Any, Any]:
    """Observations of pixel CartPole from the fixed start on, continued after a fall.

    The options are those of the environment, whose start and end are set here. T actions give the
    shape (T + 1, 64, 64, 3).
    """
    lasting = {"start": "fixed", "horizon": len(actions) + 1, "frames_after_fall": len(actions) + 1}
    cart_pole = gym.make(environment_id(PIXEL_CART_POLE), **{**options, **lasting})
    found = [cart_pole.reset(seed=0)[0]]
    found += [cart_pole.step(np.int64(action))[0] for action in actions]
    cart_pole.close()
    return np.stack(found)


def falls(steps: int) -> dict[str, tuple[int, ...]]:
    """Actions of three trajectories: the pole falls to the left in two, to the right in one.

    Pushes to the left and right in turn hold the pole for a while. Then it falls away from the
    first push. The second trajectory differs from the first in its 11th and 12th push.
    """
    left = [RIGHT, LEFT] * steps
    similar = left.copy()
    similar[10], similar[11] = similar[11], similar[10]
    right = [LEFT, RIGHT] * steps
    return {
        "1: to the left": tuple(left[:steps]),
        "2: to the left": tuple(similar[:steps]),
        "3: to the right": tuple(right[:steps]),
    }


@torch.no_grad()
def first_layer_activations(
    network: Recognition, observations: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """Sigmoid of the first convolution's outputs for N raw images, shape (N, F, H, W).

    These are the activation maps of figures 5.6, C.2 and C.3.

    Raises:
        InputError: The network has no convolutions.
    """
    first = network.layers[0]
    if not isinstance(first, nn.Conv2d):
        raise md.InputError("recognition: only networks for images have activation maps")
    images_NCHW = network.observation.prepare(torch.as_tensor(observations))
    return torch.sigmoid(first(images_NCHW)).numpy()


def networks(module: nn.Module) -> dict[str, Recognition]:
    """Networks of a module that see observations, by name and without target networks."""
    names = {
        "averaged_model.recognition": "recognition",
        "policy_network": "policy",
        "value_network": "value",
        "q_network": "q",
    }
    found = {name: layer for name, layer in module.named_modules() if name in names}
    return {names[name]: layer for name, layer in found.items() if isinstance(layer, Recognition)}


@torch.no_grad()
def recognised(
    model: MemoryModel, trajectories: Mapping[str, np.ndarray[Any, Any]]
) -> dict[str, np.ndarray[Any, Any]]:
    """Solipsistic states of each trajectory's observations, shape (T, S)."""
    return {
        name: model.recognise(torch.as_tensor(observations)).numpy()
        for name, observations in trajectories.items()
    }


@dataclass(frozen=True)
class Projection:
    """States in the plane of their two principal components (figure 5.7 d).

    Attributes:
        points: States of each trajectory, shape (T, 2).
        explained: Shares of the variance along the two components.
    """

    points: dict[str, np.ndarray[Any, Any]]
    explained: tuple[float, float]


def projected(states: Mapping[str, np.ndarray[Any, Any]]) -> Projection:
    """Project the states of all trajectories, of shapes (T, S) with S > 1, by one PCA."""
    analysis = PCA(2, svd_solver="full").fit(np.concatenate(list(states.values())))
    first, second = map(float, analysis.explained_variance_ratio_)
    points = {name: analysis.transform(states_TS) for name, states_TS in states.items()}
    return Projection(points, (first, second))
