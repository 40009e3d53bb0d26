"""`modicum plan`: arithmetic against worked numbers, real models' tensors, and its own page."""

import contextlib
import importlib
import itertools
import json
import re
import shlex
import tomllib
from dataclasses import replace

import pytest
import torch
import typer
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
)
from typer.testing import CliRunner

import modicum as md
from conftest import ROOT
from modicum_algorithms.preference.model_shapes import PRESETS, ModelShape, model_shape, shape_of
from modicum_algorithms.preference.plan_command import plan
from modicum_algorithms.preference.planning import (
    PHASES,
    Layout,
    Texts,
    advice,
    logits_bytes,
    memory,
    model_states,
)
from modicum_algorithms.preference.planning_time import (
    Hardware,
    Rounds,
    communication,
    speed,
    steps,
)

PAGE = (ROOT / "docs" / "scaling.md").read_text()

SMALL = {"vocab_size": 300, "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
CONFIGS = {
    "gpt2": GPT2Config(
        **SMALL, n_positions=64, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, eos_token_id=0
    ),
    "gpt2 with gelu": GPT2Config(
        **SMALL,
        n_positions=64,
        n_inner=200,
        activation_function="gelu",
        resid_pdrop=0,
        embd_pdrop=0,
        attn_pdrop=0,
        eos_token_id=0,
    ),
    "gpt_neox": GPTNeoXConfig(**SMALL, intermediate_size=500),
    "llama": LlamaConfig(**SMALL, num_key_value_heads=2, intermediate_size=344),
    "tied llama": LlamaConfig(**SMALL, tie_word_embeddings=True, intermediate_size=344),
    "mistral": MistralConfig(**SMALL, num_key_value_heads=1, head_dim=16, intermediate_size=200),
    "qwen2": Qwen2Config(**SMALL, num_key_value_heads=2, intermediate_size=200),
}
TINY = ModelShape("tiny", 2, 1, 2, 2, 4, 5, biases="none")


def build(config, dtype=torch.float32):
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=dtype)


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_are_those_of_the_model(name):
    config = CONFIGS[name]
    with torch.device("meta"):
        model = build(config)
    assert shape_of(config, name).parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("preset", "config", "published"),
    [
        (
            "1b",
            GPTNeoXConfig(
                vocab_size=50304,
                hidden_size=2048,
                num_hidden_layers=16,
                num_attention_heads=8,
                intermediate_size=8192,
            ),
            1_011_781_632,
        ),
        ("7b", LlamaConfig(), 6_738_415_616),
        (
            "70b",
            LlamaConfig(
                hidden_size=8192,
                num_hidden_layers=80,
                num_attention_heads=64,
                num_key_value_heads=8,
                intermediate_size=28672,
            ),
            68_976_648_192,
        ),
    ],
)
def test_presets_are_the_published_models(preset, config, published):
    """Numbers of parameters as their pages on the hub count them."""
    assert PRESETS[preset].parameters == published
    assert shape_of(config, PRESETS[preset].name) == PRESETS[preset]


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "llama", "qwen2"])
def test_adapters_are_those_that_peft_makes(name):
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(build(CONFIGS[name]), LoraConfig(r=3, task_type="CAUSAL_LM"))
    made = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert shape_of(CONFIGS[name], name).adapter_parameters(3) == made


def kept_bytes(model, **inputs):
    """Bytes of distinct storages, weights apart, that the backward pass would use."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # Alive, so no place is reused.
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(**inputs, use_cache=False)
    return sum(size for size, _ in kept.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["gpt2", "gpt2 with gelu", "gpt_neox", "llama", "qwen2"])
def test_a_layer_keeps_what_was_estimated(name, dtype):
    """Against what autograd really keeps in a second layer, under a mask such as scoring's."""
    B, T = 3, 40
    inputs = {
        "input_ids": torch.ones(B, T, dtype=torch.long),
        "attention_mask": torch.ones(T, T, dtype=torch.bool).tril().expand(B, 1, T, T).clone(),
        "position_ids": torch.arange(T).expand(B, T),
    }
    sizes = []
    for layers in (1, 2):
        given = CONFIGS[name].to_dict() | {"num_hidden_layers": layers, "n_layer": layers}
        given.pop("layer_types", None)
        config = CONFIGS[name].__class__(**given)
        sizes.append(kept_bytes(build(config, dtype).train(), **inputs))
    estimated = B * T * shape_of(CONFIGS[name], name).kept_per_token(dtype.itemsize, T)
    assert estimated == pytest.approx(sizes[1] - sizes[0], rel=0.02)


@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral"])
def test_keys_and_values_take_what_the_cache_takes(name):
    tokens = torch.ones(2, 7, dtype=torch.long)
    with torch.no_grad():
        cache = build(CONFIGS[name])(tokens, use_cache=True).past_key_values
    real = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert 2 * 7 * shape_of(CONFIGS[name], name).cached_per_token(4) == real


def test_a_layer_of_gpt_3_keeps_32_bytes_for_each_hidden_unit():
    """Korthikanti et al.: 34 sbh without scores, of which two masks of dropout are not here.

    Two norms with inputs of 2 bytes (4) and outputs that enter matrices (4), queries, keys, values
    and their result (8), the inner width of 4 twice (16). Our mask adds 2 bytes for each token.
    """
    gpt = ModelShape("GPT", 100, 1, 100, 100, 400, 5, rotated=False)
    assert gpt.kept_per_token(2, tokens=7) == 32 * 100 + 2 * 7


@pytest.mark.parametrize(("zero", "gigabytes"), [(0, 120.0), (1, 31.4), (2, 16.6), (3, 1.9)])
def test_model_states_are_those_of_the_figure(zero, gigabytes):
    """Rajbhandari et al. 2020, figure 1: Ψ = 7.5B, N_d = 64, K = 12."""
    states = model_states(7.5e9, workers=64, zero=zero)
    assert round(states.total / 1e9, 1) == gigabytes


def test_model_states_in_fp32_and_of_adapters():
    """fp32: 4 + 4 + 8 bytes, and a copy of 4 in stages 1 and 2. Adapters of 10 in 100 weights."""
    assert model_states(100, workers=1, zero=0, precision="fp32").total == 16 * 100
    assert model_states(100, workers=2, zero=1, precision="fp32").total == 8 * 100 + 12 * 50
    assert model_states(100, workers=2, zero=3, precision="fp32").total == 16 * 50
    adapted = model_states(100, workers=1, zero=0, trained=10)
    assert adapted.total == 2 * 100 + (2 + 4 + 8) * 10


def sizes(layout, texts=None, shape=TINY):
    found = memory(shape, replace(layout, headroom=0.0), texts or Texts(3, 2))
    return {part.name: (part.gpu, part.host) for part in found.parts}


def test_parts_of_a_tiny_model():
    """Weights: 2 × 5 × 2 embeddings, 4 × 4 attention, 2 × 8 feed-forward, 2 × 4 + 4 norms: 64.

    Rows of 3 + 2 × 2 = 7 tokens, two at once. A token keeps norms' inputs and outputs, 16 bytes,
    attention's 6 × 2 × 2 = 24, the inner width's 2 × 2 × 4 = 16, and a mask's 2 × 7 = 14. Four of
    a row's tokens are scored: 2 × 4 × 5 logits of 4 × 4 + 2 bytes.
    """
    layout = Layout(micro_batch_size=2, generation_batch=3)
    assert TINY.parameters == 64
    assert sizes(layout) == {
        "weights": (128, 0),
        "gradients": (256, 0),
        "gradients of a micro-batch": (128, 0),
        "optimizer: fp32 weights": (256, 0),
        "optimizer: Adam's moments": (512, 0),
        "reference: starting weights": (128, 0),
        "activations": (2 * 7 * 70, 0),
        "logits": (2 * 4 * 5 * 18, 0),
        "keys and values": (3 * 5 * 8, 0),
        "drawing tokens": (3 * 5 * 20, 0),
    }


def test_zero_3_gathers_all_weights_to_generate_and_keeps_the_reference_off_the_gpu():
    """Four workers on two machines: 16 weights each, 2 × 64 bytes whole; two workers a machine.

    θ0 is kept as the optimizer has it, 4 × 16 bytes.
    """
    found = sizes(Layout(nodes=2, gpus=2, zero=3))
    assert found["weights"] == (32, 0)
    assert found["gradients"] == found["gradients in a row for the step"] == (64, 0)
    assert found["all weights gathered"] == (128, 0)
    assert found["reference: starting weights"] == (0, 2 * 64)
    assert "all weights gathered" not in sizes(Layout(nodes=2, gpus=2, zero=2))


@pytest.mark.parametrize(("zero", "gradients"), [(0, 256), (1, 256), (2, 128), (3, 128)])
def test_sharded_gradients_and_no_stage_0_in_16_bits(zero, gradients):
    """64 gradients in fp32 on each of two GPUs; whole, they are there in 16 bits before, too."""
    found = sizes(Layout(gpus=2, zero=zero))
    assert found["gradients"] == (gradients, 0)
    assert ("gradients of a micro-batch" in found) == (zero < 2)
    assert found["optimizer: Adam's moments"] == (256, 0)
    assert sizes(Layout(gpus=2, precision="fp32"))["optimizer: Adam's moments"] == (512, 0)


@pytest.mark.parametrize("zero", [1, 2, 3])
def test_offloading_moves_bytes_and_loses_none(zero):
    stays = sizes(Layout(gpus=2, zero=zero))
    moved = sizes(Layout(gpus=2, zero=zero, offload="optimizer"))
    for name in ("weights", "optimizer: fp32 weights", "optimizer: Adam's moments"):
        assert moved[name][0] + moved[name][1] / 2 == stays[name][0]
    assert moved["optimizer: Adam's moments"] == (0, 2 * 256)
    assert moved["gradients"] == (0, 2 * 128)
    parameters = sizes(Layout(gpus=2, zero=3, offload="parameters"))
    assert parameters["weights"] == (0, 2 * 64)


def test_checkpointing_keeps_layers_inputs_and_one_layer():
    """Of 3 layers a token keeps 3 inputs of 2 × 2 bytes and one layer's 70."""
    three = replace(TINY, layers=3)
    layout = Layout(micro_batch_size=1, checkpointing=True)
    assert sizes(layout, shape=three)["activations"] == (7 * (3 * 4 + 70), 0)


def test_the_peak_is_that_of_the_phase_that_needs_most():
    found = memory(TINY, Layout(generation_batch=100_000), Texts(3, 2))
    assert found.peak == found.during("generation") == max(map(found.during, PHASES))
    assert found.during("generation") - found.during("update") == pytest.approx(
        100_000 * 5 * (8 + 20) - 256
    )


def test_logits_of_a_large_vocabulary_outweigh_a_small_model():
    """16 pairs with completions of 128 tokens, 50,304 tokens: 16 × 256 × 50,304 × 18 = 3.71 GB."""
    size = logits_bytes(PRESETS["1b"], Layout(micro_batch_size=16), Texts(256, 128))
    assert size == pytest.approx(3.709e9, rel=1e-3)


def test_advice_fits_and_needs_all_that_it_says():
    texts = Texts()
    seen = set()
    options = ("zero", "checkpointing", "micro_batch_size", "generation_batch", "offload")
    for model, nodes, gpus, zero, size, host in itertools.product(
        ("1b", "7b", "70b"), (1, 2), (1, 8), (0, 3), (16.0, 24.0, 80.0, 192.0), (20.0, 1000.0)
    ):
        layout = Layout(nodes, gpus, zero, micro_batch_size=32, gpu_memory=size, host_memory=host)
        found = advice(PRESETS[model], layout, texts)
        if found is None:
            # No batch is small enough for a GPU that cannot hold the weights once.
            assert 2 * PRESETS[model].parameters > 0.8 * 0.9 * size * 1e9
            continue
        assert memory(PRESETS[model], found.layout, texts).fits
        assert bool(found.options) != memory(PRESETS[model], layout, texts).fits
        seen |= {option.split()[0] for option in found.options}
        for name in (*options, "nodes", "lora_rank"):
            before = getattr(layout, name)
            if getattr(found.layout, name) != before:
                with contextlib.suppress(md.InputError):  # Offloading needs its stage.
                    less = replace(found.layout, **{name: before})
                    assert not memory(PRESETS[model], less, texts).fits
    names = {f"--{name.replace('_', '-')}" for name in (*options, "nodes", "lora_rank")}
    assert {name.replace("--check", "--activation-check") for name in names} == seen


def test_advice_for_a_model_that_only_generation_keeps_out():
    """Gathered weights of 138 GB are more than 80 GB, however many machines there are."""
    layout = Layout(nodes=8, gpus=8, zero=3, checkpointing=True)
    found = memory(PRESETS["70b"], layout, Texts())
    assert found.during("fine-tuning") < found.gpu_memory < found.during("generation")
    assert advice(PRESETS["70b"], layout, Texts()) is None
    larger = replace(layout, gpu_memory=192.0, generation_batch=64)
    assert memory(PRESETS["70b"], larger, Texts()).fits


@pytest.mark.parametrize(("zero", "sent"), [(0, 288), (1, 288), (2, 384), (3, 864)])
def test_traffic_of_an_update(zero, sent):
    """64 weights of 2 bytes, four workers: 3/4 of each collective. 24 pairs by 4 × 2: 3 times.

    Stage 1, which is 0 in 16 bits: 3 times 96. Stage 2: 3 + 1 times. Stage 3: 3 times 3 times.
    """
    layout = Layout(gpus=4, zero=zero, micro_batch_size=2)
    found = communication(TINY, layout, Hardware(gpu_bandwidth=96e-9), batch_size=24)
    assert (found.accumulated, found.sent, found.seconds) == (3, sent, pytest.approx(sent / 96))


def test_between_machines_the_slower_connection_decides():
    hardware = Hardware(gpu_bandwidth=96e-9, node_bandwidth=1e-9)
    one = communication(TINY, Layout(gpus=4), hardware, 8)
    two = communication(TINY, Layout(nodes=2, gpus=2), hardware, 8)
    assert one.sent == two.sent == 288
    assert (one.seconds, two.seconds) == (pytest.approx(3), pytest.approx(288))
    whole = communication(TINY, Layout(gpus=4, precision="fp32"), hardware, 8)
    assert whole.sent == 2 * 64 * 4 * 3 / 4


WORKED = Rounds(
    acquisition="certainty",
    prompts=4,
    acquired=2,
    oracle_calls=7,
    epochs=3,
    batch_size=2,
    oracle_rate=60,
    evaluation_prompts=5,
)
STATED = Hardware(
    # Forward: 2 × 64 operations for a token, 1,280 a second.
    tflops=2560e-12,
    utilisation=0.5,
    training_throughput=10,
    generation_throughput=5,
)


def times(layout, rounds=WORKED, hardware=STATED, shape=TINY):
    """First round, last round, all rounds."""
    found = steps(shape, layout, Texts(4, 3), hardware, rounds)
    return {step.name: (step.first, step.last, step.total) for step in found}


def test_time_of_rounds_by_hand():
    """K = ⌊7 / 2⌋ = 3 rounds on one GPU; a pair has 4 + 2 × 3 = 10 tokens.

    8 completions of 3 tokens at 5 a second; the reference of 2 pairs, then of 4, at 10 tokens a
    second; an oracle of one pair a second; 3 epochs of 2, 4, 6 pairs at 10 tokens a second; 5
    completions of the trained model in each round, of θ0 in the first one, in both orders.
    """
    expected = {
        "completions of pairs": (4.8, 4.8, 14.4),
        "reference": (2, 4, 10),
        "oracle": (2, 2, 6),
        "fine-tuning": (6, 18, 36),
        "evaluation: completions": (6, 3, 12),
        "evaluation: oracle": (10, 10, 30),
    }
    found = times(Layout(micro_batch_size=1))
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name] == pytest.approx(values), name


@pytest.mark.parametrize(
    ("acquisition", "samples", "pairs", "reference"),
    [
        ("random", None, 4, 2),
        ("entropy", 4 * 8, 4, 2),
        ("certainty", None, 8, 4),
        ("entropy_certainty", 3 * 4 * 8, 8, 4),
    ],
)
def test_completions_of_each_acquisition(acquisition, samples, pairs, reference):
    """S = 4, M = 2, N = 8, J = 3: only certainty compares pairs before it chooses."""
    rounds = replace(WORKED, acquisition=acquisition, entropy_factor=3)
    found = times(Layout(), rounds)
    assert found["completions of pairs"][0] == pytest.approx(pairs * 3 / 5)
    assert found["reference"][1] == pytest.approx(reference)
    assert ("samples for the entropy" in found) == (samples is not None)
    if samples is not None:
        assert found["samples for the entropy"][0] == pytest.approx(samples * 3 / 5)


def test_gpus_share_work_until_there_are_more_than_pairs():
    """Two GPUs halve updates of two pairs; two more have none. Oracles do not get faster."""
    one, two, four = (times(Layout(gpus=gpus)) for gpus in (1, 2, 4))
    assert two["fine-tuning"][2] == one["fine-tuning"][2] / 2 == four["fine-tuning"][2]
    assert four["reference"][0] == one["reference"][0] / 4
    assert four["oracle"] == one["oracle"]


def test_calculated_throughput_by_hand():
    """64 weights, 1,280 operations a second: 6 × 64, 8 × 64, 4 × 64 + 2 × Ψ_t, 2 × 64 for a token.

    Adapters of rank 1: 2 + 6. Sampling 2 completions of 3 tokens after 4: the arithmetic of
    2 × 4 tokens, then three times 128 bytes of weights and 2 × 5.5 × 8 bytes of keys and values at
    100 bytes a second, which takes longer than 2 tokens' arithmetic.
    """
    hardware = replace(
        STATED, training_throughput=None, generation_throughput=None, memory_bandwidth=200e-9
    )
    layout = Layout(generation_batch=2)
    found = speed(TINY, layout, Texts(4, 3), hardware)
    assert found.training == pytest.approx(1280 / (6 * 64))
    assert found.forward == pytest.approx(10)
    assert found.generation == pytest.approx(2 * 3 / (8 / 10 + 3 * (128 + 88) / 100))
    again = speed(TINY, replace(layout, checkpointing=True), Texts(4, 3), hardware)
    assert again.training == pytest.approx(1280 / (8 * 64))
    adapted = speed(TINY, replace(layout, lora_rank=1), Texts(4, 3), hardware)
    assert adapted.training == pytest.approx(1280 / (4 * 64 + 2 * 8))


def test_calculated_fine_tuning_waits_for_every_update():
    """Round 1 on 2 GPUs: 3 epochs of one update, each of a pair of 10 tokens for each GPU."""
    hardware = replace(STATED, training_throughput=None, gpu_bandwidth=1e-9)
    # 3 × 64 numbers of 2 bytes, half of them sent, at a byte a second.
    expected = 3 * (10 * 6 * 64 / 1280 + 192)
    assert times(Layout(gpus=2), hardware=hardware)["fine-tuning"][0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ("--nodes 0", "nodes"),
        ("--gpus 0", "gpus"),
        ("--zero 4", "zero"),
        ("--precision int8", "precision"),
        ("--offload disk", "offload"),
        ("--offload optimizer", "offload"),
        ("--zero 2 --offload parameters", "offload"),
        ("--lora-rank -1", "lora_rank"),
        ("--micro-batch-size 0", "micro_batch_size"),
        ("--gpu-memory 0", "gpu_memory"),
        ("--headroom 1", "headroom"),
        ("--prompt-tokens 0", "prompt_tokens"),
        ("--acquisition best", "acquisition"),
        ("--acquired 3000", "acquired"),
        ("--oracle-calls 100", "oracle_calls"),
        ("--oracle-rate 0", "oracle_rate"),
        ("--utilisation 1.5", "utilisation"),
        ("--training-throughput 0", "training_throughput"),
        ("--node-bandwidth nan", "node_bandwidth"),
    ],
)
def test_bad_input_names_the_field(arguments, field):
    with pytest.raises(md.InputError, match=rf"^{field}: .*got") as error:
        say(f"--model 1b {arguments}")
    assert "\n" not in str(error.value)


def test_models_that_are_not_there_or_not_known(tmp_path):
    with pytest.raises(md.InputError, match=r"^model: expected 1b, 7b, 70b, .*config.json"):
        model_shape(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(md.InputError, match=r"^model: known architectures are .* is a bert"):
        model_shape(str(tmp_path))


def test_a_model_folder(tmp_path):
    CONFIGS["llama"].save_pretrained(tmp_path)
    found = json.loads(say(f"--model {tmp_path} --json"))
    assert found["shape"]["parameters"] == shape_of(CONFIGS["llama"], "").parameters


def app():
    found = typer.Typer()
    found.command()(plan)
    return found


def say(arguments):
    return CliRunner().invoke(app(), shlex.split(arguments), catch_exceptions=False).output


def test_the_command_is_registered():
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    module, name = points["modicum.commands"]["plan"].split(":")
    assert getattr(importlib.import_module(module), name) is plan


def test_json_says_what_the_tables_say():
    arguments = "--model 7b --nodes 2 --gpus 8 --zero 3 --lora-rank 16"
    found = json.loads(say(f"{arguments} --json"))
    parts = found["memory"]["parts"]
    for phase, size in found["memory"]["during"].items():
        assert size == pytest.approx(sum(p["gpu"] for p in parts if phase in p["phases"]))
    assert found["seconds"] == pytest.approx(sum(step["total"] for step in found["steps"]))
    assert found["memory"]["fits"]
    assert f"{found['trained']:,} of them trained (LoRA)" in say(arguments)


# Command lines of the page with what stands below them.
EXAMPLES = re.findall(r"```console\n\$ modicum plan (.*?)\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.mark.parametrize(("arguments", "printed"), EXAMPLES)
def test_commands_of_the_page_print_what_it_shows(arguments, printed):
    assert say(arguments) == printed


def test_the_page_works_through_three_sizes():
    models = [re.search(r"--model (\w+)", arguments).group(1) for arguments, _ in EXAMPLES]
    assert {"1b", "7b", "70b"} <= set(models)
