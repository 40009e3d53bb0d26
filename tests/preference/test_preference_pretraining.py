"""The small model that is pretrained on texts, and the packaged reviews."""

import dataclasses
import math
import re

import numpy as np
import pytest

import modicum as md
from modicum_algorithms.preference.data.corpora import clean_review, packaged_reviews

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from modicum_algorithms.preference.config import Recipe  # noqa: E402
from modicum_algorithms.preference.pretraining import END_OF_TEXT, pack, pretrain  # noqa: E402

TINY = Recipe(
    vocabulary=300, context=32, width=32, layers=1, heads=2, passes=16, batch_size=4,
    learning_rate=1e-2, matrix_learning_rate=0.05, held_out=0.1,
)  # fmt: skip
SENTENCES = ["the cat sat on the mat.", "the dog ran to the park.", "a bird flew over the house."]


def texts(count=120):
    generator = np.random.default_rng(0)
    return [" ".join(generator.choice(SENTENCES, 2)) for _ in range(count)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "trained"
    return folder, pretrain(texts(), folder, TINY)


class TestPretraining:
    def test_it_learns_what_can_be_learned(self, trained):
        """Within a sentence nothing is open; which of three comes next costs log 3 nats, twice."""
        folder, result = trained
        tokenizer = md.training.load_language_model(str(folder), device="cpu").tokenizer
        tokens_a_text = np.mean([len(ids) + 1 for ids in tokenizer(texts())["input_ids"]])
        unavoidable = 2 * math.log(3) / tokens_a_text
        assert 0.7 * unavoidable < result.validation_loss < 1.5 * unavoidable
        assert result.perplexity == math.exp(result.validation_loss)
        assert result.parameters == len(tokenizer) * 32 + 32 * 32 + (12 * 32**2 + 13 * 32) + 2 * 32

    def test_the_folder_is_a_language_model(self, trained):
        loaded = md.training.load_language_model(str(trained[0]), device="cpu")
        assert loaded.context == 32
        assert loaded.tokenizer.pad_token == loaded.tokenizer.eos_token == END_OF_TEXT
        prompt = loaded.tokenizer("the cat sat", return_tensors="pt")
        made = loaded.model.generate(**prompt, max_new_tokens=12, do_sample=False)
        assert loaded.tokenizer.decode(made[0]).startswith("the cat sat on the mat.")

    def test_text_survives_the_tokenizer(self, trained):
        tokenizer = md.training.load_language_model(str(trained[0]), device="cpu").tokenizer
        odd = "Zoë paid 5 € — ok?  Two  spaces, \ttab."
        assert tokenizer.decode(tokenizer(odd)["input_ids"]) == odd

    def test_a_seed_is_a_model(self, tmp_path):
        def weights(name, seed):
            recipe = dataclasses.replace(TINY, passes=1, seed=seed)
            pretrain(texts(30), tmp_path / name, recipe)
            return (tmp_path / name / "model.safetensors").read_bytes()

        state = torch.random.get_rng_state()
        assert weights("a", 0) == weights("b", 0) != weights("c", 1)
        assert torch.equal(torch.random.get_rng_state(), state)

    def test_bad_input(self, tmp_path):
        with pytest.raises(md.InputError, match=r"texts: at least two .* got 1"):
            pretrain(["one", " "], tmp_path / "model", TINY)
        with pytest.raises(md.InputError, match=r"heads: .* width of 30"):
            Recipe(width=30, heads=4)


class TestPacking:
    def test_by_hand(self):
        class Digits:
            eos_token_id = 0

            def __call__(self, texts, truncation, max_length):
                return {"input_ids": [[int(c) for c in text][:max_length] for text in texts]}

        rows = pack(["12", "345678", "9", "1234567", "5"], Digits(), 5).tolist()
        assert rows == [[1, 2, 0, 3, 4], [9, 0, 1, 2, 3], [5, 0, 0, 0, 0]]

    def test_markup_of_reviews(self):
        raw = "Good.<br /><br />Very  good.<br/>Bad < br > "
        assert clean_review(raw) == "Good. Very good. Bad < br >"


class TestPackagedReviews:
    def test_they_are_different_and_half_of_them_are_favourable(self):
        reviews = packaged_reviews(2000, 0)
        assert len(set(reviews)) == 2000
        assert not any(re.search(r"[{}#]|\s\s", review) for review in reviews)
        assert reviews == packaged_reviews(2000, 0) != packaged_reviews(2000, 1)
        oracle = md.oracles.VaderOracle()
        pairs = [
            md.oracles.Pair("", good, bad)
            for good, bad in zip(reviews[:200:2], reviews[1:200:2], strict=True)
        ]
        won = [getattr(answer, "winner", None) == "first" for answer in oracle.judge(pairs)]
        assert np.mean(won) > 0.95
