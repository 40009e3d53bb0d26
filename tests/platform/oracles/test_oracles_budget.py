"""Budgets hold whatever the order in which requests go out and come back."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from modicum.errors import InputError
from modicum.oracles.endpoint.budget import (
    Account,
    Budget,
    Price,
    likely_tokens,
    most_prompt_tokens,
)
from modicum.oracles.ledger.records import Amount

NAMES = ("calls", "tokens", "dollars")
caps = st.fixed_dictionaries(
    {
        "calls": st.none() | st.integers(1, 12),
        "tokens": st.none() | st.integers(1, 2000),
        "dollars": st.none() | st.floats(0.001, 2.0),
    }
)
# A request's most tokens, the share of them that it uses (None: refused, nothing charged), and how
# many of those under way are let finish before it.
requests = st.lists(
    st.tuples(st.integers(1, 400), st.none() | st.floats(0, 1), st.integers(0, 5)), max_size=60
)


@given(caps, requests, st.randoms(use_true_random=False))
@settings(max_examples=80, deadline=None)
def test_spending_never_passes_a_cap(cap, given_requests, draws):
    account = Account(Budget(**cap), Amount())
    under_way, spent, reserved_in_vain = [], Amount(), 0
    for tokens, share, finish in given_requests:
        for _ in range(min(finish, len(under_way))):
            most, used = under_way.pop(draws.randrange(len(under_way)))
            actual = Amount()
            if used is not None:
                actual = Amount(1, int(most.tokens * used), most.dollars * used)
            account.settle(most, actual)
            spent += actual
        most = Amount(1, tokens, tokens * 0.0007)
        lacking = account.lacks(most)
        total = spent
        for each, _ in under_way:
            total += each
        fits = {
            name: cap[name] is None
            or getattr(total, name) + getattr(most, name) <= cap[name] + 1e-9
            for name in NAMES
        }
        if lacking is None:
            assert all(fits.values())
            account.reserve(most)
            under_way.append((most, share))
        else:
            reserved_in_vain += 1
            assert not fits[lacking]
        for name in NAMES:
            assert cap[name] is None or getattr(account.spent, name) <= cap[name] + 1e-9
        assert account.spent.calls == spent.calls
        assert account.spent.tokens == spent.tokens
        assert account.spent.dollars == pytest.approx(spent.dollars)
        assert account.reserved.calls == len(under_way)


def test_the_first_cap_that_lacks_is_named():
    account = Account(Budget(calls=3, tokens=100, dollars=1.0), Amount(1, 50, 0.5))
    assert account.lacks(Amount(1, 50, 0.5)) is None
    assert account.lacks(Amount(3, 0, 0.0)) == "calls"
    assert account.lacks(Amount(1, 51, 0.0)) == "tokens"
    assert account.lacks(Amount(1, 50, 0.51)) == "dollars"
    assert Account(Budget(), Amount(10**9, 10**9, 1e9)).lacks(Amount(1, 1, 1.0)) is None


def test_a_budget_in_cents_is_spent_to_its_end():
    """0.1 + 0.2 > 0.3 in floats; a hundred requests of a cent fit in a dollar, no more."""
    account = Account(Budget(dollars=1.0), Amount())
    count = 0
    while account.lacks(Amount(1, 1, 0.01)) is None:
        account.reserve(Amount(1, 1, 0.01))
        account.settle(Amount(1, 1, 0.01), Amount(1, 1, 0.01))
        count += 1
    assert count == 100


@pytest.mark.parametrize(
    "cap", [{"calls": 0}, {"tokens": 0}, {"dollars": 0}, {"dollars": -1}, {"dollars": float("nan")}]
)
def test_no_zero_budgets(cap):
    with pytest.raises((InputError, ValidationError), match=next(iter(cap))):
        Budget(**cap)


def test_prices_by_hand():
    price = Price(input=2.5, output=10)
    assert price.of(1_000_000, 100_000) == pytest.approx(3.5)
    assert price.of(0, 0) == 0


def test_no_tokeniser_passes_the_bound():
    """Byte-level BPE as models use it, trained little: on unseen text nearly one token a byte."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    sample = ["the cat sat on the mat", "preferred: A", "comparison: B is better"]
    draws = random.Random(0)
    texts = [
        "",
        "a",
        "the cat sat on the mat " * 50,
        "\u00e9\u0301" * 40,
        "\U0001f9d1\u200d\U0001f680" * 30,
    ]
    texts += [
        "".join(
            chr(draws.choice([draws.randrange(32, 0xD800), draws.randrange(0x10000, 0x1FFFF)]))
            for _ in range(200)
        )
        for _ in range(40)
    ]
    for vocabulary, prefix in itertools.product((256, 400), (False, True)):
        tokeniser = Tokenizer(models.BPE())
        tokeniser.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
        tokeniser.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False
        )
        tokeniser.train_from_iterator(sample, trainer)
        closest = 0.0
        for text in texts:
            tokens = len(tokeniser.encode(text).ids)
            assert tokens <= most_prompt_tokens(text)
            closest = max(closest, tokens / most_prompt_tokens(text))
        assert closest > 0.9  # The bound is met, so nothing lower would do.


@given(st.lists(st.text(max_size=60), max_size=3))
@settings(max_examples=100, deadline=None)
def test_the_bound_holds_a_token_for_each_byte_and_message(messages):
    size = sum(len(message.encode("utf-8", "surrogatepass")) for message in messages)
    # Chat templates put a role and at most a few marks around each message.
    assert most_prompt_tokens(*messages) >= size + 8 * (len(messages) + 1)
    assert most_prompt_tokens(*messages, "more") > most_prompt_tokens(*messages)


def test_the_estimate_of_english():
    text = "Which of the following summaries does a better job of summarizing the points?"
    assert likely_tokens(text) == -(-len(text) // 4)
    assert likely_tokens("") == 0
    assert 13 <= likely_tokens(text) <= 26  # It has 13 words and a question mark.
