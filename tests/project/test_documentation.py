"""What the documentation says to type works, and what it links to exists."""

import re
import shutil

import numpy as np
import pytest
import yaml

import modicum as md
from conftest import ROOT
from documentation import Reader, blocks_of, check_study_command, study_commands

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
README = (ROOT / "README.md").read_text()
# The README has tests of its own below; results are records of long runs.
FOLLOWED = [
    page
    for page in PAGES[1:]
    if page.parent.name != "results"
    and any(block.language in {"sh", "python"} for block in blocks_of(page.read_text()))
]


def python_blocks():
    return [block.text for block in blocks_of(README) if block.language == "python"]


def shell_blocks():
    """The README's, but for those that say why they are not run."""
    return [b for b in blocks_of(README) if b.language == "sh" and b.not_run_because is None]


def shell_commands():
    """Every `modicum` and `python` line of the README's shell blocks that stands for itself."""
    commands = [
        command for block in shell_blocks() if not block.is_script for command, _ in block.commands
    ]
    return [command for command in commands if command.startswith(("modicum ", "python "))]


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """In a folder with study files, what starts clusters, and nothing else of the repository.

    The quickstart's classifiers are trained in fewer iterations: nothing here looks at how good
    they are.
    """
    folder = tmp_path_factory.mktemp("reader")
    for name in ("tune_configs", "cluster"):
        shutil.copytree(ROOT / name, folder / name)
    quickstart = folder / "tune_configs" / "quickstart.yaml"
    text = quickstart.read_text()
    quickstart.write_text(text.replace("\nspace:\n", "\nspace:\n  max_iterations: 30\n"))
    assert quickstart.read_text() != text
    return Reader(folder, tmp_path_factory.mktemp("environment"))


def test_the_readme_has_the_commands_that_are_tested():
    commands = shell_commands()
    assert sum("quickstart.yaml" in command for command in commands) >= 4
    assert {"modicum list", "modicum describe weak", "modicum doctor"} <= set(commands)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_shell_commands_of_the_readme(reader):
    """In the order in which they stand. A slice of table 3.2 is run below, and what quick.yaml does
    with two workers in a file of its own.

    The MNIST game is solved: the optimal action from every digit, and a state of its own for all
    digits, or for all but two that share one, which another processor's rounding may lead to.
    """
    for command in shell_commands():
        if "table_3_2" not in command and "preference/quick" not in command:
            reader.type_in(command)
    folder = reader.folder
    assert (folder / "runs" / "first" / "report.html").exists()
    restored = np.load(folder / "restored" / "images.npy")
    assert np.array_equal(restored, np.load(folder / "digits.npy"))
    assert (folder / "digits.modicum").stat().st_size < restored.size / 8  # one bit a pixel
    game = md.load_results(folder / "runs" / "mnist_game").frame.iloc[-1]
    assert game["evaluation/optimal_starts"] == 1
    assert game["evaluation/distinct_states"] >= 0.9


@pytest.mark.slow
def test_the_readmes_cluster_runs_a_study(reader):
    (block,) = [block for block in shell_blocks() if block.is_script]
    assert "report: /tmp/quickstart/report.html" in reader.run_script(block.text)


@pytest.mark.slow
@pytest.mark.parametrize("index", range(len(python_blocks())))
def test_python_blocks_of_the_readme(reader, index):
    """They end with a comparison and its spread; the script of RLlib's prints returns that grow;
    the oracle prefers the joy to the waste; the model that learned from judgements goes on.
    """
    block = python_blocks()[index]
    (reader.folder / f"readme_{index}.py").write_text(block)
    printed = reader.type_in(f"python readme_{index}.py")
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


def refined_encoders_are_better(folder, printed):
    """Than they were, and worse than one that has seen the test images."""
    bits = dict(re.findall(r"(\w+): ([\d.]+) bits", printed))
    assert float(bits["optimal"]) < float(bits["refined"]) < float(bits["VAE"])


def restored_images_are_what_was_there(folder):
    from PIL import Image

    for restored in ("restored_scans", "restored_again"):
        for page in (folder / "scans").iterdir():
            with Image.open(page) as before, Image.open(folder / restored / page.name) as after:
                assert np.array_equal(np.asarray(before), np.asarray(after))


def vae(folder, printed):
    refined_encoders_are_better(folder, printed)
    restored_images_are_what_was_there(folder)
    assert (folder / "my_model" / "model.safetensors").exists()


def tutorial(folder, printed):
    """The model that was taken along tells most growers; a third are of the largest class."""
    assert (folder / "runs" / "wine" / "report.html").exists()
    (right,) = re.findall(r"(\d+)% of the test bottles are right", printed)
    assert int(right) > 80


def own_oracle(folder, printed):
    assert "winner='first'" in printed
    assert "reason='tie'" in printed


EXPECTED = {"vae.md": vae, "tutorial.md": tutorial, "own_oracle.md": own_oracle}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", FOLLOWED, ids=lambda page: page.name)
def test_a_page_works_as_it_is_typed(reader, page):
    printed = reader.follow(page.read_text())
    if page.name in EXPECTED:
        EXPECTED[page.name](reader.folder, printed)


def test_what_is_not_run_says_why():
    """In the page itself; and no block hides from the tests behind another name of its language."""
    languages = {"", "console", "json", "python", "sh", "text", "toml", "yaml"}
    for page in PAGES:
        for block in blocks_of(page.read_text()):
            assert block.language in languages, page
            if block.text.startswith("# Not run"):
                assert block.not_run_because, page


def shown_study_commands():
    """Those of pages and of study files' own headers, with the file that shows them."""
    shown = [*PAGES, *sorted((ROOT / "tune_configs").rglob("*.yaml"))]
    return [
        (path.name, command)
        for path in shown
        for command in dict.fromkeys(study_commands(path.read_text()))
        if "tune_configs/" in command and "/NAME.yaml" not in command
    ]


def test_commands_name_studies_that_are_there_with_options_that_they_have():
    commands = shown_study_commands()
    assert len({command for _, command in commands}) > 50
    for _, command in commands:
        check_study_command(command)


@pytest.mark.slow
def test_a_slice_of_the_study_on_real_data(wrench, reader):
    """SMS with one seed: published accuracies lie between 0.95 and 0.99 at these fractions.

    Both parts of the study's space become the same part, whose trials run once: three methods at
    two fractions. Then the report as the README types it.
    """
    import modicum as md

    reader.type_in(
        "modicum run tune_configs/weak/table_3_2.yaml --seeds 1 --set dataset=sms "
        "--set features=features_minilm.npz "
        "--set 'method={grid: [majority_vote, labels_only, iwl]}' "
        "--set 'strong_fraction={grid: [0.1, 1.0]}' --out runs/slice",
    )
    results = md.load_results(reader.folder / "runs" / "slice")
    assert len(results.trials) == 6
    assert all(0.95 < value < 1 for _, value in results.values("test/accuracy"))
    reader.type_in("modicum report runs/slice --markdown weak.md")
    assert "## Against thesis, table 3.2" in (reader.folder / "weak.md").read_text()


def test_a_study_file_in_the_documentation_is_valid(tmp_path):
    from modicum.study import Study

    text = (ROOT / "docs" / "studies.md").read_text()
    example = re.search(r"```yaml\n(name: my_study.*?)```", text, flags=re.DOTALL)
    (tmp_path / "my_study.yaml").write_text(example.group(1))
    # Four draws of iwl at two fractions, and of majority_vote at one, with five seeds.
    assert len(Study.from_yaml(tmp_path / "my_study.yaml").trials) == 4 * 3 * 5


def test_the_thesis_form_in_the_documentation_is_that_of_the_code():
    from modicum_algorithms.weak.config import THESIS, WeakLearningConfig

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
