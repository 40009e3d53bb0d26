"""The experiment `preference`: how many judgements a language model needs (chapter 6)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import ClassVar

import modicum as md
from modicum_algorithms.preference.config import PreferenceConfig
from modicum_algorithms.preference.oracle_settings import check_oracle, oracle_digests


class ActivePreferenceLearning(md.Experiment[PreferenceConfig]):
    """Direct preference optimisation on actively acquired pairs (algorithm 2)."""

    name = "preference"
    version = "1"
    budget_unit = "oracle_calls"
    Config = PreferenceConfig
    uses_torch = True
    metrics: ClassVar[Mapping[str, md.Metric]] = {
        "evaluation/win_rate": md.Metric(
            "Mean over held-out prompts: 1 where the oracle prefers the model's completion, 1/2 "
            "for a tie, in both orders.",
            goal="max",
        ),
        "evaluation/standard_error": md.Metric("Of the win-rate, over prompts."),
        "evaluation/ties": md.Metric("Share of held-out prompts with a tie."),
        "evaluation/failures": md.Metric(
            "Share of held-out prompts without an answer; left out of the win-rate."
        ),
        "evaluation/tokens": md.Metric("Mean length of the model's completions.", unit="tokens"),
        "evaluation/judgements": md.Metric(
            "Judgements asked for by evaluations so far.", unit="pairs", evaluation_cost=True
        ),
        "acquired/drawn": md.Metric("Prompts drawn in this round.", unit="prompts"),
        "acquired/failures": md.Metric(
            "Share of this round's chosen pairs without a judgement; they are not trained on."
        ),
        "acquired/accuracy": md.Metric(
            "Share of this round's judgements that the implicit reward had predicted."
        ),
        "acquired/certainty": md.Metric(
            "Mean difference of the implicit rewards of this round's pairs (equation 6.9)."
        ),
        "acquired/tokens": md.Metric("Mean length of the chosen completions.", unit="tokens"),
        "acquired/cost": md.Metric(
            "Spent on this round's judgements.", unit="dollars", timing=True
        ),
        "training/loss": md.Metric("Mean loss over the last epoch (equation 6.4)."),
        "training/accuracy": md.Metric(
            "Share of pairs whose preferred completion has the higher implicit reward, last epoch."
        ),
        "training/margin": md.Metric("Mean difference of the rewards, last epoch."),
        "training/epoch": md.Metric("Epochs of this round's fine-tuning.", unit="epochs"),
        "training/updates": md.Metric("Its updates.", unit="updates"),
        "time/*": md.Metric(
            "Time spent on a part of the work by the first worker, in all.", unit="s", timing=True
        ),
    }

    def check(self, config: PreferenceConfig) -> None:
        """Find mistakes before anything starts."""
        from modicum_algorithms.preference.acquisition import get_acquisition
        from modicum_algorithms.preference.models import check_model
        from modicum_algorithms.preference.prompts import check_prompts

        get_acquisition(config.acquisition)
        for least, greatest in (
            ("prompt_tokens_min", "prompt_tokens_max"),
            ("completion_tokens_min", "completion_tokens_max"),
        ):
            if getattr(config, least) > getattr(config, greatest):
                raise md.InputError(
                    f"{least}: must be at most {greatest} ({getattr(config, greatest)}), "
                    f"got {getattr(config, least)}"
                )
        if config.acquired_per_round > config.prompts_per_round:
            raise md.InputError(
                f"acquired_per_round: must be at most prompts_per_round "
                f"({config.prompts_per_round}), got {config.acquired_per_round}"
            )
        if config.acquired_per_round > config.oracle_calls:
            raise md.InputError(
                f"acquired_per_round: must be at most oracle_calls ({config.oracle_calls}), "
                f"got {config.acquired_per_round}"
            )
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
        check_prompts(config.prompts, human=config.opponent == "human", rows=config.prompt_rows)

    def data_digests(self, config: PreferenceConfig) -> Mapping[str, str]:
        """Digests of prompts, language model and oracle."""
        from modicum_algorithms.preference.models import model_digests
        from modicum_algorithms.preference.prompts import prompt_digests

        return {
            **prompt_digests(config.prompts, config.prompt_rows),
            **model_digests(config.language_model),
            **oracle_digests(config),
        }

    def resources(self, config: PreferenceConfig) -> md.Resources:
        """What the workers need, and the pool that samples."""
        needs = config.training.resources
        return replace(needs, nested=(*needs.nested, *config.generation.bundles))

    def saves_checkpoints(self, config: PreferenceConfig) -> bool:
        """At the end: the model, and what was acquired and judged."""
        return True

    def run(self, config: PreferenceConfig, trial: md.Trial) -> Iterator[md.Record]:
        """Go round algorithm 2; a record for each round, its budget the judgements acquired."""
        from modicum_algorithms.preference.active import Arguments, run_active_learning
        from modicum_algorithms.preference.models import model_location

        if config.generation.where == "pool":
            md.training.require_room(self.resources(config))
        arguments = Arguments(
            config=config,
            language_model=model_location(config.language_model),
            seed=trial.seed,
            trial=trial.id,
        )
        journal = md.training.Journal(md.training.journal_of(trial))
        for message in md.training.run_on_workers(
            run_active_learning, arguments, config.training, trial
        ):
            metrics = message["metrics"]
            trial.log.info(
                "%d judgements: win-rate %s", message["budget"], metrics.get("evaluation/win_rate")
            )
            if message["folder"] is None:
                yield md.Record(budget=message["budget"], metrics=metrics)
                continue
            with journal.folder(message["folder"], trial.scratch) as left:
                yield md.Record(budget=message["budget"], metrics=metrics, checkpoint=left)
