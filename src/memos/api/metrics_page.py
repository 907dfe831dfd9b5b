"""`/metrics`: what `memos.metrics` counted, and the levels of one runtime, as Prometheus reads them.

Levels are read when the page is asked for. Those of the cubes cost one look at every cube, up to
`CUBES_MAX`, and are kept for `LEVELS_KEPT_S`, so that several readers do not cost several scans. A part
that cannot be read now (a locked store) leaves its gauges out; the counters are always there.
"""

from __future__ import annotations

import threading
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from memos import log, metrics
from memos.errors import MemosError
from memos.metrics import Gauge, Values
from memos.runtime import Runtime

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
CUBES_MAX = 10_000
LEVELS_KEPT_S = 15.0

Levels = dict[Values, float]

logger = log.get_logger(__name__)


class MetricsPage(Collector):
    """The page of one runtime. Thread-safe.

    shared: whether it also tells the levels of queue and store, which all processes have in common. A server
    does; of the workers beside it each tells its own, so that a sum over processes counts nothing twice.
    """

    def __init__(self, runtime: Runtime, *, shared: bool = True) -> None:
        self._runtime = runtime
        self.registry = CollectorRegistry()
        self.registry.register(self)
        self._lock = threading.Lock()
        self._kept: dict[Gauge, Levels] = {}
        self._kept_at: float | None = None
        # The parts, each with the reading of its own: one that fails does not take the others along.
        self._parts: tuple[Callable[[], dict[Gauge, Levels]], ...] = (
            (self._queue, self._scheduler, self._memories_kept) if shared else (self._scheduler,)
        )

    def text(self) -> bytes:
        """The whole page, in the text format 0.0.4."""
        return generate_latest(self.registry)

    def collect(self) -> Iterable[Metric]:
        """Every metric of the table, in the vendor's form."""
        levels = self._levels()
        for metric in metrics.table().values():
            yield from _family(metric, levels)

    def _levels(self) -> dict[Gauge, Levels]:
        found: dict[Gauge, Levels] = {}
        for part in self._parts:
            try:
                found |= part()
            except MemosError as error:
                logger.warning("metrics.part_unreadable", error=type(error).__name__)
        return found

    def _queue(self) -> dict[Gauge, Levels]:
        queue = self._runtime.queue
        depth = queue.depth()
        messages: Tally[Values] = Tally()
        lag: dict[Values, float] = {}
        for lane in depth.lanes:
            states = {
                "queued": lane.queued,
                "delayed": lane.delayed,
                "parked": lane.parked,
                "running": lane.running,
            }
            for state, counts in states.items():
                for label, count in counts.items():
                    messages[(label, state)] += count
            for label, oldest_s in lane.oldest_s.items():
                name = (label,) if (label,) in lag or len(lag) < metrics.SERIES_MAX else (metrics.OTHER,)
                lag[name] = max(lag.get(name, 0.0), oldest_s)
        return {
            metrics.QUEUE_MESSAGES: _bounded(messages),
            metrics.QUEUE_CAPACITY: {(): queue.messages_max},
            metrics.DEAD_LETTERS: {(): depth.dead},
            metrics.QUEUE_LAG_SECONDS: lag,
            metrics.QUEUE_INSTANCES: {(): len(queue.instances())},
        }

    def _scheduler(self) -> dict[Gauge, Levels]:
        scheduler = self._runtime.scheduler
        return {
            metrics.SCHEDULER_RUNNING: {(): float(scheduler._running)},
            metrics.HANDLER_CALLS_RUNNING: {(): len(scheduler.get_running_tasks())},
            metrics.WORKERS: {(): scheduler.config.workers},
        }

    def _memories_kept(self) -> dict[Gauge, Levels]:
        with self._lock:
            now = self._runtime.clock.monotonic()
            if self._kept_at is None or now - self._kept_at >= LEVELS_KEPT_S:
                self._kept = self._memories()
                self._kept_at = now
            return self._kept

    def _memories(self) -> dict[Gauge, Levels]:
        store = self._runtime.store
        may = store.capacities
        capacity = {
            "long_term": may.long_term,
            "user": may.user,
            "preference": may.preference,
            "working": may.working,
        }
        live = dict.fromkeys((*capacity, "archived"), 0.0)
        fill = dict.fromkeys(capacity, 0.0)
        cubes = store.cubes()
        for cube_id in cubes[:CUBES_MAX]:
            sizes = store.sizes(cube_id)
            held = {
                "long_term": sizes.long_term,
                "user": sizes.user,
                "preference": sizes.preference,
                "working": sizes.working,
            }
            live["archived"] += sizes.archived
            for area, count in held.items():
                live[area] += count
                fill[area] = max(fill[area], count / capacity[area])
        levels: dict[Gauge, Levels] = {
            metrics.CUBES: {(): len(cubes)},
            metrics.MEMORIES: {(area,): count for area, count in live.items()},
            metrics.MEMORY_CAPACITY: {(area,): count for area, count in capacity.items()},
            metrics.MEMORY_FILL: {(area,): share for area, share in fill.items()},
        }
        path = self._runtime.settings.store_path
        if self._runtime.settings.store.url is None and path.is_file():
            levels[metrics.STORE_BYTES] = {(): path.stat().st_size}
        return levels


def _family(metric: metrics.Metric, levels: dict[Gauge, Levels]) -> Iterator[Metric]:
    if isinstance(metric, metrics.Counter):
        counter = CounterMetricFamily(metric.name.removesuffix("_total"), metric.text, labels=metric.labels)
        for values, count in metric.series().items():
            counter.add_metric(values, count)
        yield counter
    elif isinstance(metric, metrics.Histogram):
        histogram = HistogramMetricFamily(metric.name, metric.text, labels=metric.labels)
        for values, seen in metric.series().items():
            histogram.add_metric(values, _buckets(metric.bounds, seen.counts), seen.sum)
        yield histogram
    elif isinstance(metric, Gauge):
        gauge = GaugeMetricFamily(metric.name, metric.text, labels=metric.labels)
        for values, level in levels.get(metric, {}).items():
            gauge.add_metric(values, level)
        yield gauge


def _buckets(bounds: tuple[float, ...], counts: tuple[int, ...]) -> list[tuple[str, float]]:
    """Cumulative counts by upper bound, the last one +Inf."""
    names = [*(repr(float(bound)) for bound in bounds), "+Inf"]
    rising, below = [], 0
    for name, count in zip(names, counts, strict=True):
        below += count
        rising.append((name, float(below)))
    return rising


def _bounded(messages: Tally[Values]) -> Levels:
    """The largest `SERIES_MAX` levels; the rest as one."""
    ranked = messages.most_common()
    levels: Levels = {values: float(count) for values, count in ranked[: metrics.SERIES_MAX]}
    rest = sum(count for _, count in ranked[metrics.SERIES_MAX :])
    return levels | ({(metrics.OTHER, metrics.OTHER): float(rest)} if rest else {})
