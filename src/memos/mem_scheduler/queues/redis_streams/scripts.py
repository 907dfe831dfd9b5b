"""The Lua scripts: each is one step of the queue that happens whole or not at all.

A script is made of the common parts (`lua/base.lua` … `commit.lua`) and its own file, is called by its
hash and sent again when the server has forgotten it (a restart, SCRIPT FLUSH). All but `submit` carry
`allow-oom`: a full Redis refuses new work and can still be drained.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from importlib import resources
from typing import Any

import redis

from memos.mem_scheduler.orchestrator import TaskPolicy, default_policy
from memos.mem_scheduler.queues.base import INSTANCE_SEEN_S, INSTANCES_MAX
from memos.mem_scheduler.schemas.task_schemas import CLASS_OF_LABEL

_COMMON = ("base", "lanes", "fair", "settle", "leases", "enter", "commit")
_NAMES = (
    "submit",
    "claim",
    "finish",
    "renew",
    "cancel",
    "clear",
    "policy",
    "dead",
    "depth",
    "get",
    "operators",
)
_READS = dict.fromkeys(("depth", "get", "operators"), " flags=no-writes,allow-oom")
_FLAGS = {"submit": "", **_READS}
_LAG_LOOK = 32  # of LAG_LOOK_MAX: each is read with its payload


class Scripts:
    """The scripts of one queue. Thread-safe."""

    def __init__(self, base: str, *, letters_max: int, statuses_max: int, tokens_max: int) -> None:
        self._base = base
        folder = resources.files("memos.mem_scheduler.queues.redis_streams") / "lua"
        texts = {name: (folder / f"{name}.lua").read_text(encoding="utf-8") for name in (*_COMMON, *_NAMES)}
        built_in = ", ".join(
            f"[ {_lua_text(label)} ] = {_lua_text(json.dumps(asdict(default_policy(label))))}"
            for label in CLASS_OF_LABEL
        )
        constants = (
            f"local BUILT_IN = {{ {built_in} }}\n"
            f"local UNORDERED = {_lua_text(json.dumps(asdict(TaskPolicy())))}\n"
            f"local LETTERS_MAX, STATUSES_MAX, TOKENS_MAX = {letters_max}, {statuses_max}, {tokens_max}\n"
            f"local INSTANCES_MAX, SEEN_S, LAG_LOOK = {INSTANCES_MAX}, {INSTANCE_SEEN_S}, {_LAG_LOOK}\n"
        )
        common = constants + "".join(texts[name] for name in _COMMON)
        self._texts = {
            name: f"#!lua{_FLAGS.get(name, ' flags=allow-oom')}\n{common}{texts[name]}" for name in _NAMES
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


def _lua_text(text: str) -> str:
    return f"[==[{text}]==]"
