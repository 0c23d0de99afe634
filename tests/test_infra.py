"""The files of infra/: deployments that Prefect accepts, and containers that hold together; none of them holds a secret."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest
from pathspec import PathSpec
from prefect._internal.schemas.validators import validate_cron_string
from prefect.cli.deploy._models import DeploymentConfig, PrefectYamlModel, RawScheduleConfig
from prefect.cli.deploy._triggers import _initialize_deployment_triggers

from flows.endpoint import PORT, SECONDS
from flows.prefect_server.work_pool import POOL, QUEUES
from flows.prefect_server.zombie_runs import zombie_run_automations
from flows.scoring.guard import OPEN, TOKEN
from flows.scoring.scorer import STOP_SECONDS
from tests.project import ROOT, yaml

INFRA = ROOT / "infra"
PREFECT = yaml.load(INFRA / "prefect.yaml")
COMPOSE = yaml.load(INFRA / "compose.yaml")
SERVICES = COMPOSE["services"]
DEPLOYMENTS = {each["name"]: each for each in PREFECT["deployments"]}
# ${NAME}, ${NAME:-default} or ${NAME:?what to do}
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")
COMPOSE_TEXT = (INFRA / "compose.yaml").read_text(encoding="utf-8")


def test_prefect_understands_every_key() -> None:
    PrefectYamlModel.model_validate(PREFECT)
    known = set(PrefectYamlModel.model_fields) | {"definitions"}
    assert set(PREFECT) <= known
    for deployment in PREFECT["deployments"]:
        assert set(deployment) <= set(DeploymentConfig.model_fields)
        for schedule in deployment.get("schedules", []):
            assert set(schedule) <= set(RawScheduleConfig.model_fields)
            validate_cron_string(schedule["cron"])
            assert schedule["timezone"] == "UTC"


def test_trainings_share_a_queue_of_one_and_all_queues_are_made() -> None:
    queues = {name: each["work_pool"]["work_queue_name"] for name, each in DEPLOYMENTS.items()}
    assert queues == {
        "pipeline": "training",
        "retrain": "training",
        "score": "scoring",
        "watch": "default",
        "promote": "default",
    }
    assert {each["work_pool"]["name"] for each in PREFECT["deployments"]} == {POOL}
    assert QUEUES == {"default": 2, "scoring": 2, "training": 1}


def test_what_runs_when() -> None:
    crons = {
        name: [(schedule["cron"], schedule.get("active", True)) for schedule in each.get("schedules", [])]
        for name, each in DEPLOYMENTS.items()
    }
    assert crons["promote"] == []
    assert [active for _, active in crons["retrain"]] == [False]
    for name in ("pipeline", "score", "watch"):
        assert [active for _, active in crons[name]] == [True]
    # A window is named by the day, so both have to come on the same one, and score first.
    (minute, hour), (later_minute, later_hour) = (crons[name][0][0].split()[:2] for name in ("score", "watch"))
    assert (int(hour), int(minute)) < (int(later_hour), int(later_minute))


def test_a_shift_that_asks_for_it_starts_a_retraining_of_its_window() -> None:
    (trigger,) = _initialize_deployment_triggers("retrain", [dict(each) for each in DEPLOYMENTS["retrain"]["triggers"]])
    assert trigger.expect == {"class-prior.shifted"}
    assert trigger.match.model_dump() == {"ballast.decision": "retrain"}
    assert trigger.parameters == {"window": "{{ event.payload.window }}"}
    (scored,) = _initialize_deployment_triggers("watch", [dict(each) for each in DEPLOYMENTS["watch"]["triggers"]])
    assert (scored.expect, scored.parameters) == ({"window.scored"}, trigger.parameters)
    assert [name for name, each in DEPLOYMENTS.items() if "triggers" in each] == ["watch", "retrain"]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("pipeline", set()),
        ("score", {"source", "window"}),
        ("watch", {"window"}),
        ("promote", set()),
        ("retrain", {"window"}),
    ],
)
def test_entrypoints_exist_and_take_what_deployments_give(name: str, parameters: set[str]) -> None:
    path, _, function = DEPLOYMENTS[name]["entrypoint"].partition(":")
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    (found,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function)
    arguments = found.args
    assert parameters <= {each.arg for each in arguments.args}
    assert len(arguments.defaults) == len(arguments.args), "a schedule gives no parameters"


def test_a_run_works_in_the_checkout_that_its_worker_names() -> None:
    (step,) = PREFECT["pull"]
    assert step == {"prefect.deployments.steps.set_working_directory": {"directory": "{{ $BALLAST_ROOT }}"}}


def test_a_run_that_was_killed_or_never_begins_has_crashed() -> None:
    silent, unbegun = zombie_run_automations()
    assert silent.trigger.within.total_seconds() == 90
    assert unbegun.trigger.within.total_seconds() == 600
    assert silent.trigger.for_each == unbegun.trigger.for_each == {"prefect.resource.id"}
    assert "prefect.flow-run.Running" in silent.trigger.after, "killed before it first said that it goes on"
    assert "prefect.flow-run.Running" in unbegun.trigger.expect


def test_services_are_complete() -> None:
    assert set(SERVICES) == {"database", "store", "bucket", "server", "worker", "endpoint"}
    for name, service in SERVICES.items():
        assert service["restart"] == ("on-failure" if name == "bucket" else "unless-stopped")
        assert "build" in service or re.fullmatch(r".+:v?\d+\.\d+[\w.-]*(@sha256:[0-9a-f]{64})?", service["image"]), (
            "a pinned tag"
        )
        assert (service["cap_drop"], service["security_opt"]) == (["ALL"], ["no-new-privileges:true"])
        assert "cap_add" not in service and "privileged" not in service
        if name != "bucket":  # which runs once
            assert {"test", "interval", "timeout", "retries"} <= set(service["healthcheck"])
        for other, condition in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if other == "bucket" else "service_healthy"
            assert condition == {"condition": wanted}
            assert other in SERVICES
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or (INFRA / source).resolve() == ROOT
        for config in service.get("configs", []):
            assert config["source"] in COMPOSE["configs"]


def test_only_prefects_pages_and_the_endpoint_leave_the_containers_and_only_to_this_machine() -> None:
    assert {name: service["ports"] for name, service in SERVICES.items() if "ports" in service} == {
        "server": ["127.0.0.1:${PREFECT_PORT:-4200}:4200"],
        "endpoint": [f"127.0.0.1:${{ENDPOINT_PORT:-{PORT}}}:{PORT}"],
    }


def test_the_endpoint_of_the_containers_starts_with_its_token_and_answers_their_health_check() -> None:
    service = SERVICES["endpoint"]
    assert service["command"] == ["python", "-m", "flows.endpoint", "--host", "0.0.0.0"]
    assert set(service["environment"]) == {TOKEN}, "it needs no other secret"
    (*_, script) = service["healthcheck"]["test"]
    assert f"http://127.0.0.1:{PORT}/health" in script and "/health" in OPEN
    assert int(service["stop_grace_period"].removesuffix("m")) * 60 > SECONDS + STOP_SECONDS


def test_the_server_of_the_containers_asks_who_is_there() -> None:
    server, worker = SERVICES["server"]["environment"], SERVICES["worker"]["environment"]
    assert server["PREFECT_SERVER_API_AUTH_STRING"] == worker["PREFECT_API_AUTH_STRING"] != ""
    port = "${PREFECT_PORT:-4200}"
    assert server["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] == f"http://127.0.0.1:{port},http://localhost:{port}"
    assert server["PREFECT_SERVER_CSRF_PROTECTION_ENABLED"] == "true"
    command = SERVICES["server"]["command"]
    assert command[:3] == ["python", "-m", "flows.server"], "which checks the host"
    # The name by which the worker asks for it.
    name = command[command.index("--name") + 1]
    assert worker["PREFECT_API_URL"] == f"http://{name}:4200/api"


def test_what_comes_from_the_environment_is_explained_and_no_secret_has_a_default() -> None:
    example = dict(re.findall(r"^(\w+)=(.*)$", (INFRA / ".env.example").read_text(encoding="utf-8"), re.MULTILINE))
    used: dict[str, set[str]] = {}
    for name, kind, rest in VARIABLE.findall(COMPOSE_TEXT):
        used.setdefault(name, set()).add(kind)
        if kind == "-":
            assert example[name] == rest, "the example shows the default"
    assert set(used) == set(example)
    secrets = {name for name in used if re.search("PASSWORD|KEY|SECRET|TOKEN|AUTH", name)}
    assert secrets == {TOKEN, "POSTGRES_PASSWORD", "PREFECT_API_AUTH_STRING", "S3_ACCESS_KEY", "S3_SECRET_KEY"}
    for name in secrets:
        assert used[name] == {"?"}, "without it nothing starts"
        assert example[name] == ""
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|KEY|SECRET|TOKEN|AUTH", name):
                assert VARIABLE.fullmatch(value), f"{name} is written out"


def test_dvc_verifies_what_it_pulls_from_the_store() -> None:
    from configobj import ConfigObj

    read = ConfigObj(COMPOSE["configs"]["dvc"]["content"].splitlines())
    remote = read[f'remote "{read["core"]["remote"]}"']
    assert remote["verify"] == "true"
    assert remote["endpointurl"] == SERVICES["worker"]["environment"]["AWS_ENDPOINT_URL"]
    (mounted,) = SERVICES["worker"]["configs"]
    assert Path(mounted["target"]).parent == Path(SERVICES["worker"]["environment"]["DVC_SYSTEM_CONFIG_DIR"])
    assert set(remote) == {"url", "endpointurl", "verify"}, "credentials are in the environment"


def instructions(text: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile: name and the rest, over continued lines."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in joined.splitlines()]


KNOWN = {"FROM", "ARG", "RUN", "COPY", "WORKDIR", "USER", "ENV", "CMD"}


def test_the_image_is_pinned_and_its_user_is_not_root() -> None:
    found = instructions((INFRA / "Dockerfile").read_text(encoding="utf-8"))
    assert {name for name, _ in found} <= KNOWN
    base, digest = found[0][1].split("@sha256:")
    assert (found[0][0], base, len(digest)) == ("FROM", "python:3.11-slim-bookworm", 64)
    by_name: dict[str, list[str]] = {}
    for name, rest in found:
        by_name.setdefault(name, []).append(rest)
    assert by_name["ARG"] == ["TORCH=cpu", "NODES="]
    assert by_name["USER"] == ["ballast"]
    order = [name for name, _ in found]
    assert max(at for at, name in enumerate(order) if name == "RUN") < order.index("USER") < order.index("CMD")
    for source in (source for rest in by_name["COPY"] for source in rest.split()[:-1] if not source.startswith("--")):
        assert source == "." or (ROOT / source).is_file(), "COPY is from the root of the repository"
    script = " ".join(by_name["RUN"])
    assert "${NODES:+-r /tmp/requirements-nodes.lock}" in script
    for part in (
        "git",
        "wget",
        "pip check",
        "--require-hashes",
        "--no-install-recommends",
        "rm -rf /var/lib/apt/lists",
        "--no-cache-dir",
    ):
        assert part in script
    assert "BALLAST_ROOT=/ballast" in by_name["ENV"][0]
    assert by_name["WORKDIR"] == ["/ballast"]
    assert by_name["CMD"] == ['["python", "-m", "flows.serve"]']


LOCKS = (
    "requirements.lock",
    "requirements-torch.lock",
    "requirements-cuda.lock",
    "requirements-nodes.lock",
    "requirements-docs.lock",
)


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_is_pinned_with_the_sha256_of_its_files(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", "")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert lines and all(
        line == "-r requirements-torch.lock"
        or re.fullmatch(r"[\w.\[\],-]+==[\w.+]+( ;[^#]+?)?(\s+--hash=sha256:[0-9a-f]{64})+", line)
        for line in lines
    )


def test_torch_has_one_version_in_two_builds() -> None:
    lines = [line for name in LOCKS for line in (ROOT / name).read_text(encoding="utf-8").splitlines()]
    assert {line.split()[0] for line in lines if line.startswith("torch==")} == {"torch==2.13.0+cpu", "torch==2.13.0"}
    assert "--require-hashes" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_no_secret_gets_into_the_image_or_under_git() -> None:
    ignored = (INFRA / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert {"**/.env", "**/secrets.env", ".dvc/config.local", "production", ".venv"} <= set(ignored)
    untracked = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert {"/infra/.env", "/infra/kubernetes/secrets.env"} <= set(untracked)


def test_what_git_tracks_is_in_the_image() -> None:
    """Else git there takes it for deleted, and a node refuses to go to another commit."""
    ignored = (INFRA / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    # As git's patterns, but all from the root, and what is in a folder that is left out can be let in again.
    left_out = PathSpec.from_lines("gitignore", [re.sub("^(!?)(?=[^#])", r"\1/", line) for line in ignored])
    assert left_out.match_file("infra/.env") and left_out.match_file("data/messages.parquet")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert tracked and list(left_out.match_files(tracked)) == []


def commands() -> list[list[str]]:
    return [service["command"] for service in SERVICES.values() if "command" in service]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_commands_of_the_containers_are_of_this_repository(command: list[str]) -> None:
    python, option, what, *_ = command
    assert python == "python"
    if option == "-c":
        compile(what, "compose.yaml", "exec")
    else:
        assert option == "-m"
        assert what == "prefect" or (ROOT / f"{what.replace('.', '/')}.py").is_file()


def test_production_survives_make_clean_and_stays_out_of_git() -> None:
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\nclean:")[2].partition("\n\n")[0]
    assert "rm -rf" in recipe
    assert "production" not in recipe.partition("\n")[2]
    assert "/production/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_sqlalchemy_is_one_with_which_prefect_schedules() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    found = re.search(r"^sqlalchemy\S*?==(\d+)\.(\d+)", lock, re.MULTILINE)
    assert found is not None
    assert (int(found[1]), int(found[2])) < (2, 1)
