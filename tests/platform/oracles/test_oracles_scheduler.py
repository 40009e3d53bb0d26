"""The gate's decisions in simulated time, against worked examples and against brute force."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fake_endpoint import busiest
from modicum.errors import InputError
from modicum.oracles.endpoint.budget import most_prompt_tokens
from modicum.oracles.endpoint.messages import GateLeavingError, Reply
from modicum.oracles.endpoint.pacing import SLACK
from modicum.oracles.endpoint.scheduler import CLIENT_LEASE
from modicum.oracles.endpoint.templates import RESPONSE_FORMAT_BYTES
from modicum.oracles.ledger.records import Amount
from simulated_gate import SimulatedGate, answered, questions, results

WAITS = {"first_wait": 1.0, "longest_wait": 8.0}


def failing(*outcomes: str, **fields):
    """Responses with these outcomes to the first requests for a question, then with a verdict."""

    def respond(request, before):
        if before >= len(outcomes):
            return answered()
        return {"outcome": outcomes[before], "message": "no luck", **fields}

    return respond


def one_client(respond=None, count=1, run="run", budget=None, **more):
    """Judge questions of one client to the end; the gate and the results."""
    gate = SimulatedGate(respond or failing(), **more)
    gate.attach("client", run, **budget or {})
    tickets = gate.ask("client", questions(count))
    gate.run()
    return gate, results(tickets)


# Answers.


def test_every_question_is_asked_once_and_remembered():
    gate, found = one_client(count=40)
    assert found == ["A"] * 40
    assert gate.states() == {"answered": 40}
    again = gate.ask("client", questions(41))
    assert results(again[:40]) == ["A"] * 40  # Without time passing.
    assert all(ticket.answer.result().cached for ticket in again[:40])
    gate.run()
    assert len(gate.sent) == 41
    assert gate.scheduler.waiting == gate.scheduler.in_flight == 0


def test_clients_that_ask_the_same_share_the_answer():
    gate = SimulatedGate()
    gate.attach("one")
    gate.attach("other")
    first = gate.ask("one", [*questions(3), *questions(3)])
    assert len({id(ticket) for ticket in first}) == 3
    gate.run(0.5)  # Under way.
    second = gate.ask("other", questions(3))
    gate.run()
    assert results(first) + results(second) == ["A"] * 9
    assert len(gate.sent) == 3


def test_clients_take_turns():
    """A client that asks late does not wait for the many questions of another one."""
    gate = SimulatedGate(limits={"concurrent_requests": 1})
    for client in ("many", "few", "two"):
        gate.attach(client)
    gate.ask("many", questions(30))
    gate.run(2.5)
    gate.ask("few", questions(3, start=100))
    gate.ask("two", questions(2, start=200))
    gate.run()
    order = [int(request.user[5:9]) // 100 for _, request in gate.sent][3:]
    assert order[:8] == [1, 2, 0, 1, 2, 0, 1, 0]
    assert Counter(order) == {0: 27, 1: 3, 2: 2}


# Rates.


@pytest.mark.parametrize("clients", [1, 3])
def test_clients_share_the_rate_of_requests(clients):
    gate = SimulatedGate(limits={"requests_per_minute": 600, "concurrent_requests": 1000})
    for client in range(clients):
        gate.attach(str(client))
        gate.ask(str(client), questions(120, start=1000 * client))
    gate.run()
    count = 120 * clients
    rate = (count - 1) / (gate.times[-1] - gate.times[0])
    assert rate == pytest.approx(10, rel=0.01)
    for window in (0.5, 2.0, 5.0):
        assert busiest(gate.times, window) <= 10 * (window + SLACK) + 1


def test_the_rate_of_tokens_is_that_of_the_tokens_used():
    """Estimates of 30 tokens are corrected by the 15 that each request uses, if a second late."""
    gate, found = one_client(
        count=600, limits={"tokens_per_minute": 6000, "concurrent_requests": 1000}
    )
    assert found == ["A"] * 600
    rate = 15 * 599 / (gate.times[-1] - gate.times[0])
    assert 70 < rate < 105


def test_no_more_are_under_way_than_allowed():
    draws = random.Random(0)
    gate = SimulatedGate(delay=lambda: draws.expovariate(1.0), limits={"concurrent_requests": 5})
    for client in "abc":
        gate.attach(client)
        gate.ask(client, questions(40, start=100 * "abc".index(client)))
    most = 0
    while gate.scheduler.waiting or gate.scheduler.in_flight:
        gate.run(0.01)
        most = max(most, gate.scheduler.in_flight)
    assert most == 5
    assert gate.states() == {"answered": 120}


@pytest.mark.parametrize("outcome", [{"outcome": "throttled"}, answered()])
def test_a_wait_that_the_endpoint_names_holds_for_everybody(outcome):
    """Retry-After of a refusal, and a limit of which nothing remains after an answer."""

    def respond(request, before):
        return {**outcome, "wait": 30.0} if request.number == 6 else answered()

    gate = SimulatedGate(respond, limits={"concurrent_requests": 2})
    for client in "ab":
        gate.attach(client)
        gate.ask(client, questions(10, start=100 * "ab".index(client)))
    gate.run()
    sent = next(time for time, request in gate.sent if request.number == 6)
    assert min(time for time in gate.times if time > sent) == pytest.approx(sent + 1.0 + 30.0)
    assert gate.states()["answered"] == 20


def test_throttled_without_a_wait_everybody_waits_for_a_time_that_doubles():
    gate, found = one_client(
        failing(*["throttled"] * 6), limits={"concurrent_requests": 1}, **WAITS
    )
    assert found == ["A"]
    waits = [b - a - 1.0 for a, b in itertools.pairwise(gate.times)]
    for wait, longest in zip(waits, [1, 2, 4, 8, 8, 8], strict=True):
        assert longest / 2 <= wait <= longest
    assert gate.states() == {"refused": 6, "answered": 1}
    # An answer ends the doubling.
    gate, _ = one_client(
        failing("throttled", "throttled"), count=2, limits={"concurrent_requests": 1}, **WAITS
    )
    waits = [b - a - 1.0 for a, b in itertools.pairwise(gate.times)]
    assert [wait > 0 for wait in waits] == [True, True, False, True, True]
    assert waits[3] <= 1 < waits[4] + 1 <= 3


def test_a_burst_of_refusals_pauses_once():
    """Refused together, requests must not double the pause for each of them."""
    gate, found = one_client(failing("throttled"), count=20, **WAITS)
    assert found == ["A"] * 20
    assert gate.times[:20] == [gate.times[0]] * 20
    assert 0.5 <= gate.times[20] - gate.times[0] - 1.0 <= 1.0


@pytest.mark.parametrize("outcome", ["failed", "lost", "unreachable"])
def test_what_fails_by_itself_waits_by_itself(outcome):
    def respond(request, before):
        failed = {"outcome": outcome, "message": "broke"}
        return failed if "post 0000" in request.user and before < 4 else answered()

    gate, found = one_client(respond, count=10, limits={"concurrent_requests": 1}, **WAITS)
    assert found == ["A"] * 10
    own = [time for time, request in gate.sent if "post 0000" in request.user]
    for (before, after), longest in zip(itertools.pairwise(own), [1, 2, 4, 8], strict=True):
        # Another question may be under way when the wait is over.
        assert longest / 2 <= after - before - 1.0 <= longest + 1.0
    assert gate.times[9] - gate.times[0] <= 9.0 + 8.0  # Others went on meanwhile.


# What becomes of replies.


def test_no_more_attempts_than_allowed():
    gate, found = one_client(failing(*["failed"] * 20), attempts=10)
    assert found == ["unavailable"]
    assert len(gate.sent) == 10
    assert gate.gave_up == {"unavailable": 1}
    ticket = gate.ask("client", questions(1))[0]  # Asked again, it has all attempts again.
    gate.run()
    assert "no answer after 10 requests, the last one: no luck" in ticket.answer.result().message


@pytest.mark.parametrize(
    "text", [{"text": "I cannot say"}, {"text": "Preferred: A", "complete": False}]
)
def test_two_answers_without_a_verdict_are_enough(text):
    gate, found = one_client(lambda request, before: answered(**text))
    assert found == ["unreadable"]
    assert gate.states() == {"unreadable": 2}
    assert results(gate.ask("client", questions(1))) == ["unreadable"]  # From the ledger.
    assert len(gate.sent) == 2


def test_one_answer_without_a_verdict_is_remembered():
    """Given up for another reason and asked again, a question needs only one more such answer."""

    def respond(request, before):
        return answered(text="?") if before in (0, 2) else {"outcome": "failed", "message": "no"}

    gate, found = one_client(respond, attempts=1)
    assert found == ["unavailable"]
    again = gate.ask("client", questions(1))
    gate.run()
    assert results(again) == ["unreadable"]
    assert len(gate.sent) == 3


def test_an_answer_costs_all_its_requests():
    gate, found = one_client(
        failing("lost", "failed"), prices={"judge": {"input": 1e6, "output": 2e6}}
    )
    assert found == ["A"]
    (ticket,) = gate.ask("client", questions(1))
    assert ticket.answer.result().dollars == 0  # It is in the ledger now.
    ((reservation, lost), (_, refused), (_, right)) = gate.ledger.values()
    assert [each.state for each in (lost, refused, right)] == ["lost", "refused", "answered"]
    assert right.dollars == 10 + 2 * 5
    total = gate.scheduler.accounts.total
    assert total.spent == gate.spent() == reservation.most + Amount(1, 15, 20.0)
    assert total.reserved == Amount()


def test_tokens_that_the_endpoint_does_not_count_are_all_spent():
    gate, _ = one_client(
        lambda request, before: answered(prompt_tokens=None, completion_tokens=None), count=3
    )
    reserved = sum((r.most for r, _ in gate.ledger.values()), Amount())
    assert gate.scheduler.accounts.total.spent == reserved


def test_the_reservation_is_the_bound_of_the_prompt_and_the_answer():
    gate, _ = one_client()
    ((reservation, _),) = gate.ledger.values()
    bound = most_prompt_tokens("post 0000|one|two") + RESPONSE_FORMAT_BYTES
    assert reservation.most == Amount(1, bound + 50, 0.0)
    gate, _ = one_client(structured_output=False)
    ((reservation, _),) = gate.ledger.values()
    assert reservation.most.tokens == bound - RESPONSE_FORMAT_BYTES + 50


def test_structured_output_is_given_up_for_all():
    def respond(request, before):
        return {"outcome": "unstructured", "message": "no"} if request.structured else answered()

    gate, found = one_client(respond, count=10, limits={"concurrent_requests": 4}, attempts=1)
    assert found == ["A"] * 10
    assert [request.structured for _, request in gate.sent] == [True] * 4 + [False] * 10
    # An endpoint that goes on refusing rejects the question.
    _, found = one_client(failing("unstructured", "unstructured"))
    assert found == ["rejected"]


@pytest.mark.parametrize("outcome", ["too_long", "rejected"])
def test_some_replies_are_about_one_question_alone(outcome):
    def respond(request, before):
        refused = {"outcome": outcome, "message": "no"}
        return refused if "post 0002" in request.user else answered()

    gate, found = one_client(respond, count=5)
    assert found == ["A", "A", outcome, "A", "A"]
    assert gate.scheduler.accounts.total.spent.calls == 4


# Endpoints that cannot be asked.


def test_a_fatal_reply_fails_everybody_who_asks_this_model():
    def respond(request, before):
        wrong = request.model == "wrong" and not mended
        return {"outcome": "fatal", "message": "bad key"} if wrong else answered()

    mended = False
    gate = SimulatedGate(respond, limits={"concurrent_requests": 4})
    for client in "ab":
        gate.attach(client)
    tickets = [gate.ask(client, questions(100, model="wrong")) for client in "ab"]
    right = gate.ask("a", questions(5))
    gate.run()
    assert results(tickets[0]) == results(tickets[1]) == ["InputError"] * 100
    assert str(tickets[0][50].answer.exception()) == "bad key"
    assert results(right) == ["A"] * 5
    assert sum(request.model == "wrong" for _, request in gate.sent) <= 4
    mended = True
    again = gate.ask("a", questions(10, model="wrong"))
    gate.run()
    assert results(again) == ["A"] * 10


def test_a_question_that_is_asked_anew_while_a_fatal_reply_is_settled_is_sent_again():
    gate = SimulatedGate(failing("fatal"))
    gate.attach("client")
    gate.ask("client", questions(1))
    gate.run(0.5)
    gate.now += 0.5
    settled = gate.scheduler.replies.account(gate.arrived(), gate.now)
    again = gate.ask("client", questions(1))
    gate.scheduler.replies.conclude(settled, gate.now)
    gate.run()
    assert results(again) == ["A"]


def test_an_endpoint_that_never_answers_is_given_up_soon():
    gate, found = one_client(
        failing(*["unreachable"] * 20), count=50, limits={"concurrent_requests": 1}, **WAITS
    )
    assert found == ["InputError"] * 50
    assert len(gate.sent) == 3
    # One that answered before is waited for.
    outage = range(5, 12)

    def respond(request, before):
        gone = {"outcome": "unreachable", "message": "gone"}
        return gone if request.number in outage else answered()

    gate, found = one_client(respond, count=8, limits={"concurrent_requests": 1})
    assert found == ["A"] * 8


# Budgets.


@given(
    st.fixed_dictionaries(
        {
            "calls": st.none() | st.integers(1, 30),
            "tokens": st.none() | st.integers(300, 8000),
            "dollars": st.none() | st.floats(0.001, 0.02),
        }
    ),
    st.integers(0, 2**32),
    st.integers(1, 20),
)
@settings(max_examples=60, deadline=None)
def test_no_budget_is_passed_in_whatever_order_replies_come(cap, seed, concurrent):
    """Two runs with the same caps and the endpoint with twice them less one call."""
    draws = random.Random(seed)
    kinds = ["answered", "answered", "answered", "lost", "failed", "unreadable", "throttled"]

    def respond(request, before):
        kind = draws.choice(kinds)
        used = {
            "prompt_tokens": draws.randrange(1, most_prompt_tokens(request.user)),
            "completion_tokens": draws.randrange(0, 51),
        }
        if kind == "unreadable":
            return answered(text="?", **used)
        return answered(**used) if kind == "answered" else {"outcome": kind, "message": "no"}

    total = {} if cap["calls"] is None else {"calls": 2 * cap["calls"] - 1}
    gate = SimulatedGate(
        respond,
        delay=lambda: draws.expovariate(1.0),
        prices={"judge": {"input": 2.0, "output": 6.0}},
        limits={"concurrent_requests": concurrent},
        budget=total,
        structured_output=False,
    )
    tickets = []
    for run in ("one", "two"):
        gate.attach(run, run, **cap)
        tickets += gate.ask(run, questions(20, start=0 if run == "one" else 10))
    while gate.scheduler.in_flight or gate.scheduler.waiting:
        gate.run(0.3)
        for run, limit in (("one", cap), ("two", cap), (None, total)):
            spent = gate.spent(run)
            for name, most in limit.items():
                assert most is None or getattr(spent, name) <= most + 1e-9
    assert "open" not in results(tickets)
    accounts = gate.scheduler.accounts.total
    assert accounts.reserved.calls == 0
    assert (accounts.spent.calls, accounts.spent.tokens) == (
        gate.spent().calls,
        gate.spent().tokens,
    )
    assert accounts.spent.dollars == pytest.approx(gate.spent().dollars)
    costs = {id(ticket): ticket.answer.result().dollars for ticket in tickets}
    assert sum(costs.values()) == pytest.approx(gate.spent().dollars)
    # A question fails for lack of budget only where no request would fit.
    if "budget" in results(tickets) and cap["tokens"] is None and cap["dollars"] is None:
        assert gate.spent("one").calls == cap["calls"] or gate.spent().calls == total["calls"]


@pytest.mark.parametrize(("budget", "name"), [({"calls": 7}, "calls"), ({"tokens": 700}, "tokens")])
def test_a_run_spends_its_budget_and_goes_on_where_it_was(budget, name):
    gate, found = one_client(count=30, budget=budget, limits={"concurrent_requests": 100})
    spent = getattr(gate.scheduler.accounts.total.spent, name)
    ((reservation, _), *_) = gate.ledger.values()
    assert budget[name] - getattr(reservation.most, name) < spent <= budget[name]
    assert 0 < found.count("A") == 30 - found.count("budget")
    failed = next(t for t in gate.ask("client", questions(30)) if not t.answer.done())
    gate.run()
    assert failed.answer.result().message == f"too little is left of the run's budget of {name}"
    # Another gate reads the run's spending from the ledger.
    spent = {"run": gate.spent()}
    _, found = one_client(count=5, budget=budget, spent=spent)
    assert found == ["budget"] * 5
    _, found = one_client(count=5, run="other", budget={"calls": 7}, spent=spent)
    assert found == ["A"] * 5


def test_a_budget_over_all_runs():
    gate = SimulatedGate(budget={"calls": 10})
    for run in ("one", "two"):
        gate.attach(run, run)
    first = gate.ask("one", questions(6))
    gate.run()
    second = gate.ask("two", questions(10, start=6))
    gate.run()
    assert results(first) == ["A"] * 6
    assert Counter(results(second)) == {"A": 4, "budget": 6}
    assert "endpoint's budget of calls" in second[-1].answer.result().message


def test_what_was_refused_is_not_spent():
    gate, found = one_client(failing("failed", "throttled"), count=5, budget={"calls": 5})
    assert found == ["A"] * 5
    assert gate.states() == {"refused": 10, "answered": 5}


def test_a_run_with_nothing_left_lets_another_pay():
    gate = SimulatedGate(limits={"concurrent_requests": 1})
    gate.attach("poor", "poor", calls=1)
    gate.attach("rich", "rich", calls=50)
    tickets = gate.ask("poor", questions(6))
    gate.run(0.5)
    same = gate.ask("rich", questions(6))
    gate.run()
    assert results(tickets) == results(same) == ["A"] * 6
    assert Counter(r.run for r, _ in gate.ledger.values()) == {"poor": 1, "rich": 5}


def test_a_run_has_one_budget_at_a_time():
    gate = SimulatedGate()
    gate.attach("one", "pilot", calls=5)
    with pytest.raises(InputError, match=r"run 'pilot' has 5 calls, this one 9 calls"):
        gate.attach("two", "pilot", calls=9)
    with pytest.raises(InputError, match=r"has 5 calls, this one none"):
        gate.attach("two", "pilot")
    gate.scheduler.detach("one", gate.now)
    gate.attach("two", "pilot", calls=9)
    tickets = gate.ask("two", questions(12))
    gate.run()
    assert results(tickets).count("A") == 9


# Leases.


def test_a_client_that_does_not_renew_its_lease_is_let_go():
    """Unsent questions are given up, except those for which another client waits."""
    gate = SimulatedGate(limits={"concurrent_requests": 2}, delay=lambda: 100.0)
    gate.attach("dead")
    gate.attach("alive", "other")
    lost = gate.ask("dead", questions(10))
    shared = gate.ask("alive", questions(2, start=8))
    gate.run(CLIENT_LEASE - 1)
    assert gate.scheduler.renew("alive", gate.now)
    gate.run(2)
    gate.scheduler.expire(gate.now)
    assert gate.scheduler.clients == 1
    assert not gate.scheduler.renew("dead", gate.now)
    with pytest.raises(GateLeavingError):
        gate.ask("dead", questions(1))
    gate.run()
    sent = {request.user[5:9] for _, request in gate.sent}
    assert sent == {"0000", "0001", "0008", "0009"} or sent == {"0000", "0008", "0009"}
    assert results(shared) == ["A"] * 2
    assert set(results(lost)) == {"A", "GateLeavingError"}
    assert gate.scheduler.waiting == 0
    # A client that comes back gets what was answered from the ledger.
    gate.attach("dead")
    gate.ask("dead", questions(10))
    gate.run()
    assert gate.states() == {"answered": 10}


def test_a_failed_request_of_a_client_that_left_is_not_repeated():
    gate = SimulatedGate(failing(*["failed"] * 5))
    gate.attach("client")
    (ticket,) = gate.ask("client", questions(1))
    gate.run(0.5)
    gate.scheduler.detach("client", gate.now)
    gate.run()
    assert results([ticket]) == ["GateLeavingError"]
    assert len(gate.sent) == 1


def test_idle_from_the_last_client_and_request_on():
    gate = SimulatedGate(delay=lambda: 20.0)
    gate.attach("client")
    gate.ask("client", questions(1))
    gate.run(5)
    assert gate.scheduler.idle_seconds(gate.now) == 0
    gate.scheduler.detach("client", gate.now)
    gate.run(5)
    assert gate.scheduler.idle_seconds(gate.now) == 0  # The request is under way.
    gate.run(10.5)
    assert gate.scheduler.in_flight == 0
    before = gate.now
    gate.run(7)
    assert gate.scheduler.idle_seconds(gate.now) == gate.now - before + 10.5


# Faults of the ledger and of workers.


def test_reservations_that_cannot_be_written_are_not_sent():
    gate = SimulatedGate()
    gate.attach("client")
    tickets = gate.ask("client", questions(3))
    admitted, _ = gate.scheduler.admit(gate.now)
    gate.scheduler.not_reserved(admitted, InputError("full"))
    assert results(tickets) == ["InputError"] * 3
    assert gate.scheduler.accounts.total.reserved == Amount()
    again = gate.ask("client", questions(3))
    gate.run()
    assert results(again) == ["A"] * 3
    assert len(gate.sent) == 3


def test_settlements_that_cannot_be_written_fail_everybody():
    """A request that is under way meanwhile answers the clients that ask again."""
    delays = iter([1.0, 5.0])
    gate = SimulatedGate(delay=lambda: next(delays), limits={"concurrent_requests": 2})
    gate.attach("client")
    answers = [ticket.answer for ticket in gate.ask("client", questions(3))]
    gate.run(0.5)
    gate.now += 0.5
    settled = gate.scheduler.replies.account(gate.arrived(), gate.now)
    assert len(settled) == 1
    gate.scheduler.replies.not_settled(settled, InputError("full"))
    assert [type(answer.exception(0)) for answer in answers] == [InputError] * 3
    again = gate.ask("client", questions(2)[1:])
    gate.run()
    assert results(again) == ["A"]
    assert len(gate.sent) == 2
    assert gate.scheduler.in_flight == gate.scheduler.waiting == 0


def test_replies_of_a_worker_that_was_taken_for_dead_are_ignored():
    gate = SimulatedGate(lambda request, before: answered(text=f"Preferred: {'AB'[before]}"))
    gate.attach("client")
    (ticket,) = gate.ask("client", questions(1))
    gate.run(0.5)
    assert len(gate.deliver([Reply(number=1, outcome="lost", message="ended")])) == 1
    gate.run(0.9)  # The first reply arrives after all.
    assert gate.states() == {"lost": 1} or gate.states() == {"lost": 1, "reserved": 1}
    gate.run()
    assert results([ticket]) == ["B"]
    assert gate.scheduler.accounts.total.spent.calls == 2
