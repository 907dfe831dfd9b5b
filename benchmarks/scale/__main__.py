"""The rows of `python -m benchmarks.scale`."""

from __future__ import annotations

import os
import random

from benchmarks.report import Bar, Options, Row, main
from benchmarks.scale import costs, waiting
from benchmarks.scale.machines import Assumptions, needed

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
    turn, item_bytes = 0.0, 0.0
    for size in SIZES:
        if quick and size > 100:
            rows += [
                Row(f"{kind}_items_{size}", None, None, "CPU ms", "--quick") for kind in ("recall", "turn")
            ]
            continue
        chance = random.Random(SEED)
        with costs.installation() as runtime:
            costs.fill(runtime, "cube", size, chance)
            item_bytes = costs.bytes_an_item(runtime, size)
            recall = costs.recall_ms(runtime, ["cube"], queries=20 if quick else 100, chance=chance)
            turn = costs.turn_ms(runtime, "cube", turns=5 if quick else 40, chance=chance)
        rows.append(Row(f"recall_items_{size}", None, recall, "CPU ms", "one search, its encoding included"))
        rows.append(
            Row(f"turn_items_{size}", None, turn, "CPU ms", "add, search, query, answer and what follows")
        )
        if size == 10_000 or quick:
            turn_at, bytes_at = turn, item_bytes
    rows += _cubes(quick=quick)
    rows += _on_postgres(quick=quick)
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
    given = Assumptions()
    for users in USERS:
        answer = needed(users, turn_ms=turn_at, item_bytes=bytes_at, given=given)
        rows.append(
            Row(
                f"machines_{users:.0e}".replace("+0", ""),
                None,
                answer.machines,
                f"of {given.cores} cores",
                f"{answer.turns_a_second:,.0f} turns/s at the peak, {answer.cores:,.0f} cores, {answer.stored_tb:,.2f} TB",
            )
        )
    return rows


def _on_postgres(*, quick: bool) -> list[Row]:
    """SQLite and PostgreSQL in turn. Also by the clock: a server works in processes of its own, and is waited for."""
    url = os.environ.get(costs.STORE_URL, "")
    rows = []
    for size in POSTGRES_SIZES:
        for backend, where in (("sqlite", ""), ("postgres", url)):
            names = [f"{backend}_{kind}_items_{size}" for kind in ("recall", "turn")]
            if not url or (quick and size > 100):
                why = "--quick" if url else f"{costs.STORE_URL} is not set"
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
