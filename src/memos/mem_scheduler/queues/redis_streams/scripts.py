"""The Lua scripts: each is one step of the queue that happens whole or not at all.

A script is made of the common parts (`lua/base.lua` … `commit.lua`) and its own file, is called by its
hash and sent again when the server has forgotten it (a restart, SCRIPT FLUSH). All but `submit` carry
`allow-oom`: a full Redis refuses new work and can still be drained.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from importlib import resources
from typing import Any

import redis

from memos.mem_scheduler.orchestrator import BUILT_IN_CLASSES, REGISTERED_DEFAULT, TaskPolicy
from memos.mem_scheduler.queues.base import INSTANCE_SEEN_S, INSTANCES_MAX
from memos.mem_scheduler.schemas.task_schemas import CLASS_OF_LABEL, TURN_CLASS

_COMMON = ("base", "lanes", "fair", "settle", "leases", "enter", "commit")
_NAMES = (
    "submit",
    "claim",
    "finish",
    "renew",
    "cancel",
    "clear",
    "forget",
    "policy",
    "dead",
    "depth",
    "get",
    "operators",
    "rows",
)
_READS = dict.fromkeys(("depth", "get", "operators", "rows"), " flags=no-writes,allow-oom")
_FLAGS = {"submit": "", **_READS}
_LAG_LOOK = 32  # of LAG_LOOK_MAX: each is read with its payload


class Scripts:
    """The scripts of one queue. Thread-safe."""

    def __init__(self, base: str, *, letters_max: int, statuses_max: int, tokens_max: int) -> None:
        self._base = base
        folder = resources.files("memos.mem_scheduler.queues.redis_streams") / "lua"
        texts = {name: (folder / f"{name}.lua").read_text(encoding="utf-8") for name in (*_COMMON, *_NAMES)}
        constants = (
            f"local BUILT_IN = {{ {', '.join(f'[{_lua(label)}] = true' for label in CLASS_OF_LABEL)} }}\n"
            f"local function default_policy(label)\n"
            f"  if BUILT_IN[label] then return {_policy(BUILT_IN_CLASSES[TURN_CLASS])} end\n"
            f"  return {_policy(REGISTERED_DEFAULT)}\n"
            "end\n"
            f"local LETTERS_MAX, STATUSES_MAX, TOKENS_MAX = {letters_max}, {statuses_max}, {tokens_max}\n"
            f"local INSTANCES_MAX, SEEN_S, LAG_LOOK = {INSTANCES_MAX}, {INSTANCE_SEEN_S}, {_LAG_LOOK}\n"
        )
        common = "".join(texts[name] for name in _COMMON)
        self._texts = {
            name: f"#!lua{_FLAGS.get(name, ' flags=allow-oom')}\n{constants}"
            f"{only_needed(common, texts[name])}{texts[name]}"
            for name in _NAMES
        }
        self._hashes = {
            name: hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
            for name, text in self._texts.items()
        }

    def run(self, ask: Callable[..., Any], name: str, *args: Any) -> Any:
        """Run the script `name`; `ask` sends a command. Raises what redis-py raises."""
        try:
            return ask("EVALSHA", self._hashes[name], 1, self._base, *args)
        except redis.exceptions.NoScriptError:
            # In one step, which also makes it known: between two it could be forgotten again.
            return ask("EVAL", self._texts[name], 1, self._base, *args)


def only_needed(common: str, script: str) -> str:
    """`common` without the functions that `script` does not reach: each is made anew at every call.

    A function begins with "function Q.name(" at the start of a line and ends with a line "end", or on its
    own line; what stands between functions is kept.
    """
    bodies: dict[str, str] = {}
    pieces: list[tuple[str, str]] = []  # a function's name, or "", and its text
    end = 0
    for found in _FUNCTION.finditer(common):
        pieces += [("", common[end : found.start()]), (found["name"], found[0])]
        bodies[found["name"]] = found[0]
        end = found.end()
    pieces.append(("", common[end:]))
    needed: set[str] = set()
    fresh = set(_CALLED.findall(script)) & bodies.keys()
    while fresh:
        needed |= fresh
        fresh = {name for one in fresh for name in _CALLED.findall(bodies[one])} & bodies.keys() - needed
    return "".join(text for name, text in pieces if not name or name in needed)


_FUNCTION = re.compile(r"(?ms)^function Q\.(?P<name>\w+)\((?:[^\n]*\bend\n|.*?^end\n)")
_CALLED = re.compile(r"\bQ\.(\w+)\(")


def _policy(policy: TaskPolicy) -> str:
    """A policy as the scripts read it, written in Lua."""
    fields = ("ordered", "concurrency", "coalesce", "min_idle_ms", "max_recoveries", "block_s_max")
    return f"{{ {', '.join(f'{name} = {_lua(getattr(policy, name))}' for name in fields)} }}"


def _lua(value: object) -> str:
    return json.dumps(value)  # texts, numbers and truth are written the same
