"""What infra/ says of Kubernetes and Ray: objects and pods by Kubernetes' own schema, rendered as Prefect does; no secret."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

import kubernetes_validate
import pytest
from kubernetes_validate import ValidationError
from prefect.client.schemas.objects import FlowRun
from prefect.workers.base import BaseJobConfiguration

from flows import HEARTBEAT, HEARTBEAT_SECONDS
from flows.endpoint import PORT, SECONDS
from flows.scoring.guard import OPEN, TOKEN
from flows.scoring.scorer import STOP_SECONDS
from tests.project import ROOT, yaml

INFRA = ROOT / "infra"
KUBERNETES = INFRA / "kubernetes"
KUSTOMIZATION = yaml.load(KUBERNETES / "kustomization.yaml")
OBJECTS = [each for name in KUSTOMIZATION["resources"] for each in yaml.load_all(KUBERNETES / name)]
RAY = next(each for each in OBJECTS if each["kind"] == "RayCluster")
TEMPLATE = json.loads((KUBERNETES / "job-template.json").read_text(encoding="utf-8"))
VERSION = "1.37"
needs_nodes = pytest.mark.skipif(find_spec("prefect_kubernetes") is None or find_spec("ray") is None, reason="make nodes")


def named(kind: str) -> dict[str, Any]:
    """The objects of a kind by name."""
    return {each["metadata"]["name"]: each for each in OBJECTS if each["kind"] == kind}


class KubernetesJob(BaseJobConfiguration):
    """What Prefect's own rendering of a template keeps, where prefect-kubernetes is not installed."""

    job_manifest: dict[str, Any]
    namespace: str


def rendered(kind: Any, **values: Any) -> Any:
    """The job of the work pool as Prefect renders it."""
    configuration = asyncio.run(kind.from_template_and_values(TEMPLATE, values, client=object()))
    configuration.prepare_for_flow_run(FlowRun(flow_id=uuid4(), name="sharp-otter"))
    return configuration


def job(configuration: Any) -> dict[str, Any]:
    """The Job without what Prefect wants in a pod although Kubernetes, which ignores it there, knows it of Jobs only."""
    manifest = dict(json.loads(json.dumps(configuration.job_manifest)))
    pod = manifest["spec"]["template"]["spec"]
    assert (pod.pop("parallelism"), pod.pop("completions")) == (1, 1)
    return manifest


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """All pod templates, with the name of what holds them."""
    yield "worker", named("Deployment")["prefect-worker"]["spec"]["template"]
    yield "endpoint", named("Deployment")["endpoint"]["spec"]["template"]
    yield "head", RAY["spec"]["headGroupSpec"]["template"]
    for group in RAY["spec"]["workerGroupSpecs"]:
        yield group["groupName"], group["template"]
    yield "job", job(rendered(KubernetesJob))["spec"]["template"]


PODS = dict(pods())


def check(content: Mapping[str, Any]) -> None:
    kubernetes_validate.validate(dict(content), VERSION, strict=True)


@pytest.mark.parametrize("at", [at for at, each in enumerate(OBJECTS) if each["kind"] != "RayCluster"])
def test_kubernetes_knows_every_object(at: int) -> None:
    check(OBJECTS[at])


@pytest.mark.parametrize("name", PODS)
def test_kubernetes_knows_every_pod(name: str) -> None:
    check({"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": name}, "template": PODS[name]})


def test_what_kubernetes_does_not_know_is_found() -> None:
    wrong = {**PODS["gpu"], "spec": {**PODS["gpu"]["spec"], "toleration": []}}
    with pytest.raises(ValidationError, match="toleration"):
        check({"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "wrong"}, "template": wrong})


def test_a_run_is_a_job_with_a_gpu_and_nothing_is_left_to_fill_in() -> None:
    configuration = rendered(KubernetesJob)
    check({**job(configuration), "metadata": {**configuration.job_manifest["metadata"], "generateName": "run-"}})
    assert "{{" not in json.dumps(configuration.job_manifest["spec"])
    (container,) = PODS["job"]["spec"]["containers"]
    for amounts in container["resources"].values():
        assert amounts == {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": 1}
    assert PODS["job"]["spec"]["tolerations"] == PODS["gpu"]["spec"]["tolerations"]
    given = {"gpus": 4, "node_selector": {"gpu": "h200"}, "memory": "64Gi"}
    pod = job(rendered(KubernetesJob, **given))["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"gpu": "h200"}
    assert pod["containers"][0]["resources"]["limits"] == {"cpu": "4", "memory": "64Gi", "nvidia.com/gpu": 4}


def test_a_run_chooses_neither_its_command_nor_what_comes_to_the_same() -> None:
    given = {
        "command": "evil",
        "env": {"PATH": "/evil"},
        "env.LD_PRELOAD": "evil.so",
        "image": "evil",
        "image_pull_policy": "Always",
    }
    given |= {"service_account_name": "prefect-worker", "namespace": "kube-system", "secret": "other", "settings": "other"}
    given |= {"dvc_config": "other", "cache_claim": "other", "labels": {"app": "evil"}, "annotations": {"inject": "evil"}}
    assert not set(given) & set(TEMPLATE["variables"]["properties"])
    assert TEMPLATE["variables"]["additionalProperties"] is False, "so that Prefect says so"
    assert job(rendered(KubernetesJob, **given)) == job(rendered(KubernetesJob))
    (container,) = PODS["job"]["spec"]["containers"]
    assert container["env"] == [{"name": HEARTBEAT, "value": str(HEARTBEAT_SECONDS)}]


def test_every_variable_of_the_template_is_used_and_explained() -> None:
    used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(TEMPLATE["job_configuration"])))
    assert used == set(TEMPLATE["variables"]["properties"])
    assert all(each["title"] and each["description"] for each in TEMPLATE["variables"]["properties"].values())


def references(content: Any) -> Iterator[tuple[str, str]]:
    """Kind and name of the objects that are referred to."""
    kinds = {"secretRef": "Secret", "configMapRef": "ConfigMap", "configMap": "ConfigMap", "secretKeyRef": "Secret"}
    if isinstance(content, dict):
        for key, value in content.items():
            if key in kinds:
                yield kinds[key], value["name"]
            elif key == "claimName":
                yield "PersistentVolumeClaim", value
            elif key == "serviceAccountName" and value != "default":
                yield "ServiceAccount", value
            else:
                yield from references(value)
    elif isinstance(content, list):
        for value in content:
            yield from references(value)


def test_what_pods_refer_to_is_there() -> None:
    there = {(each["kind"], each["metadata"]["name"]) for each in OBJECTS}
    there |= {("Secret", each["name"]) for each in KUSTOMIZATION["secretGenerator"]}
    found = {reference for pod in PODS.values() for reference in references(pod)}
    assert found <= there
    assert {("Secret", "ballast"), ("ConfigMap", "ballast"), ("PersistentVolumeClaim", "ballast-cache")} <= found
    for pod in PODS.values():
        for container in pod["spec"]["containers"]:
            mounted = {each["name"] for each in container.get("volumeMounts", [])}
            assert mounted == {each["name"] for each in pod["spec"].get("volumes", [])}
            assert ("Secret", "ballast") in references(container)
    assert {("ServiceAccount", each["name"]) for each in named("RoleBinding")["prefect-worker"]["subjects"]} <= there


def test_images_are_parameters() -> None:
    parameters = {each["name"]: f"{each['newName']}:{each['newTag']}" for each in KUSTOMIZATION["images"]}
    images = {name: pod["spec"]["containers"][0]["image"] for name, pod in PODS.items()}
    assert {images[name] for name in ("worker", "head", "gpu")} == set(parameters)
    assert images["job"] == parameters["ballast-cuda"]
    assert KUSTOMIZATION["namespace"] == TEMPLATE["job_configuration"]["namespace"]
    built = set(re.findall(r"build .*-t (\S+).*NODES=1", (INFRA / "Dockerfile").read_text(encoding="utf-8")))
    assert set(parameters.values()) == built


def test_pods_run_as_the_user_of_the_image() -> None:
    for pod in PODS.values():
        wanted = {"runAsUser": 1000, "runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        assert pod["spec"]["securityContext"].items() >= wanted.items()
        for container in pod["spec"]["containers"]:
            assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def test_secrets_are_named_in_kubernetes_and_written_nowhere() -> None:
    (generated,) = KUSTOMIZATION["secretGenerator"]
    assert generated == {"name": "ballast", "envs": ["secrets.env"]}
    assert KUSTOMIZATION["generatorOptions"] == {"disableNameSuffixHash": True}
    example = dict(re.findall(r"^(\w+)=(.*)$", (KUBERNETES / "secrets.env.example").read_text(encoding="utf-8"), re.MULTILINE))
    secrets = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "PREFECT_API_AUTH_STRING", TOKEN, "RAY_AUTH_TOKEN"]
    assert example == dict.fromkeys(secrets, "")
    assert named("Secret") == {}
    for pod in PODS.values():
        for container in pod["spec"]["containers"]:
            written = {each["name"] for each in container.get("env") or [] if "value" in each}
            assert not written & {*example, "PREFECT_API_KEY"}


def test_nodes_share_what_they_trained_through_one_verified_remote() -> None:
    from configobj import ConfigObj

    environment = named("ConfigMap")["ballast"]["data"]
    read = ConfigObj(named("ConfigMap")["ballast-dvc"]["data"]["config"].splitlines())
    remote = read[f'remote "{read["core"]["remote"]}"']
    assert remote == {"url": "s3://ballast/dvc", "endpointurl": environment["AWS_ENDPOINT_URL"], "verify": "true"}
    for name in ("head", "gpu", "job"):
        mounts = {each["name"]: each["mountPath"] for each in PODS[name]["spec"]["containers"][0]["volumeMounts"]}
        assert mounts["dvc"] == environment["DVC_SYSTEM_CONFIG_DIR"]
        assert all(Path(environment[each]).is_relative_to(mounts["cache"]) for each in ("HF_HOME", "BALLAST_CHECKPOINTS"))


def test_an_image_finds_commits_newer_than_its_own(tmp_path: Path) -> None:
    def git(folder: Path, *arguments: str, **changes: str) -> str:
        names = {f"GIT_{who}_{what}": "test" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        env = {**os.environ, **names, **changes}
        return subprocess.run(["git", *arguments], cwd=folder, env=env, check=True, capture_output=True, text=True).stdout

    origin, image = tmp_path / "origin", tmp_path / "image"
    git(tmp_path, "init", "--quiet", str(origin))
    git(origin, "commit", "--quiet", "--allow-empty", "-m", "one")
    git(tmp_path, "clone", "--quiet", str(origin), str(image))
    (image / ".git/config").unlink()  # as Dockerfile.dockerignore does
    git(origin, "commit", "--quiet", "--allow-empty", "-m", "two")
    settings = {key: value for key, value in named("ConfigMap")["ballast"]["data"].items() if key.startswith("GIT_")}
    git(image, "fetch", "--quiet", "--all", **settings | {"GIT_CONFIG_VALUE_0": str(origin)})
    git(image, "checkout", "--quiet", git(origin, "rev-parse", "HEAD").strip())


def test_the_worker_of_the_pool_may_start_what_the_template_says_where_it_says() -> None:
    (container,) = PODS["worker"]["spec"]["containers"]
    command = [*container["command"], *container["args"]]
    assert command[:5] == ["python", "-m", "prefect", "worker", "start"]
    options = dict(zip(command[5::2], command[6::2], strict=False))
    assert (options["--pool"], options["--type"]) == ("gpu", "kubernetes")
    assert (ROOT / command[command.index("--base-job-template") + 1]).resolve() == KUBERNETES / "job-template.json"
    (jobs, *_) = named("Role")["prefect-worker"]["rules"]
    assert (jobs["apiGroups"], jobs["resources"]) == (["batch"], ["jobs"])
    assert {"create", "watch", "delete"} <= set(jobs["verbs"])


# The custom resource's definition comes with KubeRay's operator and is in no package; the keys are those of its RayClusterSpec.
def test_the_ray_cluster_has_the_keys_that_kuberay_knows() -> None:
    assert (RAY["apiVersion"], RAY["kind"]) == ("ray.io/v1", "RayCluster")
    spec = RAY["spec"]
    assert set(spec) == {"rayVersion", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec", "workerGroupSpecs"}
    assert set(spec["autoscalerOptions"]) == {"idleTimeoutSeconds", "env"}
    assert set(spec["headGroupSpec"]) == {"rayStartParams", "template"}
    (group,) = spec["workerGroupSpecs"]
    assert set(group) == {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}
    for parameters in (spec["headGroupSpec"]["rayStartParams"], group["rayStartParams"]):
        assert all(isinstance(value, str) for value in parameters.values())
    mode, token = spec["autoscalerOptions"]["env"]
    assert mode == {"name": "RAY_AUTH_MODE", "value": "token"}
    assert token["valueFrom"] == {"secretKeyRef": {"name": "ballast", "key": token["name"]}}
    for name in ("head", "gpu"):
        assert PODS[name]["spec"]["containers"][0]["env"] == [mode, token]
    locked = (ROOT / "requirements-nodes.lock").read_text(encoding="utf-8")
    assert f"ray=={spec['rayVersion']}" in [line.split()[0] for line in locked.splitlines()]
    policy = named("NetworkPolicy")["ray"]
    assert policy["spec"]["podSelector"]["matchLabels"] == {"ray.io/cluster": RAY["metadata"]["name"]}


def test_the_dashboard_and_its_job_api_are_not_for_other_pods() -> None:
    # KubeRay would choose all addresses where none is given.
    assert RAY["spec"]["headGroupSpec"]["rayStartParams"]["dashboard-host"] == "127.0.0.1"
    for name in ("head", "gpu"):
        (container,) = PODS[name]["spec"]["containers"]
        assert "dashboard" not in {each["name"] for each in container.get("ports", [])}


def test_nobody_speaks_to_the_worker_and_its_runs() -> None:
    policy = named("NetworkPolicy")["runs"]["spec"]
    assert (policy["policyTypes"], policy.get("ingress")) == (["Ingress"], None)
    (chosen,) = policy["podSelector"]["matchExpressions"]
    labels = {PODS[name]["metadata"]["labels"][chosen["key"]] for name in ("worker", "job")}
    assert (chosen["operator"], set(chosen["values"])) == ("In", labels)
    assert PODS["job"]["spec"]["automountServiceAccountToken"] is False
    assert PODS["gpu"]["spec"]["automountServiceAccountToken"] is False


def test_the_endpoint_is_one_pod_that_probes_reach_and_others_need_a_label_for() -> None:
    deployment = named("Deployment")["endpoint"]["spec"]
    assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"}), "one process writes"
    pod = PODS["endpoint"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == ["python", "-m", "flows.endpoint", "--host", "0.0.0.0"]
    assert [variable["name"] for variable in container["env"]] == [TOKEN], "it sees no other secret"
    assert "envFrom" not in container
    assert container["ports"] == [{"name": "http", "containerPort": PORT}]
    assert {container[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe")} == OPEN
    assert pod["terminationGracePeriodSeconds"] > SECONDS + STOP_SECONDS
    assert pod["automountServiceAccountToken"] is False
    service, policy = named("Service")["endpoint"]["spec"], named("NetworkPolicy")["endpoint"]["spec"]
    assert service["selector"] == policy["podSelector"]["matchLabels"] == PODS["endpoint"]["metadata"]["labels"]
    assert policy["policyTypes"] == ["Ingress", "Egress"] and "egress" not in policy
    (rule,) = policy["ingress"]
    assert rule["from"] == [{"podSelector": {"matchLabels": {"ballast-client": "true"}}}]


@needs_nodes
def test_prefects_kubernetes_worker_takes_the_template(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect_kubernetes.settings import KubernetesSettings
    from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

    configuration = rendered(KubernetesWorkerJobConfiguration, env={"OMP_NUM_THREADS": "4"}, command="evil")
    check(job(configuration))
    (container,) = configuration.job_manifest["spec"]["template"]["spec"]["containers"]
    environment = {each["name"]: each["value"] for each in container["env"]}
    assert environment[HEARTBEAT] == str(HEARTBEAT_SECONDS) and "OMP_NUM_THREADS" not in environment
    assert container["args"] == ["prefect", "flow-run", "execute"]
    assert (configuration.namespace, configuration.pod_watch_timeout_seconds) == ("ballast", 900)
    for variable in PODS["worker"]["spec"]["containers"][0]["env"]:
        monkeypatch.setenv(variable["name"], variable["value"])
    settings = KubernetesSettings()
    assert (settings.worker.api_key_secret_name, settings.worker.api_key_secret_key) == ("ballast", "PREFECT_API_KEY")
    assert settings.worker.api_auth_string_secret_name == "ballast"
    assert settings.worker.api_auth_string_secret_key == "PREFECT_API_AUTH_STRING"
    assert settings.observer.namespaces == {"ballast"}


@needs_nodes
def test_ray_finds_gpus_in_its_workers_and_nothing_to_compute_with_in_its_head() -> None:
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    cluster = {**RAY, "metadata": {**RAY["metadata"], "namespace": "ballast"}}
    groups = _derive_autoscaling_config_from_ray_cr(cluster)["available_node_types"]
    assert groups["headgroup"]["resources"]["CPU"] == 0
    assert groups["gpu"]["resources"].items() >= {"CPU": 4, "GPU": 1}.items()
    assert (groups["gpu"]["min_workers"], groups["gpu"]["max_workers"]) == (1, 4)


@needs_nodes
def test_ray_up_takes_the_cluster_of_machines() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    written = yaml.load(INFRA / "ray.yaml")
    config = prepare_config(written)
    validate_config(config)
    assert config["max_workers"] == len(written["provider"]["worker_ips"]) == written["min_workers"]
    assert "--env=RAY_AUTH_MODE=token" in written["docker"]["run_options"]
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]
    assert [
        option for option in written["docker"]["run_options"] if re.search("KEY|SECRET|AUTH_TOKEN|AUTH_STRING", option)
    ] == []
