"""Oracles that need no endpoint: by score, by lexicon, by any classifier, with noise."""

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
from modicum.oracles import Failure, Judgement, NGramFluency, NoisyOracle, Oracle, Pair
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


FIRST = [Pair(f"{n}", "1", "0") for n in range(2000)]
SECOND = [Pair(f"{n}", "0", "1") for n in range(2000)]


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


WORDS = ["[PAD]", "[UNK]", "[BOS]", "[SEP]", *"abcdefgh"]
TEXTS = ["a b", "c", "d e f g h a", "b a", "h g f", "a a a a b"]
TEMPLATE = "{% for m in messages %}[BOS] {{ m['role'][0] }} {{ m['content'] }} [SEP] {% endfor %}"


def tokenizer(**special):
    """Words as tokens; no special tokens but those asked for."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    inner = Tokenizer(models.WordLevel({w: n for n, w in enumerate(WORDS)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing(
        single="$A [SEP]", pair="$A [SEP] $B:1 [SEP]:1", special_tokens=[("[SEP]", 3)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="[UNK]", **special
    )


def bert(folder, labels, names=None, **settings):
    """A random BERT with a classification head, saved."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=24,
        initializer_range=0.5,
        num_labels=labels,
        **settings,
    )
    if names:
        config.id2label = dict(enumerate(names))
        config.label2id = {name: n for n, name in enumerate(names)}
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    saved = tokenizer(pad_token="[PAD]")
    saved.chat_template = TEMPLATE
    saved.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def reward_model(tmp_path_factory):
    pytest.importorskip("transformers")
    return bert(tmp_path_factory.mktemp("reward"), 1)


def forward(folder, *texts, **arguments):
    """Logits of one text, by the plainest way there is."""
    import torch
    import transformers

    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    encoded = transformers.AutoTokenizer.from_pretrained(folder)(
        *texts, return_tensors="pt", **arguments
    )
    with torch.no_grad():
        return model(**encoded).logits[0].double().numpy()


def scores_in(answer, pair):
    """The two scores of a rationale, of the first and of the second completion."""
    a, b = (float(part.split()[-1].rstrip(".")) for part in answer.rationale.split(", "))
    return (a, b) if pair.order == "given" else (b, a)


def all_pairs(prompt):
    return [Pair(prompt, a, b) for a in TEXTS for b in TEXTS if a != b]


class TestClassifier:
    @pytest.mark.parametrize(
        ("form", "plain"),
        [
            ("joined", lambda prompt, text: ((prompt + text,), {})),
            ("pair", lambda prompt, text: ((prompt, text), {})),
            (
                "chat",
                lambda prompt, text: (
                    (f"[BOS] u {prompt} [SEP] [BOS] a {text} [SEP] ",),
                    {"add_special_tokens": False},
                ),
            ),
        ],
    )
    def test_a_reward_models_logit_decides(self, reward_model, form, plain):
        oracle = md.oracles.ClassifierOracle(reward_model, form=form, batch_size=4)
        assert isinstance(oracle, Oracle)
        expected = {}
        for text in TEXTS:
            texts, arguments = plain("c d ", text)
            expected[text] = forward(reward_model, *texts, **arguments)[0]
        pairs = all_pairs("c d ")
        for pair, answer in zip(pairs, oracle.judge(pairs), strict=True):
            first, second = expected[pair.first], expected[pair.second]
            assert scores_in(answer, pair) == pytest.approx((first, second), abs=2e-4)
            assert answer.winner == ("first" if first > second else "second")

    def test_forms_are_read_differently(self, reward_model):
        pair = Pair("c d ", "a b", "e f")
        answers = [
            md.oracles.ClassifierOracle(reward_model, form=form).judge([pair])[0]
            for form in ("joined", "pair", "chat")
        ]
        assert len({a.rationale for a in answers}) == 3
        assert [a.prompt_tokens for a in answers] == [10, 12, 20]
        assert len({a.version for a in answers}) == 3

    def test_a_named_labels_probability_decides(self, tmp_path):
        folder = bert(tmp_path, 3, ["bad", "so", "good"])
        pairs = all_pairs("")
        exponents = {text: np.exp(forward(folder, text)) for text in TEXTS}
        for number, label in enumerate(["bad", "so", "good"]):
            answers = md.oracles.ClassifierOracle(folder, label=label).judge(pairs)
            for pair, answer in zip(pairs, answers, strict=True):
                sides = [exponents[text] for text in (pair.first, pair.second)]
                p = [side[number] / side.sum() for side in sides]
                odds = [math.log(x / (1 - x)) for x in p]
                assert scores_in(answer, pair) == pytest.approx(odds, abs=2e-4)
                assert answer.winner == ("first" if p[0] > p[1] else "second")

    def test_labels_that_do_not_exclude_each_other(self, tmp_path):
        folder = bert(tmp_path, 2, ["kind", "short"], problem_type="multi_label_classification")
        pair = Pair("", TEXTS[0], TEXTS[1])
        (answer,) = md.oracles.ClassifierOracle(folder, label="short").judge([pair])
        logits = [forward(folder, text)[1] for text in TEXTS[:2]]
        assert scores_in(answer, pair) == pytest.approx(logits, abs=2e-4)

    def test_a_model_that_cannot_pad_takes_texts_one_by_one(self, tmp_path):
        import torch
        import transformers

        torch.manual_seed(0)
        config = transformers.GPT2Config(
            vocab_size=len(WORDS), n_positions=24, n_embd=16, n_layer=2, n_head=2, num_labels=1,
            initializer_range=0.5, bos_token_id=None, eos_token_id=None, pad_token_id=None,
        )  # fmt: skip
        transformers.GPT2ForSequenceClassification(config).save_pretrained(tmp_path)
        tokenizer().save_pretrained(tmp_path)
        pairs = all_pairs("")
        expected = {text: forward(tmp_path, text)[0] for text in TEXTS}
        answers = md.oracles.ClassifierOracle(str(tmp_path)).judge(pairs)
        for pair, answer in zip(pairs, answers, strict=True):
            logits = (expected[pair.first], expected[pair.second])
            assert scores_in(answer, pair) == pytest.approx(logits, abs=2e-4)

    def test_nothing_is_cut(self, reward_model):
        """The context has 24 places, one of them for the separator."""
        pairs = [Pair("", "a " * 23, "b"), Pair("", "a " * 24, "b"), Pair("b " * 23, "", "b")]
        fits, long, with_prompt = md.oracles.ClassifierOracle(reward_model).judge(pairs)
        assert isinstance(fits, Judgement)
        assert fits.prompt_tokens == 24 + 2
        assert {long.reason, with_prompt.reason} == {"too_long"}
        assert "it has 25 tokens, 24 are allowed" in long.message
        shorter = md.oracles.ClassifierOracle(reward_model, max_tokens=3).judge(
            [Pair("", "a b", "b"), Pair("", "a b c", "b")]
        )
        assert [isinstance(a, Judgement) for a in shorter] == [True, False]

    def test_positions_counted_from_the_paddings_number(self, tmp_path):
        """RoBERTa with 24 positions and padding numbered 1 has room for 22 tokens."""
        import torch
        import transformers

        torch.manual_seed(0)
        config = transformers.RobertaConfig(
            vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=32, max_position_embeddings=24, pad_token_id=1, num_labels=1,
        )  # fmt: skip
        transformers.RobertaForSequenceClassification(config).save_pretrained(tmp_path)
        tokenizer(pad_token="[UNK]").save_pretrained(tmp_path)
        fits, long = md.oracles.ClassifierOracle(str(tmp_path)).judge(
            [Pair("", "a " * 21, "b"), Pair("", "a " * 22, "b")]
        )
        assert isinstance(fits, Judgement)
        assert long.reason == "too_long"

    def test_the_version_is_that_of_the_files(self, reward_model, tmp_path):
        version = md.oracles.ClassifierOracle(reward_model).version
        assert md.oracles.ClassifierOracle(reward_model).version == version
        other = bert(tmp_path / "other", 1, layer_norm_eps=1e-3)
        assert md.oracles.ClassifierOracle(other).version != version

    def test_bad_input(self, reward_model, tmp_path):
        import transformers

        classifier = md.oracles.ClassifierOracle
        with pytest.raises(md.InputError, match="label: must be None for a model with one logit"):
            classifier(reward_model, label="good")
        folder = bert(tmp_path / "three", 3, ["bad", "so", "good"])
        with pytest.raises(md.InputError, match=r"unknown label 'god'; did you mean 'good'\?"):
            classifier(folder, label="god")
        with pytest.raises(md.InputError, match=r"unknown label None .*allowed: bad, good, so"):
            classifier(folder)
        with pytest.raises(md.InputError, match="form: must be one of joined, pair, chat"):
            classifier(folder, form="text")
        with pytest.raises(md.InputError, match="batch_size: must be at least 1, got 0"):
            classifier(folder, batch_size=0)
        with pytest.raises(md.InputError, match="max_tokens: must be at least 1, got 0"):
            classifier(folder, max_tokens=0)
        with pytest.raises(md.InputError, match="dtype: must be 'auto' or a type of torch"):
            classifier(folder, dtype="float33")
        with pytest.raises(md.InputError, match=r"model: .* cannot be loaded"):
            classifier(str(tmp_path))
        no_template = tmp_path / "no_template"
        bert(no_template, 1)
        tokenizer(pad_token="[PAD]").save_pretrained(no_template)
        (no_template / "chat_template.jinja").unlink()
        with pytest.raises(md.InputError, match=r"form: .* has no chat template"):
            classifier(str(no_template), form="chat")
        headless = tmp_path / "headless"
        transformers.BertModel(transformers.BertConfig.from_pretrained(folder)).save_pretrained(
            headless
        )
        tokenizer().save_pretrained(headless)
        with pytest.raises(md.InputError, match=r"model: .* has no weights for 'classifier"):
            classifier(str(headless), label="good")


def language_model(folder, **special):
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=len(WORDS), n_positions=12, n_embd=16, n_layer=2, n_head=2,
        initializer_range=0.5, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer(**special).save_pretrained(folder)
    return str(folder)


class TestHuggingFaceFluency:
    @pytest.mark.parametrize("special", [{}, {"bos_token": "[BOS]"}])
    def test_against_one_forward_pass_per_text(self, special, tmp_path):
        import torch
        import transformers

        folder = language_model(tmp_path, **special)
        fluency = md.oracles.HuggingFaceFluency(folder, batch_size=4)
        model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
        for text, mean in zip(TEXTS, fluency.mean_log_probabilities(TEXTS), strict=True):
            ids = ([2] if special else []) + [WORDS.index(word) for word in text.split()]
            if len(ids) == 1:
                assert mean == NoScore("unreadable", "it has no token that could be predicted")
                continue
            with torch.no_grad():
                logs = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
            expected = np.mean([float(logs[n - 1, ids[n]]) for n in range(1, len(ids))])
            assert mean == pytest.approx(expected, abs=1e-5)

    def test_nothing_is_cut(self, tmp_path):
        fluency = md.oracles.HuggingFaceFluency(language_model(tmp_path))
        fits, long, empty = fluency.mean_log_probabilities(["a " * 12, "a " * 13, ""])
        assert isinstance(fits, float)
        assert long == NoScore("too_long", "it has 13 tokens, the model's context 12")
        assert empty.reason == "unreadable"

    def test_in_a_saved_oracle_it_is_kept_by_name(self, tmp_path):
        folder = language_model(tmp_path / "model", bos_token="[BOS]")
        oracle = train(fluency=md.oracles.HuggingFaceFluency(folder))
        oracle.save(tmp_path / "oracle")
        loaded = md.oracles.SentimentOracle.load(tmp_path / "oracle")
        pair = Pair("", "a good", "a bad")
        assert loaded.version == oracle.version != train().version
        assert loaded.judge([pair])[0].rationale == oracle.judge([pair])[0].rationale
        Path(folder, "added").touch()
        with pytest.raises(md.InputError, match="is not the one that the oracle was saved with"):
            md.oracles.SentimentOracle.load(tmp_path / "oracle")

    def test_a_model_trained_for_something_else_is_refused(self, tmp_path):
        pytest.importorskip("transformers")
        with pytest.raises(md.InputError, match=r"model: .* has no weights for 'cls"):
            md.oracles.HuggingFaceFluency(bert(tmp_path, 1, is_decoder=True))
        with pytest.raises(md.InputError, match="batch_size: must be at least 1"):
            md.oracles.HuggingFaceFluency("any", batch_size=0)
