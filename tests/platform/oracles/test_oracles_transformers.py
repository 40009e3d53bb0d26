"""Oracles that use models of the transformers library, against plain forward passes."""

import math
from pathlib import Path

import numpy as np
import pytest

import modicum as md
from modicum.oracles import Judgement, Oracle, Pair
from modicum.oracles.local.scoring import NoScore


def train(fluency="ngram"):
    """A sentiment oracle of eight texts."""
    texts = ["a good film", "good fun", "fine and good", "a fine cast"]
    texts += ["a bad film", "bad and long", "dull and bad", "a dull cast"]
    labels = [1] * 4 + [0] * 4
    return md.oracles.SentimentOracle.fit(texts, labels, fluency=fluency, min_count=1)


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
