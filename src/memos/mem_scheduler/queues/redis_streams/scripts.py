"""The Lua scripts: each is one step of the queue that happens whole or not at all.

All of them, with their common parts (`lua/base.lua` … `commit.lua`), are one library of functions, which the
server keeps made: to make the parts anew costs a script more than its commands. The library is named by the hash
of its text, so that versions stand beside each other, and is sent when the server does not have it (a new or
restarted server, FUNCTION FLUSH). Where functions are refused (an ACL user without them, a server that has none)
each script is called by its hash instead, and sent again when the server has forgotten it (SCRIPT FLUSH).

All but `submit` carry `allow-oom`: a full Redis refuses new work and can still be drained.
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
_NO_WRITES = ("depth", "get", "operators", "rows")
_BEGIN = "Q.begin("
_VERSION = "@VERSION@"
_LAG_LOOK = 32  # of LAG_LOOK_MAX: each is read with its payload


class Scripts:
    """The scripts of one queue. Thread-safe."""

    def __init__(
        self, base: str, *, letters_max: int, statuses_max: int, tokens_max: int, sharded: bool = False
    ) -> None:
        """`sharded`: wake-ups go over the channels of a cluster's shards."""
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
            f"local PUBLISH = '{'SPUBLISH' if sharded else 'PUBLISH'}'\n"
            f"local INSTANCES_MAX, SEEN_S, LAG_LOOK = {INSTANCES_MAX}, {INSTANCE_SEEN_S}, {_LAG_LOOK}\n"
        )
        common = "".join(texts[name] for name in _COMMON)
        steps = {name: f"local function step()\n{texts[name]}end\n" for name in _NAMES}
        self._texts = {
            name: f"#!lua{_shebang_flags(name)}\nlocal GIVEN = ARGV\n{constants}"
            f"{only_needed(common, f'{steps[name]}{_BEGIN}')}{steps[name]}"
            f"Q.begin(KEYS[1], GIVEN)\nreturn step()\n"
            for name in _NAMES
        }
        self._hashes = {name: _sha1(text) for name, text in self._texts.items()}
        body = constants + common + "".join(f"do\n{steps[name]}{_registered(name)}end\n" for name in _NAMES)
        version = _sha1(body)[:12]
        self._library = f"#!lua name=memos_queue_{version}\n{body.replace(_VERSION, version)}"
        self._functions = {name: f"memos_{name}_{version}" for name in _NAMES}
        self._has_functions = True  # until the server refuses them

    def run(self, ask: Callable[..., Any], name: str, *args: Any) -> Any:
        """Run the script `name`; `ask` sends a command. Raises what redis-py raises."""
        if self._has_functions:
            try:
                return ask("FCALL", self._functions[name], 1, self._base, *args)
            except redis.exceptions.ResponseError as error:
                if not self._may_be_unknown(error):
                    raise
            if self._send_library(ask):
                return ask("FCALL", self._functions[name], 1, self._base, *args)
        try:
            return ask("EVALSHA", self._hashes[name], 1, self._base, *args)
        except redis.exceptions.NoScriptError:
            # In one step, which also makes it known: between two it could be forgotten again.
            return ask("EVAL", self._texts[name], 1, self._base, *args)

    def _may_be_unknown(self, error: redis.exceptions.ResponseError) -> bool:
        """Whether nothing ran because the server has not the function, or has no functions for us."""
        if _are_refused(error):
            self._has_functions = False
            return True
        return str(error).startswith("Function not found")

    def _send_library(self, ask: Callable[..., Any]) -> bool:
        """Whether the functions can be called now. A full server takes no library, but runs scripts."""
        if not self._has_functions:
            return False
        try:
            ask("FUNCTION", "LOAD", self._library)
        except redis.exceptions.OutOfMemoryError:
            return False
        except redis.exceptions.ResponseError as error:
            if _are_refused(error):
                self._has_functions = False
                return False
            if "already exists" not in str(error):
                raise
        return True


def _are_refused(error: redis.exceptions.ResponseError) -> bool:
    """Whether it is the command itself that may not run; a command of a function may be refused half-way."""
    text = str(error)
    if isinstance(error, redis.exceptions.NoPermissionError):
        return "run the 'fcall'" in text or "run the 'function" in text
    return text.lower().startswith(("unknown command", "unknown subcommand"))


def _shebang_flags(name: str) -> str:
    flags = _flags(name)
    return f" flags={','.join(flags)}" if flags else ""


def _flags(name: str) -> tuple[str, ...]:
    if name == "submit":
        return ()
    return ("no-writes", "allow-oom") if name in _NO_WRITES else ("allow-oom",)


def _registered(name: str) -> str:
    """The function of the library that runs `step`; what a call knew is not kept until the next."""
    flags = ", ".join(f"'{flag}'" for flag in _flags(name))
    return (
        f"redis.register_function{{ function_name = 'memos_{name}_{_VERSION}', flags = {{ {flags} }},\n"
        "  callback = function(keys, given)\n"
        "    Q.begin(keys[1], given)\n"
        "    local reply = step()\n"
        "    C, ARGV = nil, nil\n"
        "    return reply\n"
        "  end }\n"
    )


def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


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
