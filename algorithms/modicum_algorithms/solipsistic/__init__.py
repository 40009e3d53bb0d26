"""Solipsistic reinforcement learning as an RLlib algorithm, with PPO and DQN beside it.

```python
from modicum_algorithms.solipsistic import SolipsisticConfig

algorithm = SolipsisticConfig().environment("CartPole-v1").build_algo()
```

Importing the package loads neither torch nor RLlib; the first use of a name loads them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import modicum as md

if TYPE_CHECKING:
    from modicum_algorithms.solipsistic.algorithm import Solipsistic, SolipsisticConfig
    from modicum_algorithms.solipsistic.environments import register_environments
    from modicum_algorithms.solipsistic.methods.dqn import EpisodicDQNConfig
    from modicum_algorithms.solipsistic.methods.ppo import EpisodicPPOConfig

__all__ = [
    "EpisodicDQNConfig",
    "EpisodicPPOConfig",
    "Solipsistic",
    "SolipsisticConfig",
    "register_environments",
]

__getattr__ = md.lazy_exports(
    __name__,
    {
        "EpisodicDQNConfig": "methods.dqn",
        "EpisodicPPOConfig": "methods.ppo",
        "Solipsistic": "algorithm",
        "SolipsisticConfig": "algorithm",
        "register_environments": "environments",
    },
)
