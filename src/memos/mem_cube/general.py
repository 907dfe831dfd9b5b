"""`GeneralMemCube`: one cube as an object, with its areas, that can be dumped to a folder and loaded.

`text_mem` and `pref_mem` are views of the cube in the runtime's store, so a cube object is cheap and what
one object changes every other one sees. `act_mem` is a `KVCacheMemory` where the configuration names `kv_cache`, else
None; it is the object's own, starts empty, and gives nothing away that was made of a memory which changed since. `para_mem` is None: there is no parametric memory. `dump` writes one consistent state; `load` brings it into an empty cube in one
transaction. Everything a memory says of itself comes back, but for its row version, which counts the
changes of a row in its own store, and for orders and secrets, which are held in quarantine unless the file
is trusted. Deleted memories do not travel, nor do caches, which may hold what was deleted since: `act_mem` has
a dump of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from memos import context, log
from memos.clock import utc
from memos.configs.mem_cube import ABSENT, ActivationConfigFactory, GeneralMemCubeConfig
from memos.errors import ConfigError, InvalidInput, VersionConflict
from memos.mem_cube.bundle import FILE_NAME, Bundle, holds_bundle, read_bundle, write_bundle
from memos.mem_scheduler.schemas.message_schemas import check_id
from memos.memory.cube import CubeParts, TextMemory
from memos.memory.held import PREFIX as HELD
from memos.memory.item import ItemStatus, MemoryItem, MemoryKind
from memos.memory.quarantine import inspect
from memos.memory.store import AddAlias, AddItems, Cause, Change, IndexedItem, ItemFilter, ReplaceWorking

if TYPE_CHECKING:
    from memos.memory.activation.kv_memory import KVCacheMemory
    from memos.runtime import Runtime

TEXT_KINDS = (MemoryKind.LONG_TERM, MemoryKind.USER, MemoryKind.WORKING)
PREFERENCE_KINDS = (MemoryKind.PREFERENCE,)
PAGE_SIZE = 500
SNAPSHOT_TRIES = 5
FINDINGS_NAMED = 3  # in the reason of one item
_KEPT = tuple(status for status in ItemStatus if status is not ItemStatus.DELETED)

logger = log.get_logger(__name__)


class GeneralMemCube:
    """See the module docstring. `runtime` is the process's own where none is given."""

    para_mem: None = None

    def __init__(
        self, config: GeneralMemCubeConfig | str | None = None, *, runtime: Runtime | None = None
    ) -> None:
        if isinstance(config, str):
            config = GeneralMemCubeConfig(cube_id=config)
        self.config = config or GeneralMemCubeConfig()
        self.cube_id = check_id("mem_cube_id", self.config.cube_id)
        if runtime is None:
            from memos.runtime import current

            runtime = current()
        self.runtime = runtime
        parts = CubeParts(
            self.runtime.store,
            self.runtime.indexer,
            self.runtime.retriever,
            self.runtime.clock,
            lambda: str(uuid4()),
        )
        self.text_mem = TextMemory(self.cube_id, parts, kinds=TEXT_KINDS)
        wanted = self.config.pref_mem is not None and self.config.pref_mem.backend != ABSENT
        self.pref_mem = TextMemory(self.cube_id, parts, kinds=PREFERENCE_KINDS) if wanted else None
        self.act_mem = _caches(self.config.act_mem, self.runtime, self.cube_id)

    @classmethod
    def init_from_dir(
        cls,
        folder: str | Path,
        *,
        mem_cube_id: str | None = None,
        runtime: Runtime | None = None,
        trusted: bool = False,
    ) -> GeneralMemCube:
        """The cube that a dumped folder holds, loaded under its own id or under `mem_cube_id`.

        `trusted` as for `load`. Raises InvalidInput, StoreError; then nothing was stored.
        """
        bundle = read_bundle(_folder(folder))
        cube = cls(mem_cube_id or bundle.cube_id, runtime=runtime)
        cube._restore(bundle, trusted=trusted)
        return cube

    @classmethod
    def init_from_remote_repo(cls, repo: str, **options: Any) -> GeneralMemCube:
        """Documented, and refused: nothing is fetched from the network. Raises ConfigError."""
        raise ConfigError(
            f"repository {repo!r} is not reachable here: fetch it yourself and give the folder to "
            "GeneralMemCube.init_from_dir"
        )

    def load(self, folder: str | Path, *, trusted: bool = False) -> None:
        """Bring a dumped cube into this one, which must be empty. All of it or nothing.

        What holds orders or secrets is held in quarantine, whatever the file says of it, as it would be had
        it been added here; `trusted` (a dump of one's own) takes every state as it was dumped.
        Raises InvalidInput (this cube or these ids hold memories already), StoreCorrupt, SchemaTooNew.
        """
        self._restore(read_bundle(_folder(folder)), trusted=trusted)

    def dump(self, folder: str | Path) -> Path:
        """Write the cube to `folder`; returns the file. An older dump of the same cube is replaced.

        Raises InvalidInput when the folder holds another cube, VersionConflict when the cube was changed
        faster than it could be read: try again.
        """
        target = _folder(folder)
        if holds_bundle(target):
            there = read_bundle(target).cube_id
            if there != self.cube_id:
                raise InvalidInput(f"{target} holds cube {there!r}; dump {self.cube_id!r} to another folder")
        return write_bundle(target, self._snapshot())

    def __repr__(self) -> str:
        return f"GeneralMemCube({self.cube_id!r})"

    # -- both ways ------------------------------------------------------------------------------------

    def _snapshot(self) -> Bundle:
        store = self.runtime.store
        for _ in range(SNAPSHOT_TRIES):
            seq = store.seq(self.cube_id)
            items = self._items()
            entries = store.working(self.cube_id).entries
            aliases = self._aliases(items)
            if store.seq(self.cube_id) == seq:
                now = utc(self.runtime.clock.now())
                return Bundle(self.cube_id, seq, now, tuple(reversed(items)), entries, aliases)
        raise VersionConflict(f"cube {self.cube_id!r} was changed {SNAPSHOT_TRIES} times while it was read")

    def _items(self) -> list[MemoryItem]:
        found: list[MemoryItem] = []
        cursor: str | None = None
        wanted = ItemFilter(cube_ids=(self.cube_id,), statuses=_KEPT)
        while True:  # ends: each page begins after the last one
            page = self.runtime.store.find(wanted, limit=PAGE_SIZE, cursor=cursor)
            found += page.items
            cursor = page.next_cursor
            if cursor is None:
                return found

    def _aliases(self, items: Sequence[MemoryItem]) -> dict[str, str]:
        """Which of the items' ids stand for another item: those that were merged into it."""
        ids = [item.id for item in items if not item.live]
        return {
            alias: item.id
            for start in range(0, len(ids), PAGE_SIZE)
            for alias, item in zip(
                ids[start : start + PAGE_SIZE],
                self.runtime.store.get(ids[start : start + PAGE_SIZE]),
                strict=True,
            )
            if alias != item.id
        }

    def _restore(self, bundle: Bundle, *, trusted: bool) -> None:
        store = self.runtime.store
        if store.seq(self.cube_id):
            raise InvalidInput(
                f"cube {self.cube_id!r} is in the store already; load {FILE_NAME} under another mem_cube_id, "
                "or use the cube as it is"
            )
        reason = f"loaded from a dump of {bundle.dumped_at.isoformat()}"
        items = [replace(item, cube_id=self.cube_id) for item in bundle.items]
        held = {} if trusted else _dangerous(items)
        items = [replace(item, status=ItemStatus.QUARANTINED) if item.id in held else item for item in items]
        participants = {name for item in items for name in item.participants}
        indexed = self.runtime.indexer.index(items, participants=participants)
        # The indexer finds links anew; what travelled counts.
        kept = [IndexedItem(item, made.terms, made.vector) for item, made in zip(items, indexed, strict=True)]
        cause = Cause(trace_id=context.current_trace_id(), user_id=context.user_id.get())
        changes: list[Change] = [
            AddItems(tuple(together), why)
            for why, together in groupby(kept, key=lambda one: held.get(one.item.id, reason))
        ]
        changes += [AddAlias(alias, item_id, reason) for alias, item_id in bundle.aliases.items()]
        places = tuple(entry for entry in bundle.entries if entry.item_id not in held)
        changes.append(ReplaceWorking(self.cube_id, places, 0, reason))
        applied = store.apply(changes, cause=cause)
        if applied.archived:
            logger.warning(
                "cube.over_capacity", cube=self.cube_id, archived=len(applied.archived), loaded=len(kept)
            )


def _caches(wanted: ActivationConfigFactory | None, runtime: Runtime, cube_id: str) -> KVCacheMemory | None:
    """Of the model that is named, or of the one that the process chats with. Raises ConfigError, ModelError,
    ActivationUnsupported."""
    if wanted is None or wanted.backend == ABSENT:
        return None
    try:
        from memos.memory.activation.kv_memory import KVCacheMemory
        from memos.memory.activation.sources import CubeSources
        from memos.models.hf.chat import HFChat
    except ImportError as error:
        raise ConfigError(
            f"act_mem.backend='kv_cache' needs torch and transformers ({error}): pip install 'memscheduler[hf]'"
        ) from error
    clock, named = runtime.clock, wanted.config.extractor_llm
    sources = CubeSources(runtime.store, cube_id)
    if named is not None:
        return KVCacheMemory({"extractor_llm": named}, clock=clock, sources=sources)
    if isinstance(runtime.models.llm, HFChat):
        return KVCacheMemory(runtime.models.llm, clock=clock, sources=sources)
    raise ConfigError(
        "act_mem.backend='kv_cache' needs a model in this process: name its folder in act_mem.config.extractor_llm, "
        "or chat with one (MEMOS_MODELS__CHAT_BACKEND=hf)"
    )


def _dangerous(items: Iterable[MemoryItem]) -> dict[str, str]:
    """The live items that the gate in front of a write would hold, each with the reason of its journal row."""
    found = {item.id: inspect(item.memory, role=item.role) for item in items if item.live}
    return {
        item_id: HELD + "; ".join(one.reason for one in findings[:FINDINGS_NAMED])
        for item_id, findings in found.items()
        if findings
    }


def _folder(folder: str | Path) -> Path:
    if not str(folder).strip() or "\x00" in str(folder):
        raise InvalidInput(f"folder {folder!r} cannot be one; give a path")
    return Path(folder).expanduser()
