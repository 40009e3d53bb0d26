"""Files that `modicum submit` sends, and files that it never sends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import modicum as md
from conftest import ROOT
from modicum.experiment.registry import experiment_names
from modicum.submit.checked_study import check_study
from modicum.submit.file_selection import check_size, select
from modicum.submit.job_request import JobRequest, environment_of
from modicum.submit.package import Limits, checkouts_for, packed
from modicum.submit.ray_jobs import is_exposed, job_url
from modicum.submit.secret_detection import is_secret_file, is_secret_variable

STUDIES = [
    path.relative_to(ROOT)
    for path in sorted((ROOT / "tune_configs").rglob("*.yaml"))
    if not path.name.endswith(".reference.yaml")
]
KEY = "sk-" + "a1B2" * 10


def fill(folder, *names, text="text"):
    for name in names:
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)


def chosen(folder, **options):
    return sorted(path.as_posix() for path in select(folder, **options).files)


def git(folder, *arguments):
    subprocess.run(["git", "-C", folder, *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def packed_here():
    """This repository, packed once for all of its studies."""
    study = check_study(ROOT / "tune_configs/quickstart.yaml", ROOT, check_data=False)
    with packed(study, ROOT, Limits()) as package:
        yield package


@pytest.mark.parametrize("config", STUDIES, ids=str)
def test_every_shipped_study_validates_in_its_packed_place(packed_here, config, monkeypatch):
    monkeypatch.chdir(packed_here.working_dir)
    assert config.read_bytes() == (ROOT / config).read_bytes()
    assert check_study(config, Path(), check_data=False).trials > 0


def test_this_repository_travels_without_history_tests_keys_and_twice_the_code(packed_here):
    assert packed_here.size < 10e6
    top = {path.name for path in packed_here.working_dir.iterdir()}
    assert "tune_configs" in top
    assert not top & {".git", ".gitignore", ".venv", "runs", "platform", "algorithms"}
    assert not list(packed_here.working_dir.rglob("*.ipynb"))


def test_packed_code_runs_where_it_is_not_installed(packed_here, tmp_path):
    """A process whose path has what Ray adds finds modules, experiments and the commit there."""
    roots = {str(path.parent) for path in packed_here.modules}
    code = (
        "import modicum, modicum_algorithms, modicum.data, importlib.metadata as m\n"
        "from modicum.experiment.registry import experiment_names\n"
        "from modicum.run_folder.provenance import commit_of\n"
        "from pathlib import Path\n"
        "print(modicum.__file__, m.distribution('modicum')._path, len(experiment_names()))\n"
        "print(commit_of(Path(modicum.__file__).parent))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(roots)},
        capture_output=True,
        text=True,
        check=True,
    )
    (found, commit) = done.stdout.splitlines()
    module, described, count = found.split()
    (root,) = roots
    assert module.startswith(root)
    assert described.startswith(root)
    assert int(count) == len(experiment_names())
    head = subprocess.run(
        ["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True
    ).stdout
    if head:
        assert commit.startswith(head[:12])


def test_code_keeps_its_package_of_data():
    """`data` at the top of a folder is left out, but not where it is a package."""
    (code,) = checkouts_for("weak")
    packages = {place.name: files for place, files in code.sources.items()}
    assert Path("data/digest.py") in packages["modicum"].files
    assert set(packages) == {"modicum", "modicum_algorithms"}


def test_without_git_all_but_what_no_study_needs(tmp_path):
    fill(
        tmp_path,
        *("study.yaml", "code/own.py", "code/data/small.csv", "docs/a.md", "deep/data/b.csv"),
        *("data/large.csv", "runs/a/report.html", "data.csv"),
        *("__pycache__/own.pyc", ".mypy_cache/a", "book.ipynb", ".gitignore", ".git/config"),
        *("env/pyvenv.cfg", "env/lib/a.py", "older/plan.json", "older/trials/a/log.txt"),
    )
    assert chosen(tmp_path) == [
        *("code/data/small.csv", "code/own.py", "data.csv", "deep/data/b.csv", "docs/a.md"),
        "study.yaml",
    ]


def test_with_git_what_it_tracks_or_does_not_ignore(tmp_path):
    git(tmp_path, "init")
    fill(tmp_path, ".gitignore", text="ignored*\n*.bin\n")
    fill(tmp_path, "study.yaml", "new.py", "ignored.py", "forced.bin", "gone.py", "data/a.csv")
    git(tmp_path, "add", "study.yaml", "gone.py")
    git(tmp_path, "add", "--force", "forced.bin")
    (tmp_path / "gone.py").unlink()
    assert chosen(tmp_path) == ["forced.bin", "new.py", "study.yaml"]
    found = chosen(tmp_path, include=["ignored.py", "data"], exclude=["new.*"])
    assert found == ["data/a.csv", "forced.bin", "ignored.py", "study.yaml"]


def test_data_folders_that_the_environment_names_stay(tmp_path, monkeypatch):
    fill(tmp_path, "study.yaml", "sets/wrench/a.json")
    monkeypatch.setenv("MODICUM_DATA", str(tmp_path / "sets"))
    assert chosen(tmp_path) == ["study.yaml"]


@pytest.mark.parametrize(
    "name",
    [
        *(".env", ".env.local", "deploy/prod.env", "server.pem", "a/b.key", "id_rsa", "id_ed25519"),
        *("credentials", ".aws/config", ".netrc", "auth_token", "token.txt", "hf_token", "API-KEY"),
        *("client_secret.json", "my-credentials.json", "service-account.json", ".ssh/known_hosts"),
    ],
)
def test_files_named_as_secrets_never_travel(tmp_path, name):
    fill(tmp_path, "study.yaml", name)
    found = select(tmp_path, include=["**/*", name])
    assert list(map(str, found.files)) == ["study.yaml"]
    assert found.secrets == [Path(name)]


@pytest.mark.parametrize(
    "name",
    ["tokenizer.json", "tokens.py", "secret.py", "docs/keys.md", "id_rsa.pub", ".env.example"],
)
def test_files_that_only_sound_so_do(name):
    assert not is_secret_file(Path(name))


def test_files_that_hold_secrets_never_travel(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_SERVICE_TOKEN", "correct horse battery")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    fill(tmp_path / "home", ".ray/auth_token", text="f0" * 32)
    project = tmp_path / "project"
    fill(project, "study.yaml", "short_word.txt")
    fill(project, "notes.txt", text=f"key: {KEY}\n")
    fill(project, "own.py", text="password = 'correct horse battery'\n")
    fill(project, "ray.cfg", text="f0" * 32)
    fill(project, "pem.txt", text="-----BEGIN RSA " + "PRIVATE KEY-----\n")
    found = select(project)
    assert sorted(map(str, found.files)) == ["short_word.txt", "study.yaml"]
    assert sorted(map(str, found.secrets)) == ["notes.txt", "own.py", "pem.txt", "ray.cfg"]
    with pytest.raises(md.InputError, match=r"notes\.txt: .*looks like a secret"):
        select(project, needed=[Path("notes.txt")])


def test_links_that_leave_the_folder_are_refused(tmp_path):
    fill(tmp_path / "outside", "a.txt")
    project = tmp_path / "project"
    fill(project, "study.yaml", "shared/a.txt", "deep/.env")
    (project / "inside").symlink_to("shared")
    (project / "alias.yaml").symlink_to("study.yaml")
    (project / "innocent.txt").symlink_to("deep/.env")
    found = select(project)
    assert sorted(map(str, found.files)) == [
        *("alias.yaml", "inside/a.txt", "shared/a.txt", "study.yaml"),
    ]
    (project / "away").symlink_to(tmp_path / "outside")
    with pytest.raises(md.InputError, match="away: the link leads out of"):
        select(project)
    assert "away" not in chosen(project, exclude=["away"])


def test_a_copy_has_the_files_and_not_the_links(tmp_path):
    project = tmp_path / "project"
    fill(project, "study.yaml", "run.sh")
    (project / "run.sh").chmod(0o755)
    (project / "alias.yaml").symlink_to("study.yaml")
    select(project).copy_to(tmp_path / "copy")
    assert not (tmp_path / "copy" / "alias.yaml").is_symlink()
    assert (tmp_path / "copy" / "alias.yaml").read_text() == "text"
    assert os.access(tmp_path / "copy" / "run.sh", os.X_OK)


def test_too_much_is_refused_and_the_largest_named(tmp_path):
    fill(tmp_path, "study.yaml", "small.txt")
    (tmp_path / "large.npy").write_bytes(bytes(3_000_000))
    (tmp_path / "larger.npy").write_bytes(bytes(4_000_000))
    found = select(tmp_path)
    assert check_size([found], 8) == 7_000_008
    with pytest.raises(md.InputError) as raised:
        check_size([found], 5)
    text = str(raised.value)
    assert "7.0 MB would be sent and 5 MB are allowed" in text
    assert text.index("larger.npy 4.0 MB") < text.index("large.npy 3.0 MB")


def test_a_study_brings_its_reference_table_and_the_files_that_it_names(tmp_path):
    fill(tmp_path, "data/prompts.txt", text="I saw it\n" * 20)
    (tmp_path / "studies").mkdir()
    reference = (
        "source: A paper\n"
        "cells:\n"
        "- {where: {acquisition: random}, metric: evaluation/win_rate, mean: 0.5, sd: 0.1, n: 3}\n"
    )
    (tmp_path / "studies" / "a.reference.yaml").write_text(reference)
    (tmp_path / "studies" / "a.yaml").write_text(
        "experiment: preference\n"
        "space: {prompts: data/prompts.txt, language_model: packaged, acquisition: random}\n"
        "report: {reference: a.reference.yaml}\n"
    )
    study = check_study(tmp_path / "studies/a.yaml", tmp_path, check_data=False)
    assert [path.as_posix() for path in study.files] == [
        *("studies/a.yaml", "studies/a.reference.yaml", "data/prompts.txt"),
    ]
    assert "data/prompts.txt" in chosen(tmp_path, needed=study.files)
    with pytest.raises(md.InputError, match=r"CONFIG: .* must be in --working-dir"):
        check_study(tmp_path / "studies/a.yaml", tmp_path / "data", check_data=False)


@pytest.mark.parametrize("out", ["/shared/run", "~/run", "s3://bucket/run", "gs://b/r"])
def test_results_go_where_they_outlive_the_job(out):
    assert f"--out {out}" in JobRequest("a.yaml", out).entrypoint.replace("'", "")


@pytest.mark.parametrize("out", ["runs/a", "./a", "~", "a"])
def test_a_run_folder_in_the_jobs_own_directory_is_refused(out):
    with pytest.raises(md.InputError, match="--out: a job's working directory"):
        JobRequest("a.yaml", out)


def test_a_run_folder_whose_uri_holds_a_key_is_refused():
    with pytest.raises(md.InputError, match="--out: the URI holds a key") as raised:
        JobRequest("a.yaml", f"s3://me:{KEY}@bucket/run")
    assert KEY not in str(raised.value)


@pytest.mark.parametrize(
    ("variable", "secret"),
    [
        *(("OPENAI_API_KEY", True), ("HF_TOKEN", True), ("openaiApiKey", True), ("KEY", True)),
        *(("AWS_SECRET_ACCESS_KEY", True), ("DB_PASSWORD", True), ("api-key", True)),
        *(("AWS_ACCESS_KEY_ID", True), ("GOOGLE_APPLICATION_CREDENTIALS", True)),
        *(("OMP_NUM_THREADS", False), ("MONKEY", False), ("max_new_tokens", False)),
        *(("TOKENIZERS_PARALLELISM", False), ("HF_HOME", False), ("keyboard", False)),
    ],
)
def test_names_of_secrets(variable, secret):
    assert is_secret_variable(variable) == secret


def test_keys_in_the_environment_or_the_settings_are_refused_and_not_shown():
    for pair in (f"OPENAI_API_KEY={KEY}", f"HARMLESS={KEY}"):
        with pytest.raises(md.InputError, match="keys are never sent") as raised:
            JobRequest("a.yaml", "/a", environment=environment_of([pair]))
        assert KEY not in str(raised.value)
    with pytest.raises(md.InputError, match="keys are never sent"):
        JobRequest("a.yaml", "/a", overrides=[f"endpoint.api_key={KEY}"])
    with pytest.raises(md.InputError, match="--env: expected NAME=VALUE") as raised:
        environment_of([KEY])
    assert KEY not in str(raised.value)


def test_data_and_cache_are_paths_of_the_cluster():
    found = environment_of(["A=b=c"], data="/sets", cache="~/cache")
    assert found == {"A": "b=c", "MODICUM_DATA": "/sets", "MODICUM_CACHE": "~/cache"}
    with pytest.raises(md.InputError, match="--data: expected an absolute path"):
        environment_of([], data="sets")


def test_a_job_tells_what_it_was_submitted_with():
    request = JobRequest(
        "a b.yaml", "/a", 3, ["x=[1, 2]"], {"A": "b"}, driver_cpus=1.0, wait_for_resources="10m"
    )
    assert JobRequest.of_job("job", request.metadata) == request
    options = "'a b.yaml' --out /a --seeds 3 --wait-for-resources 10m --set 'x=[1, 2]'"
    assert options in request.entrypoint
    assert options in request.command("http://head:8265")
    assert request.new_id().startswith("a-b-")
    with pytest.raises(md.InputError, match="was not submitted by"):
        JobRequest.of_job("job", {})


def test_the_address_is_a_url_without_a_password(monkeypatch):
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1/")
    assert job_url(None) == "http://127.0.0.1:1"
    assert job_url("https://head:8265") == "https://head:8265"
    for wrong in ("head:6379", "ray://head:10001", "http://", "http://me:pass@head"):
        with pytest.raises(md.InputError, match="--address"):
            job_url(wrong)
    assert is_exposed("http://head:8265")
    assert not is_exposed("https://head")
    assert not any(map(is_exposed, ["http://127.0.0.1:1", "http://localhost", "http://[::1]:1"]))
