"""Settings stand once: names with defaults in `config.py` alone; the same files as ever."""

import ast
import hashlib
import inspect
from collections import Counter

import pytest

import modicum as md
from conftest import ROOT
from modicum_algorithms.vae import config
from modicum_algorithms.vae.data.datasets import load
from modicum_algorithms.vae.model_spec import ModelSpec, model_spec
from modicum_algorithms.vae.networks import build_vae
from modicum_algorithms.vae.saved_models import model_hash, pack_model
from setting_defaults import defaults

FAMILY = ROOT / "algorithms" / "modicum_algorithms" / "vae"
MODELS = [
    value
    for value in vars(config).values()
    if inspect.isclass(value) and issubclass(value, md.Config)
]
# Options of `modicum compress` show the defaults of `CoderSettings`, which they refer to.
REFERRING = {
    ("cli.py", name)
    for name in ("mode", "inference_steps", "inference_learning_rate", "batch_size")
}
# Settings of other experiments, or of other trainings, under the same name.
OTHERS = {
    "learning_rate": 3,  # of experiments, of `refine_encoder`, and of the classifier
    "epochs": 2,  # of a VAE or an encoder, and of the classifier
    "batch_size": 2,
    "hidden_units": 2,
    "samples": 3,  # of the data set, of the perfect model, and of the classifier's latents
    "inference": 2,  # `vae_consistency` has no plain VAE
    "measure_every": 2,  # of `vae` and of `vae_consistency`
}


def test_every_setting_has_its_default_in_one_place():
    settings = set().union(*(model.model_fields for model in MODELS))
    places = [
        (path.relative_to(FAMILY).as_posix(), name, default)
        for path in FAMILY.rglob("*.py")
        for name, default in defaults(ast.parse(path.read_text()))
        if name in settings
    ]
    elsewhere = {(file, name): default for file, name, default in places if file != "config.py"}
    assert elsewhere.keys() == REFERRING
    for default in elsewhere.values():
        assert ast.unparse(default).startswith("_DEFAULTS.")
    counts = Counter(name for file, name, _ in places if file == "config.py")
    assert counts == dict.fromkeys(settings, 1) | OTHERS


def test_a_specification_has_the_defaults_of_experiments():
    data = load("digits", binarisation="threshold", seed=0)
    spec = model_spec(config.ModelConfig(), data)
    assert spec == ModelSpec(shape=(1, 8, 8), likelihood="bernoulli")
    assert (spec.latent_size, spec.hidden_units, spec.hidden_layers) == (16, 500, 2)


@pytest.mark.parametrize(
    ("settings", "digest"),
    [
        ({"shape": (1, 2, 2), "likelihood": "bernoulli"}, "493c87a62ccfc461"),
        (
            {
                "shape": (3, 4, 8),
                "likelihood": "autoregressive_logistic",
                "network": "resnet",
                "latent_size": 4,
                "channels": 3,
            },
            "c4e0a4901183e745",
        ),
    ],
    ids=["mlp", "resnet"],
)
def test_descriptions_in_files_stay_byte_for_byte(settings, digest):
    """Old files hold descriptions in this form, and their models are known by the hash."""
    model = build_vae(ModelSpec(**settings, hidden_units=2), seed=0)
    for weight in model.parameters():
        weight.data.fill_(0.5)
    description, _ = pack_model(model)
    assert description.startswith(b'{"shape":[')
    assert hashlib.sha256(description + model_hash(model)).hexdigest()[:16] == digest
