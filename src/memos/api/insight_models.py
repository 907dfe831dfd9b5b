"""Answers for who looks at a server: who asks, which cubes there are, how busy it is, what working memory did."""

from __future__ import annotations

from typing_extensions import TypedDict  # pydantic refuses the one of `typing` before Python 3.12

from memos.api.model_base import BaseResponse


class Me(TypedDict):
    """Who asks. `users` and `cubes`: the scope of the key, null for all of them."""

    role: str
    name: str
    users: list[str] | None
    cubes: list[str] | None
    may_write: bool


class MeResponse(BaseResponse[Me]):
    """What the key of this request may do."""


class Areas(TypedDict):
    """Live memories by area; of capacities: how many a cube may hold, `archived` without a bound."""

    long_term: int
    user: int
    preference: int
    working: int
    archived: int | None


class CubeRow(TypedDict):
    """One cube and how much it holds."""

    cube_id: str
    seq: int
    sizes: Areas


class CubesResponse(BaseResponse[list[CubeRow]]):
    """Cubes by name, up to `limit`; `total` is how many there are in the scope."""

    total: int = 0
    capacities: Areas | None = None


class Workers(TypedDict):
    """Threads of this process that run handlers; `calls` runs now, `instances` claim from the queue."""

    running: bool
    threads: int
    calls: int
    instances: int


class Hits(TypedDict):
    """How often something was found, and how often not, since the process began."""

    hits: int
    misses: int


class Load(TypedDict):
    """How busy this process is.

    `embeddings`: texts whose vector was kept; `working_memory`: queries that working memory sufficed for.
    """

    workers: Workers
    queue_held: int
    queue_capacity: int
    embeddings: Hits
    working_memory: Hits
    store_bytes: int | None


class LoadResponse(BaseResponse[Load]):
    """Workers, queue and caches."""


class HeldPlace(TypedDict):
    """One place of working memory, and why the memory has it."""

    memory_id: str
    memory: str
    memory_type: str
    user_id: str
    score: float
    reason: str
    admitted_at: str
    use_count: int


class WorkingMove(TypedDict):
    """A memory that came in or left, and why. `memory` is null once it was deleted."""

    memory_id: str
    memory: str | None
    reason: str


class WorkingChange(TypedDict):
    """One replacement of working memory, as the journal has it; `n` is the number of its row."""

    n: int
    at: str
    version: int
    reason: str
    label: str
    trace_id: str
    came: list[WorkingMove]
    left: list[WorkingMove]
    kept: int


class WorkingHistory(TypedDict):
    """The places of a cube, best first, and its last replacements, newest first.

    `seq` is the cube's sequence number at the time; with it as `known_seq` the next request is answered
    `unchanged`, and without places, as long as nothing happened to the cube.
    """

    cube_id: str
    seq: int
    unchanged: bool
    version: int
    capacity: int
    places: list[HeldPlace]
    history: list[WorkingChange]


class WorkingHistoryResponse(BaseResponse[WorkingHistory]):
    """Working memory and its history. `next_before` is where the older part goes on; null: that was all."""

    next_before: int | None = None
