"""What is handed to Prometheus, Grafana and Compose names what is there: metrics, settings, commands, files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from tests.composed import composed
from typer.testing import CliRunner

from memos import metrics
from memos.cli.main import app
from memos.runtime_queue import redis_address
from memos.settings import Settings

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
_SUFFIX = re.compile(r"_(?:bucket|count|sum)$")


def expressions() -> dict[str, str]:
    """Every query of the rules and the dashboard, by its name."""
    rules = yaml.safe_load((DEPLOY / "alerts.yml").read_text(encoding="utf-8"))
    board = json.loads((DEPLOY / "grafana.json").read_text(encoding="utf-8"))
    found = {rule["alert"]: rule["expr"] for group in rules["groups"] for rule in group["rules"]}
    for panel in board["panels"]:
        found |= {f"{panel['title']} {one['refId']}": one["expr"] for one in panel["targets"]}
    return found


def test_every_query_is_about_metrics_and_labels_that_are_there() -> None:
    """Names are those of the table; labels in a query are among the labels of its metrics."""
    table = metrics.table()
    for name, query in expressions().items():
        named = {_SUFFIX.sub("", one) for one in re.findall(r"memos_[a-z_]+", query)}
        assert named <= set(table), name
        labels = {label for metric in named for label in table[metric].labels} | {"le", "job"}
        used = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\"", query)
        used += [one.strip() for by in re.findall(r"by \(([^)]*)\)", query) for one in by.split(",")]
        assert set(used) <= labels, name


@pytest.mark.parametrize("name", ["migrate", "api", "worker"])
def test_each_of_our_services_starts_with_known_settings_and_commands(name: str, tmp_path: Path) -> None:
    """Settings that do not exist fail at start, and so would a service; its command takes its options."""
    service = composed()["services"][name]
    settings = Settings.load(environ={**service["environment"], "MEMOS_HOME": str(tmp_path)})
    assert redis_address(settings).url == "redis://:other@redis:6379/0"
    assert settings.scheduler.enabled is (name != "api")
    done = CliRunner().invoke(app, [*service["command"], "--help"])
    assert done.exit_code == 0, done.output


def test_the_composition_is_whole() -> None:
    """Images are pinned, files are there, every service that others wait for says how it does, volumes are named."""
    everything = composed()
    services = everything["services"]
    for name, service in services.items():
        assert (
            re.search(r":[\w.-]*\d[\w.-]*$", service["image"]) or service["image"] == "memscheduler:local"
        ), name
        for waited, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "test" in services[waited]["healthcheck"], waited
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in everything["volumes"], volume
        for one in service.get("configs", []):
            assert (DEPLOY / everything["configs"][one["source"]]["file"]).is_file(), one
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), port
    kept = services["redis"]["command"]
    assert dict(zip(kept[1::2], kept[2::2], strict=True)).items() >= {
        ("--appendonly", "yes"),
        ("--maxmemory-policy", "noeviction"),
    }
    scraped = yaml.safe_load((DEPLOY / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    names = {name for job in scraped for found in job["dns_sd_configs"] for name in found["names"]}
    assert names <= set(services)
