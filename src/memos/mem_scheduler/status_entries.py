"""The statuses that users' own programs write: a bounded table in memory, or one on Redis for all processes.

Both keep an entry (a mapping of documented texts) by user and item, know the items of a user and of a
business task, and forget what is older than 7 days or beyond ENTRIES_MAX. On Redis every write is one
script: writers of any number of processes never lose each other's fields.

Keys begin with "memos:status:{ms:0}:"; ids are percent-encoded, so any character is safe.

    tasks:<user>/<cube>        hash: item -> JSON; one for each lane
    items:<user>               hash: item -> "<cube>/<business task>"
    when:<user>                sorted set: item by the time of its submit
    business:<user>/<task>     set of items
    users                      sorted set: user by the time at which its keys end
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import quote, unquote

from memos.errors import QueueUnavailable

ENTRIES_MAX = 10_000  # in memory: of all users; on Redis: of one user
KEPT_S = 7 * 86_400
PREFIX = "memos:status:{ms:0}"

Entry = dict[str, Any]


class StatusEntries(Protocol):
    """Thread-safe. Entries that come out are the caller's own."""

    def submit(self, user_id: str, item_id: str, entry: Entry, *, at: float) -> None:
        """A new entry, in the place of one of the same item. `at` is wall time."""
        ...

    def write(self, user_id: str, item_id: str, fields: Mapping[str, Any], *, at: float) -> None:
        """Set fields of an entry; nothing happens where there is none."""
        ...

    def get(self, user_id: str, item_id: str) -> Entry | None: ...

    def of_user(self, user_id: str) -> dict[str, Entry]:
        """By item."""
        ...

    def of_business_task(self, user_id: str, task_id: str) -> dict[str, Entry]:
        """By item."""
        ...

    def everybody(self, *, at: float) -> dict[str, dict[str, Entry]]:
        """By item, by user."""
        ...

    def forget(self, user_id: str) -> int:
        """Drop every entry of a user; how many there were."""
        ...


class MemoryEntries:
    """In this process; the oldest leave first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: OrderedDict[tuple[str, str], Entry] = OrderedDict()

    def submit(self, user_id: str, item_id: str, entry: Entry, *, at: float) -> None:
        with self._lock:
            self._entries[(user_id, item_id)] = dict(entry)
            self._entries.move_to_end((user_id, item_id))
            while len(self._entries) > ENTRIES_MAX:
                self._entries.popitem(last=False)

    def write(self, user_id: str, item_id: str, fields: Mapping[str, Any], *, at: float) -> None:
        with self._lock:
            entry = self._entries.get((user_id, item_id))
            if entry is not None:
                self._entries[(user_id, item_id)] = {**entry, **fields}

    def get(self, user_id: str, item_id: str) -> Entry | None:
        with self._lock:
            entry = self._entries.get((user_id, item_id))
        return dict(entry) if entry is not None else None

    def of_user(self, user_id: str) -> dict[str, Entry]:
        with self._lock:
            return {item: dict(entry) for (user, item), entry in self._entries.items() if user == user_id}

    def of_business_task(self, user_id: str, task_id: str) -> dict[str, Entry]:
        return {
            item: entry
            for item, entry in self.of_user(user_id).items()
            if entry.get("business_task_id") == task_id
        }

    def everybody(self, *, at: float) -> dict[str, dict[str, Entry]]:
        answer: dict[str, dict[str, Entry]] = defaultdict(dict)
        with self._lock:
            for (user, item), entry in self._entries.items():
                answer[user][item] = dict(entry)
        return dict(answer)

    def forget(self, user_id: str) -> int:
        with self._lock:
            gone = [key for key in self._entries if key[0] == user_id]
            for key in gone:
                del self._entries[key]
        return len(gone)


class RedisEntries:
    """On a Redis server, for every process that has a client of it. Raises QueueUnavailable."""

    def __init__(self, client: Any, *, prefix: str = PREFIX) -> None:
        """`client` is a synchronous client of redis-py, whether it decodes or not."""
        self._prefix = f"{prefix}:"
        self._submit = client.register_script(_COMMON + _SUBMIT)
        self._write = client.register_script(_COMMON + _WRITE)
        self._read = client.register_script(_READ)
        self._forget = client.register_script(_COMMON + _FORGET)

    def submit(self, user_id: str, item_id: str, entry: Entry, *, at: float) -> None:
        cube, task = entry.get("mem_cube_id", ""), entry.get("business_task_id", "")
        self._call(
            self._submit,
            _encoded(user_id),
            _encoded(item_id),
            at,
            _json(entry),
            f"{_encoded(cube)}/{_encoded(task)}",
        )

    def write(self, user_id: str, item_id: str, fields: Mapping[str, Any], *, at: float) -> None:
        self._call(self._write, _encoded(user_id), _encoded(item_id), at, _json(fields))

    def get(self, user_id: str, item_id: str) -> Entry | None:
        return self._entries("one", user_id, item_id).get(item_id)

    def of_user(self, user_id: str) -> dict[str, Entry]:
        return self._entries("user", user_id)

    def of_business_task(self, user_id: str, task_id: str) -> dict[str, Entry]:
        return self._entries("business", user_id, task_id)

    def everybody(self, *, at: float) -> dict[str, dict[str, Entry]]:
        users = self._call(self._read, "users", at)
        found = {user: self.of_user(user) for user in map(_decoded, users)}
        return {user: entries for user, entries in found.items() if entries}

    def forget(self, user_id: str) -> int:
        return int(self._call(self._forget, _encoded(user_id), "", 0))

    def _entries(self, what: str, *ids: str) -> dict[str, Entry]:
        flat = self._call(self._read, what, *map(_encoded, ids))
        return {
            _decoded(item): json.loads(text) for item, text in zip(flat[::2], flat[1::2], strict=True) if text
        }

    def _call(self, script: Any, *arguments: object) -> Any:
        from redis.exceptions import RedisClusterException, RedisError

        try:
            return script(keys=[self._prefix], args=[*arguments, KEPT_S, ENTRIES_MAX])
        except (RedisError, RedisClusterException, OSError) as error:
            raise QueueUnavailable(f"the statuses on Redis cannot be reached: {error}") from error


def _encoded(text: str) -> str:
    return quote(text, safe="", errors="surrogatepass")


def _decoded(text: str | bytes) -> str:
    return unquote(text.decode("ascii") if isinstance(text, bytes) else text, errors="surrogatepass")


def _json(entry: Mapping[str, Any]) -> str:
    return json.dumps(dict(entry), ensure_ascii=False).encode(errors="replace").decode()


# ARGV of the writing scripts: user, item, wall time, JSON, …, seconds kept, entries kept.
_COMMON = """
local call, p, user, item, at = redis.call, KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])
local kept_s, entries_max = tonumber(ARGV[#ARGV - 1]), tonumber(ARGV[#ARGV])
local items, when = p .. 'items:' .. user, p .. 'when:' .. user
local function lane_and_task(where)
  local cube, task = string.match(where, '^([^/]*)/(.*)$')
  return p .. 'tasks:' .. user .. '/' .. cube, task ~= '' and p .. 'business:' .. user .. '/' .. task
end
local function drop(gone)
  local where = call('HGET', items, gone)
  if not where then return end
  local lane, task = lane_and_task(where)
  call('HDEL', lane, gone)
  if task then call('SREM', task, gone) end
  call('HDEL', items, gone)
  call('ZREM', when, gone)
end
local function keep(lane, task)
  for _, key in ipairs({lane, items, when}) do call('EXPIRE', key, kept_s) end
  if task then call('EXPIRE', task, kept_s) end
  call('ZADD', p .. 'users', string.format('%.3f', at + kept_s), user)
  call('EXPIRE', p .. 'users', kept_s)
end
"""
_SUBMIT = """
drop(item)
local lane, task = lane_and_task(ARGV[5])
call('HSET', lane, item, ARGV[4])
call('HSET', items, item, ARGV[5])
call('ZADD', when, ARGV[3], item)
if task then call('SADD', task, item) end
for _, old in ipairs(call('ZRANGEBYSCORE', when, '-inf', string.format('%.3f', at - kept_s), 'LIMIT', 0, 100)) do
  drop(old)
end
local over = call('ZCARD', when) - entries_max
if over > 0 then
  for _, old in ipairs(call('ZRANGE', when, 0, math.min(over, 100) - 1)) do drop(old) end
end
call('ZREMRANGEBYSCORE', p .. 'users', '-inf', string.format('%.3f', at))
keep(lane, task)
return 1
"""
_WRITE = """
local where = call('HGET', items, item)
if not where then return 0 end
local lane, task = lane_and_task(where)
local text = call('HGET', lane, item)
if not text then return 0 end
local entry = cjson.decode(text)
for name, value in pairs(cjson.decode(ARGV[4])) do entry[name] = value end
call('HSET', lane, item, cjson.encode(entry))
keep(lane, task)
return 1
"""
_FORGET = """
local gone = call('HKEYS', items)
for _, one in ipairs(gone) do drop(one) end
call('DEL', items, when)
call('ZREM', p .. 'users', user)
return #gone
"""
_READ = """
local call, p, what, user = redis.call, KEYS[1], ARGV[1], ARGV[2]
if what == 'users' then return call('ZRANGEBYSCORE', p .. 'users', '(' .. user, '+inf') end
local items, answer = p .. 'items:' .. user, {}
local function add(item, where)
  local cube = string.match(where, '^([^/]*)/')
  answer[#answer + 1] = item
  answer[#answer + 1] = call('HGET', p .. 'tasks:' .. user .. '/' .. cube, item) or ''
end
if what == 'user' then
  local all = call('HGETALL', items)
  for n = 1, #all, 2 do add(all[n], all[n + 1]) end
  return answer
end
local wanted = {ARGV[3]}
if what == 'business' then wanted = call('SMEMBERS', p .. 'business:' .. user .. '/' .. ARGV[3]) end
for _, item in ipairs(wanted) do
  local where = call('HGET', items, item)
  if where then add(item, where) end
end
return answer
"""
