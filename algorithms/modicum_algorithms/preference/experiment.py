"""The experiment `preference`: how many judgements a language model needs (chapter 6)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import ClassVar

import modicum as md
from modicum_algorithms.preference.base_model import check_model, model_digests
from modicum_algorithms.preference.config import PreferenceConfig
from modicum_algorithms.preference.data.prompts import check_prompts, prompt_digests
from modicum_algorithms.preference.methods.acquisition import get_acquisition
from modicum_algorithms.preference.oracles import check_oracle, oracle_digests


class ActivePreferenceLearning(md.Experiment[PreferenceConfig]):
    """Direct preference optimisation on actively acquired pairs (algorithm 2)."""

    name = "preference"
    version = "1"
    budget_unit = "oracle_calls"
    Config = PreferenceConfig
    uses_torch = True
    metrics: ClassVar[Mapping[str, md.Metric]] = {
        "evaluation/win_rate": md.Metric(
            "Mean points over held-out prompts, each judged in both orders: 1 where the oracle "
            "prefers the model's completion, 1/2 for a tie.",
            goal="max",
        ),
        "evaluation/standard_error": md.Metric("Standard error of the win-rate over prompts."),
        "evaluation/ties": md.Metric("Share of held-out prompts with a tie."),
        "evaluation/failures": md.Metric(
            "Share of held-out prompts without an answer; left out of the win-rate."
        ),
        "evaluation/tokens": md.Metric("Mean length of the model's completions.", unit="tokens"),
        "evaluation/judgements": md.Metric(
            "Judgements that evaluations asked for so far.", unit="pairs", evaluation_cost=True
        ),
        "acquired/drawn": md.Metric("Prompts drawn in this round.", unit="prompts"),
        "acquired/failures": md.Metric(
            "Share of this round's chosen pairs without a judgement; they are not trained on."
        ),
        "acquired/accuracy": md.Metric(
            "Share of this round's judgements that the implicit reward predicted."
        ),
        "acquired/certainty": md.Metric(
            "Mean difference of the implicit rewards of this round's pairs (equation 6.9)."
        ),
        "acquired/tokens": md.Metric("Mean length of the chosen completions.", unit="tokens"),
        "acquired/cost": md.Metric("Cost of this round's judgements.", unit="dollars", timing=True),
        "training/loss": md.Metric("Mean loss over the last epoch (equation 6.4)."),
        "training/accuracy": md.Metric(
            "Share of pairs whose preferred completion has the higher implicit reward, over the "
            "last epoch."
        ),
        "training/margin": md.Metric("Mean difference of the implicit rewards, last epoch."),
        "training/epoch": md.Metric("Epochs of this round's fine-tuning.", unit="epochs"),
        "training/updates": md.Metric("Updates of this round's fine-tuning.", unit="updates"),
        "time/*": md.Metric(
            "Total time of the first worker for a part of the work.", unit="s", timing=True
        ),
    }

    def check(self, config: PreferenceConfig) -> None:
        """Refuse settings that cannot work together, and missing data or models."""
        get_acquisition(config.acquisition)
        for smaller, larger in (
            ("prompt_tokens_min", "prompt_tokens_max"),
            ("completion_tokens_min", "completion_tokens_max"),
            ("acquired_per_round", "prompts_per_round"),
            ("acquired_per_round", "oracle_calls"),
        ):
            limit, value = getattr(config, larger), getattr(config, smaller)
            if value > limit:
                raise md.InputError(f"{smaller}: must be at most {larger} ({limit}), got {value}")
        wrong = [n for n in config.evaluate_at if n % config.acquired_per_round]
        if wrong or any(n > config.oracle_calls for n in config.evaluate_at):
            raise md.InputError(
                f"evaluate_at: must hold multiples of acquired_per_round "
                f"({config.acquired_per_round}) up to oracle_calls ({config.oracle_calls}), got "
                f"{list(config.evaluate_at)}"
            )
        config.training.check()
        config.generation.check()
        check_oracle(config)
        check_model(config.language_model)
        check_prompts(config)

    def data_digests(self, config: PreferenceConfig) -> Mapping[str, str]:
        """Digests of the prompts, the language model and the oracle."""
        return {
            **prompt_digests(config),
            **model_digests(config.language_model),
            **oracle_digests(config),
        }

    def resources(self, config: PreferenceConfig) -> md.Resources:
        """Resources of the workers and of the pool that samples."""
        needs = config.training.resources
        return replace(needs, nested=(*needs.nested, *config.generation.bundles))

    def saves_checkpoints(self, config: PreferenceConfig) -> bool:
        """True: the last record carries the model, the judged pairs and the evaluations."""
        return True

    def run(self, config: PreferenceConfig, trial: md.Trial) -> Iterator[md.Record]:
        """Run algorithm 2; a record for each round, with the judgements acquired as its budget."""
        from modicum_algorithms.preference.pretraining import model_location
        from modicum_algorithms.preference.run import Arguments, active_learning

        if config.generation.where == "pool":
            md.training.require_room(self.resources(config))
        location = model_location(config.language_model)
        arguments = Arguments(config, location, trial.seed, trial.id)
        journal = md.training.Journal(md.training.journal_of(trial))
        for message in md.training.run_on_workers(
            active_learning, arguments, config.training, trial
        ):
            budget, metrics = message["budget"], message["metrics"]
            trial.log.info("%d judgements: win-rate %s", budget, metrics.get("evaluation/win_rate"))
            if message["folder"] is None:
                yield md.Record(budget=budget, metrics=metrics)
                continue
            with journal.folder(message["folder"], trial.scratch) as outcome:
                yield md.Record(budget=budget, metrics=metrics, checkpoint=outcome)
