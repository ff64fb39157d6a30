"""The files in cluster/ against the code: what they deploy, and which metrics they show."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, NamedTuple

import prometheus_client
import pytest
import yaml
from ray._private.telemetry.open_telemetry_metric_recorder import OpenTelemetryMetricRecorder
from ray.serve._private.utils import import_attr
from ray.serve.schema import ServeDeploySchema

from serve import haproxy
from serve.app import build_app
from serve.auth import is_loopback
from serve.environment import SERVE_ENVIRONMENT
from serve.settings import ServeArgs

ROOT = Path(__file__).parents[2]
DEPLOYMENT = (ROOT / "cluster" / "serve.yaml").read_text(encoding="utf-8")
DASHBOARD = json.loads((ROOT / "cluster" / "grafana-dashboard.json").read_text(encoding="utf-8"))
SAMPLES = {"Counter": ("_total",), "Gauge": ("",), "Histogram": ("_bucket", "_sum", "_count")}
"""What Ray's exporter appends to the name of a metric, by its kind."""


class Metric(NamedTuple):
    """A metric of the code."""

    kind: str
    name: str
    labels: frozenset[str]


def metrics_of_code() -> list[Metric]:
    """Every `metrics.Counter(...)`, `Gauge` and `Histogram` in serve/."""
    calls = (
        node
        for path in sorted((ROOT / "serve").glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if isinstance(node.func.value, ast.Name) and node.func.value.id == "metrics" and node.func.attr in SAMPLES
    )
    return [metric_of(call) for call in calls]


def metric_of(call: Any) -> Metric:
    labels = [ast.literal_eval(argument) for argument in call.args if isinstance(argument, ast.Tuple)]
    return Metric(call.func.attr, ast.literal_eval(call.args[0]), frozenset(*labels))


METRICS = metrics_of_code()
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


@pytest.fixture
def deployment() -> ServeDeploySchema:
    return ServeDeploySchema.model_validate(yaml.safe_load(DEPLOYMENT))


def test_the_deployment_is_one_that_serve_and_the_app_understand(deployment: ServeDeploySchema) -> None:
    [application] = deployment.applications
    assert (application.name, application.route_prefix) == ("crossray", "/")
    assert import_attr(application.import_path) is build_app
    assert ServeArgs.model_validate(application.args).model == "embedded"


def test_the_deployment_lets_nobody_in_without_a_key(deployment: ServeDeploySchema) -> None:
    args = ServeArgs.model_validate(deployment.applications[0].args)
    assert args.api_keys_file or is_loopback(deployment.http_options.host)


def test_the_deployment_says_which_variables_ray_needs() -> None:
    comment = "\n".join(line.removeprefix("#").removeprefix("   ") for line in DEPLOYMENT.splitlines())
    said = re.findall(r"^export (\w+)=(?:\"([^\"]*)\"|(\S*))$", comment, re.MULTILINE)
    variables = {name: quoted or plain for name, quoted, plain in said}
    assert variables.pop(haproxy.BINARY) == f"$(command -v {haproxy.SCRIPT})"
    assert variables.pop(haproxy.WRAPPED_BINARY) == f"${haproxy.BINARY}"
    assert variables == SERVE_ENVIRONMENT


def test_the_script_before_haproxy_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert EntryPoint(haproxy.SCRIPT, project["scripts"][haproxy.SCRIPT], "").load() is haproxy.main


def test_the_dashboard_shows_every_metric_and_no_other() -> None:
    shown = {name for expression in EXPRESSIONS for name in re.findall(r"crossray_\w+", expression)}
    exported = {metric: {metric.name + suffix for suffix in SAMPLES[metric.kind]} for metric in METRICS}
    assert shown <= set().union(*exported.values())
    assert [metric.name for metric, names in exported.items() if not names & shown] == []
    assert len(METRICS) > 8


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_the_dashboard_groups_and_selects_by_labels_that_the_metric_has(expression: str) -> None:
    [metric] = {one for one in METRICS if re.search(rf"\b{one.name}(_\w+)?\b", expression)}
    grouped = ", ".join(re.findall(r"by \(([^)]*)\)", expression))
    selected = re.findall(r"[{,](\w+)=", expression)
    labels = {label.strip() for label in grouped.split(",") if label.strip()} | set(selected)
    assert labels <= metric.labels | ({"le"} if metric.kind == "Histogram" else set())
    assert ("le" in labels) == ("histogram_quantile" in expression)


@pytest.mark.parametrize("panel", DASHBOARD["panels"], ids=lambda panel: panel["title"])
def test_the_legend_names_labels_that_are_left(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        assert all(label in target["expr"] for label in re.findall(r"{{(\w+)}}", target["legendFormat"]))


def test_rays_exporter_appends_what_the_dashboard_expects() -> None:
    recorder = OpenTelemetryMetricRecorder()
    recorder.register_counter_metric("crossray_test_counter", "")
    recorder.register_gauge_metric("crossray_test_gauge", "")
    recorder.register_histogram_metric("crossray_test_histogram", "", [1.0])
    for kind in SAMPLES:
        recorder.set_metric_value(f"crossray_test_{kind.lower()}", {}, 1.0)
    page = prometheus_client.generate_latest().decode()
    names = set(re.findall(r"^ray_crossray_test_(\w+)", page, re.MULTILINE))
    assert names == {kind.lower() + suffix for kind, suffixes in SAMPLES.items() for suffix in suffixes}
