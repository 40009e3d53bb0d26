"""Settings of the family: the one place with their names, defaults, limits and descriptions.

Each method has a config of its own. Experiments combine them by inheritance, which keeps the names
flat; a scikit-learn estimator takes its parameters from its method's config. A default that differs
from the thesis (section 3.4.1) says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, Self

from pydantic import field_validator, model_validator

import modicum as md

EMBEDDED = "breast_cancer"
ITERATIONS_WITHOUT_VALIDATION = 1_000
VALIDATED = "validated"

TRIED: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "weasel_temperature": (1.0, 0.5, 3.0, 5.0),
        "end_model_weight": (1.0, 0.5),
        "lambda_strong": (1.0, 0.3),
    }
)
"""Values to try for a setting that is `validated`; the first one if nothing can be validated."""

THESIS: Mapping[str, Any] = MappingProxyType(
    {
        "abstain": "emission",
        "strong_term": "marginal",
        "lambda_strong": 1.0,
        "vote_weight": 1.0,
        "abstain_weight": 1.0,
        "end_model_weight": 1.0,
        "coverage_vote": False,
        "self_supervision": False,
        "transition_prior": "uniform",
        "label_network_learning_rate": 1e-3,
    }
)
"""Settings of the thesis's own joint objective, for the estimator and the experiment alike."""

Method = Literal["majority_vote", "snorkel", "weasel", "denoise", "labels_only", "iwl", "iwld"]

_JOINT = {"method": ("iwl", "iwld")}
_IWL = {"method": ("iwl",)}
_IWLD = {"method": ("iwld",)}
_TWO_STAGE = {"method": ("majority_vote", "snorkel")}
_SNORKEL = {"method": ("snorkel",)}
_WEASEL = {"method": ("weasel",)}
_DENOISE = {"method": ("denoise",)}


def weight_of(config: md.Config, name: str) -> float:
    """The value of a setting that may be `validated`; the first value to try where it is."""
    value = getattr(config, name)
    return TRIED[name][0] if value == VALIDATED else float(value)


class WeakDataConfig(md.Config):
    """The data set; all settings of the experiment `weak_data`."""

    dataset: str = md.setting(
        EMBEDDED,
        description="breast_cancer (embedded); a folder in WRENCH's format or with one table per "
        "split, by its path or its name under MODICUM_DATA/wrench; the path of a .csv, .parquet "
        "or .jsonl file with a column split; or hf: and a Hugging Face data set, by its name on "
        "the hub or as a folder that save_to_disk wrote.",
        identity=False,
    )


class TaskConfig(WeakDataConfig):
    """The data set, its features, and the method that learns from them."""

    features: str = md.setting(
        "auto",
        description="auto (the data set's own features if it has any, else tfidf); tfidf; a .npz "
        "file with the arrays train, valid and test; or a Hugging Face encoder, whose outputs are "
        "mean-pooled.",
        identity=False,
    )
    method: Method = md.setting(
        description="Method by which the end model learns from votes and strong labels."
    )


class EndModelConfig(md.Config):
    """The end model and its training, common to all methods."""

    hidden_units: int = md.setting(100, description="Units in each hidden layer.", ge=1, le=100_000)
    hidden_layers: int = md.setting(2, description="Number of hidden layers.", ge=0, le=20)
    learning_rate: float = md.setting(
        1e-3, description="Adam's learning rate for the end model.", gt=0.0
    )
    batch_size: int = md.setting(
        128,
        description="Size of the mini-batch that a step draws from each set (strong, weak).",
        unit="rows",
        ge=1,
    )
    max_iterations: int = md.setting(
        10_000, description="Maximum number of gradient steps.", unit="iterations", ge=1
    )
    evaluate_every: int = md.setting(
        10,
        description="Steps between two evaluations on the validation split.",
        unit="iterations",
        ge=1,
    )
    patience: int = md.setting(
        300,
        description="Early stopping: training ends after this long without a better validation "
        "metric.",
        ge=1,
    )
    patience_unit: Literal["iterations", "evaluations"] = md.setting(
        "iterations",
        description="Unit of patience: iterations as in the thesis, evaluations as in WRENCH.",
    )
    early_stopping_metric: Literal["accuracy", "f1"] = md.setting(
        "accuracy",
        description="Validation metric of early stopping; f1 is that of class 1 if there are two "
        "classes, else the macro mean (the thesis's F1 is accuracy).",
    )

    @property
    def hidden(self) -> list[int]:
        """Sizes of the end model's hidden layers."""
        return [self.hidden_units] * self.hidden_layers


class TwoStageConfig(EndModelConfig):
    """Methods that first turn votes into soft labels, then train the end model on them."""

    strong_labels: Literal["vote", "replace"] = md.setting(
        "vote",
        description="Use of strong labels: vote adds a labeling function that knows them (-V, as "
        "in table 3.2); replace puts them in the place of the denoised labels (-S, appendix A.1).",
        used_by=_TWO_STAGE,
    )
    uncovered: Literal["drop", "uniform"] = md.setting(
        "drop",
        description="Rows with neither a vote nor a strong label: drop leaves them out, as WRENCH "
        "does; uniform trains the end model towards the uniform distribution there.",
        used_by=_TWO_STAGE,
    )


class ClassBalanceConfig(EndModelConfig):
    """Methods that need the class balance p(y)."""

    class_balance: Literal["uniform", "validation"] = md.setting(
        "validation",
        description="Class balance p(y): uniform, or counted on the validation split as WRENCH "
        "does (uniform without one).",
        used_by={"method": ("snorkel", "weasel", "iwl", "iwld")},
    )


class SnorkelConfig(ClassBalanceConfig, TwoStageConfig):
    """Snorkel's label model, fitted by gradient descent; defaults of the package snorkel 0.10."""

    snorkel_epochs: int = md.setting(
        100,
        description="Gradient steps of Snorkel's label model, each over all rows.",
        unit="iterations",
        ge=1,
        used_by=_SNORKEL,
    )
    snorkel_learning_rate: float = md.setting(
        0.01,
        description="Learning rate of Snorkel's label model.",
        gt=0.0,
        used_by=_SNORKEL,
    )
    snorkel_momentum: float = md.setting(
        0.9,
        description="Momentum of Snorkel's gradient descent.",
        ge=0.0,
        lt=1.0,
        used_by=_SNORKEL,
    )
    snorkel_l2: float = md.setting(
        0.0,
        description="L2 regularisation of Snorkel's label model: weight l2² towards its initial "
        "values and l2 / 2 towards zero, as in the package.",
        ge=0.0,
        used_by=_SNORKEL,
    )
    snorkel_precision_init: float = md.setting(
        0.7,
        description="Initial precision p(y = v | vote v) of every labeling function.",
        gt=0.0,
        le=1.0,
        used_by=_SNORKEL,
    )


class WeaselConfig(ClassBalanceConfig):
    """WeaSEL; its encoder has the hidden layers of the end model."""

    weasel_temperature: float | Literal["validated"] = md.setting(
        1.0,
        description="Temperature that divides the encoder's scores; a low one lets few labeling "
        "functions decide. validated tries 1, 0.5, 3 and 5, as the thesis does, and keeps the "
        "best on the validation split.",
        used_by=_WEASEL,
    )
    weasel_dropout: float = md.setting(
        0.3,
        description="Dropout rate of the encoder's hidden units.",
        ge=0.0,
        lt=1.0,
        used_by=_WEASEL,
    )

    @field_validator("weasel_temperature")
    @classmethod
    def _positive(cls, value: float | str) -> float | str:
        if not isinstance(value, str) and value <= 0:
            raise ValueError("must be above 0, or validated")
        return value

    @model_validator(mode="after")
    def _has_batch_statistics(self) -> Self:
        # Experiments have a setting that chooses the method.
        if getattr(self, "method", "weasel") == "weasel" and self.batch_size == 1:
            raise ValueError("batch_size: weasel normalises over a mini-batch and needs 2 or more")
        return self


class DenoiseConfig(EndModelConfig):
    """Denoise; its attention has one hidden layer as wide as the end model's."""

    denoise_alpha: float = md.setting(
        0.6,
        description="Weight of a row's running mean when a new prediction joins it.",
        ge=0.0,
        lt=1.0,
        used_by=_DENOISE,
    )
    denoise_c1: float = md.setting(
        0.2, description="Weight of the attention's loss.", ge=0.0, le=1.0, used_by=_DENOISE
    )
    denoise_c2: float = md.setting(
        0.7,
        description="Weight of the end model's loss; self-supervision weighs 1 - c1 - c2.",
        ge=0.0,
        le=1.0,
        used_by=_DENOISE,
    )
    denoise_ramp_step: int = md.setting(
        100,
        description="Step after which self-supervision starts.",
        unit="iterations",
        ge=0,
        used_by=_DENOISE,
    )

    @model_validator(mode="after")
    def _weights_fit_together(self) -> Self:
        if self.denoise_c1 + self.denoise_c2 > 1:
            raise ValueError("denoise_c1 and denoise_c2 must add up to 1 at most")
        return self


class IntegratedConfig(ClassBalanceConfig):
    """Integrated weak learning: iWL, and iWLD with transition matrices that depend on x."""

    abstain: Literal["emission", "missing"] = md.setting(
        "emission",
        description="An abstain is an outcome of the vote with its own probability (emission, "
        "section 3.2.1), or is left out of the product (missing).",
        used_by=_JOINT,
    )
    strong_term: Literal["complete", "marginal"] = md.setting(
        "complete",
        description="Strong term L_S: the likelihood of features, label and votes together "
        "(complete), or equation 3.5 as printed, whose second part sums over the labels "
        "(marginal; thesis).",
        used_by=_JOINT,
    )
    lambda_strong: float | Literal["validated"] = md.setting(
        "validated",
        description="Weight of the strong term in equation 3.7 (thesis: 1); validated tries 1 and "
        "0.3 and keeps the better on the validation split.",
        used_by=_JOINT,
    )
    lambda_weak: float = md.setting(
        1.0, description="Weight of the weak term in equation 3.7.", ge=0.0, used_by=_JOINT
    )
    lambda_balance: float = md.setting(
        0.0,
        description="Weight of a term that pulls the mean prediction towards class_balance.",
        ge=0.0,
        used_by=_JOINT,
    )
    vote_weight: float = md.setting(
        0.5,
        description="Power of a vote as evidence of the label (thesis: 1); below 1 where labeling "
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
        description="Add a labeling function that tells whether any other votes on the row "
        "(thesis: no).",
        used_by=_JOINT,
    )
    self_supervision: bool = md.setting(
        True,
        description="Add a labeling function that votes for the end model's confident predictions "
        "(an extension named in section 3.4.2).",
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
        description="States of a latent variable h on which all votes depend (appendix A.4); 1 "
        "for labeling functions that are independent given the label.",
        ge=1,
        le=64,
        used_by=_JOINT,
    )
    transition_smoothing: float = md.setting(
        1.0,
        description="Pseudo-count of each outcome in the majority-vote counts that initialise the "
        "transition matrices.",
        gt=0.0,
        used_by=_JOINT,
    )
    transition_prior: Literal["base_rate", "uniform"] = md.setting(
        "base_rate",
        description="Distribution of the pseudo-counts: each labeling function's own rates of its "
        "outcomes, or uniform.",
        used_by=_JOINT,
    )
    transition_updates: Literal["gradient", "em"] = md.setting(
        "gradient",
        description="Training of the transition matrices: by Adam together with the end model, or "
        "by a step of expectation-maximisation before each evaluation on the validation split.",
        used_by=_IWL,
    )
    transition_learning_rate: float = md.setting(
        1e-3,
        description="Adam's learning rate for the transition matrices.",
        gt=0.0,
        used_by=_IWL | {"transition_updates": ("gradient",)},
    )
    label_network_learning_rate: float = md.setting(
        1e-4,
        description="Adam's learning rate for the network that makes the transition matrices "
        "(thesis: 1e-3, as for the end model).",
        gt=0.0,
        used_by=_IWLD,
    )
    label_network_hidden_units: int = md.setting(
        100,
        description="Units in each hidden layer of the network that makes the transition matrices.",
        ge=1,
        le=100_000,
        used_by=_IWLD,
    )
    label_network_hidden_layers: int = md.setting(
        2,
        description="Number of hidden layers of the network that makes the transition matrices.",
        ge=0,
        le=20,
        used_by=_IWLD,
    )

    @property
    def label_network_hidden(self) -> list[int]:
        """Sizes of the hidden layers of iWLD's label network."""
        return [self.label_network_hidden_units] * self.label_network_hidden_layers

    @field_validator("end_model_weight", "lambda_strong")
    @classmethod
    def _not_negative(cls, value: float | str) -> float | str:
        if not isinstance(value, str) and value < 0:
            raise ValueError("must be 0 or more, or validated")
        return value


class WeakMethodConfig(IntegratedConfig, DenoiseConfig, WeaselConfig, SnorkelConfig, TaskConfig):
    """Data and all methods: the settings that `weak` and `weak_active` share."""

    save_model: bool = md.setting(
        False, description="Keep the trained model as a checkpoint.", identity=False
    )


class WeakLearningConfig(WeakMethodConfig):
    """Settings of the experiment `weak`."""

    strong_fraction: float = md.setting(
        0.0,
        description="Fraction of the training split whose true labels are given.",
        sets_budget=True,
        ge=0.0,
        le=1.0,
    )
