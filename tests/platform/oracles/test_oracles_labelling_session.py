"""A labelling session by itself, and at the terminal."""

import io
import sqlite3

import pytest
from rich.console import Console

from labelling import PAIRS, answer_all, fill_up, letter_of, session_on
from modicum.oracles.labelling.human import label_at_terminal
from modicum.oracles.labelling.session import Asking, Session
from modicum.oracles.ledger.ledger import Ledger
from modicum.oracles.protocol import Failure, Pair


@pytest.fixture
def ledger(tmp_path):
    opened = Ledger(tmp_path / "ledger.sqlite")
    yield opened
    opened.close()


def test_the_winner_is_what_the_letter_stood_for_in_either_order(ledger):
    assert {pair.order for pair in PAIRS} == {"given", "swapped"}
    session = session_on(ledger)
    answer_all(session, "good")
    assert [judgement.winner for judgement in session.judgements()] == ["first"] * 6
    again = session_on(ledger, repeat=1)
    answer_all(again, "bad")
    assert [judgement.winner for judgement in again.judgements()] == ["second"] * 6


def test_always_a_wins_as_often_as_the_order_says(ledger):
    session = session_on(ledger)
    while (question := session.show()) is not None:
        session.judge(question.key, "A")
    for pair, judgement in zip(PAIRS, session.judgements(), strict=True):
        assert judgement.order_shown == pair.order
        assert judgement.winner == ("first" if pair.order == "given" else "second")


def test_an_answer_counts_once(ledger):
    session = session_on(ledger)
    question = session.show()
    assert session.judge(question.key, "A")
    assert not session.judge(question.key, "B")
    assert not session.skip(question.key)
    assert session.progress.answered == 1
    assert ledger.recall([question.key])[question.key].verdict == "A"
    with pytest.raises(KeyError):
        session.judge("no such key", "A")


def test_a_new_session_goes_on_where_the_last_one_stopped(ledger):
    first = session_on(ledger)
    for _ in range(2):
        question = first.show()
        first.judge(question.key, letter_of(question, "bad"), "  because \ud83d ")
    second = session_on(ledger)
    assert second.progress.answered == 2
    assert second.show().prompt == "prompt 2"
    assert second.last is None
    assert second.undo() is None
    kinds = [getattr(judgement, "winner", None) for judgement in second.judgements()]
    assert kinds == ["second"] * 2 + [None] * 4
    assert second.judgements()[0].cached
    assert second.judgements()[0].rationale == "because ?"
    assert second.judgements()[2] == Failure(
        reason="unavailable",
        message="ada has not answered",
        oracle="human:ada",
        version=second.asking.version,
    )


def test_names_questions_and_repeats_are_kept_apart(ledger):
    answer_all(session_on(ledger))
    assert session_on(ledger).progress.finished
    assert session_on(ledger, wording="Which is sadder?").progress.answered == 0
    assert session_on(ledger, repeat=1).progress.answered == 0
    assert Session(PAIRS, ledger, Asking("bob")).progress.answered == 0


def test_undo_goes_back_to_the_start_and_nothing_is_left_in_the_store(ledger):
    session = session_on(ledger)
    answer_all(session)
    for i in reversed(range(6)):
        assert session.undo().question.prompt == f"prompt {i}"
        assert session.show().prompt == f"prompt {i}"
        assert session.progress.answered == i
    assert session.undo() is None
    assert session_on(ledger).progress.answered == 0
    answer_all(session, "bad")
    assert {judgement.winner for judgement in session_on(ledger).judgements()} == {"second"}


def test_what_is_skipped_comes_last_and_undo_brings_it_back(ledger):
    session = session_on(ledger, PAIRS[:3])
    session.skip(session.show().key)
    assert session.show().prompt == "prompt 1"
    session.judge(session.show().key, "A")
    session.judge(session.show().key, "A")
    assert session.show().prompt == "prompt 0"
    assert [session.undo().verdict is None for _ in range(3)] == [False, False, True]
    assert session.show().prompt == "prompt 0"
    assert session.progress.answered == 0
    answer_all(session)
    assert session.progress.finished


def test_time_runs_from_when_a_pair_is_first_shown(ledger):
    now = 100.0
    session = Session(PAIRS[:2], ledger, Asking("ada"), clock=lambda: now)
    session.show()
    now = 103.0
    key = session.show().key
    now = 104.5
    session.judge(key, "A")
    session.show()
    now = 110.0
    session.undo()
    now = 120.0
    key = session.show().key
    now = 122.0
    session.judge(key, "A")
    now = 130.0
    # Its time began when it was shown, before the other was shown once more.
    session.judge(session.show().key, "B")
    assert [judgement.latency for judgement in session.judgements()] == [2.0, 25.5]


def test_both_orders_ask_twice_and_tell_who_contradicts_himself(ledger):
    session = session_on(ledger, PAIRS[:4], both_orders=True)
    assert session.progress.total == 8
    orders = []
    while (question := session.show()) is not None:
        orders.append((question.prompt, question.order))
        # The first two by their text, the others by their place.
        sure = question.prompt in {"prompt 0", "prompt 1"}
        session.judge(question.key, letter_of(question, "good") if sure else "A")
    assert len(set(orders)) == 8
    assert [order for _, order in orders[:4]] == [pair.order for pair in PAIRS[:4]]
    judgements = session.judgements()
    assert [judgement.consistent for judgement in judgements] == [True, True, False, False]
    assert [judgement.winner for judgement in judgements[:2]] == ["first"] * 2
    assert session_on(ledger, PAIRS[:4]).judgements()[0].consistent is None


def test_equal_pairs_are_asked_about_once(ledger):
    session = session_on(ledger, [PAIRS[0], PAIRS[1], PAIRS[0]])
    assert session.progress.total == 2
    answer_all(session)
    assert [judgement.winner for judgement in session.judgements()] == ["first"] * 3


def test_what_cannot_be_kept_is_still_open(ledger):
    long = [Pair("p" * 20_000, "good", "bad"), PAIRS[1]]
    session = session_on(ledger, long)
    question = session.show()
    fill_up(ledger)
    with pytest.raises(sqlite3.OperationalError, match="full"):
        session.judge(question.key, "A")
    assert session.show() is question
    assert session.progress.answered == 0
    assert session.last is None
    ledger._connection.execute("PRAGMA max_page_count = 100000")
    assert session.judge(question.key, "A")


def at_terminal(session, lines):
    """What the terminal shows for some lines of input."""
    given = iter(lines)

    def read(prompt):
        try:
            return next(given)
        except StopIteration:
            raise EOFError from None

    out = io.StringIO()
    label_at_terminal(session, Console(file=out, width=80), read)
    return out.getvalue()


def test_the_terminal_keeps_the_same_answers(ledger):
    session = session_on(ledger, PAIRS[:3])
    shown = at_terminal(session, ["x", "u", "A because so", "s", "b", "u", " a", "B", "u", "b", ""])
    winners = {"A": ("given", "swapped"), "B": ("swapped", "given")}
    expected = [
        "first" if winners[letter][0] == pair.order else "second"
        for letter, pair in zip("ABA", PAIRS[:3], strict=True)
    ]
    assert [judgement.winner for judgement in session.judgements()] == expected
    assert session.judgements()[0].rationale == "because so"
    assert "nothing to take back" in shown
    assert "taken back: B" in shown
    assert "all 3 answered" in shown


def test_the_terminal_stops_at_q_and_at_the_end_of_the_input(ledger):
    session = session_on(ledger)
    at_terminal(session, ["a", "q", "a"])
    assert session.progress.answered == 1
    at_terminal(session, ["b"])
    assert session.progress.answered == 2


def test_texts_do_not_steer_the_terminal(ledger):
    text = "\x1b]0;owned\x07[red]not red[/red] :smile: \x9b2J"
    shown = at_terminal(session_on(ledger, [Pair("", text, "\r\nplain\ttext\n")]), [])
    assert "\x1b]" not in shown
    assert not {"\x07", "\x9b", "\r"} & set(shown)
    assert "[red]not red[/red] :smile:" in shown
    assert "plain" in shown
