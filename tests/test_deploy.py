"""The files of `deploy/`: each parses, and names commands, ports, paths and metrics that the server has."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.main import get_command

pytest.importorskip("fastapi")

from prefrm.config import from_overrides
from prefrm.protocol import GRPC_PORT, HTTP_PORT, METRICS_PORT
from serving.access.guards import PROBES
from serving.commands import serve
from serving.limits import Limits
from serving.observing.metrics import Metrics
from serving.server import GRACE_S
from serving.settings import ServeSettings
from serving.wire.metrics_page import METRICS

DEPLOY = Path(__file__).parents[1] / "deploy"
PORTS = {"http": HTTP_PORT, "grpc": GRPC_PORT, "metrics": METRICS_PORT}
LIVE, READY = PROBES


def load(name: str) -> Any:
    text = (DEPLOY / name).read_text(encoding="utf-8")
    return json.loads(text) if name.endswith(".json") else yaml.safe_load(text)


def resource(name: str, kind: str) -> Any:
    documents = yaml.safe_load_all((DEPLOY / name).read_text(encoding="utf-8"))
    return next(each for each in documents if each["kind"] == kind)


def instructions() -> list[tuple[str, str]]:
    """Of the Dockerfile: keyword and value, in order."""
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(keyword, value) for keyword, _, value in (line.partition(" ") for line in joined.splitlines())]


def instruction(keyword: str) -> str:
    """The value of the last one with this keyword."""
    return [value for each, value in instructions() if each == keyword][-1]


def deployment() -> Any:
    return resource("kubernetes/judge.yaml", "Deployment")["spec"]["template"]["spec"]


def predictor() -> Any:
    return load("kserve/inference-service.yaml")["spec"]["predictor"]


def container(pod: Any) -> Any:
    (only,) = pod["containers"]
    return only


COMMANDS = {
    "Dockerfile": lambda: json.loads(instruction("CMD")),
    "compose": lambda: load("compose.yaml")["services"]["judge"]["command"],
    "kubernetes": lambda: container(deployment())["args"],
    "kserve": lambda: container(predictor())["args"],
}
PODS = {"kubernetes": deployment, "kserve": predictor}


def parsed(command: list[str]) -> dict[str, Any]:
    """The arguments of `prefrm serve`, as its own parser reads them."""
    name, *arguments = command
    assert name == "serve"
    app = typer.Typer()
    app.command()(serve)
    return dict(get_command(app).make_context(name, arguments).params)


def limits(command: list[str]) -> Limits:
    return from_overrides(ServeSettings, parsed(command)["settings"] or ()).limits


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_serves_one_bundle_to_other_machines_on_the_usual_ports(name: str) -> None:
    options = parsed(COMMANDS[name]())
    assert options["host"] == "0.0.0.0"
    assert options["no_token"] == (options["token_file"] is None)
    assert len(options["bundles"]) == 1
    assert {wire: options[f"{wire}_port"] for wire in PORTS} == PORTS


def test_the_image_is_not_root_and_probes_readiness() -> None:
    assert json.loads(instruction("ENTRYPOINT")) == ["prefrm"]
    assert instruction("USER") == "10001:10001"
    assert sorted(PORTS.values()) == [int(port) for port in instruction("EXPOSE").split()]
    (bundle,) = parsed(COMMANDS["Dockerfile"]())["bundles"]
    assert bundle in json.loads(instruction("VOLUME"))
    _, _, probe = instruction("HEALTHCHECK").partition("CMD ")
    python, flag, code = json.loads(probe)
    assert (python, flag) == ("python", "-c")
    compile(code, "probe", "exec")
    assert f"'127.0.0.1', {HTTP_PORT}" in code and f"'{READY}'" in code


def test_what_the_image_copies_exists_and_is_not_ignored() -> None:
    kept = {
        line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[0] == "!"
    }
    copied = [shlex.split(value) for keyword, value in instructions() if keyword == "COPY"]
    sources = {source for *paths, _ in copied if not paths[0].startswith("--") for source in paths}
    assert sources == kept
    assert all((DEPLOY.parent / source).exists() for source in sources)
    packages = re.findall(r"include = \[(.*)\]", (DEPLOY.parent / "pyproject.toml").read_text())[0]
    assert set(re.findall(r'"(\w+)\*"', packages)) <= sources


@pytest.mark.parametrize("name", PODS)
def test_probes_fit_the_server(name: str) -> None:
    only = container(PODS[name]())
    ports = {port["name"]: port["containerPort"] for port in only["ports"]}
    for probe, path in (("startupProbe", LIVE), ("livenessProbe", LIVE), ("readinessProbe", READY)):
        asked = only[probe]["httpGet"]
        assert asked["path"] == path
        assert ports.get(asked["port"], asked["port"]) == HTTP_PORT
    start = only["startupProbe"]
    assert start["periodSeconds"] * start["failureThreshold"] > limits(only["args"]).load_s


@pytest.mark.parametrize("name", PODS)
def test_a_pod_is_killed_only_after_it_has_drained(name: str) -> None:
    pod = PODS[name]()
    bounds = limits(container(pod)["args"])
    assert pod["terminationGracePeriodSeconds"] > bounds.notice_s + bounds.drain_s + 2 * GRACE_S
    probe = container(pod)["readinessProbe"]
    # Until then nobody may be refused: the probe fails, and the endpoint is removed.
    assert bounds.notice_s > probe["periodSeconds"] * probe["failureThreshold"] + probe["timeoutSeconds"]


def test_compose_waits_for_the_drain() -> None:
    bounds = limits(COMMANDS["compose"]())
    seconds = load("compose.yaml")["services"]["judge"]["stop_grace_period"]
    assert int(seconds.removesuffix("s")) > bounds.notice_s + bounds.drain_s + 2 * GRACE_S


def test_compose_publishes_on_loopback_alone_and_mounts_files_that_exist() -> None:
    services = load("compose.yaml")["services"]
    for service in services.values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        for volume in service["volumes"]:
            if volume.startswith("./"):
                assert (DEPLOY.parent / volume.partition(":")[0]).exists()
    assert {int(port.rpartition(":")[2]) for port in services["judge"]["ports"]} == set(PORTS.values())
    (job,) = load("prometheus/prometheus.yml")["scrape_configs"]
    assert job["metrics_path"] == METRICS
    assert job["static_configs"] == [{"targets": [f"judge:{METRICS_PORT}"]}]


def test_services_and_the_autoscaler_lead_to_the_deployment() -> None:
    name = "kubernetes/judge.yaml"
    spec = resource(name, "Deployment")["spec"]
    labels = spec["template"]["metadata"]["labels"]
    assert {port["name"]: port["containerPort"] for port in container(deployment())["ports"]} == PORTS
    documents = list(yaml.safe_load_all((DEPLOY / name).read_text(encoding="utf-8")))
    services = [each["spec"] for each in documents if each["kind"] == "Service"]
    assert [service.get("clusterIP") for service in services] == [None, "None"]
    for service in services:
        assert service["selector"] == labels == spec["selector"]["matchLabels"]
        assert all(PORTS[port["targetPort"]] == port["port"] for port in service["ports"])
    target = resource(name, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == (
        "Deployment",
        resource(name, "Deployment")["metadata"]["name"],
    )
    monitor = load("kubernetes/monitoring.yaml")["spec"]
    (endpoint,) = monitor["podMetricsEndpoints"]
    assert monitor["selector"]["matchLabels"] == labels
    assert (endpoint["port"], endpoint["path"]) == ("metrics", METRICS)


def samples() -> set[str]:
    """The names of the samples that a server exposes."""
    suffixes = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}
    families = Metrics().registry.collect()
    return {f"{family.name}{suffix}" for family in families for suffix in suffixes[family.type]}


def queries() -> list[str]:
    board = load("grafana/dashboards/prefrm.json")
    shown = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    chosen = [variable["query"]["query"] for variable in board["templating"]["list"]]
    (rule,) = load("kubernetes/prometheus-adapter.yaml")["rules"]["custom"]
    (scaled,) = resource("kubernetes/judge.yaml", "HorizontalPodAutoscaler")["spec"]["metrics"]
    metric = scaled["pods"]["metric"]["name"]
    assert metric == rule["name"]["as"]
    return [*shown, *chosen, rule["seriesQuery"], rule["metricsQuery"], metric]


def test_every_metric_that_is_queried_is_one_of_the_server() -> None:
    known = samples()
    named = {query: re.findall(r"prefrm_\w+", query) for query in queries()}
    assert all(named.values())
    assert {metric for metrics in named.values() for metric in metrics} - known == set()


def test_the_dashboard_reads_the_provisioned_datasource() -> None:
    (source,) = load("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    board = load("grafana/dashboards/prefrm.json")
    assert {panel["datasource"]["uid"] for panel in board["panels"]} == {source["uid"]}
    (provider,) = load("grafana/provisioning/dashboards/prefrm.yaml")["providers"]
    mounts = [volume.split(":")[1] for volume in load("compose.yaml")["services"]["grafana"]["volumes"]]
    assert provider["options"]["path"] in mounts
