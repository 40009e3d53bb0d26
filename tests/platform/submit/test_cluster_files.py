"""The files of `cluster/`, as far as they can be checked without a cloud, Docker or Kubernetes."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
import typer
import yaml

from conftest import ROOT
from modicum.cli.main import app

# Ray's own command line, as it is imported.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

CLUSTER = ROOT / "cluster"
DOCKERFILE = (CLUSTER / "Dockerfile").read_text()
RAY_UP = ["aws.yaml", "gcp.yaml"]
MANIFESTS = ["ray_cluster.yaml", "ray_job.yaml", "storage.yaml"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINNED = dict(
    line.split("==")
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
)

# https://kubernetes.io/docs/concepts/overview/working-with-objects/names and .../quantity.
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
QUANTITY = re.compile(r"\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?")


def read(name):
    return yaml.safe_load((CLUSTER / name).read_text())


def manifest(name):
    return read(f"kubernetes/{name}")


def ray_cluster(name):
    spec = manifest(name)["spec"]
    return spec.get("rayClusterSpec", spec)


def groups(name):
    spec = ray_cluster(name)
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def parse_ray(line):
    """A line of `ray ...` through Ray's own parser; nothing is run."""
    from ray.scripts.scripts import cli

    words = shlex.split(line)
    while re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words.pop(0)
    assert words.pop(0) == "ray"
    command = cli
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    return command.make_context(command.name, words).params


def parse_modicum(words):
    command = typer.main.get_command(app).commands[words[0]]
    return command.make_context(words[0], list(words[1:])).params


@pytest.mark.parametrize("name", RAY_UP)
def test_ray_takes_the_cluster_launchers_files(name):
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(read(name))
    validate_config(prepared)
    types = prepared["available_node_types"]
    assert prepared["head_node_type"] in types
    assert {"cpu_worker", "gpu_worker"} < types.keys()
    assert sum(kind.get("max_workers", 0) for kind in types.values()) <= prepared["max_workers"]
    # Nothing of the provider's defaults, which install another Ray, is left.
    assert prepared["setup_commands"] == []
    assert prepared["head_setup_commands"] == []


def test_a_wrong_field_would_be_seen():
    from ray.autoscaler._private.util import prepare_config, validate_config

    wrong = {**read("aws.yaml"), "max_worker": 3}
    with pytest.raises(Exception, match="max_worker"):
        validate_config(prepare_config(wrong))


@pytest.mark.parametrize("name", RAY_UP)
def test_nodes_start_with_the_token_and_the_dashboard_on_loopback(name):
    config = read(name)
    assert config["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        stop, start = commands
        assert parse_ray(stop) is not None
        assert start.startswith("RAY_AUTH_MODE=token ray start ")
    head = parse_ray(config["head_start_ray_commands"][1])
    worker = parse_ray(config["worker_start_ray_commands"][1])
    assert head["head"]
    assert head["dashboard_host"] == "127.0.0.1"
    assert head["autoscaling_config"] == "~/ray_bootstrap_config.yaml"
    assert worker["address"] == f"$RAY_HEAD_IP:{head['port']}"
    assert worker["object_manager_port"] == head["object_manager_port"]


@pytest.mark.parametrize("name", RAY_UP)
def test_the_autoscaler_finds_its_clouds_client(name):
    """The head imports its provider inside the image, which installs the extra `clouds`."""
    from ray.autoscaler._private.providers import _get_node_provider_cls

    assert ".[all,clouds]" in DOCKERFILE
    assert _get_node_provider_cls(read(name)["provider"]).bootstrap_config


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts folders, for which it needs to be root")
@pytest.mark.parametrize("profile", [True, False])
def test_login_shells_of_the_image_find_ray(tmp_path, profile):
    """Debian's /etc/profile resets PATH; Ray's updater runs all of its commands after it."""
    from ray.autoscaler._private.command_runner import _with_interactive
    from ray.autoscaler._private.docker import with_docker_exec

    (line,) = re.findall(r"^RUN (echo .*/etc/profile\.d/.*)$", DOCKERFILE, re.MULTILINE)
    (variables,) = re.findall(r"^ENV PATH=(\S+):\$PATH", DOCKERFILE, re.MULTILINE)
    assert variables == "/opt/venv/bin"
    # `docker exec CONTAINER /bin/bash -c ...` becomes a shell in a namespace of its own.
    inside = " ".join(_with_interactive("command -v ray"))
    (command,) = with_docker_exec([inside], container_name="", docker_cmd="docker")
    shell = command.partition("/bin/bash -c ")[2]
    (tmp_path / ".bashrc").touch()
    script = (
        f"mount -t tmpfs tmpfs /opt && mkdir /opt/venv && mount --bind {sys.prefix} /opt/venv\n"
        f"mount -t tmpfs tmpfs /etc/profile.d\n"
        f"{line if profile else ''}\n"
        f"exec env -i HOME={tmp_path} PATH=/opt/venv/bin:/usr/bin:/bin /bin/bash -c {shell}\n"
    )
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-c", script],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.stdout.strip() == ("/opt/venv/bin/ray" if profile else ""), done.stderr


@pytest.mark.parametrize("program", ["openssh-client", "rsync"])
def test_the_image_has_what_reaches_new_nodes(program):
    assert re.search(rf"apt-get install[^&]* {program}[ \n]", DOCKERFILE)


def test_an_option_that_ray_does_not_have_would_be_seen():
    with pytest.raises(click.NoSuchOption):
        parse_ray("ray start --head --no-such-option")


def test_gpu_workers_have_gpus():
    aws, gcp = (read(name)["available_node_types"]["gpu_worker"] for name in RAY_UP)
    assert aws["node_config"]["InstanceType"].startswith(("g", "p"))
    (accelerator,) = gcp["node_config"]["guestAccelerators"]
    assert gcp["resources"]["GPU"] == accelerator["acceleratorCount"]
    # Google refuses machines with accelerators that could be moved.
    assert gcp["node_config"]["scheduling"]["onHostMaintenance"] == "TERMINATE"
    for name in ("ray_cluster.yaml", "ray_job.yaml"):
        (group,) = (g for g in groups(name) if g.get("groupName") == "gpu-workers")
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
        assert any(t["key"] == "nvidia.com/gpu" for t in pod["tolerations"])


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_have_their_kind_and_names(name):
    found = manifest(name)
    kinds = {
        "ray_cluster.yaml": ("ray.io/v1", "RayCluster"),
        "ray_job.yaml": ("ray.io/v1", "RayJob"),
        "storage.yaml": ("v1", "PersistentVolumeClaim"),
    }
    assert (found["apiVersion"], found["kind"]) == kinds[name]
    assert LABEL.fullmatch(found["metadata"]["name"])
    # KubeRay adds words of its own to a cluster's name, and pods' names have 63 characters.
    assert len(found["metadata"]["name"]) <= 40


@pytest.mark.parametrize("name", ["ray_cluster.yaml", "ray_job.yaml"])
def test_kuberay_clusters_are_as_their_definition_wants_them(name):
    spec = ray_cluster(name)
    assert spec.keys() <= {
        *("rayVersion", "authOptions", "enableInTreeAutoscaling", "autoscalerOptions"),
        *("headGroupSpec", "workerGroupSpecs"),
    }
    assert spec["authOptions"] == {"mode": "token"}
    names = [group["groupName"] for group in spec["workerGroupSpecs"]]
    assert len(set(names)) == len(names)
    for group in spec["workerGroupSpecs"]:
        assert LABEL.fullmatch(group["groupName"])
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for group in groups(name):
        # The definition has them as strings; a number would be refused.
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        line = " ".join(f"--{key}={value}" for key, value in group["rayStartParams"].items())
        parse_ray("ray start --head " + line.replace("=true", ""))
        check_pod(group["template"]["spec"])


def check_pod(pod):
    volumes = {volume["name"] for volume in pod["volumes"]}
    containers = [container["name"] for container in pod["containers"]]
    assert len(set(containers)) == len(containers)
    for container in pod["containers"]:
        assert LABEL.fullmatch(container["name"])
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        ports = [port["name"] for port in container.get("ports", [])]
        assert all(LABEL.fullmatch(port) and len(port) <= 15 for port in ports)
        requests, limits = (container["resources"][kind] for kind in ("requests", "limits"))
        assert requests == limits, "Ray takes the limits for what the node has"
        assert limits.keys() <= {"cpu", "memory", "nvidia.com/gpu"}
        assert all(QUANTITY.fullmatch(str(amount)) for amount in limits.values())
    claims = [
        v["persistentVolumeClaim"]["claimName"]
        for v in pod["volumes"]
        if len(v) > 1 and "persistentVolumeClaim" in v
    ]
    assert claims == [manifest("storage.yaml")["metadata"]["name"]]


def test_the_ray_job_runs_a_study_that_the_image_has():
    words = shlex.split(manifest("ray_job.yaml")["spec"]["entrypoint"])
    assert words[:3] == ["python", "-m", "modicum"]
    given = parse_modicum(words[3:])
    study = Path(given["config"]).relative_to("/opt/modicum")
    assert (ROOT / study).is_file()
    (mount,) = {
        mount["mountPath"]
        for group in groups("ray_job.yaml")
        for container in group["template"]["spec"]["containers"]
        for mount in container["volumeMounts"]
        if mount["name"] == "runs"
    }
    assert Path(given["out"]).is_relative_to(mount)


def test_pods_that_only_differ_in_their_group_are_the_same_in_both_manifests():
    for first, second in zip(groups("ray_cluster.yaml"), groups("ray_job.yaml"), strict=True):
        assert first["template"] == second["template"]


def test_versions_agree():
    image = f"REGISTRY/modicum:{PROJECT['version']}"
    assert {read(name)["docker"]["image"] for name in RAY_UP} == {image}
    for name in ("ray_cluster.yaml", "ray_job.yaml"):
        assert ray_cluster(name)["rayVersion"] == PINNED["ray"]
        for group in groups(name):
            assert {c["image"] for c in group["template"]["spec"]["containers"]} == {image}
    docker = (CLUSTER / "Dockerfile").read_text()
    assert f"--tag {image} " in docker
    makefile = (ROOT / "Makefile").read_text()
    pip = re.search(r"^PIP_VERSION := (\S+)$", makefile, re.MULTILINE).group(1)
    assert f"pip=={pip}" in docker
    python = re.search(r"^FROM python:(\d+\.\d+)-", docker, re.MULTILINE).group(1)
    assert PROJECT["requires-python"] == f">={python}"


def instructions():
    text = (CLUSTER / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]


def test_the_image_copies_what_is_there_and_what_the_build_may_see():
    allowed = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = {
        source for word, rest in instructions() if word == "COPY" for source in rest.split()[:-1]
    }
    assert copied == allowed
    assert all((ROOT / source).exists() for source in copied)
    # What the build needs: files that pyproject.toml names, and both source roots.
    assert {PROJECT["readme"], *PROJECT["license-files"], "platform", "algorithms"} <= copied


def test_the_image_runs_as_a_user_and_knows_the_instructions():
    words = [word for word, _ in instructions()]
    assert words[0] == "FROM"
    assert set(words) <= {"FROM", "RUN", "ENV", "WORKDIR", "COPY", "USER"}
    last_user = [rest for word, rest in instructions() if word == "USER"][-1]
    assert last_user == "ray"
    (environment,) = (rest for word, rest in instructions() if word == "ENV")
    assert "RAY_AUTH_MODE=token" in environment.split()


def test_commands_in_the_files_heads_name_files_that_exist():
    for path in [*CLUSTER.rglob("*.yaml"), CLUSTER / "Dockerfile"]:
        head = "".join(line for line in path.read_text().splitlines(True) if line.startswith("#"))
        named = re.findall(r"(?:cluster|docs)/[\w/]+(?:\.\w+)?", head)
        assert named or path.name == "Dockerfile"
        assert all((ROOT / name).is_file() for name in named), named


def test_commands_of_the_how_to_are_those_that_there_are():
    text = (ROOT / "docs" / "clusters.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    lines = [line.split(" #")[0].strip() for block in blocks for line in block.splitlines()]
    parsed = 0
    for line in lines:
        for name in re.findall(r"(?:cluster|tune_configs)/[\w/]+\.\w+", line):
            assert (ROOT / name).is_file(), name
        if line.startswith("modicum "):
            parse_modicum(shlex.split(line)[1:])
        elif line.startswith("ray "):
            given = parse_ray(line)
            inner = shlex.join(given.get("entrypoint", ()))
            if inner:
                assert inner.startswith("python -m modicum ")
                parse_modicum(shlex.split(inner)[3:])
        else:
            continue
        parsed += 1
    assert parsed >= 10
