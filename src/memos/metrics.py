"""What the process counts: one table of metrics, in memory, for `/metrics` and whoever asks.

    metrics.MODEL_CALLS.add(model="qwen3", outcome="ok")
    metrics.TASK_WAITING_SECONDS.observe(0.02, label="query")

Every metric stands in the table below and in docs/reference/metrics.md. Counters and histograms are
counted where things happen, for the whole process, from its start; a gauge has no value here, it is read
when somebody asks (`memos.api.metrics_page`). No user, cube or item id is ever a label. A metric keeps
`SERIES_MAX` combinations of label values; what comes after them is counted under "(other)", so that a
label that callers choose cannot fill the memory. Thread-safe; importing costs nothing.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

SERIES_MAX = 500
VALUE_CHARS_MAX = 128
OTHER = "(other)"

SHORT_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
LONG_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3_600.0)

Values = tuple[str, ...]


class Metric:
    """A name, what it says, and the names of its labels."""

    def __init__(self, name: str, text: str, labels: Values = ()) -> None:
        self.name = name
        self.text = text
        self.labels = labels
        self._lock = threading.Lock()
        if name in _table:
            raise ValueError(f"the metric {name} is declared twice")
        _table[name] = self

    def _values(self, given: Mapping[str, str]) -> Values:
        if len(given) != len(self.labels):
            raise ValueError(f"{self.name} has the labels {self.labels}, not {tuple(given)}")
        return tuple(given[label][:VALUE_CHARS_MAX] for label in self.labels)


_table: dict[str, Metric] = {}


class Counter(Metric):
    """Only ever rises. Its name ends in `_total`."""

    def __init__(self, name: str, text: str, labels: Values = ()) -> None:
        super().__init__(name, text, labels)
        self._series: dict[Values, float] = {}

    def add(self, amount: float = 1, /, **labels: str) -> None:
        """Count `amount` (not negative) under these label values."""
        if amount < 0:
            raise ValueError(f"{self.name} cannot be counted down by {amount}")
        values = self._values(labels)
        with self._lock:
            if values not in self._series and len(self._series) >= SERIES_MAX:
                values = (OTHER,) * len(self.labels)
            self._series[values] = self._series.get(values, 0) + amount

    def value(self, **labels: str) -> float:
        """What was counted under these label values so far."""
        with self._lock:
            return self._series.get(self._values(labels), 0)

    def series(self) -> dict[Values, float]:
        """All counts by label values."""
        with self._lock:
            return dict(self._series)


@dataclass(frozen=True, slots=True)
class Distribution:
    """How many values fell below each bound (the last count: above all of them), and their sum."""

    counts: tuple[int, ...]
    sum: float

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)


class Histogram(Metric):
    """Values sorted into buckets; `bounds` are their upper ends, each belonging to its bucket."""

    def __init__(self, name: str, text: str, labels: Values = (), *, bounds: tuple[float, ...]) -> None:
        super().__init__(name, text, labels)
        self.bounds = bounds
        self._series: dict[Values, tuple[list[int], list[float]]] = {}

    def observe(self, value: float, /, **labels: str) -> None:
        """Take one value in. What is below 0 (a clock was set back) counts as 0."""
        self.observe_all((value,), **labels)

    def observe_all(self, observed: Iterable[float], /, **labels: str) -> None:
        """Take many values in under the same labels, at a fraction of the cost of one after the other."""
        values = self._values(labels)
        with self._lock:
            if values not in self._series and len(self._series) >= SERIES_MAX:
                values = (OTHER,) * len(self.labels)
            counts, total = self._series.setdefault(values, ([0] * (len(self.bounds) + 1), [0.0]))
            for value in observed:
                value = max(0.0, value)
                counts[bisect_left(self.bounds, value)] += 1
                total[0] += value

    def of(self, **labels: str) -> Distribution:
        """What was seen under these label values so far."""
        nothing = Distribution((0,) * (len(self.bounds) + 1), 0.0)
        return self.series().get(self._values(labels), nothing)

    def series(self) -> dict[Values, Distribution]:
        """All distributions by label values."""
        with self._lock:
            return {
                values: Distribution(tuple(counts), total[0])
                for values, (counts, total) in self._series.items()
            }


class Gauge(Metric):
    """A level that is read when somebody asks; nothing is kept here."""


def table() -> dict[str, Metric]:
    """Every metric by its name, in the order of the table."""
    return dict(_table)


# -- tasks --------------------------------------------------------------------------------------------

TASKS_SUBMITTED = Counter(
    "memos_tasks_submitted_total", "Messages that submit accepted, chained ones included", ("label",)
)
TASKS_SETTLED = Counter(
    "memos_tasks_settled_total", "Runs of messages that the queue settled, by what it made of them",
    ("label", "state"),
)  # fmt: skip
TASK_RETRIES = Counter("memos_task_retries_total", "Failed runs that will be repeated", ("label",))
TASKS_DEAD = Counter("memos_tasks_dead_total", "Messages that were given up", ("label",))
LEASE_LOSSES = Counter(
    "memos_lease_losses_total", "Runs whose result was refused because the lease was gone", ("label",)
)
TASK_TIMEOUTS = Counter(
    "memos_task_timeouts_total", "Runs that took longer than their policy allows", ("label",)
)
TASK_WAITING_SECONDS = Histogram(
    "memos_task_waiting_seconds", "From submit until the handler is called", ("label",), bounds=LONG_S
)
TASK_RUNNING_SECONDS = Histogram(
    "memos_task_running_seconds", "One call of a handler", ("label", "outcome"), bounds=LONG_S
)
QUEUE_MESSAGES = Gauge("memos_queue_messages", "Messages in the queue now", ("label", "state"))
QUEUE_CAPACITY = Gauge("memos_queue_capacity_messages", "Messages that the queue may hold")
QUEUE_LAG_SECONDS = Gauge(
    "memos_queue_lag_seconds", "Seconds for which the oldest waiting message has been ready", ("label",)
)
QUEUE_INSTANCES = Gauge("memos_queue_instances", "Processes that claim from the queue now")
DEAD_LETTERS = Gauge("memos_dead_letters", "Dead letters kept now")
SCHEDULER_RUNNING = Gauge("memos_scheduler_running", "1 while the scheduler of this process runs")
HANDLER_CALLS_RUNNING = Gauge("memos_handler_calls_running", "Handler calls of this process that run now")
WORKERS = Gauge("memos_workers", "Threads of this process that run handlers")

# -- memory -------------------------------------------------------------------------------------------

WORKING_MEMORY_LOOKUPS = Counter(
    "memos_working_memory_lookups_total",
    "Queries by whether working memory sufficed (hit) or recall was needed (miss)",
    ("outcome",),
)
WORKING_MEMORY_CHANGES = Counter(
    "memos_working_memory_changes_total",
    "Memories that came into working memory or left it, by cause",
    ("cause",),
)
WORKING_MEMORY_USES = Counter(
    "memos_working_memory_uses_total",
    "Memories that answers used, by where they stood before the recall: place, ghost, nowhere",
    ("stood",),
)
MEMORIES = Gauge("memos_memories", "Live memories of all cubes", ("area",))
MEMORY_CAPACITY = Gauge("memos_memory_capacity", "Memories that one cube may hold", ("area",))
MEMORY_FILL = Gauge(
    "memos_memory_fill_ratio_max", "Share of its capacity that the fullest cube holds", ("area",)
)
CUBES = Gauge("memos_cubes", "Cubes that hold or held memories")
STORE_BYTES = Gauge("memos_store_bytes", "Bytes of the memory file")

# -- recall -------------------------------------------------------------------------------------------

RECALL_SECONDS = Histogram("memos_recall_seconds", "One recall, by stage", ("stage",), bounds=SHORT_S)
RECALLS_DEGRADED = Counter("memos_recalls_degraded_total", "Recalls that had to do without a part")

# -- models -------------------------------------------------------------------------------------------

MODEL_CALLS = Counter(
    "memos_model_calls_total", "Requests to language models by how they ended", ("model", "outcome")
)
MODEL_TOKENS = Counter(
    "memos_model_tokens_total", "Tokens as the endpoint counts them: in, out, cached", ("model", "direction")
)
MODEL_CALL_SECONDS = Histogram(
    "memos_model_call_seconds", "One request to a language model", ("model",), bounds=LONG_S
)
MODEL_CALLS_SAVED = Counter(
    "memos_model_calls_saved_total", "Requests that were not made, by what made them needless", ("reason",)
)
MODEL_FALLBACKS = Counter(
    "memos_model_fallbacks_total", "Questions without a usable answer, where rules did the work", ("step",)
)
MODEL_OUTPUT_DROPPED = Counter(
    "memos_model_output_dropped_total", "Parts of models' answers that were not believed", ("step",)
)
EMBEDDED_TEXTS = Counter(
    "memos_embedded_texts_total", "Texts that were encoded, or found among the kept vectors", ("outcome",)
)

# -- activation memory ----------------------------------------------------------------------------------

ACTIVATION_LOOKUPS = Counter(
    "memos_activation_lookups_total",
    "Chats by whether tokens of their prompt were reused (hit, miss, untold), and why not",
    ("outcome", "reason"),
)
ACTIVATION_TOKENS = Counter(
    "memos_activation_tokens_total",
    "Tokens of prompts: predicted to be reused, reused, and read in all, the last two as servers tell",
    ("kind",),
)
ACTIVATION_PROMOTIONS = Counter(
    "memos_activation_promotions_total",
    "Looks at whether to prepare a prefix, by what came of them",
    ("outcome", "reason"),
)
ACTIVATION_PREPARE_SECONDS = Histogram(
    "memos_activation_prepare_seconds", "Preparing a prefix", ("how",), bounds=LONG_S
)
ACTIVATION_DROPS = Counter("memos_activation_drops_total", "Prefixes and caches removed, by why", ("reason",))

# -- logs and the server ------------------------------------------------------------------------------

WEB_LOGS = Counter("memos_web_logs_total", "Web logs handed to a sink", ("sink",))
WEB_LOGS_DROPPED = Counter("memos_web_logs_dropped_total", "Web logs that a sink had to drop", ("sink",))
HTTP_REQUESTS = Counter(
    "memos_http_requests_total", "Answered requests by route and status", ("method", "route", "status")
)
HTTP_SECONDS = Histogram(
    "memos_http_request_seconds",
    "From the request's head to the end of its answer",
    ("route",),
    bounds=LONG_S,
)
REFUSALS = Counter(
    "memos_http_refusals_total", "Requests refused before they reached a route, by reason", ("reason",)
)
