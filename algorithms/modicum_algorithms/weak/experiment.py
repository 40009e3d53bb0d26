"""The experiment `weak`: accuracy against the number of strong labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import field_validator, model_validator

import modicum as md
from modicum_algorithms.weak import datasets
from modicum_algorithms.weak.memory import require_memory

if TYPE_CHECKING:
    from modicum_algorithms.weak.training import Trained

DATASET_DESCRIPTION = (
    "breast_cancer (embedded); a name under MODICUM_DATA/wrench or a path to a folder, in WRENCH's "
    "format or with a table for each split; a path to a .csv, .parquet or .jsonl file with a "
    "column split; or hf: and a Hugging Face data set, by its name on the hub or a folder that "
    "save_to_disk wrote."
)

_JOINT = {"method": ("iwl", "iwld")}
_TWO_STAGE = {"method": ("majority_vote", "snorkel")}
_SNORKEL = {"method": ("snorkel",)}
_WEASEL = {"method": ("weasel",)}
_DENOISE = {"method": ("denoise",)}


class WeakMethodConfig(md.Config):
    """Data and methods; a default that is not the thesis's (section 3.4.1) says so."""

    dataset: str = md.setting(
        datasets.EMBEDDED,
        description=DATASET_DESCRIPTION,
        identity=False,
    )
    features: str = md.setting(
        "auto",
        description="auto (given features if there are any, else tfidf), tfidf, a .npz file "
        "with arrays train, valid and test, or a Hugging Face encoder for mean pooling.",
        identity=False,
    )
    method: Literal[
        "majority_vote", "snorkel", "weasel", "denoise", "labels_only", "iwl", "iwld"
    ] = md.setting(description="How the end model learns from votes and strong labels.")
    hidden_units: int = md.setting(100, description="Units in each hidden layer.", ge=1, le=100_000)
    hidden_layers: int = md.setting(2, description="Hidden layers.", ge=0, le=20)
    learning_rate: float = md.setting(
        1e-3, description="Adam's learning rate of the end model.", gt=0.0
    )
    batch_size: int = md.setting(
        128, description="Mini-batch of each set in a step.", unit="rows", ge=1
    )
    max_iterations: int = md.setting(
        10_000, description="Gradient steps at most.", unit="iterations", ge=1
    )
    evaluate_every: int = md.setting(
        10, description="Steps between two looks at the validation split.", unit="iterations", ge=1
    )
    patience: int = md.setting(
        300, description="Early stopping: how long without a better validation metric.", ge=1
    )
    patience_unit: Literal["iterations", "evaluations"] = md.setting(
        "iterations",
        description="What patience counts: iterations as in the thesis, evaluations as in WRENCH.",
    )
    early_stopping_metric: Literal["accuracy", "f1"] = md.setting(
        "accuracy",
        description="Validation metric of early stopping (the thesis's F1 is accuracy).",
    )
    strong_labels: Literal["vote", "replace"] = md.setting(
        "vote",
        description="How strong labels join: as one more labeling function (-V, as in table "
        "3.2), or replacing the denoised label (-S, appendix A.1).",
        used_by=_TWO_STAGE,
    )
    uncovered: Literal["drop", "uniform"] = md.setting(
        "drop",
        description="Rows without any vote: left out (as WRENCH does), or trained towards the "
        "uniform distribution.",
        used_by=_TWO_STAGE,
    )
    class_balance: Literal["uniform", "validation"] = md.setting(
        "validation",
        description="p(y) of the label model: uniform, or counted on the validation split (as "
        "WRENCH does).",
        used_by={"method": ("snorkel", "weasel", "iwl", "iwld")},
    )
    snorkel_epochs: int = md.setting(
        100,
        description="Steps of gradient descent of the label model, each over all rows.",
        unit="iterations",
        ge=1,
        used_by=_SNORKEL,
    )
    snorkel_learning_rate: float = md.setting(
        0.01, description="Learning rate of that descent.", gt=0.0, used_by=_SNORKEL
    )
    snorkel_momentum: float = md.setting(
        0.9, description="Momentum of that descent.", ge=0.0, lt=1.0, used_by=_SNORKEL
    )
    snorkel_l2: float = md.setting(
        0.0, description="Regularisation of the label model.", ge=0.0, used_by=_SNORKEL
    )
    snorkel_precision_init: float = md.setting(
        0.7,
        description="Precision that every labeling function starts from.",
        gt=0.0,
        le=1.0,
        used_by=_SNORKEL,
    )
    weasel_temperature: float | Literal["validated"] = md.setting(
        1.0,
        description="Divides the encoder's scores; validated tries 1, 0.5, 3 and 5, as the thesis "
        "does, and keeps the best on the validation split.",
        used_by=_WEASEL,
    )
    weasel_dropout: float = md.setting(
        0.3,
        description="Fraction of the encoder's hidden units left out in a step.",
        ge=0.0,
        lt=1.0,
        used_by=_WEASEL,
    )
    denoise_alpha: float = md.setting(
        0.6,
        description="How much of a row's ensemble stays when a prediction joins it.",
        ge=0.0,
        lt=1.0,
        used_by=_DENOISE,
    )
    denoise_c1: float = md.setting(
        0.2, description="Weight of the attention's loss.", ge=0.0, le=1.0, used_by=_DENOISE
    )
    denoise_c2: float = md.setting(
        0.7,
        description="Weight of the end model's loss; what is left of 1 weighs the "
        "self-supervision.",
        ge=0.0,
        le=1.0,
        used_by=_DENOISE,
    )
    denoise_ramp_step: int = md.setting(
        100,
        description="The step after which self-supervision starts.",
        unit="iterations",
        ge=0,
        used_by=_DENOISE,
    )
    abstain: Literal["emission", "missing"] = md.setting(
        "emission",
        description="An abstain is an outcome with a probability (section 3.2.1), or is left "
        "out of the product.",
        used_by=_JOINT,
    )
    strong_term: Literal["complete", "marginal"] = md.setting(
        "complete",
        description="L_S: the likelihood of features, label and votes together, or equation 3.5 as "
        "printed, whose second part sums over the labels again.",
        used_by=_JOINT,
    )
    lambda_strong: float | Literal["validated"] = md.setting(
        "validated",
        description="Weight of the strong term, equation 3.7 (thesis: 1); validated tries 1 and "
        "0.3 and keeps the better on the validation split.",
        used_by=_JOINT,
    )
    lambda_weak: float = md.setting(
        1.0, description="Weight of the weak term, equation 3.7.", ge=0.0, used_by=_JOINT
    )
    lambda_balance: float = md.setting(
        0.0,
        description="Weight of a term that holds the mean prediction to class_balance.",
        ge=0.0,
        used_by=_JOINT,
    )
    vote_weight: float = md.setting(
        0.5,
        description="Power of a vote as evidence of the label (thesis: 1); less where labeling "
        "functions repeat each other.",
        ge=0.0,
        used_by=_JOINT,
    )
    abstain_weight: float = md.setting(
        0.0,
        description="Power of an abstain as evidence of the label (thesis: 1).",
        ge=0.0,
        used_by=_JOINT | {"abstain": ("emission",)},
    )
    end_model_weight: float | Literal["validated"] = md.setting(
        "validated",
        description="Power w of the end model's prediction as evidence of the label, beside "
        "class_balance with power 1 - w (thesis: 1); validated tries 1 and 0.5 and keeps the "
        "better on the validation split.",
        used_by=_JOINT,
    )
    coverage_vote: bool = md.setting(
        True,
        description="Whether 'some labeling function votes on this row' is one more labeling "
        "function (thesis: no).",
        used_by=_JOINT,
    )
    self_supervision: bool = md.setting(
        True,
        description="Whether the end model's sure predictions are one more labeling function "
        "(named in section 3.4.2 as an extension).",
        used_by=_JOINT,
    )
    self_confidence: float = md.setting(
        0.8,
        description="Probability above which the end model's prediction counts as its vote.",
        ge=0.0,
        le=1.0,
        used_by=_JOINT | {"self_supervision": (True,)},
    )
    latent_states: int = md.setting(
        1,
        description="States of a latent h on which all votes depend (appendix A.4); 1 for "
        "labeling functions that are independent given the label.",
        ge=1,
        le=64,
        used_by=_JOINT,
    )
    transition_smoothing: float = md.setting(
        1.0,
        description="Pseudo-count, per outcome, of the majority-vote counts that the transitions "
        "start from.",
        gt=0.0,
        used_by=_JOINT,
    )
    transition_prior: Literal["base_rate", "uniform"] = md.setting(
        "base_rate",
        description="What the pseudo-counts follow: how often a labeling function shows each "
        "outcome, or all outcomes alike.",
        used_by=_JOINT,
    )
    transition_updates: Literal["gradient", "em"] = md.setting(
        "gradient",
        description="How the transition matrices learn: by Adam with the end model, or by a step "
        "of expectation-maximisation before every look at the validation split.",
        used_by={"method": ("iwl",)},
    )
    transition_learning_rate: float = md.setting(
        1e-3,
        description="Adam's learning rate of the transition matrices.",
        gt=0.0,
        used_by={"method": ("iwl",), "transition_updates": ("gradient",)},
    )
    label_network_learning_rate: float = md.setting(
        1e-4,
        description="Adam's learning rate of the network that makes the transition matrices "
        "(thesis: 1e-3, as the end model's).",
        gt=0.0,
        used_by={"method": ("iwld",)},
    )
    label_network_hidden_units: int = md.setting(
        100,
        description="Units in each hidden layer of that network.",
        ge=1,
        le=100_000,
        used_by={"method": ("iwld",)},
    )
    label_network_hidden_layers: int = md.setting(
        2,
        description="Hidden layers of that network.",
        ge=0,
        le=20,
        used_by={"method": ("iwld",)},
    )
    save_model: bool = md.setting(
        False, description="Keep the trained model as a checkpoint.", identity=False
    )

    @field_validator("weasel_temperature")
    @classmethod
    def _positive(cls, value: float | str) -> float | str:
        if not isinstance(value, str) and value <= 0:
            raise ValueError("must be above 0, or validated")
        return value

    @field_validator("end_model_weight", "lambda_strong")
    @classmethod
    def _not_negative(cls, value: float | str) -> float | str:
        if not isinstance(value, str) and value < 0:
            raise ValueError("must be 0 or more, or validated")
        return value

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.method == "weasel" and self.batch_size == 1:
            raise ValueError("batch_size: weasel normalises over a mini-batch and needs 2 or more")
        if self.denoise_c1 + self.denoise_c2 > 1:
            raise ValueError("denoise_c1 and denoise_c2 must add up to 1 at most")
        return self


class WeakLearningConfig(WeakMethodConfig):
    """Settings of the experiment."""

    strong_fraction: float = md.setting(
        0.0,
        description="Fraction of the training split whose true labels are given.",
        sets_budget=True,
        ge=0.0,
        le=1.0,
    )


class WeakLearning(md.Experiment[WeakLearningConfig]):
    """Weak supervision: labeling functions and a few strong labels (chapter 3)."""

    name = "weak"
    version = "2"
    budget_unit = "labels"
    Config = WeakLearningConfig
    uses_torch = True
    selection_metric = "validation/accuracy"
    metrics: ClassVar[Mapping[str, md.Metric]] = {
        "test/accuracy": md.Metric("Accuracy on the test split.", goal="max"),
        "test/f1": md.Metric(
            "F1 on the test split: of class 1 if there are two, else the macro mean.", goal="max"
        ),
        "validation/accuracy": md.Metric("Accuracy on the validation split.", goal="max"),
        "validation/f1": md.Metric("F1 on the validation split.", goal="max"),
        "evaluation/labels": md.Metric(
            "Labels of the validation split, used for early stopping.",
            unit="labels",
            evaluation_cost=True,
        ),
        "train/coverage": md.Metric("Share of training rows with at least one vote."),
        "train/labeling_functions": md.Metric("Number of labeling functions."),
        "train/chosen": md.Metric(
            "Settings that won on the validation split, where a method tries several."
        ),
        "train/iterations": md.Metric("Gradient steps made.", unit="iterations"),
        "train/best_iteration": md.Metric("Step whose weights were restored.", unit="iterations"),
        "train/seconds": md.Metric("Time of training.", unit="s", timing=True),
    }

    def check(self, config: WeakLearningConfig) -> None:
        """Refuse what cannot be trained on the data at hand."""
        data = datasets.load(config.dataset, config.features)
        if config.method == "labels_only" and config.strong_fraction == 0:
            raise md.InputError(
                "strong_fraction: labels_only learns from strong labels alone, so it must be "
                "more than 0"
            )
        if config.strong_fraction > 0 and (data.train.labels_N < 0).any():
            raise md.InputError(
                f"strong_fraction: must be 0 on {config.dataset!r}, which has training rows "
                "without labels"
            )
        check_method(config, data)

    def data_digests(self, config: WeakLearningConfig) -> Mapping[str, str]:
        """Digests of the data set and its features."""
        return datasets.data_digests(config.dataset, config.features)

    def saves_checkpoints(self, config: WeakLearningConfig) -> bool:
        """Only on request."""
        return config.save_model

    def run(self, config: WeakLearningConfig, trial: md.Trial) -> Iterator[md.Record]:
        """Train the end model once; the record's budget is the number of strong labels."""
        if trial.records_done:  # its one record and model were safe before the process died
            return
        from modicum_algorithms.weak.training import train

        data = datasets.load(config.dataset, config.features)
        result = train(config, data, trial)
        estimator = result.estimator
        trial.log.info(
            "%d strong labels, %d iterations, best at %d",
            result.strong_labels,
            estimator.n_iter_,
            estimator.best_iteration_,
        )
        checkpoint: Path | None = None
        if config.save_model:
            from modicum_algorithms.weak.saved_models import save_trained

            checkpoint = trial.scratch / "model"
            save_trained(estimator, checkpoint, data.classes, config=config.model_dump(mode="json"))
        yield md.Record(
            budget=result.strong_labels, metrics=metrics_of(result, data), checkpoint=checkpoint
        )


def metrics_of(result: Trained, data: datasets.WeakData) -> dict[str, Any]:
    """What a record says of a trained estimator, by the names of `WeakLearning.metrics`."""
    estimator, validation = result.estimator, result.estimator.validation_scores_
    assert validation is not None
    metrics: dict[str, Any] = {
        "test/accuracy": result.test.accuracy,
        "test/f1": result.test.f1,
        "validation/accuracy": validation.accuracy,
        "validation/f1": validation.f1,
        "evaluation/labels": len(data.valid),
        "train/coverage": float((data.train.votes_NK >= 0).any(1).mean()),
        "train/labeling_functions": data.train.votes_NK.shape[1],
        "train/iterations": estimator.n_iter_,
        "train/best_iteration": estimator.best_iteration_,
        "train/seconds": result.seconds,
    }
    if estimator.chosen_:
        metrics["train/chosen"] = ", ".join(f"{n}={v}" for n, v in estimator.chosen_.items())
    return metrics


def check_method(config: WeakMethodConfig, data: datasets.WeakData) -> None:
    """Refuse a method that cannot be trained on a data set.

    Raises:
        InputError: It needs votes where there are none, or more memory than is free.
    """
    if config.method != "labels_only" and not (data.train.votes_NK >= 0).any():
        raise md.InputError(
            f"method: {config.method} needs votes, but every labeling function of "
            f"{config.dataset!r} abstains on all {len(data.train)} training rows"
        )
    require_memory(
        config,
        rows=len(data.train),
        features=data.train.features_ND.shape[1],
        classes=len(data.classes),
        labeling_functions=data.train.votes_NK.shape[1],
    )
