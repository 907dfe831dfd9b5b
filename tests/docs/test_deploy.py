"""What is handed to Prometheus and Grafana names metrics that are there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from memos import metrics

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
