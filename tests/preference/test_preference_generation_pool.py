"""The pool that samples completions, as far as it needs neither Ray nor GPUs."""

import importlib.util

import pyarrow as pa
import pytest
import torch

import modicum as md
from modicum.experiment.resources import Resources, require_fit, trials_that_fit
from modicum.planning.trial_plan import plan_trial
from modicum_algorithms.preference.config import GenerationSettings, PreferenceConfig
from modicum_algorithms.preference.experiment import ActivePreferenceLearning
from modicum_algorithms.preference.pretraining import model_location
from modicum_algorithms.preference.sampling.in_process import Request, generate
from modicum_algorithms.preference.sampling.pool import (
    GenerationPool,
    Published,
    TransformersActor,
    tables_of,
    transformers_stages,
)
from modicum_algorithms.preference.sampling.vllm import (
    completion_of_row,
    processor_options,
    request_of_row,
)

POOL = {"where": "pool", "actors": 2}
VLLM = {**POOL, "engine": "vllm", "gpus": 4, "cpus": 2}
PUBLISHED = Published("journal", "bf16", 0.7, end=2, padding=0, batch_size=64)


class TestSettings:
    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"where": "pool"}, r"generation\.actors: must be 1 or more with .* pool, got 0"),
            ({**POOL, "gpus": 2}, r"generation\.gpus: must be at most 1 with .* transformers"),
            ({**POOL, "engine": "vllm"}, r"generation\.gpus: must be a whole number, .* got 0"),
            ({**VLLM, "gpus": 1.5}, r"generation\.gpus: must be a whole number, .* got 1\.5"),
            ({**VLLM, "cpus": 0.5}, r"generation\.cpus: must be 1 or more with .* vllm, got 0\.5"),
        ],
    )
    def test_what_cannot_work_together(self, changed, message):
        with pytest.raises(md.InputError, match=f"^{message}"):
            GenerationSettings(**changed).check()

    def test_vllm_that_is_not_installed_is_one_sentence(self):
        if importlib.util.find_spec("vllm") is not None:
            pytest.skip("vllm is installed")
        with pytest.raises(
            md.InputError, match=r"^generation\.engine: vllm needs the package 'vllm' .extra 'vllm'"
        ):
            GenerationSettings(**VLLM).check()

    @pytest.mark.parametrize("changed", [{}, {"actors": 2, "gpus": 8}, POOL])
    def test_what_can(self, changed):
        """Settings of a pool that is not used are none, so that a grid may go over `where`."""
        GenerationSettings(**changed).check()

    def test_only_what_changes_completions_changes_the_trial(self):
        def identity(**generation):
            config = PreferenceConfig(generation=GenerationSettings(**generation))
            return plan_trial(ActivePreferenceLearning(), config, 0, {}).id

        assert identity() == identity(engine="vllm", actors=3)
        pool = identity(**POOL)
        assert pool == identity(**{**POOL, "actors": 3, "cpus": 2, "gpus": 1, "start_timeout": 5})
        assert pool != identity(**{**POOL, "engine": "vllm"})


class TestRoom:
    def resources(self, **generation) -> Resources:
        config = PreferenceConfig(
            generation=GenerationSettings(**generation),
            training=md.training.TrainingSettings(workers=1, cpus_per_worker=0.9),
        )
        return ActivePreferenceLearning().resources(config)

    def test_a_pool_is_counted(self):
        """0.01 CPUs of the trial, 0.9 of the worker, and half a CPU of each actor."""
        nodes = [{"CPU": 2.0}]
        assert trials_that_fit(nodes, self.resources(**{**POOL, "cpus": 0.5})) == 1
        assert trials_that_fit(nodes, self.resources()) == 2
        with pytest.raises(md.InputError, match=r"^resources: one trial needs .*\+ 0\.6 CPU"):
            require_fit(nodes, self.resources(**{**POOL, "cpus": 0.6}))

    def test_the_gpus_of_an_actor_are_of_one_machine(self):
        """Two actors with 4 GPUs each, and the worker on one of them."""
        apart = [{"CPU": 64.0, "GPU": 2.0}] * 4
        together = [{"CPU": 64.0, "GPU": 4.0}] * 2
        assert trials_that_fit(apart, self.resources(**VLLM)) == 0
        assert trials_that_fit(together, self.resources(**VLLM)) == 1


@pytest.fixture(scope="module")
def language():
    return md.training.load_language_model(model_location("packaged"), device="cpu")


@pytest.fixture
def worker(tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    journal = md.training.Journal(tmp_path / "journal")
    return md.training.Worker(0, 1, torch.device("cpu"), journal, scratch)


def requests(language, count=11):
    """Prompts of different lengths, of the same text several times, with seeds of 64 bits."""
    texts = ["The film", "A story about a man and his dog, which", "I", "It was"]
    ids = language.tokenizer(texts)["input_ids"]
    return [Request(tuple(ids[n % 4]), 5 + n % 3, seed=2**64 - 1 - 7 * n) for n in range(count)]


def in_this_process(model, language, wanted, temperature):
    return generate(
        model, wanted, temperature=temperature, end=language.tokenizer.eos_token_id,
        padding=language.tokenizer.pad_token_id, batch_size=64,
    )  # fmt: skip


def pool_of(language, worker, weights):
    return GenerationPool(
        GenerationSettings(**POOL),
        transformers_stages,
        "fp32",
        4,
        language,
        lambda: weights,
        worker,
    )


def by_an_actor(language, worker, wanted, temperature, size=4):
    """The work of an actor on each table, in this process."""
    tokenizer = language.tokenizer
    published = Published(
        worker.journal.files.uri, "fp32", temperature, tokenizer.eos_token_id,
        tokenizer.pad_token_id, size,
    )  # fmt: skip
    sampler = TransformersActor(published, GenerationSettings(**POOL))
    done = pa.concat_tables([sampler(table) for table in tables_of(wanted, size)])
    rows = sorted(done.to_pylist(), key=lambda row: row["place"])
    assert [row["place"] for row in rows] == list(range(len(wanted)))
    return [tuple(row["completion"]) for row in rows], [row["log_probability"] for row in rows]


class TestActor:
    @pytest.mark.parametrize("temperature", [0.0, 0.7])
    def test_it_draws_what_the_workers_draw(self, language, worker, temperature):
        """With trained weights, which differ from those that the model was loaded with."""
        weights = {
            name: p.detach() + 0.05 * torch.randn(p.shape, generator=torch.manual_seed(1))
            for name, p in language.model.named_parameters()
        }
        wanted = requests(language)
        untrained = in_this_process(language.model, language, wanted, temperature)
        pool_of(language, worker, weights).publish(3)
        trained = md.training.load_language_model(model_location("packaged"), device="cpu").model
        trained.load_state_dict(weights, strict=False)
        expected = in_this_process(trained, language, wanted, temperature)
        ids, logs = by_an_actor(language, worker, wanted, temperature)
        assert ids == [one.ids for one in expected]
        assert ids != [one.ids for one in untrained]
        assert logs == pytest.approx([one.log_probability for one in expected], rel=1e-5)

    def test_adapters_are_merged(self, worker):
        pytest.importorskip("peft")
        base = md.training.load_language_model(model_location("packaged"), device="cpu")
        settings = md.training.TrainingSettings(lora_rank=2, lora_targets="c_attn")
        language = md.training.add_adapters(base, settings, seed=0)
        with torch.no_grad():
            for p in language.model.parameters():
                if p.requires_grad:
                    p.normal_(generator=torch.manual_seed(p.numel()), std=0.2)
        weights = {n: p.detach() for n, p in language.model.named_parameters() if p.requires_grad}
        wanted = requests(language)
        pool_of(language, worker, weights).publish(None)
        expected = in_this_process(language.model, language, wanted, 0.7)
        ids, _ = by_an_actor(language, worker, wanted, 0.7)
        assert ids == [one.ids for one in expected]
        with language.model.disable_adapter():
            assert ids != [o.ids for o in in_this_process(language.model, language, wanted, 0.7)]

    def test_a_machine_that_does_not_see_the_run_folder_says_so(self, language, worker):
        with pytest.raises(md.InputError, match=r"^--out: a pool on several machines needs"):
            by_an_actor(language, worker, requests(language), 0.7)  # Nothing was published.

    def test_a_later_model_takes_the_place_of_the_one_before(self, language, worker):
        pool = pool_of(language, worker, {})
        for version in (1, 2):
            pool.publish(version)
        assert len(list(worker.journal.files.local.rglob("*.safetensors"))) == 1


def test_tables_hold_every_request_once_and_like_lengths_together(language):
    wanted = requests(language)
    tables = tables_of(wanted, 4)
    assert [table.num_rows for table in tables] == [4, 4, 3]
    rows = [row for table in tables for row in table.to_pylist()]
    assert sorted(row["place"] for row in rows) == list(range(11))
    for row in rows:
        asked = wanted[row["place"]]
        assert Request(tuple(row["ids"]), row["tokens"], row["seed"]) == asked
    lengths = [len(row["ids"]) for row in rows]
    assert lengths == sorted(lengths, reverse=True)


class TestVllm:
    def test_a_request(self):
        row = {"place": 3, "ids": [5, 6], "tokens": 16, "seed": 2**64 - 1}
        found = request_of_row(row, temperature=0.7, ends=True)
        assert found["tokenized_prompt"] == [5, 6]
        params = found["sampling_params"]
        assert (params["max_tokens"], params["temperature"]) == (16, 0.7)
        assert params["seed"] == 2**63 - 1  # A signed number of 64 bits.
        assert params["logprobs"] == 0
        assert not params["ignore_eos"]
        assert request_of_row(row, temperature=0.7, ends=False)["sampling_params"]["ignore_eos"]
        # Ray Data turns rows into Arrow between stages.
        assert pa.Table.from_pylist([found]).to_pylist() == [found]

    @pytest.mark.parametrize("through_arrow", [False, True])
    def test_an_answer(self, through_arrow):
        """-1 and -0.5 of the drawn tokens; another token's is given with the first."""
        first = {"logprob": -1.0, "rank": 2, "decoded_token": None}
        other = {"logprob": -0.1, "rank": 1, "decoded_token": None}
        last = {"logprob": -0.5, "rank": 1, "decoded_token": None}
        row = {
            "place": 4,
            "prompt": "",
            "generated_tokens": [7, 2],
            "logprobs": [{7: first, 9: other}, {2: last}],
        }
        if through_arrow:
            as_text = [{str(k): v for k, v in known.items()} for known in row["logprobs"]]
            row = pa.Table.from_pylist([{**row, "logprobs": as_text}]).to_pylist()[0]
            assert row["logprobs"][0]["2"] is None  # What Arrow adds.
        assert completion_of_row(row) == {
            "place": 4, "completion": [7, 2], "log_probability": -1.5
        }  # fmt: skip

    def test_rays_processor_takes_the_options(self):
        """A pool of no more and no fewer actors than asked for, each with its GPUs together."""
        from ray.data.llm import vLLMEngineProcessorConfig

        options = processor_options("/model", PUBLISHED, GenerationSettings(**VLLM), 32)
        config = vLLMEngineProcessorConfig(**options)
        assert config.get_concurrency() == {"min_size": 2, "max_size": 2}
        assert config.engine_kwargs["tensor_parallel_size"] == 4
        assert config.engine_kwargs["dtype"] == "bfloat16"
        bundles = config.placement_group_config["bundles"]
        assert sum(bundle["GPU"] for bundle in bundles) == 4
        assert sum(bundle["CPU"] for bundle in bundles) == 2
        assert config.placement_group_config["strategy"] == "STRICT_PACK"
        # What is asked of the cluster is what was counted.
        (bundle, _) = GenerationSettings(**VLLM).bundles
        assert (bundle.cpus, bundle.gpus) == (2, 4)

    @pytest.mark.parametrize("gpus", [1, 4])
    def test_rays_stage_is_given_what_was_counted(self, gpus):
        """One GPU is asked for with the actor, several as a placement group of the engine."""
        from ray.llm._internal.batch.stages import vLLMEngineStage

        options = processor_options(
            "/model", PUBLISHED, GenerationSettings(**{**VLLM, "gpus": gpus}), 32
        )
        stage = vLLMEngineStage(
            fn_constructor_kwargs={
                "engine_kwargs": dict(options["engine_kwargs"]),
                "placement_group_config": options["placement_group_config"],
            },
            map_batches_kwargs={},
        )
        asked = stage.map_batches_kwargs
        if gpus == 1:
            assert (asked["num_cpus"], asked["num_gpus"]) == (2, 1)
        else:
            assert asked["num_gpus"] == 0
            assert "ray_remote_args_fn" in asked
