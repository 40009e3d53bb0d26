"""The loss, the scores and the samples of active preference learning, against their definitions."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from modicum_algorithms.preference.methods.dpo import dpo_loss, implicit_rewards, rationale_loss
from modicum_algorithms.preference.reference import ReferenceCache
from modicum_algorithms.preference.sampling.in_process import Request, generate
from modicum_algorithms.preference.scoring import CompletionScorer, Example

EXAMPLES = [
    Example((1, 2, 3), (4, 5, 6, 7), (10, 11, 12), tail=(8, 9)),
    Example((5,), (6, 7), (8, 9, 10, 11, 12, 13)),
    Example((5, 4), (6, 7)),
]


def gpt2(seed=0, vocabulary=64):
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=vocabulary, n_positions=64, n_embd=32, n_layer=2, n_head=4,
        bos_token_id=0, eos_token_id=0,
        resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, initializer_range=0.3,
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval()


def llama():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, initializer_range=0.3,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def by_hand(model, prompt, completion):
    """Log p(completion | prompt), token by token from a whole forward pass."""
    if not completion:
        return 0.0
    with torch.no_grad():
        logs_TV = model(torch.tensor([[*prompt, *completion]])).logits[0].log_softmax(-1)
    return sum(float(logs_TV[len(prompt) - 1 + n, token]) for n, token in enumerate(completion))


def test_the_loss_of_one_pair_by_hand():
    """β = 0.5; log ratios 0.4 and -0.2: z = 0.5 · 0.6 = 0.3; -log σ(0.3) = log(1 + e^-0.3)."""
    policy = torch.tensor([[-2.0, -3.2]])
    reference = torch.tensor([[-2.4, -3.0]])
    expected = math.log(1 + math.exp(-0.3))
    assert dpo_loss(policy, reference, beta=0.5, label_smoothing=0.0).item() == pytest.approx(
        expected, rel=1e-6
    )
    smoothed = 0.9 * expected + 0.1 * math.log(1 + math.exp(0.3))
    found = dpo_loss(policy, reference, beta=0.5, label_smoothing=0.1).item()
    assert found == pytest.approx(smoothed, rel=1e-6)


def test_the_implicit_reward_is_of_logarithms():
    rewards = implicit_rewards(torch.tensor([-1.0]), torch.tensor([-3.0]), beta=0.2)
    assert rewards.item() == pytest.approx(0.4)


def test_the_gradient_is_equation_6_10():
    """-β σ(r̂_l - r̂_w) (∇ log p(y_w) - ∇ log p(y_l)), for all weights of a model."""
    model, beta = gpt2(), 0.7
    reference = CompletionScorer(gpt2(seed=1))(EXAMPLES)[:, :2].detach()
    scorer = CompletionScorer(model)
    # The third example has no second completion, which leaves y_l without a gradient.
    loss_B = dpo_loss(scorer(EXAMPLES)[:, :2], reference, beta=beta, label_smoothing=0.0)
    loss_B.mean().backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters()}

    model.zero_grad()
    logs = scorer(EXAMPLES)[:, :2]
    rewards = beta * (logs - reference)
    weights = torch.sigmoid(rewards[:, 1] - rewards[:, 0]).detach()
    (-beta * (weights * (logs[:, 0] - logs[:, 1])).mean()).backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(found[name], p.grad, atol=1e-6, rtol=1e-4)


def test_the_rationale_counts_per_token_and_only_where_there_is_one():
    found = rationale_loss(torch.tensor([-6.0, 0.0]), torch.tensor([3, 0]))
    assert found.tolist() == [2.0, 0.0]


@pytest.mark.parametrize("model", [gpt2(), llama()], ids=["gpt2", "llama"])
def test_shared_prompts_give_the_log_probabilities_of_separate_texts(model):
    """The second completion must not see the first, the tail must; padding changes nothing."""
    scorer = CompletionScorer(model)
    assert scorer.choose_layout(EXAMPLES)
    with torch.no_grad():
        found = scorer(EXAMPLES)
        scorer.shares_prompts = False
        separate = scorer(EXAMPLES)
    expected = torch.tensor(
        [
            [
                by_hand(model, e.prompt, e.first),
                by_hand(model, e.prompt, e.second),
                by_hand(model, e.prompt + e.first, e.tail),
            ]
            for e in EXAMPLES
        ]
    )
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(separate, expected, atol=2e-4, rtol=1e-4)


def test_padding_and_masks_leave_gradients_finite():
    scorer = CompletionScorer(gpt2())
    scorer(EXAMPLES).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in scorer.parameters())


class Recurrent(torch.nn.Module):
    """A wrapper of a model that, like a recurrent one, knows no mask and no positions."""

    def __init__(self, model):
        super().__init__()
        self.inner = model
        self.base_model = self._base

    def get_input_embeddings(self):
        return self.inner.get_input_embeddings()

    def get_output_embeddings(self):
        return self.inner.get_output_embeddings()

    def forward(self, input_ids, attention_mask, use_cache):
        return self.inner(input_ids=input_ids, use_cache=use_cache)

    def _base(self, input_ids, attention_mask, position_ids, use_cache):
        return self.inner.base_model(input_ids=input_ids, use_cache=use_cache)


def test_a_model_that_cannot_share_prompts_is_found_out_and_scored_all_the_same():
    model = gpt2()
    scorer = CompletionScorer(Recurrent(model))
    assert not scorer.choose_layout(EXAMPLES)
    with torch.no_grad():
        found = scorer(EXAMPLES)
    assert found[0, 1].item() == pytest.approx(by_hand(model, (1, 2, 3), (10, 11, 12)), abs=1e-4)
    assert found[0, 2].item() == pytest.approx(
        by_hand(model, (1, 2, 3, 4, 5, 6, 7), (8, 9)), abs=1e-4
    )


def requests(count, seed=0):
    generator = np.random.default_rng(seed)
    return [
        Request(
            tuple(generator.integers(1, 64, generator.integers(2, 9)).tolist()),
            int(generator.integers(3, 12)),
            seed=number,
        )
        for number in range(count)
    ]


def test_a_completion_depends_on_its_seed_alone():
    """Not on what it is sampled together with, nor on the order."""
    model, asked = gpt2(), requests(23)
    together = generate(model, asked, temperature=0.7, end=0, padding=0, batch_size=23)
    alone = generate(model, asked, temperature=0.7, end=0, padding=0, batch_size=1)
    turned = generate(model, asked[::-1], temperature=0.7, end=0, padding=0, batch_size=4)
    assert [c.ids for c in together] == [c.ids for c in alone] == [c.ids for c in turned[::-1]]
    assert len({c.ids for c in together}) > 15


def test_log_probabilities_of_the_pass_are_the_models_own_at_temperature_1():
    model, asked = gpt2(), requests(12)
    for temperature in (0.3, 1.0):
        found = generate(model, asked, temperature=temperature, end=0, padding=0, batch_size=64)
        for request, completion in zip(asked, found, strict=True):
            expected = by_hand(model, request.prompt, completion.ids)
            assert completion.log_probability == pytest.approx(expected, abs=2e-3)


def test_lengths_end_at_the_limit_or_with_the_token_that_ends_a_text():
    model, asked = gpt2(vocabulary=8), [Request((1, 2), 9, seed) for seed in range(200)]
    found = generate(model, asked, temperature=1.5, end=0, padding=0, batch_size=64)
    ended = [c.ids for c in found if 0 in c.ids]
    assert 0 < len(ended) < 200
    assert all(ids.index(0) == len(ids) - 1 for ids in ended)
    assert all(len(c.ids) == 9 for c in found if 0 not in c.ids)
    endless = generate(model, asked, temperature=1.5, end=None, padding=0, batch_size=64)
    assert {len(c.ids) for c in endless} == {9}


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_samples_follow_the_tempered_distribution(temperature):
    model = gpt2(vocabulary=8)
    asked = [Request((1, 2, 3), 1, seed) for seed in range(4000)]
    found = generate(model, asked, temperature=temperature, end=None, padding=0, batch_size=4000)
    with torch.no_grad():
        logits = model(torch.tensor([[1, 2, 3]])).logits[0, -1] / temperature
    expected = 4000 * logits.double().softmax(-1).numpy()
    counts = np.bincount([c.ids[0] for c in found], minlength=8)
    assert chisquare(counts, expected).pvalue > 1e-3


def test_temperature_0_takes_the_most_probable_token():
    model = gpt2()
    (found,) = generate(
        model, [Request((1, 2), 5, 3)], temperature=0, end=None, padding=0, batch_size=1
    )
    expected = model.generate(
        torch.tensor([[1, 2]]), max_new_tokens=5, do_sample=False, eos_token_id=None
    )
    assert found.ids == tuple(expected[0, 2:].tolist())


def test_the_reference_is_computed_once_for_each_prompt_and_completion(tmp_path):
    cache = ReferenceCache(tmp_path, "model")
    wanted = [((1, 2), (3,)), ((1,), (2, 3)), ((1, 2), (3,))]
    assert cache.missing(wanted) == [0, 1]
    cache.store([wanted[0], wanted[1]], [-1.5, -2.5])
    again = ReferenceCache(tmp_path, "model")
    assert again.missing([*wanted, ((1, 2, 3), ())]) == [3]
    assert again.read(wanted) == [-1.5, -2.5, -1.5]
    assert (cache.passes, again.passes) == (2, 0)
    assert ReferenceCache(tmp_path, "another model").missing(wanted) == [0, 1]
