"""Oracles that need no endpoint: by score, by sentiment, by lexicon, with noise."""

import json
import lzma
import math
import os
import pickle
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

import modicum as md
from modicum.oracles import Failure, NGramFluency, NoisyOracle, Oracle, Pair
from modicum.oracles.local.scoring import NoScore, Score, judge_by_score

GOOD = ["a good film", "good fun, a fine film", "fine and good", "what a fine cast"]


BAD = ["a bad film", "bad, dull and long", "dull and bad", "what a dull cast"]


PAIRS = [Pair("", "good", "bad", seed=n) for n in range(20)]


def by_length(texts):
    return [Score(float(len(completion)), tokens=len(prompt)) for prompt, completion in texts]


def judge(pairs, scorer=by_length):
    return judge_by_score(pairs, scorer, name="n", version="v")


class TestJudgingByScore:
    def test_the_higher_score_wins_whatever_was_shown_as_a(self):
        pairs = [Pair("p", "long one", "short", seed=n) for n in range(20)]
        answers = judge(pairs)
        assert {a.winner for a in answers} == {"first"}
        assert {a.order_shown for a in answers} == {"given", "swapped"}
        assert [a.order_shown for a in answers] == [p.order for p in pairs]
        swapped = judge([replace(p, first=p.second, second=p.first) for p in pairs])
        assert {a.winner for a in swapped} == {"second"}

    def test_the_rationale_names_the_scores_as_shown(self):
        (given,) = judge([next(p for p in PAIRS if p.order == "given")])
        (swapped,) = judge([next(p for p in PAIRS if p.order == "swapped")])
        assert given.rationale == "A scored 4, B 3."
        assert swapped.rationale == "A scored 3, B 4."

    def test_a_text_is_scored_once_and_tokens_of_both_sides_are_counted(self):
        asked = []

        def scorer(texts):
            asked.append(list(texts))
            return by_length(texts)

        answers = judge(
            [Pair("pp", "a", "bb"), Pair("pp", "bb", "ccc"), Pair("q", "a", "")], scorer
        )
        assert asked == [[("pp", "a"), ("pp", "bb"), ("pp", "ccc"), ("q", "a"), ("q", "")]]
        assert [a.prompt_tokens for a in answers] == [4, 4, 2]

    def test_equal_scores_are_no_judgement(self):
        (same,) = judge([Pair("", "abc", "xyz")])
        assert isinstance(same, Failure)
        assert (same.reason, same.oracle, same.version) == ("tie", "n", "v")
        assert same.message == "both completions scored 3"

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_a_score_that_is_no_number_is_no_judgement(self, value):
        def scorer(texts):
            return [Score(value if text == "odd" else 0.0) for _, text in texts]

        for pair in [Pair("", "odd", "b"), Pair("", "b", "odd")]:
            (answer,) = judge([pair], scorer)
            assert isinstance(answer, Failure)
            assert answer.reason == "unreadable"

    def test_a_text_without_a_score_fails_its_pairs_alone(self):
        def scorer(texts):
            return [
                NoScore("too_long", "it is long") if len(text) > 3 else Score(float(len(text)))
                for _, text in texts
            ]

        pairs = [Pair("", "ab", "abcd", seed=n) for n in range(10)] + [Pair("", "a", "ab")]
        *failed, judged = judge(pairs, scorer)
        assert {f.reason for f in failed} == {"too_long"}
        for pair, failure in zip(pairs, failed, strict=False):
            letter = "B" if pair.order == "given" else "A"
            assert failure.message == f"completion {letter}: it is long"
        assert judged.winner == "second"

    def test_no_pairs_ask_nothing(self):
        assert judge([], scorer=None) == []


class TestNGramFluency:
    def test_by_hand(self):
        """Words a b a b a: p(b) = (2 + 2/3) / (5 + 2), p(b|a) = (2 + p(b)) / (2 + 1)."""
        fluency = NGramFluency.fit(["a b A b a"], order=2, min_count=1)
        p_b = (2 + 2 * (1 / 3)) / (5 + 2)
        p_a = (3 + 2 * (1 / 3)) / (5 + 2)
        p_b_after_a = (2 + 1 * p_b) / (2 + 1)
        p_a_at_start = (1 + 1 * p_a) / (1 + 1)
        p_unknown_after_b = (0 + 1 * (0 + 2 * (1 / 3)) / 7) / (2 + 1)
        means = fluency.mean_log_probabilities(["a", "a b", "a<br />b", "a b z"])
        assert means[0] == pytest.approx(math.log(p_a_at_start))
        assert means[1] == pytest.approx(math.log(p_a_at_start * p_b_after_a) / 2)
        assert means[2] == means[1]
        assert means[3] == pytest.approx(
            math.log(p_a_at_start * p_b_after_a * p_unknown_after_b) / 3
        )

    @pytest.mark.parametrize("order", [1, 2, 3, 4])
    def test_against_counting_with_dictionaries(self, order):
        rng = np.random.default_rng(order)
        texts = [
            " ".join(
                rng.choice(list("abcdefgh"), p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.05, 0.03, 0.02], size=n)
            )
            for n in (30, 1, 12, 0, 25)
        ]
        fluency = NGramFluency.fit(texts, order=order, vocabulary_size=4, min_count=2)
        known = set(fluency.vocabulary) - {""}
        assert len(known) == 4
        counts = {}
        for text in texts:
            words = ["<s>"] * (order - 1) + [w if w in known else "?" for w in text.split()]
            for n in range(order - 1, len(words)):
                for length in range(order):
                    context = tuple(words[n - length : n])
                    following = counts.setdefault(context, {})
                    following[words[n]] = following.get(words[n], 0) + 1

        def probability(word, context):
            shorter = probability(word, context[1:]) if context else 1 / 5
            following = counts.get(context)
            if following is None:
                return shorter
            return (following.get(word, 0) + len(following) * shorter) / (
                sum(following.values()) + len(following)
            )

        unseen = len({w for text in texts for w in text.split()} - known) + 1
        asked = [*texts, "a z b q q a", "h h h", "b a c a b"]
        for text, mean in zip(asked, fluency.mean_log_probabilities(asked), strict=True):
            words = ["<s>"] * (order - 1) + [w if w in known else "?" for w in text.split()]
            logs = []
            for n in range(order - 1, len(words)):
                context = tuple(words[n - order + 1 : n])
                total = sum(probability(w, context) for w in [*known, "?"])
                assert total == pytest.approx(1)
                p = probability(words[n], context) / (unseen if words[n] == "?" else 1)
                logs.append(math.log(p))
            if logs:
                assert mean == pytest.approx(np.mean(logs))
            else:
                assert mean == NoScore("unreadable", "it holds no words")

    def test_a_text_has_the_same_fluency_in_any_company(self):
        fluency = NGramFluency.fit(GOOD + BAD, min_count=1)
        together = fluency.mean_log_probabilities(GOOD + BAD)
        assert together == [fluency.mean_log_probabilities([t])[0] for t in GOOD + BAD]

    def test_words_in_order_are_more_fluent_than_out_of_it_or_unknown(self):
        fluency = NGramFluency.fit(GOOD + BAD, min_count=1)
        right, wrong, unknown = fluency.mean_log_probabilities(
            ["what a fine film", "film fine a what", "xx yy zz vv"]
        )
        assert right > wrong > unknown

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"order": 0}, "order: must be at least 1, got 0"),
            ({"min_count": 0}, "min_count: must be at least 1"),
            ({"vocabulary_size": 0}, "vocabulary_size: must be at least 1"),
            ({"order": 5}, r"vocabulary_size: .* order \(5\), below 2\^63"),
        ],
    )
    def test_bad_settings(self, settings, message):
        with pytest.raises(md.InputError, match=message):
            NGramFluency.fit(["a b"], **settings)

    def test_no_words(self):
        with pytest.raises(md.InputError, match="texts: hold no words"):
            NGramFluency.fit(["", " "])


def train(**settings):
    return md.oracles.SentimentOracle.fit(
        GOOD + BAD, [1] * 4 + [0] * 4, **{"min_count": 1, **settings}
    )


class TestSentiment:
    def test_the_score_is_log_odds_and_weighted_fluency(self):
        """Log-odds as scikit-learn's own pipeline has them."""
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        fluency = NGramFluency.fit(GOOD + BAD)
        oracle = train(fluency=fluency, fluency_weight=0.7)
        pipeline = make_pipeline(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
            LogisticRegression(C=10.0, max_iter=1000),
        ).fit(GOOD + BAD, [1] * 4 + [0] * 4)
        texts = ["a fine, dull film", "what a bad cast", "unheard"]
        assert oracle.log_odds(texts) == pytest.approx(pipeline.decision_function(texts))
        pair = next(
            p for n in range(9) if (p := Pair("a fine", ", dull film", " cast", n)).order == "given"
        )
        (answer,) = oracle.judge([pair])
        sides = ["a fine, dull film", "a fine cast"]
        expected = pipeline.decision_function(sides) + 0.7 * np.array(
            fluency.mean_log_probabilities(sides)
        )
        assert answer.rationale == f"A scored {expected[0]:.6g}, B {expected[1]:.6g}."
        assert answer.winner == ("first" if expected[0] > expected[1] else "second")

    def test_it_prefers_the_positive_completion(self):
        oracle = train()
        assert isinstance(oracle, Oracle)
        answers = oracle.judge(
            [Pair("what a ", "fine film", "dull film", seed=n) for n in range(8)], repeat=3
        )
        assert {a.winner for a in answers} == {"first"}
        assert {(a.oracle, a.version) for a in answers} == {("sentiment", oracle.version)}

    def test_fluency_decides_between_the_same_words(self):
        pair = Pair("", "what a fine cast", "cast what fine a")
        (fluent,) = train(fluency_weight=5.0).judge([pair])
        assert fluent.winner == "first"
        with_single_words = replace(
            train(fluency=None), coefficients=np.zeros(len(train(fluency=None).words))
        )
        (tie,) = with_single_words.judge([pair])
        assert tie.reason == "tie"

    def test_nothing_to_read_is_no_judgement(self):
        (answer,) = train().judge([Pair("", "", "good")])
        assert answer.reason == "unreadable"
        assert "it holds no words" in answer.message

    @pytest.mark.parametrize("fluency", ["ngram", None])
    def test_saved_and_loaded_it_answers_the_same(self, fluency, tmp_path):
        oracle = train(fluency=fluency, name="imdb")
        oracle.save(tmp_path / "oracle")
        assert not list((tmp_path / "oracle").glob("*.p*kl*"))
        loaded = md.oracles.SentimentOracle.load(tmp_path / "oracle")
        travelled = pickle.loads(pickle.dumps(oracle))  # as Ray sends it
        pairs = [Pair("", a, b) for a in GOOD for b in BAD]
        expected = [replace(a, latency=0.0) for a in oracle.judge(pairs)]
        for other in (loaded, travelled):
            assert (other.name, other.version) == ("imdb", oracle.version)
            assert [replace(a, latency=0.0) for a in other.judge(pairs)] == expected
        with pytest.raises(md.InputError, match="exists; name a new one"):
            oracle.save(tmp_path / "oracle")

    def test_the_version_tells_what_answers_depend_on(self):
        def versions(**settings):
            return train(**settings).version

        different = [
            versions(),
            versions(fluency=None),
            versions(fluency_weight=2.0),
            versions(fluency=NGramFluency.fit(GOOD)),
            versions(inverse_regularisation=1.0),
            versions(min_count=2),
        ]
        assert len(set(different)) == len(different)
        assert versions(name="other") == versions()

    def test_a_folder_that_was_changed_or_holds_nothing_is_refused(self, tmp_path):
        folder = tmp_path / "oracle"
        train().save(folder)
        words = json.loads((folder / "words.json").read_text())
        (folder / "words.json").write_text(json.dumps(words[::-1]))
        with pytest.raises(md.InputError, match="were changed after"):
            md.oracles.SentimentOracle.load(folder)
        described = json.loads((folder / "oracle.json").read_text())
        (folder / "oracle.json").write_text(json.dumps({**described, "format": 2}))
        with pytest.raises(md.InputError, match="has format 2, allowed is 1"):
            md.oracles.SentimentOracle.load(folder)
        (folder / "classifier.safetensors").write_bytes(b"broken")
        (folder / "oracle.json").write_text(json.dumps(described))
        for broken in (folder, tmp_path / "none"):
            with pytest.raises(md.InputError, match="holds no saved sentiment oracle"):
                md.oracles.SentimentOracle.load(broken)

    @pytest.mark.parametrize(
        ("labels", "settings", "message"),
        [
            ([1, 0], {}, "labels: must be one for each of the 8 texts"),
            ([1] * 8, {}, "labels: must be 0 .* and 1 .*, and both must occur"),
            ([1] * 4 + [2] * 4, {}, "labels: must be 0"),
            ([1] * 4 + [0] * 4, {"fluency": "gpt"}, "fluency: must be a language model"),
            ([1] * 4 + [0] * 4, {"fluency_weight": -1}, "fluency_weight: must be 0 or more"),
            ([1] * 4 + [0] * 4, {"fluency_weight": math.nan}, "fluency_weight"),
            ([1] * 4 + [0] * 4, {"min_count": 0}, "min_count: must be at least 1"),
            ([1] * 4 + [0] * 4, {"min_count": 9}, r"texts: no word occurs in min_count \(9\)"),
            ([1] * 4 + [0] * 4, {"inverse_regularisation": 0}, "inverse_regularisation"),
        ],
    )
    def test_bad_input(self, labels, settings, message):
        with pytest.raises(md.InputError, match=message):
            md.oracles.SentimentOracle.fit(GOOD + BAD, labels, **settings)


def reviews(split):
    folder = Path(os.environ.get("MODICUM_DATA", ""), "imdb")
    if not os.environ.get("MODICUM_DATA") or not folder.is_dir():
        pytest.skip("MODICUM_DATA with raw IMDB reviews is not set")
    with lzma.open(folder / f"{split}.jsonl.xz", "rt") as file:
        rows = [json.loads(line) for line in file]
    return [r["text"] for r in rows], np.array([int(r["label"]) for r in rows])


@pytest.mark.slow
def test_on_real_reviews():
    oracle = md.oracles.SentimentOracle.fit(*reviews("train"))
    texts, labels = reviews("test")
    texts, labels = texts[::5], labels[::5]
    log_odds = oracle.log_odds(texts)
    assert ((log_odds > 0) == labels).mean() > 0.89
    positive, negative = np.flatnonzero(labels == 1)[:200], np.flatnonzero(labels == 0)[:200]
    pairs = [Pair("", texts[p], texts[n]) for p, n in zip(positive, negative, strict=True)]
    right = np.mean([a.winner == "first" for a in oracle.judge(pairs)])
    assert right > 0.95
    shuffled = [
        " ".join(np.random.default_rng(0).permutation(texts[n].split())) for n in range(200)
    ]
    ordered = oracle.fluency.mean_log_probabilities(texts[:200])
    assert np.mean(np.array(ordered) > oracle.fluency.mean_log_probabilities(shuffled)) > 0.99


class TestVader:
    def test_words_of_the_lexicon_decide(self):
        oracle = md.oracles.VaderOracle()
        assert isinstance(oracle, Oracle)
        answers = oracle.judge([Pair("It was ", "wonderful!", "awful.", n) for n in range(8)])
        assert {a.winner for a in answers} == {"first"}
        assert answers[0].version == "3.3.2"

    def test_no_word_of_the_lexicon_is_a_tie(self):
        (answer,) = md.oracles.VaderOracle().judge([Pair("", "a table", "a chair")])
        assert (answer.reason, answer.message) == ("tie", "both completions scored 0")

    def test_the_prompt_is_part_of_the_text(self):
        (answer,) = md.oracles.VaderOracle().judge([Pair("It was not ", "good", "bad")])
        assert answer.winner == "second"


@dataclass(frozen=True)
class Truth:
    """The completion with the larger number wins; equal ones fail."""

    name: str = "truth"
    version: str = "1"

    def judge(self, pairs, *, repeat=0):
        def scorer(texts):
            return [Score(float(completion)) for _, completion in texts]

        return judge_by_score(pairs, scorer, name=self.name, version=self.version)


FIRST = [Pair(f"{n}", "1", "0") for n in range(800)]


SECOND = [Pair(f"{n}", "0", "1") for n in range(800)]


def flips(answers, truth):
    return np.array([a.winner != truth for a in answers])


class TestNoise:
    def test_each_side_is_flipped_at_its_own_rate(self):
        oracle = NoisyOracle(Truth(), error_first=0.1, error_second=0.4, seed=3)
        assert isinstance(oracle, Oracle)
        for pairs, truth, error in [(FIRST, "first", 0.1), (SECOND, "second", 0.4)]:
            rate = flips(oracle.judge(pairs), truth).mean()
            assert abs(rate - error) < 4 * math.sqrt(error * (1 - error) / len(pairs))

    def test_no_noise_and_nothing_but_noise(self):
        assert not flips(NoisyOracle(Truth(), 0.0, 0.0).judge(FIRST), "first").any()
        assert flips(NoisyOracle(Truth(), 1.0, 0.0).judge(FIRST), "first").all()

    def test_a_question_has_the_same_noise_wherever_it_stands(self):
        oracle = NoisyOracle(Truth(), 0.5, 0.5)
        answers = [replace(a, latency=0.0) for a in oracle.judge(FIRST)]
        backwards = [replace(a, latency=0.0) for a in oracle.judge(FIRST[::-1])]
        alone = [replace(oracle.judge([pair])[0], latency=0.0) for pair in FIRST[:50]]
        assert backwards[::-1] == answers
        assert alone == answers[:50]

    def test_another_repeat_or_seed_has_noise_of_its_own(self):
        oracle = NoisyOracle(Truth(), 0.5, 0.5)
        base = flips(oracle.judge(FIRST), "first")
        assert (base == flips(oracle.judge(FIRST, repeat=0), "first")).all()
        others = [oracle.judge(FIRST, repeat=1), replace(oracle, seed=1).judge(FIRST)]
        for other in others:
            agreement = (base == flips(other, "first")).mean()
            assert abs(agreement - 0.5) < 4 * 0.5 / math.sqrt(len(FIRST))

    def test_failures_pass_and_a_flipped_judgement_has_no_reason(self):
        oracle = NoisyOracle(Truth(), 1.0, 0.0)
        pairs = [Pair("", "1", "1"), Pair("", "1", "0"), Pair("", "0", "1")]
        failure, flipped, kept = oracle.judge(pairs)
        assert failure == Truth().judge(pairs)[0]
        assert (flipped.winner, flipped.rationale) == ("second", None)
        assert kept.winner == "second"
        assert "scored" in kept.rationale
        assert (kept.oracle, kept.version) == (oracle.name, oracle.version)

    def test_the_version_tells_what_answers_depend_on(self):
        oracles = [
            NoisyOracle(Truth(), 0.1, 0.2),
            NoisyOracle(Truth(), 0.2, 0.1),
            NoisyOracle(Truth(), 0.1, 0.2, seed=1),
            NoisyOracle(Truth(version="2"), 0.1, 0.2),
        ]
        assert len({oracle.version for oracle in oracles}) == 4
        assert NoisyOracle(Truth(), 0.1, 0.2).version == oracles[0].version

    @pytest.mark.parametrize("errors", [(-0.1, 0), (0, 1.1), (math.nan, 0)])
    def test_bad_input(self, errors):
        with pytest.raises(md.InputError, match=r"error_\w+: must be a probability from 0 to 1"):
            NoisyOracle(Truth(), *errors)
