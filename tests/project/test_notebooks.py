"""Notebooks do what they show: executed by a real kernel, and committed as that left them."""

import json
import re
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

from conftest import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# What the tests read out of a notebook once it has run; every notebook has an entry.
LOOKED_AT = {
    "preference": "import json\n"
    "rates = {key[0][0]: cell.summary.mean for key, cell in\n"
    "    results.table('acquisition', metric='evaluation/win_rate').cells.items()}\n"
    "middle = {k: float(np.mean(np.abs(np.array(p) - 0.5) < 0.1))\n"
    "    for k, p in probabilities.items()}\n"
    "print(json.dumps({'rates': rates, 'middle': middle, 'steps': steps}))",
    "python_api": "import json\n"
    "curves = {key[0]: [p.summary.mean for p in points] for key, points in\n"
    "    results.curves('test/accuracy', 'method').items()}\n"
    "second = compared.differences[0].cells\n"
    "print(json.dumps({'curves': curves, 'gain': [difference.n, difference.low],\n"
    "    'pairs': [cell.difference.n for cell in second], 'settings': dict(compared.settings)}))",
    "vae": "import json\n"
    "print(json.dumps({'gaps': gaps.to_dict('list'), 'watched': watched, 'sizes': sizes,\n"
    "    'gain': gain.mean}))",
    "solipsistic": "import json\n"
    "print(json.dumps({'actions': actions, 'states': states, 'episodes': episodes,\n"
    "    'greedy': greedy, 'played': played.returns[0]}))",
    "weak": "import json\n"
    "trust = model.label_model_.table['accuracy'].to_dict()\n"
    "print(json.dumps({'scores': scores, 'trust': trust}))",
}


def outputs(notebook):
    return [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """Values that a notebook ends with, executed as a copy in a folder of its own."""

    def execute(name):
        folder = tmp_path_factory.mktemp(name)
        copy = Path(shutil.copy(ROOT / "notebooks" / f"{name}.ipynb", folder))
        notebook = nbformat.read(copy, as_version=4)
        notebook.cells.append(nbformat.v4.new_code_cell(LOOKED_AT[name]))
        place = {"metadata": {"path": str(folder)}}
        NotebookClient(notebook, timeout=540, kernel_name="python3", resources=place).execute()
        assert [path.name for path in folder.iterdir()] == [copy.name]  # leaves nothing behind
        return json.loads(outputs(notebook)[-1].text)

    return execute


def test_there_are_notebooks_and_all_are_executed_here():
    assert {path.stem for path in NOTEBOOKS} == set(LOOKED_AT)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_weak_learning_shows_what_it_claims(executed):
    """Integrated weak learning beats both rivals by more than the noise of 600 test texts, and
    trusts the rule that is mostly wrong least of all.

    At an accuracy of 0.7, √(0.7 · 0.3 / 600) = 0.019 is one standard error.
    """
    found = executed("weak")
    rivals = [found["scores"][name] for name in ("labels only", "majority vote")]
    assert found["scores"]["iWL"] > max(rivals) + 2 * 0.019
    assert min(found["trust"], key=found["trust"].get) == "about_functions"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_python_api_shows_what_it_claims(executed):
    """Both ways start from the same labels, choosing is worth more in the end by the interval over
    all twelve seeds, and the second study is paired with the first over the eight that both have.
    """
    found = executed("python_api")
    random, uncertain = found["curves"]["random"], found["curves"]["uncertain"]
    assert random[0] == uncertain[0]
    assert len(random) == 10
    assert uncertain[-1] > random[-1] > random[0] + 0.1
    assert found["gain"][0] == 12
    assert found["gain"][1] > 0
    assert found["pairs"] == [8, 8]
    assert found["settings"]["model"] == ["logistic", "forest"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_inference_shows_what_it_claims(executed):
    """The gap widens with training; the model's images close part of it, more than the same
    training does; and that shows in bytes, which zstd does not reach.
    """
    found = executed("vae")
    gaps = found["gaps"]
    gap = np.subtract(gaps["test"], gaps["test, optimal encoder"])
    assert 0 <= gap[0] < gap[-1] / 3
    assert gaps["train"] == sorted(gaps["train"], reverse=True)
    after = {name: values["200"] for name, values in found["watched"].items()}
    before, best = gaps["test"][-1], gaps["test, optimal encoder"][-1]
    assert best < after["reverse half-sleep"] < before - 0.3 * gap[-1]
    assert after["reverse half-sleep"] < min(after["denoising"], after["wake"])
    sizes = found["sizes"]
    assert sizes["VAE, encoder refined"] < sizes["VAE"] < min(sizes["zstd"], sizes["xz"])
    assert found["gain"] < 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_solipsistic_learning_shows_what_it_claims(executed):
    """Every digit has a state of its own, and 'plus 1' is the move at all of them; CartPole's
    policy holds the pole many times longer than before training, and the film is of that policy.

    An untrained policy tends to push to one side all the time; the pole falls after eight steps.
    """
    found = executed("solipsistic")
    assert len(set(found["states"])) == 10
    assert found["actions"] == [1] * 10
    assert found["episodes"][-1] <= 30
    assert max(found["greedy"]) > 5 * found["greedy"][0]
    assert found["played"] == max(found["greedy"])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_preference_learning_shows_what_it_claims(executed):
    """Six updates by hand lower the loss from log 2; both acquisitions win more often than not,
    by more than the noise of three times 128 games; certainty avoids what random is full of.

    √(0.25 / 384) = 0.026 is one standard error of a mean win-rate of 1/2.
    """
    found = executed("preference")
    losses = [step[3] for step in found["steps"]]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] == pytest.approx(np.log(2), abs=1e-4)
    assert min(found["rates"].values()) > 0.5 + 2 * 0.026
    assert found["middle"]["certainty"] < found["middle"]["random"] - 0.2


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_committed_as_a_kernel_left_them(path):
    """Every code cell ran, in order and without an error; no machine's paths, and small."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert all(output.output_type != "error" for output in outputs(notebook))
    assert any("image/png" in output.get("data", {}) for output in outputs(notebook))
    text = path.read_text()
    assert len(text) < 400_000
    assert not re.search(r"(?<![\w.])/(?:home|root|Users|tmp|work|var|usr|opt)/", text)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_of_notebooks_lead_somewhere(path):
    cells = nbformat.read(path, as_version=4).cells
    words = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", words):
        assert "://" in target or (path.parent / target).exists(), target
