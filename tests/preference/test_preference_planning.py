"""`modicum plan`: sizes against real models, arithmetic by hand, and the examples of its page."""

import re
import shlex

import pytest
import torch
import typer
from transformers import AutoModelForCausalLM, GPT2Config, GPTNeoXConfig, LlamaConfig, Qwen2Config
from typer.testing import CliRunner

import modicum as md
from conftest import ROOT
from modicum_algorithms.preference.cli import plan
from modicum_algorithms.preference.config import PreferenceConfig
from modicum_algorithms.preference.planning.model_size import Lengths, ModelSize, model_size
from modicum_algorithms.preference.planning.needs import Workload, peak, worker_memory, workload
from modicum_algorithms.preference.scoring import CompletionScorer, Example

PAGE = (ROOT / "docs" / "scaling.md").read_text()
SMALL = {"vocab_size": 400, "bos_token_id": 0, "eos_token_id": 0}
WIDE = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
CONFIGS = {
    "gpt2": GPT2Config(
        n_positions=64, n_embd=64, n_layer=2, n_head=4,
        resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, **SMALL,
    ),
    "gpt_neox": GPTNeoXConfig(intermediate_size=256, **WIDE, **SMALL),
    "llama": LlamaConfig(intermediate_size=160, num_key_value_heads=2, **WIDE, **SMALL),
    "qwen2": Qwen2Config(intermediate_size=160, num_key_value_heads=2, **WIDE, **SMALL),
}  # fmt: skip
LENGTHS = Lengths(prompt=24, completion=12)


def settings(**changed):
    return PreferenceConfig.model_validate(changed)


def kept_by_autograd(model):
    """Bytes of the storages, weights apart, that a real forward pass of four pairs keeps."""
    weights = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    examples = [Example((1,) * 24, (1,) * 12, (1,) * 12)] * 4
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        scores = CompletionScorer(model)(examples)
    assert scores.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize(
    ("kind", "precision"), [(k, "fp32") for k in CONFIGS] + [("llama", "bf16")]
)
def test_sizes_are_those_of_the_real_model(tmp_path, kind, precision):
    CONFIGS[kind].save_pretrained(tmp_path)
    training = {"micro_batch_size": 4, "precision": precision}
    found = model_size(settings(language_model=str(tmp_path), training=training), LENGTHS)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    model = AutoModelForCausalLM.from_config(CONFIGS[kind], dtype=dtype).eval()
    assert found.parameters == found.trained == sum(p.numel() for p in model.parameters())
    assert found.kept == kept_by_autograd(model)
    cache = model(input_ids=torch.ones(1, 1, dtype=torch.long)).past_key_values
    assert found.cached == sum(t.nbytes for one in cache.layers for t in (one.keys, one.values))


def test_adapters_alone_are_trained_and_checkpoints_keep_less(tmp_path):
    """Rank 2 on c_attn of both layers: 2 × (64 + 192) weights each."""
    pytest.importorskip("peft")
    CONFIGS["gpt2"].save_pretrained(tmp_path)

    def size(**training):
        return model_size(settings(language_model=str(tmp_path), training=training), LENGTHS)

    adapted = size(lora_rank=2, lora_targets="c_attn")
    assert adapted.trained == 2 * 2 * (64 + 192)
    assert adapted.kept < size().kept
    assert size(activation_checkpointing=True).kept < size().kept


def size_of(parameters, width=2, trained=None):
    trained = parameters if trained is None else trained
    return ModelSize(parameters, trained, width, vocabulary=10, kept=1000, cached=8)


def memory(config, size):
    return {part.name: part for part in worker_memory(config, size, Lengths(4, 3))}


@pytest.mark.parametrize(("stage", "expected"), [(1, 31.4), (2, 16.6), (3, 1.9)])
def test_states_are_those_of_the_paper(stage, expected):
    """Rajbhandari et al. 2020, figure 1: 7.5 billion weights on 64 GPUs.

    The paper's gradients have 16 bits; ours are accumulated in fp32, so they are counted here.
    """
    training = {"workers": 64, "zero_stage": stage, "precision": "bf16"}
    parts = memory(settings(training=training), size_of(7_500_000_000))
    names = ("weights", "optimizer: fp32 weights", "optimizer: Adam's moments")
    gradients = 2 * 7.5 / (64 if stage >= 2 else 1)
    assert sum(parts[n].size for n in names) / 1e9 + gradients == pytest.approx(expected, abs=0.05)


def test_memory_of_one_process_by_hand():
    """100 weights in bf16: 200 bytes, 400 of master copies, 800 of moments, 400 of gradients.

    Cache: 128 completions of 4 + 3 tokens at 8 bytes; sampling: 128 × 10 × 5 fp32 numbers.
    Logits: 16 pairs × 6 tokens × 10 × (12 + 2) bytes.
    """
    parts = memory(settings(training={"precision": "bf16"}), size_of(100))
    assert {name: part.size for name, part in parts.items()} == {
        "weights": 200,
        "optimizer: fp32 weights": 400,
        "optimizer: Adam's moments": 800,
        "gradients": 400,
        "gradients of a micro-batch": 200,
        "reference: θ0": 200,
        "activations and logits": 1000,
        "gradients of the logits": 13_440,
        "keys and values": 7168,
        "sampling of tokens": 25_600,
    }
    assert peak(list(parts.values())) == (1600 + 7168 + 25_600, "sampling")


def test_offloading_moves_parts_to_main_memory_and_a_pool_takes_sampling():
    """ZeRO 3 on two workers, adapters of 10 weights: of θ0 and θ each half of 10 in fp32."""
    training = {"workers": 2, "zero_stage": 3, "offload": "parameters", "precision": "bf16"}
    pool = {"where": "pool", "actors": 1}
    parts = memory(settings(training=training, generation=pool), size_of(100, trained=10))
    reference = parts["reference: θ0, and θ while θ0 is in use"]
    assert (parts["weights"].size, parts["weights"].host) == (100, True)
    assert (reference.size, reference.host) == (40, True)
    assert all(part.host for part in parts.values() if "sampling" in part.phases)
    gathering = memory(settings(training=training), size_of(100))
    assert gathering["all weights gathered"].size == 200


WORK = {
    "oracle_calls": 7, "acquired_per_round": 2, "prompts_per_round": 4, "entropy_samples": 8,
    "entropy_factor": 3, "epochs": 3, "evaluation_prompts": 5,
}  # fmt: skip


@pytest.mark.parametrize(
    ("acquisition", "completions", "pairs"),
    [
        ("random", 2 * 2, 2),
        ("entropy", 2 * 2 + 4 * 8, 2),
        ("certainty", 2 * 4, 4),
        ("entropy_certainty", 2 * 4 + 3 * 4 * 8, 4),
    ],
)
def test_work_of_each_acquisition_by_hand(acquisition, completions, pairs):
    """K = ⌊7 / 2⌋ = 3 rounds; a row has 4 + 2 × 3 = 10 tokens, a completion 3.

    Evaluations: 5 completions in each round, and 5 of θ0; both orders are judged. Scoring: 2 pairs
    in the first round, then all candidates. Refits: 3 epochs on 2, 4 and 6 pairs.
    """
    found = workload(settings(acquisition=acquisition, **WORK), Lengths(4, 3))
    assert found == Workload(
        sampled=3 * (3 * completions + 4 * 5),
        scored=10 * (2 + 2 * pairs),
        trained=10 * 3 * 12,
        judged=6,
        evaluated=3 * 10,
    )


def test_waypoints_online_learning_and_time():
    """Two evaluations; one update of 2 pairs in each round; two workers halve the tokens' time."""
    changed = {"fine_tuning": "online", "evaluate_at": (2,), "opponent": "human"}
    training = {"workers": 2}
    config = settings(acquisition="random", training=training, **changed, **WORK)
    work = workload(config, Lengths(4, 3))
    assert (work.trained, work.evaluated, work.sampled) == (60, 20, 3 * (3 * 4 + 2 * 5))
    hours = work.hours(config, (10, 1, 13))
    expected = {"sampling": 33, "scoring": 60 / 3 / 10 / 2, "training": 3, "oracle": 120}
    assert {part: 3600 * value for part, value in hours.items()} == pytest.approx(expected)


def say(arguments):
    app = typer.Typer()
    app.command()(plan)
    return CliRunner().invoke(app, shlex.split(arguments), catch_exceptions=False).output


QUICK = str(ROOT / "tune_configs" / "preference" / "quick.yaml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (f"{QUICK} --set language_model=nowhere/at_all", "^language_model: the configuration of"),
        (f"{QUICK} --set prompts=tldr", "^--prompt-tokens: needed for 'tldr'"),
        (f"{QUICK} --set epochs=0", "epochs"),
        (str(ROOT / "tune_configs/quickstart.yaml"), "^experiment: must be preference, got 'weak'"),
    ],
)
def test_bad_input_names_the_field(arguments, message, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(md.InputError, match=message):
        say(arguments)


EXAMPLES = re.findall(r"```console\n\$ modicum plan (.*?)\n(.*?)```", PAGE, flags=re.DOTALL)


def test_commands_of_the_page_print_what_it_shows(tmp_path, monkeypatch):
    (tmp_path / "tune_configs").symlink_to(ROOT / "tune_configs")
    for name, text in re.findall(r'```\w+ title="(.*?)"\n(.*?)```', PAGE, flags=re.DOTALL):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    assert len(EXAMPLES) >= 2
    for arguments, printed in EXAMPLES:
        assert say(arguments) == printed
