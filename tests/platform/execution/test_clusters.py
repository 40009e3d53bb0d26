"""Studies on clusters: what they take along, what they need, nodes that come and go."""

import pytest

import modicum as md
from toys import NeedsTpu, Surroundings


def test_an_earlier_connection_keeps_nothing_from_the_trials(tmp_path, ray_cluster, monkeypatch):
    """Ray runs already, so its processes have neither variable."""
    monkeypatch.setenv("MODICUM_DATA", "/sets")
    study = md.Study(
        Surroundings, {}, seeds=1, runtime_env={"env_vars": {"OWN": "1", "PL_DISABLE_FORK": "2"}}
    )
    (row,) = study.run(tmp_path / "run", quiet=True).frame.to_dict("records")
    assert (row["MODICUM_DATA"], row["OWN"], row["child"]) == ("/sets", "1", "/sets 1")


@pytest.mark.parametrize(
    ("runtime_env", "said"),
    [
        ({"pips": ["numpy"]}, "unknown field 'pips'; did you mean 'pip'"),
        ({"env_vars": {"ONE": 1}}, "runtime_env: .*str"),
        ({"env_vars": {"WANDB_API_KEY": "x"}}, "'WANDB_API_KEY' cannot stand in a study"),
        ({"env_vars": {"A=B": "x"}}, "no process can have the variable 'A=B'"),
        ({"env_vars": {"A": "x\0y"}}, "no process can have the variable 'A'"),
        ({"working_dir": 7}, "runtime_env.working_dir: .*give a URI here, got '7'"),
        ({"working_dir": "."}, "runtime_env.working_dir: .*give a URI here, got '.'"),
    ],
)
def test_an_impossible_runtime_environment_is_refused(runtime_env, said):
    with pytest.raises(md.InputError, match=said):
        md.Study(Surroundings, {}, runtime_env=runtime_env)


def test_the_local_runner_refuses_a_runtime_environment(tmp_path):
    study = md.Study(Surroundings, {}, runtime_env={"env_vars": {"OWN": "1"}})
    with pytest.raises(md.InputError, match="runtime_env: the local runner starts no processes"):
        study.run(tmp_path / "run", runner="local")


def test_a_resource_that_no_node_has_is_named_before_anything_starts(tmp_path, ray_cluster):
    study = md.Study(NeedsTpu, {}, seeds=1)
    with pytest.raises(md.InputError, match=r"one trial needs 1 CPU, 1 TPU, but the cluster has"):
        study.run(tmp_path / "run", quiet=True)
    assert not list((tmp_path / "run").glob("trials/*"))
