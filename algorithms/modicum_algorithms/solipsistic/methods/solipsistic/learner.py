"""The Learner: gradient steps on equation 5.4, and the policy search inside the model.

Shapes: B trajectories, T time steps, N observations, S solipsistic state size, J perturbations.
"""

from __future__ import annotations

import ctypes
import sys
import time
from typing import Any

import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from torch import Tensor

from modicum_algorithms.solipsistic.methods.solipsistic import losses
from modicum_algorithms.solipsistic.methods.solipsistic.models import MemoryModel, SolipsisticModel
from modicum_algorithms.solipsistic.methods.solipsistic.policy import imagined_returns, maximise
from modicum_algorithms.solipsistic.methods.solipsistic.rl_module import (
    PREDICTED,
    PRESENT,
    RECOGNISED,
    REWARDED,
    SolipsisticRLModule,
)
from modicum_algorithms.solipsistic.networks import measure_batch_statistics
from modicum_algorithms.solipsistic.rllib_settings import SolipsisticAlgorithmOptions


class SolipsisticLearner(TorchLearner):
    """Learner that trains the model on trajectories, then the policy inside the model."""

    config: Any  # a `SolipsisticConfig`

    def build(self) -> None:
        """Build the learner in a process that keeps freed memory."""
        _keep_freed_memory()
        super().build()

    def get_parameters(self, module: Any) -> list[Any]:
        """Parameters that gradients train, without those of the averaged model."""
        return [parameter for parameter in module.parameters() if parameter.requires_grad]

    def apply_gradients(self, gradients_dict: Any) -> None:
        """Make a step of the optimiser, and update the averaged model."""
        super().apply_gradients(gradients_dict)
        self._own_module().average(self.config.averaging)

    def _own_module(self, module_id: str = DEFAULT_MODULE_ID) -> SolipsisticRLModule:
        module = self.module[module_id].unwrapped()  # from DistributedDataParallel
        assert isinstance(module, SolipsisticRLModule)
        return module

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: Any, fwd_out: Any
    ) -> Tensor:
        """Objective of equation 5.4 on a batch of trajectories; see `losses`."""
        model, options = self._own_module(module_id).model, config.options
        recognised_BTS = fwd_out[RECOGNISED]
        rewarded_BT, rewards_BT = batch[REWARDED], batch[Columns.REWARDS]
        terms = {
            "reward": model.reward_loss(recognised_BTS[rewarded_BT], rewards_BT[rewarded_BT]).mean()
        }
        groups = [
            _prediction_terms(model, options, batch, recognised_BTS, predicted_BTS)
            for predicted_BTS in fwd_out[PREDICTED]
            # All episodes may be too short for the furthest predictions.
            if batch[PRESENT][:, -predicted_BTS.shape[1] :].any()
        ]
        for name in groups[0]:
            terms[name] = torch.stack([group[name] for group in groups]).mean()
        total = terms["consistency"] + options.reward_weight * terms["reward"]
        if options.reward_of_predictions:
            total = total + options.reward_weight * terms["predicted_reward"]
        if options.contrast != "none":
            total = total + options.contrast_weight * terms["contrast"]
        self.metrics.log_dict(
            {name: value.detach() for name, value in terms.items()}, key=module_id, window=20
        )
        return total

    def seed(self, seed: int) -> None:
        """Seed the random numbers of the next updates, which are all of torch."""
        torch.manual_seed(seed)

    @torch.no_grad()
    def measure_statistics(self, observations: Any) -> None:
        """Measure the statistics of batch normalisation on some observations."""
        model = self._own_module().averaged_model
        measure_batch_statistics(
            model, model.recognise, torch.as_tensor(observations, device=self._device)
        )

    @torch.no_grad()
    def search_policy(self, observations: Any, seed: int) -> dict[str, float]:
        """Train the policy by variational optimisation (algorithm 1, lines 18 to 36).

        Args:
            observations: Starts of the imagined roll-outs, shape (iterations, N, ...).
            seed: Seed of the initial policy, the perturbations and the imagined actions.

        Returns:
            Mean imagined return in the first iteration (`imagined_return_before`) and in the last
            (`imagined_return`), and the time in `seconds`.
        """
        started = time.perf_counter()
        module = self._own_module()
        model, policy, options = module.averaged_model, module.policy, self.config.options
        assert isinstance(model, MemoryModel)
        generator = torch.Generator(self._device).manual_seed(seed)
        mean_P = module.policy_weights_P
        if options.reinitialise_policy:  # line 18
            mean_P = policy.initial_weights(torch.Generator().manual_seed(seed)).to(self._device)
        starts = torch.as_tensor(observations, device=self._device)
        states_INS = model.recognise(starts.flatten(0, 1)).view(*starts.shape[:2], -1)  # line 24
        remaining = iter(states_INS)

        def objective(weights_JP: Tensor) -> Tensor:
            returns_JN = imagined_returns(
                policy,
                weights_JP,
                next(remaining),
                transition=model.step,
                reward=model.expected_reward,
                horizon=options.imagined_steps,
                kind=options.imagined_return,
                generator=generator,
            )
            return returns_JN.mean(1)

        history = []
        for best_P, returns_J in maximise(objective, mean_P, options, generator):
            module.policy_weights_P.copy_(best_P)  # line 36
            history.append(float(returns_J.mean()))
        return {
            "imagined_return_before": history[0],
            "imagined_return": history[-1],
            "seconds": time.perf_counter() - started,
        }


def _prediction_terms(
    model: SolipsisticModel,
    options: SolipsisticAlgorithmOptions,
    batch: dict[str, Any],
    recognised_BTS: Tensor,
    predicted_BTS: Tensor,
) -> dict[str, Tensor]:
    """Terms of equation 5.4 from predictions of the last T' time steps."""
    length = predicted_BTS.shape[1]
    present_BT = batch[PRESENT][:, -length:]
    target_BTS = recognised_BTS[:, -length:]
    predicted_NS, target_NS = predicted_BTS[present_BT], target_BTS[present_BT]
    terms = {"consistency": model.divergence(predicted_NS, target_NS).mean()}
    if options.reward_of_predictions:
        rewards_N = batch[Columns.REWARDS][:, -length:][present_BT]
        terms["predicted_reward"] = model.reward_loss(predicted_NS, rewards_N).mean()
    if options.contrast == "same_time":  # equation C.4
        # Each trajectory against the one before it in a random order of the batch.
        order_B = torch.randperm(len(predicted_BTS), device=predicted_BTS.device)
        other_B = torch.empty_like(order_B)
        other_B[order_B] = order_B.roll(1)
        both_BT = present_BT & present_BT[other_B]
        divergences = model.divergence(predicted_BTS[both_BT], target_BTS[other_B][both_BT])
        terms["contrast"] = losses.contrast(divergences, options.margin)
    elif options.contrast != "none":
        divergences_NN = model.pairwise_divergence(predicted_NS, target_NS)
        if options.contrast == "any_time":  # equation C.3
            others = losses.off_diagonal(divergences_NN)
            terms["contrast"] = losses.contrast(others, options.margin)
        else:
            terms["contrast"] = losses.contrastive_bottleneck(divergences_NN)
    return terms


def _keep_freed_memory() -> None:
    """Have this process keep freed memory for its next allocation.

    glibc maps large blocks anew each time and returns them when they are freed. An update of a
    convolutional network on a CPU then spends half of its time on page faults (measured: a factor
    of 2 with 500 images of 64x64). Does nothing where there is no glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(-4, 0)  # M_MMAP_MAX of glibc's malloc.h
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
