"""An OpenAI-compatible endpoint for tests, in a process of its own, with real HTTP and accounts.

    with running_endpoint(delay=0.1, faults={"server_error": 0.1}) as endpoint:
        client = AsyncOpenAI(base_url=endpoint.base_url, api_key="any")
        ...
        log = endpoint.log()
        assert log.busiest(10.0) <= 500

The fields of `Behaviour` control the endpoint and can be changed while it runs. Random draws depend
on the seed, the question and the number of times that the question was asked before, so the same
requests have the same results in whatever order they arrive.
"""

from fake_endpoint.behaviour import Behaviour
from fake_endpoint.control import Endpoint, running_endpoint
from fake_endpoint.log import Log, busiest, question_digest

__all__ = [
    "Behaviour",
    "Endpoint",
    "Log",
    "busiest",
    "question_digest",
    "running_endpoint",
]
