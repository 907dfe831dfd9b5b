"""The table of metrics: counts, buckets, bounds, and no ids among the labels."""

from __future__ import annotations

import subprocess
import sys
import threading
import uuid

import pytest

from memos import metrics
from memos.metrics import Counter, Histogram


@pytest.fixture
def name() -> str:
    return f"test_{uuid.uuid4().hex}"


@pytest.fixture(autouse=True)
def without_the_test_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_table", dict(metrics._table))


def test_counts_of_many_threads_add_up(name: str) -> None:
    """No count is lost between threads."""
    counter = Counter(name, "", ("label",))
    threads = [
        threading.Thread(target=lambda: [counter.add(label="x") for _ in range(1_000)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.value(label="x") == 4_000


def test_a_value_falls_into_the_first_bucket_that_holds_it(name: str) -> None:
    """Upper ends belong to their bucket, and what is above all bounds is counted too."""
    histogram = Histogram(name, "", bounds=(1.0, 2.0))
    for value in (-5.0, 0.5, 1.0, 1.5, 9.0):
        histogram.observe(value)
    seen = histogram.of()
    assert (seen.counts, seen.count, seen.sum) == ((3, 1, 1), 5, 12.0)


def test_label_values_are_bounded(name: str) -> None:
    """However many values callers choose, a metric keeps a bounded number of series and loses no count."""
    counter = Counter(name, "", ("label",))
    for number in range(metrics.SERIES_MAX + 50):
        counter.add(label=f"label-{number}")
    assert len(counter.series()) == metrics.SERIES_MAX + 1
    assert counter.value(label=metrics.OTHER) == 50
    counter.add(label="label-0")
    assert counter.value(label="label-0") == 2


def test_wrong_labels_and_negative_counts_are_refused(name: str) -> None:
    """A counter never falls, and a metric takes its own labels only."""
    counter = Counter(name, "", ("label",))
    with pytest.raises(ValueError):
        counter.add(-1, label="x")
    with pytest.raises(ValueError):
        counter.add()
    with pytest.raises(KeyError):
        counter.add(lable="x")
    with pytest.raises(ValueError):
        Counter(name, "twice")


def test_no_metric_has_an_id_among_its_labels() -> None:
    """Labels are kinds of things, never users, cubes, items, tasks or traces."""
    allowed = {
        *("label", "state", "outcome", "area", "stage", "model", "direction", "reason", "sink", "step"),
        *("method", "route", "status", "cause", "stood", "kind", "how"),
    }
    assert {label for metric in metrics.table().values() for label in metric.labels} <= allowed


def test_importing_loads_no_vendor() -> None:
    """The table can be imported anywhere: nothing but the standard library comes with it."""
    code = "import sys, memos.metrics; print(any(m in sys.modules for m in ('prometheus_client', 'numpy', 'pydantic')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
