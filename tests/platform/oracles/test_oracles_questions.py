"""Orders, keys, wordings and verdicts: what decides which completion wins."""

from __future__ import annotations

import dataclasses
import json
import random
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.errors import InputError
from modicum.oracles.endpoint.templates import Template
from modicum.oracles.protocol import Pair, digest, other, show, winner_of
from modicum.oracles.questions import Question, Verdict, read_verdict


def question(**changes) -> Question:
    given = {
        "prompt": "p",
        "first": "one",
        "second": "two",
        "order": "given",
        "model": "judge",
        "temperature": 0.0,
        "template": "0123456789abcdef",
    }
    return Question(**given | changes)


@pytest.mark.parametrize(
    ("order", "shown", "winner_at_a", "winner_at_b"),
    [("given", ("one", "two"), "first", "second"), ("swapped", ("two", "one"), "second", "first")],
)
def test_an_order_is_undone_once(order, shown, winner_at_a, winner_at_b):
    pair = Pair("p", "one", "two")
    assert show(pair, order) == shown
    assert question(order=order).shown == shown
    assert (winner_of("A", order), winner_of("B", order)) == (winner_at_a, winner_at_b)
    # Whoever wins is the completion that was shown under that letter.
    for letter, text in zip("AB", shown, strict=True):
        assert getattr(pair, winner_of(letter, order)) == text
    assert other(order) != order
    assert other(other(order)) == order


def test_each_order_is_drawn_for_half_of_the_pairs():
    """Of 10,000 coins, 5,000 +- 4 x 50; the seeds 0, 1, 2, ... are no worse than texts."""
    for pairs in (
        [Pair(f"post {n}", "yes", "no") for n in range(10_000)],
        [Pair("post", "yes", "no", seed=n) for n in range(10_000)],
    ):
        assert abs(sum(pair.order == "swapped" for pair in pairs) - 5000) < 200


def test_orders_stay_as_they_are():
    """Another order would ask again what ledgers hold, so these must never change."""
    drawn = [Pair("post", "yes", "no", seed=n).order[0] for n in range(16)]
    assert drawn == [Pair("another", "a", "b", seed=n).order[0] for n in range(16)]
    assert "".join(drawn) == ORDERS_OF_SEEDS
    by_text = [Pair(f"post {n}", "yes", "no").order[0] for n in range(16)]
    assert "".join(by_text) == ORDERS_OF_TEXTS


ORDERS_OF_SEEDS = "sgssssgssgssggsg"
ORDERS_OF_TEXTS = "sggggggsgssggsgs"


def test_a_key_differs_in_every_field():
    changes = {
        "prompt": "q",
        "first": "three",
        "second": "three",
        "order": "swapped",
        "model": "other",
        "temperature": 0.7,
        "template": "fedcba9876543210",
        "repeat": 1,
    }
    assert set(changes) == {field.name for field in dataclasses.fields(Question)}
    keys = {question().key, *(question(**{name: to}).key for name, to in changes.items())}
    assert len(keys) == len(changes) + 1
    assert all(re.fullmatch("[0-9a-f]{64}", key) for key in keys)
    assert question(temperature=1).key == question(temperature=1.0).key


@given(st.lists(st.text(alphabet="ab\0|,", max_size=3), min_size=1, max_size=4), st.data())
@settings(max_examples=80, deadline=None)
def test_texts_cannot_be_split_otherwise(texts, data):
    joined = "".join(texts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(joined)), max_size=3)))
    parts = [joined[i:j] for i, j in zip([0, *cuts], [*cuts, len(joined)], strict=True)]
    assert (digest(*parts) == digest(*texts)) == (parts == texts)


def test_texts_that_run_together_have_other_keys():
    assert digest("ab", "c") != digest("a", "bc")
    assert question(prompt="ab", first="c").key != question(prompt="a", first="bc").key
    assert question(first="one", second="").key != question(first="", second="one").key


FIGURE = {  # Figure 6.1 of the thesis, its line breaks undone.
    "sentiment": (
        "You are a helpful assistant that evaluates the quality and positive sentiment of movie "
        "reviews",
        "Which of the following movie reviews is better? The best one will be the one with the "
        "most positive sentiment, which also is grammatically correct, consistent, and avoids "
        "repetition. Review A: P X Review B: P Y First, provide a one-sentence comparison of the "
        "two reviews, explaining which is better and why. Second, on a new line, state only "
        '"A" or "B" to indicate your choice. You must choose A or B for the preferred answer even '
        "if neither review is very good. Your response should use the format: Comparison: "
        '<one-sentence comparison and explanation> Preferred: <"A" or "B">',
    ),
    "summarisation": (
        "You are a helpful assistant that evaluates the quality of summaries for internet posts.",
        "Which of the following summaries does a better job of summarizing the most important "
        "points in the given forum post, without including unimportant or irrelevant details? "
        "Post: P Summary A: X Summary B: Y First, provide a one-sentence comparison of the two "
        "summaries, which you prefer and why. Second, on a new line, state only "
        '"A" or "B" to indicate your choice. You must choose A or B for the preferred answer even '
        "if neither summary is very good. Your response should use the format: Comparison: "
        '<one-sentence comparison and explanation> Preferred: <"A" or "B">',
    ),
}


@pytest.mark.parametrize("name", FIGURE)
def test_the_thesis_wordings(name):
    system, user = Template.load(name).render("P", "X", "Y")
    assert (" ".join(system.split()), " ".join(user.split())) == FIGURE[name]


def test_a_text_that_looks_like_a_field_stays():
    template = Template("mine", "S", "{{prompt}}|{{ completion_a }}|{{completion_b}}|{{prompt}}")
    said = ("{{completion_b}}", r"\1 {{prompt}}", "{{ completion_a }} \\g<0>")
    assert template.render(*said) == ("S", "|".join([*said, said[0]]))


def test_digests_of_wordings():
    fields = "{{prompt}} {{completion_a}} {{completion_b}}"
    one, named = Template("one", "S", fields), Template("another", "S", fields)
    assert one.digest == named.digest  # A name is not what a model reads.
    assert one.digest != Template("one", "S.", fields).digest
    assert one.digest != Template("one", "", f"S{fields}").digest


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: n\nsystem: s\nuser: '{{prompt}} {{completion_a}}'", "{{completion_b}}"),
        ("name: n\nsystem: s\nuser: no fields", "{{prompt}}, {{completion_a}}, {{completion_b}}"),
        ("name: n\nsystem: '{{promt}}'\nuser: u", "promt"),
        ("name: n\nsystem: s", "keys name, system and user"),
        ("name: n\nsystem: s\nuser: u\nmore: m", "keys name, system and user"),
        ("name: n\nsystem: 3\nuser: u", "system must be text"),
        ("- a list", "keys name, system and user"),
        ("name: [", "template"),
        (b"name: \xff\xfe", "template"),
    ],
)
def test_bad_templates(tmp_path, text, says):
    path = tmp_path / "mine.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match="template") as raised:
        Template.load(str(path))
    assert says in str(raised.value)


def test_templates_that_are_not_there(tmp_path):
    with pytest.raises(InputError, match="no file at"):
        Template.load(str(tmp_path / "none.yaml"))
    with pytest.raises(InputError, match="sentiment"):
        Template.load("sentimnt")


READABLE = [
    ('Comparison: A is better.\nPreferred: "A"', "A", "A is better."),
    ("Comparison: B says more.\nPreferred: B", "B", "B says more."),
    ("Preferred: A", "A", None),
    ("comparison: both are fine\n\npreferred: b", "B", "both are fine"),
    ("**Comparison:** A rambles.\n\n**Preferred:** **B**", "B", "A rambles."),
    ("Comparison: x\nPreferred: <A>", "A", "x"),
    ("Comparison: x\nPreferred: Review A", "A", "x"),
    ("Comparison: x\nPreferred: Summary B.", "B", "x"),
    ("Comparison: x\nPreferred: A\n", "A", "x"),
    ("Comparison: x\r\nPreferred: A\r\n", "A", "x"),
    ("Comparison: x\nPreferred: A\nPreferred: A", "A", "x"),
    ("B", "B", None),
    ('  "A"  ', "A", None),
    ("I like the first one.\nA", "A", "I like the first one."),
    ("Comparison: one\ntwo\nPreferred: “A”", "A", "one\ntwo"),
    ('{"comparison": "x", "preferred": "B"}', "B", "x"),
    ('```json\n{"comparison": "x", "preferred": "A"}\n```', "A", "x"),
    ('{"preferred": "A"}', "A", None),
    ('{"preferred": "A", "comparison": ""}', "A", None),
]
UNREADABLE = [
    "",
    " \n\t ",
    "A or B",
    "Preferred: A or B",
    'Preferred: "A" or "B"',
    "Preferred: A/B",
    "Preferred: AB",
    "Preferred: neither",
    "Preferred: ",
    "Preferred: C",
    "Comparison: A is better because it is shorter.",
    "Comparison: A is better.\nPreferred: A\nPreferred: B",
    "Preferred: A\nPreferred: I cannot say",
    "A\nB",
    "Review A\nB",
    "I would say A",
    "A is better",
    "The answer is not A",
    "Preferred: not A",
    "Not preferred: A",
    '{"preferred": "A", "preferred": "B"}',
    '{"preferred": "A", "preferred": "A"}',
    '{"preferred": "A",\n"preferred": "B"}',
    '{"preferred": ["A"]}',
    '{"preferred": "A or B"}',
    '{"preferred": null}',
    '{"comparison": "Preferred: A"}',
    '{"preferred": "A"',
    '[{"preferred": "A"}]',
    "Ａ",
    '{"a":' * 20_000,
]


@pytest.mark.parametrize(("answer", "letter", "rationale"), READABLE)
def test_readable_answers(answer, letter, rationale):
    assert read_verdict(answer) == Verdict(letter, rationale)


@pytest.mark.parametrize("answer", UNREADABLE, ids=lambda answer: answer[:30])
def test_unreadable_answers(answer):
    assert read_verdict(answer) is None


# Pieces of which answers are made: more likely to meet a mistake than letters at random.
PIECES = [
    *(
        "A",
        "B",
        "a",
        "Preferred",
        "preferred:",
        "Comparison:",
        ":",
        "\n",
        "\r",
        " ",
        '"',
        "'",
        "**",
    ),
    *(
        "{",
        "}",
        "[",
        "]",
        ",",
        '"preferred": ',
        '"comparison": ',
        "```",
        "```json\n",
        "or",
        "Review ",
    ),
    *("\\", "\ud800", "\u2028", "\x00", "x", "9" * 5000),
]
answers = st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=12).map("".join))


@given(answers)
@settings(max_examples=120, deadline=None)
def test_no_verdict_without_a_letter_alone(answer):
    verdict = read_verdict(answer)
    if verdict is not None:
        alone = {found.upper() for found in re.findall(r"(?<![^\W_])[AaBb](?![^\W_])", answer)}
        assert verdict.letter in alone


@given(st.sampled_from("AB"), st.text(alphabet=st.characters(exclude_categories=["Cs"])))
@settings(max_examples=80, deadline=None)
def test_structured_answers_come_back(letter, reason):
    answer = json.dumps({"comparison": reason, "preferred": letter})
    assert read_verdict(answer) == Verdict(letter, reason.strip() or None)


@pytest.mark.parametrize("filler", [" ", '"', "*", "\t", "`", "_", "preferred", "```", "{", "\n "])
def test_long_answers_are_read_in_no_time(filler):
    """A gate reads answers between two requests: time must not grow with a text's square."""
    before = time.process_time()
    for text in (
        f"Preferred: {filler * 30_000}x",
        f"{filler * 30_000}x",
        f"```\n{filler * 30_000}",
    ):
        read_verdict(text)
    assert time.process_time() - before < 1.0


def test_letters_at_random_places_are_never_flipped():
    """Whatever stands around it, a line that names one letter is read as that or not at all."""
    draws = random.Random(0)
    for _ in range(2000):
        letter = draws.choice("AB")
        around = ["", " ", '"', "**", "<", ">", ".", "`", "Review ", "or", "not ", "\n"]
        before, after = draws.choices(around, k=2)
        verdict = read_verdict(f"Comparison: x\nPreferred: {before}{letter}{after}")
        assert verdict is None or verdict.letter == letter
