"""`modicum compress` and `modicum decompress`, through the program's own entry."""

import json
import sys
from importlib.metadata import EntryPoint

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import modicum as md
from modicum.cli import main as cli
from modicum_algorithms.vae.cli import compress, decompress
from modicum_algorithms.vae.model_spec import ModelSpec
from modicum_algorithms.vae.networks import build_vae
from modicum_algorithms.vae.saved_models import find_model, save_vae

COMMANDS = ("compress", "decompress")
GROUP = "modicum_algorithms.vae.cli"


@pytest.fixture
def modicum(monkeypatch, capsys, tmp_path):
    """Call the program with these commands alone; returns exit code, output and errors."""
    points = {name: EntryPoint(name, f"{GROUP}:{name}", "modicum.commands") for name in COMMANDS}
    monkeypatch.setattr(cli, "app", typer.Typer(pretty_exceptions_enable=False))
    monkeypatch.setattr(cli, "added_commands", lambda: points)
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["modicum", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        done = capsys.readouterr()
        return stop.value.code, done.out, done.err.strip()

    return call


@pytest.fixture
def model(tmp_path):
    spec = ModelSpec(shape=(1, 4, 6), likelihood="bernoulli", latent_size=2, hidden_units=8)
    save_vae(build_vae(spec, seed=0), tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def pictures(tmp_path):
    """A folder of black and white PNG files; returns their pixels by name."""
    from PIL import Image

    (tmp_path / "pictures").mkdir()
    draws = np.random.default_rng(0).random((7, 4, 6)) < 0.3
    pixels = {f"p{n}": draw.astype(np.uint8) * np.uint8(255) for n, draw in enumerate(draws)}
    for name, image in pixels.items():
        Image.fromarray(image).save(tmp_path / "pictures" / f"{name}.png")
    return pixels


def test_a_folder_of_pictures_there_and_back(modicum, model, pictures, tmp_path):
    from PIL import Image

    code, output, error = modicum("compress", "pictures", "--model", model, "-o", "a.mbb")
    assert (code, error) == (0, "")
    size = (tmp_path / "a.mbb").stat().st_size
    assert output.splitlines()[:2] == ["images: 7", f"bytes: {size}"]
    assert f"bits per dimension: {8 * size / (7 * 24):.4f}" in output
    code, output, error = modicum("decompress", "a.mbb", "--model", model, "-o", "restored")
    assert (code, error) == (0, "")
    assert output.startswith("images: 7 (png)")
    assert len(list((tmp_path / "restored").iterdir())) == 7
    for name, image in pictures.items():
        restored = np.array(Image.open(tmp_path / "restored" / f"{name}.png"))
        np.testing.assert_array_equal(restored, image)


def test_every_option(modicum, model, tmp_path):
    images = (np.random.default_rng(0).random((30, 4, 6)) < 0.3).astype(np.uint8)
    np.save("images.npy", images)
    options = "--mode pinned --inference-steps 2 --inference-learning-rate 0.01 --embed-model"
    more = "--batch-size 3 --chunk-images 11 --verify --overwrite"
    arguments = [*options.split(), *more.split()]
    (tmp_path / "a").write_text("earlier")
    code, output, error = modicum("compress", "images.npy", "--model", model, "-o", "a", *arguments)
    assert (code, error) == (0, "")
    assert ", model included" in output
    code, output, error = modicum("decompress", "a", "-o", "b", "--format", "npy")
    assert (code, error) == (0, "")
    np.testing.assert_array_equal(np.load("b/images.npy"), images)
    code, _, error = modicum("compress", "images.npy", "--model", model, "-o", "a")
    assert code == 2
    assert error == "error: --out: 'a' exists; --overwrite replaces it"


def test_mistakes_are_told_in_one_sentence(modicum, model, pictures, tmp_path):
    from PIL import Image

    def refused(*arguments):
        before = {path.name for path in tmp_path.iterdir()}
        code, output, error = modicum(*arguments)
        assert (code, output) == (2, "")
        assert {path.name for path in tmp_path.iterdir()} == before
        assert error.startswith("error: ")
        return error.removeprefix("error: ")

    def compressing(images, *arguments):
        return refused("compress", images, "--model", model, "-o", "a", *arguments)

    folder = tmp_path / "pictures"
    assert "--mode: must be one of portable, pinned" in compressing(folder, "--mode", "fast")
    assert "inference_steps" in compressing(folder, "--inference-steps", "3").replace("-", "_")
    assert "nowhere" in compressing("nowhere")
    error = refused("compress", folder, "--model", folder, "-o", "a")
    assert error.startswith("--model: ")
    assert "neither a saved model (model.json) nor a run (plan.json)" in error
    np.save(tmp_path / "grey.npy", np.full((2, 4, 6), 9, np.uint8))
    assert "image 0 has a pixel of value 9" in compressing("grey.npy")
    np.save(tmp_path / "large.npy", np.zeros((2, 5, 5), np.uint8))
    assert "got (1, 5, 5)" in compressing("large.npy")
    np.save(tmp_path / "nothing.npy", np.zeros((0, 4, 6), np.uint8))
    assert "at least one image" in compressing("nothing.npy")
    (tmp_path / "empty").mkdir()
    assert "no PNG" in compressing("empty")
    assert "is a folder" in refused("compress", folder, "--model", model, "-o", "empty")

    for name, image, message in (
        ("size", Image.new("L", (5, 5)), "all images must have one size"),
        ("deep", Image.new("I;16", (6, 4)), "16 bits"),
        ("alpha", Image.new("LA", (6, 4)), "alpha"),
    ):
        path = folder / f"{name}.png"
        image.save(path)
        assert message in compressing(folder)
        path.unlink()

    assert modicum("compress", folder, "--model", model, "-o", "good")[0] == 0
    assert "needs the model with hash" in refused("decompress", "good", "-o", "b")
    assert "--format: must be png or npy" in refused(
        "decompress", "good", "-o", "b", "--format", "gif"
    )
    assert "is not empty" in refused("decompress", "good", "--model", model, "-o", "pictures")
    assert "cannot be read" in refused("decompress", "nothing", "--model", model, "-o", "b")
    other = refused("decompress", "grey.npy", "--model", model, "-o", "b")
    assert other == "grey.npy: is not a file of modicum compress"


@pytest.mark.parametrize(
    ("command", "arguments"),
    [(compress, ["x", "--model", "x", "-o", "x"]), (decompress, ["x", "-o", "x"])],
)
def test_a_missing_package_is_named(monkeypatch, command, arguments):
    app = typer.Typer()
    app.command()(command)
    monkeypatch.setitem(sys.modules, "constriction", None)
    with pytest.raises(md.InputError, match=r"'constriction', .* extra 'vae'"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)


class SavingConfig(md.Config):
    kept: bool = md.setting(description="Whether models are saved.")


class Saving(md.Experiment[SavingConfig]):
    """Two models, the first of which is the better one."""

    name = "saving"
    version = "1"
    budget_unit = "samples"
    Config = SavingConfig
    selection_metric = "loss"
    metrics = {"loss": md.Metric("Loss.", goal="min")}  # noqa: RUF012

    def saves_checkpoints(self, config):
        return config.kept

    def run(self, config, trial):
        for step in (1, 2):
            folder = trial.scratch / f"step{step}"
            spec = ModelSpec(shape=(1, 4, 6), likelihood="bernoulli", latent_size=2)
            save_vae(build_vae(spec, seed=step), folder, step=step)
            checkpoint = folder if config.kept else None
            yield md.Record(budget=step, metrics={"loss": step}, checkpoint=checkpoint)


def test_the_model_of_a_run(tmp_path):
    """The best checkpoint of the first trial that finished and has one."""
    space = {"kept": md.grid(False, True)}
    md.Study(Saving, space, seeds=1).run(tmp_path / "run", runner="local", quiet=True)
    found = find_model(str(tmp_path / "run"))
    assert json.loads((found / "model.json").read_text())["step"] == 1
    assert find_model(str(found)) == found
    md.Study(Saving, {"kept": False}, seeds=1).run(tmp_path / "no", runner="local", quiet=True)
    with pytest.raises(md.InputError, match=r"--model: .* no finished trial with a saved model"):
        find_model(str(tmp_path / "no"), "--model")


def test_what_packages_add_may_be_a_group_or_a_function(monkeypatch, capsys):
    """Anything else is warned of, and leaves the others alone."""
    monkeypatch.setattr(cli, "app", typer.Typer(pretty_exceptions_enable=False))
    points = {
        "weak": EntryPoint("weak", "modicum_algorithms.weak.cli:app", "modicum.commands"),
        "wrong": EntryPoint("wrong", f"{GROUP}:Path", "modicum.commands"),
        "compress": EntryPoint("compress", f"{GROUP}:compress", "modicum.commands"),
    }
    monkeypatch.setattr(cli, "added_commands", lambda: points)
    monkeypatch.setattr(sys, "argv", ["modicum", "--help"])
    with pytest.raises(SystemExit):
        cli.main()
    done = capsys.readouterr()
    assert done.err.startswith("warning: the command 'wrong' cannot be loaded: expected a Typer")
    assert "Compress images without loss" in done.out
    assert "Commands of weak learning" in done.out
