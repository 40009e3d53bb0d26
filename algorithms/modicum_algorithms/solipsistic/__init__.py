"""Solipsistic reinforcement learning as an RLlib algorithm, with PPO and DQN beside it.

```python
from modicum_algorithms.solipsistic import SolipsisticConfig

algorithm = SolipsisticConfig().environment("CartPole-v1").build_algo()
```

Importing the package loads neither torch nor RLlib; they are loaded with the first of its names.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modicum_algorithms.solipsistic.algorithm import Solipsistic, SolipsisticConfig
    from modicum_algorithms.solipsistic.environments import register as register_environments

__all__ = ["Solipsistic", "SolipsisticConfig", "register_environments"]

_LATER = {
    "Solipsistic": ("algorithm", "Solipsistic"),
    "SolipsisticConfig": ("algorithm", "SolipsisticConfig"),
    "register_environments": ("environments", "register"),
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        module, attribute = _LATER[name]
        return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
