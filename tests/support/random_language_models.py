"""Small language models with seeded random weights and without dropout."""

from __future__ import annotations

import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM


def small_gpt2(vocabulary: int = 4_096) -> GPT2LMHeadModel:
    """A GPT-2 of 3.4 million weights with a context of 128 tokens."""
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocabulary,
            n_positions=128,
            n_embd=256,
            n_layer=3,
            n_head=4,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=0,
            eos_token_id=0,
        )
    )


def small_llama(vocabulary: int = 16_384) -> LlamaForCausalLM:
    """A Llama of 20 million weights."""
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=384,
            intermediate_size=1_024,
            num_hidden_layers=8,
            num_attention_heads=6,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=0,
        )
    )
