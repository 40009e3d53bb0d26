"""An OpenAI-compatible endpoint for tests: a process of its own, real HTTP, and exact accounts.

    with running_endpoint(delay=0.1, faults={"server_error": 0.1}) as endpoint:
        client = AsyncOpenAI(base_url=endpoint.base_url, api_key="any")
        ...
        log = endpoint.log()
        assert log.busiest(10.0) <= 500

Everything that it can do is a field of `Behaviour`, and can be changed while it runs. What is
drawn at random is drawn from the seed, the question and how often that question was asked before,
so that the same requests meet the same fate in whatever order they arrive.
"""

from fake_endpoint.behaviour import Behaviour, Limit
from fake_endpoint.control import Endpoint, running_endpoint
from fake_endpoint.log import Log, busiest, question_digest

__all__ = [
    "Behaviour",
    "Endpoint",
    "Limit",
    "Log",
    "busiest",
    "question_digest",
    "running_endpoint",
]
