"""RLlib algorithms whose unit of budget is the whole episode.

RLlib's runners count time steps and carry their random state from one call to the next. Here an
episode depends on its request and on the weights alone: not on the runner that collects it, on
what the runner collected before, or on the number of runners. An episode that is lost with its
runner is collected again, and is the same.
"""
