"""Language models loaded for training, adapters, and export."""

import json
import math
import re

import pytest

import modicum as md

transformers = pytest.importorskip("transformers")
pytest.importorskip("peft")

END = "<|end|>"


def tokenizer(**special):
    """Letters as tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {word: n for n, word in enumerate([END, "[UNK]", *"abcdefghijklmnopqrst"])}
    inner = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="[UNK]", **special
    )


def gpt2(folder, special=None, **settings):
    import torch

    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=22, n_positions=16, n_embd=16, n_layer=2, n_head=2, initializer_range=0.3,
        bos_token_id=0, eos_token_id=0, **settings,
    )  # fmt: skip
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer(**({"eos_token": END} if special is None else special)).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return gpt2(tmp_path_factory.mktemp("base"))


def logits(model):
    import torch

    with torch.no_grad():
        return model(input_ids=torch.tensor([[2, 3, 5, 7, 11, 13]])).logits.float()


def same(one, other, tolerance=0.0):
    return float((one - other).detach().abs().max()) <= tolerance


def load(name, **arguments):
    return md.training.load_language_model(name, device="cpu", **arguments)


def settings(**values):
    return md.training.TrainingSettings(**{"lora_rank": 2, **values})


class TestLoading:
    def test_it_is_the_checkpoint_without_dropout(self, base):
        import torch

        loaded = load(base)
        assert loaded.context == 16
        assert same(
            logits(loaded.model),
            logits(transformers.AutoModelForCausalLM.from_pretrained(base).eval()),
        )
        loaded.model.train()
        torch.manual_seed(1)
        assert same(logits(loaded.model), logits(loaded.model))

    def test_dropout_that_is_a_number_of_a_layer_goes_too(self, tmp_path):
        config = transformers.LlamaConfig(
            vocab_size=22, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
            num_attention_heads=2, attention_dropout=0.9,
        )  # fmt: skip
        transformers.LlamaForCausalLM(config).save_pretrained(tmp_path)
        tokenizer(eos_token=END).save_pretrained(tmp_path)
        model = load(str(tmp_path)).model.train()
        assert same(logits(model), logits(model))

    def test_the_identity_tells_weights_and_precision(self, base, tmp_path):
        copy = gpt2(tmp_path / "copy")
        assert load(base).identity == load(copy).identity
        other = gpt2(tmp_path / "other", n_inner=8)
        identities = [load(base).identity, load(base, precision="bf16").identity]
        assert len({*identities, load(other).identity}) == 3

    @pytest.mark.parametrize(
        ("special", "pad"),
        [
            ({"eos_token": END}, 0),
            ({"pad_token": "t"}, 21),
            ({"eos_token": "a", "pad_token": "z"}, 2),
        ],
    )
    def test_padding(self, special, pad, tmp_path):
        """The tokenizer's own token, unless the model has no embedding of it."""
        loaded = load(gpt2(tmp_path, special))
        assert loaded.tokenizer.pad_token_id == pad
        assert (
            loaded.model.config.pad_token_id == loaded.model.generation_config.pad_token_id == pad
        )

    def test_activation_checkpointing_changes_no_gradient(self, base):
        import torch

        gradients = []
        for wanted in (False, True):
            model = load(base, activation_checkpointing=wanted).model.train()
            ids = torch.tensor([[2, 3, 5, 7]])
            model(input_ids=ids, labels=ids).loss.backward()
            gradients.append(model.transformer.wte.weight.grad)
            assert model.is_activation_checkpointing == wanted
        assert same(*gradients, 1e-6)

    def test_bad_input(self, base, tmp_path):
        with pytest.raises(md.InputError, match=r"model: the tokenizer of .* no padding token"):
            load(gpt2(tmp_path / "no_pad", {}))
        with pytest.raises(md.InputError, match="precision: must be one of fp32, bf16, fp16"):
            load(base, precision="fp8")
        with pytest.raises(md.InputError, match="precision: fp16 needs a GPU"):
            load(base, precision="fp16")
        cut = tmp_path / "cut"
        gpt2(cut)
        (cut / "model.safetensors").write_bytes(b"1234567890")
        with pytest.raises(md.InputError, match=r"model: .*cut' cannot be loaded"):
            load(str(cut))
        headless = tmp_path / "headless"
        gpt2(headless, tie_word_embeddings=False)
        transformers.GPT2Model.from_pretrained(headless).save_pretrained(headless)
        with pytest.raises(md.InputError, match=r"has no weights for 'lm_head.weight'"):
            load(str(headless))


class TestChecking:
    def test_good(self, base):
        md.training.check_language_model(base)
        md.training.check_language_model("owner/model")

    @pytest.mark.parametrize(
        ("missing", "message"),
        [
            ("config.json", "has no config.json"),
            ("tokenizer*", "has no tokenizer"),
            ("model.safetensors", "has no weights"),
        ],
    )
    def test_what_is_missing_is_named(self, missing, message, tmp_path):
        gpt2(tmp_path)
        for file in tmp_path.glob(missing):
            file.unlink()
        with pytest.raises(md.InputError, match=f"model: .*{message}"):
            md.training.check_language_model(str(tmp_path))

    def test_bad_names(self, base, tmp_path):
        for name in ("./none", "/none", "~/none/such", "a/b/c", "", "none.gguf"):
            with pytest.raises(
                md.InputError, match=f"model: no (folder|file) at {re.escape(repr(name))}"
            ):
                md.training.check_language_model(name)
        with pytest.raises(md.InputError, match=r"gguf_file: no 'a.gguf' in .* \(there: none\)"):
            md.training.check_language_model(base, gguf_file="a.gguf")
        for name in ("a.gguf", "b.gguf"):
            (tmp_path / name).touch()
        with pytest.raises(md.InputError, match=r"model: .* name one of a.gguf, b.gguf"):
            md.training.check_language_model(str(tmp_path))
        md.training.check_language_model(str(tmp_path), gguf_file="b.gguf")
        (tmp_path / "config.json").write_text("{")
        with pytest.raises(md.InputError, match=r"config.json that is not JSON"):
            md.training.check_language_model(str(tmp_path))


def write_gguf(file, model, words):
    """A Qwen2 model as a GGUF file, by the names that llama.cpp gives its weights."""
    gguf = pytest.importorskip("gguf")
    config = model.config
    writer = gguf.GGUFWriter(file, "qwen2")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(words))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(words)
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(0)
    names = {
        "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
        "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }  # fmt: skip
    for name, weight in model.state_dict().items():
        layer, _, kind = name.rpartition(".")
        if layer.startswith("model.layers."):
            _, _, number, layer = layer.split(".", 3)
            named = f"blk.{number}.{names[layer]}"
        else:
            named = names[layer]
        writer.add_tensor(f"{named}.{kind}", weight.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class TestGguf:
    def test_a_file_has_the_weights_of_its_twin(self, tmp_path, monkeypatch):
        import torch

        monkeypatch.setenv("MODICUM_CACHE", str(tmp_path / "cache"))
        torch.manual_seed(0)
        words = [END, *"abcdefghijklmnopqrst", "ab"]
        config = transformers.Qwen2Config(
            vocab_size=len(words), hidden_size=32, intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=32,
            initializer_range=0.3, tie_word_embeddings=False,
        )  # fmt: skip
        twin = transformers.Qwen2ForCausalLM(config).eval()
        (tmp_path / "model").mkdir()
        write_gguf(tmp_path / "model" / "tiny.gguf", twin, words)
        loaded = load(str(tmp_path / "model"))
        assert same(logits(loaded.model), logits(twin), 1e-6)
        assert loaded.tokenizer("abc")["input_ids"] == [words.index("ab"), words.index("c")]
        assert loaded.context == 32
        by_file = load(str(tmp_path / "model" / "tiny.gguf"))
        assert by_file.identity == loaded.identity
        md.training.export_language_model(loaded, None, tmp_path / "export")
        assert same(logits(load(str(tmp_path / "export")).model), logits(twin), 1e-6)

    def test_a_broken_file(self, tmp_path, monkeypatch):
        monkeypatch.setenv("MODICUM_CACHE", str(tmp_path / "cache"))
        (tmp_path / "broken.gguf").write_bytes(b"GGUF but no more")
        with pytest.raises(md.InputError, match=r"model: .*broken.gguf' cannot be loaded"):
            load(str(tmp_path / "broken.gguf"))


class TestAdapters:
    def test_they_change_nothing_at_first_and_alone_are_trained(self, base):
        plain = logits(load(base).model)
        adapted = md.training.add_adapters(load(base), settings(), seed=0)
        assert same(logits(adapted.model), plain)
        trained = {n: p for n, p in adapted.model.named_parameters() if p.requires_grad}
        # c_attn of two layers: rank 2 times (16 inputs + 48 outputs).
        assert sum(p.numel() for p in trained.values()) == 2 * 2 * (16 + 48)

    def test_seed_precision_and_rank_nothing(self, base):
        def first(seed, precision="fp32"):
            adapted = md.training.add_adapters(load(base, precision=precision), settings(), seed)
            return next(p for p in adapted.model.parameters() if p.requires_grad)

        assert same(first(0), first(0))
        assert not same(first(0), first(1))
        assert str(first(0, "bf16").dtype) == "torch.bfloat16"
        loaded = load(base)
        assert md.training.add_adapters(loaded, settings(lora_rank=0), 0) is loaded

    @pytest.mark.parametrize(
        ("targets", "parameters"),
        [
            ("c_fc", 2 * (16 + 64)),
            ("c_attn, c_fc", 2 * (16 + 48) + 2 * (16 + 64)),
            ("all-linear", 2 * (16 + 48) + 2 * (16 + 16) + 2 * (16 + 64) + 2 * (64 + 16)),
        ],
    )
    def test_layers(self, base, targets, parameters):
        adapted = md.training.add_adapters(load(base), settings(lora_targets=targets), 0)
        assert adapted.model.num_parameters(only_trainable=True) == 2 * parameters

    def test_layers_that_are_not_there(self, base):
        for targets, named in [("q_proj", "q_proj"), ("c_attn,oops", "oops"), ("c_attn,", "")]:
            with pytest.raises(
                md.InputError,
                match=f"lora_targets: {named!r} finds no layer .* c_attn, c_proj, c_fc",
            ):
                md.training.add_adapters(load(base), settings(lora_targets=targets), 0)


def trained(language_model):
    """Other weights than the model has, fp32, by name."""
    import torch

    generator = torch.Generator().manual_seed(1)
    return {
        name: p.detach().float() + 0.1 * torch.randn(p.shape, generator=generator)
        for name, p in language_model.model.named_parameters()
        if p.requires_grad
    }


def with_weights(language_model, weights):
    language_model.model.load_state_dict(weights, strict=False)
    return logits(language_model.model)


class TestExport:
    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    @pytest.mark.parametrize("tied", [True, False])
    def test_round_trip(self, tied, precision, tmp_path):
        loaded = load(gpt2(tmp_path / "base", tie_word_embeddings=tied), precision=precision)
        before, weights = logits(loaded.model), trained(loaded)
        md.training.export_language_model(loaded, weights, tmp_path / "export")
        assert same(logits(loaded.model), before)
        again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "export")
        assert again.dtype == loaded.model.dtype
        assert not same(logits(again), before, 0.1)
        assert same(logits(again), with_weights(loaded, weights))
        assert transformers.AutoTokenizer.from_pretrained(tmp_path / "export").pad_token == END
        assert again.generation_config.eos_token_id == 0

    def test_adapters(self, base, tmp_path):
        from peft import AutoPeftModelForCausalLM

        adapted = md.training.add_adapters(load(base), settings(lora_dropout=0.5), 0)
        weights = trained(adapted)
        md.training.export_language_model(adapted, weights, tmp_path / "adapters")
        expected = with_weights(adapted, weights)
        assert not same(expected, logits(load(base).model), 0.1)
        read = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapters")
        assert same(logits(read), expected, 1e-6)
        md.training.merge_adapters(tmp_path / "adapters", tmp_path / "merged")
        assert same(logits(load(str(tmp_path / "merged")).model), expected, 1e-5)
        size = math.prod(next(iter(weights.values())).shape)
        assert (tmp_path / "adapters" / "adapter_model.safetensors").stat().st_size < 100 * size
        assert json.loads((tmp_path / "adapters" / "adapter_config.json").read_text())["r"] == 2

    def test_bad_weights_and_folders(self, base, tmp_path):
        loaded = load(base)
        weights = trained(loaded)
        with pytest.raises(ValueError, match="no weight 'other'"):
            md.training.export_language_model(loaded, {"other": weights.popitem()[1]}, tmp_path)
        name, weight = next(iter(weights.items()))
        with pytest.raises(ValueError, match=f"{name}: expected the shape"):
            md.training.export_language_model(loaded, {name: weight[1:]}, tmp_path)
        (tmp_path / "adapter_config.json").touch()
        with pytest.raises(ValueError, match="must be new or empty"):
            md.training.export_language_model(loaded, weights, tmp_path)


def test_loading_and_writing_draw_no_bars_and_leave_others_as_they_were(base, tmp_path, capfd):
    """The library's own calls draw one each, so that there is something to silence."""
    md.training.export_language_model(load(base), None, tmp_path / "model")
    assert capfd.readouterr().err == ""
    transformers.AutoModelForCausalLM.from_pretrained(base).save_pretrained(tmp_path / "own")
    drawn = capfd.readouterr().err
    assert "Loading weights" in drawn
    assert "Writing model" in drawn
