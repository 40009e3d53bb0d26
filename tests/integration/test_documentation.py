"""What the documentation says to type works, and what it links to exists."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
README = (ROOT / "README.md").read_text()


def blocks(language, text=README):
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def shell_commands():
    """Every `modicum` and `python` line of the README's shell blocks."""
    lines = [line.split("#")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line.startswith(("modicum ", "python "))]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with the study files and nothing else of the repository."""
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(ROOT / "tune_configs", folder / "tune_configs")
    return folder


def type_in(folder, command):
    """Run one command line in a folder, with the project's own programs on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env={**os.environ, "PATH": path, "OPENAI_API_KEY": ""},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_the_readme_has_the_commands_that_are_tested():
    commands = shell_commands()
    assert sum("quickstart.yaml" in command for command in commands) >= 4
    assert {"modicum list", "modicum describe weak", "modicum doctor"} <= set(commands)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_shell_commands_of_the_readme(workplace):
    """In the order in which they stand; the study of table 3.2 has a slice of its own below."""
    for command in shell_commands():
        if "table_3_2" not in command:
            type_in(workplace, command)
    assert (workplace / "runs" / "first" / "report.html").exists()
    restored = np.load(workplace / "restored" / "images.npy")
    assert np.array_equal(restored, np.load(workplace / "digits.npy"))
    assert (workplace / "digits.modicum").stat().st_size < restored.size / 8  # one bit a pixel


@pytest.mark.slow
@pytest.mark.parametrize("index", range(len(blocks("python"))))
def test_python_blocks_of_the_readme(workplace, index):
    """They end with a comparison and its spread; the script of RLlib's prints returns that grow;
    the oracle prefers the joy to the waste; the model that learned from judgements goes on.
    """
    block = blocks("python")[index]
    (workplace / "block.py").write_text(block)
    printed = type_in(workplace, "python block.py")
    if "SolipsisticConfig" in block:
        returns = [float(line) for line in printed.splitlines() if re.fullmatch(r"[\d.]+", line)]
        assert len(returns) == 5
        assert returns[-1] > 2 * returns[0]
    elif "oracles" in block:
        assert "winner='first'" in printed
    elif "AutoModelForCausalLM" in block:
        assert re.search(r"certainty +[01]\.\d+ \(1\)", printed)
        assert re.search(r"I saw The Bell\w* \w+", printed)
    else:
        assert "±" in printed


@pytest.fixture
def vae_blocks():
    """Python of the page on VAEs: a model of the reader's own, then what needs a saved one."""
    return blocks("python", (ROOT / "docs" / "vae.md").read_text())


@pytest.mark.slow
def test_the_encoder_of_ones_own_in_the_documentation(vae_blocks, tmp_path):
    """Refined it is better than it was, and worse than one that has seen the test images."""
    (tmp_path / "block.py").write_text(vae_blocks[0])
    printed = type_in(tmp_path, "python block.py")
    bits = dict(re.findall(r"(\w+): ([\d.]+) bits", printed))
    assert float(bits["optimal"]) < float(bits["refined"]) < float(bits["VAE"])


@pytest.mark.slow
def test_compressing_in_the_documentation(vae_blocks, tmp_path):
    """In Python with any model of the images' kind, and what was restored is what was there."""
    from PIL import Image

    from modicum_algorithms.vae.networks import ModelSpec, build_vae
    from modicum_algorithms.vae.saved_models import save_vae

    spec = ModelSpec(shape=(1, 8, 8), likelihood="bernoulli", latent_size=2, hidden_units=8)
    save_vae(build_vae(spec, seed=0), tmp_path / "runs" / "digits")
    (tmp_path / "scans").mkdir()
    images = np.random.default_rng(0).integers(0, 2, (5, 8, 8), dtype=np.uint8) * np.uint8(255)
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "scans" / f"page {number}.png")
    (tmp_path / "block.py").write_text("\n".join(vae_blocks[1:]))
    type_in(tmp_path, "python block.py")
    for number, image in enumerate(images):
        with Image.open(tmp_path / "restored" / f"page {number}.png") as restored:
            assert np.array_equal(np.asarray(restored), image)
    assert (tmp_path / "my_model" / "model.safetensors").exists()


@pytest.mark.slow
def test_a_slice_of_the_study_on_real_data(wrench, workplace):
    """SMS with one seed: published accuracies lie between 0.95 and 0.99 at these fractions.

    Both parts of the study's space become the same part, whose trials run once: three methods at
    two fractions. Then the report as the README types it.
    """
    import modicum as md

    type_in(
        workplace,
        "modicum run tune_configs/weak/table_3_2.yaml --seeds 1 --set dataset=sms "
        "--set features=features_minilm.npz "
        "--set 'method={grid: [majority_vote, labels_only, iwl]}' "
        "--set 'strong_fraction={grid: [0.1, 1.0]}' --out runs/slice",
    )
    results = md.load_results(workplace / "runs" / "slice")
    assert len(results.trials) == 6
    assert all(0.95 < value < 1 for _, value in results.values("test/accuracy"))
    type_in(workplace, "modicum report runs/slice --markdown weak.md")
    assert "## Against thesis, table 3.2" in (workplace / "weak.md").read_text()


def test_a_study_file_in_the_documentation_is_valid(tmp_path):
    from modicum.study import Study

    text = (ROOT / "docs" / "studies.md").read_text()
    example = re.search(r"```yaml\n(name: my_study.*?)```", text, flags=re.DOTALL)
    (tmp_path / "my_study.yaml").write_text(example.group(1))
    # Four draws of iwl at two fractions, and of majority_vote at one, with five seeds.
    assert len(Study.from_yaml(tmp_path / "my_study.yaml").trials) == 4 * 3 * 5


def test_the_thesis_form_in_the_documentation_is_that_of_the_code():
    from modicum_algorithms.weak.experiment import WeakLearningConfig
    from modicum_algorithms.weak.integrated import THESIS

    text = (ROOT / "docs" / "weak.md").read_text()
    form = yaml.safe_load(re.search(r"```yaml\n(.*?)```", text, flags=re.DOTALL).group(1))
    assert THESIS.items() <= form.items()
    WeakLearningConfig(method="iwld", **form)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_named_files_exist(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target
    for named in re.findall(r"`((?:tune_configs|tests|docs)/[\w./-]+\.\w+)`", text):
        assert (ROOT / named).exists(), named
    for module in re.findall(r"`((?:weak|vae)/(?:codec/)?\w+\.py)`", text):
        assert (ROOT / "algorithms" / "modicum_algorithms" / module).exists(), module
