"""`KVCacheMemory` under its documented names: texts that a model has read, as caches to go on from.

    memory = KVCacheMemory({"extractor_llm": {"backend": "huggingface", "config": {"model_name_or_path": FOLDER}}})
    item = memory.extract("Ann likes tea.")
    memory.add([item])
    cache = memory.get_cache([item.id])      # yours: generation may grow it, what is kept does not change
    memory.dump("folder"), memory.load("folder")

Files are those of `segment`, never a pickle: another model's, edited, cut or pickled ones are an ActivationMiss and
nothing of them is loaded. Several caches are not glued together (their positions would be wrong): the later
texts are read again behind the first. For one program; the chats of a runtime use `HFActivation`.

Of a cube (`sources`), each item knows the memories it was made of. Once one of them was deleted, erased, edited or
corrected, by whomever, the item is given to nobody any more: it is dropped where it is next asked for, counted and told.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from memos import log, metrics
from memos.clock import Clock, SystemClock, utc
from memos.errors import ActivationMiss, ActivationUnsupported, ConfigError
from memos.memory.activation import folder as disk
from memos.memory.activation.base import MissReason
from memos.memory.activation.codec import decode, encode
from memos.memory.activation.described import ActivationMemoryItem, ActivationMemoryMetadata
from memos.memory.activation.files import as_ids
from memos.memory.activation.manifest import is_whole
from memos.memory.activation.segment import FORMAT, Kind, KvShape, Proof, Segment, chain_of, read, write
from memos.memory.activation.sources import CacheSource, CacheSources
from memos.memory.textual import TextualMemoryItem
from memos.models.hf.chat import HFChat
from memos.models.hf.model import Cache, HFModel, Past

LISTING = "activation_memory.json"
PICKLE = "activation_memory.pickle"  # what the reference implementation writes

logger = log.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class KVCacheItem:
    """`past`: what is kept of `ids`; `memory`: a new cache with a copy of it. sources: the memories it was made of;
    None: nobody looked."""

    ids: tuple[int, ...]
    past: Past
    model: HFModel
    id: str = field(default_factory=lambda: str(uuid4()))
    metadata: Mapping[str, Any] = field(default_factory=dict)
    sources: tuple[CacheSource, ...] | None = None

    @property
    def memory(self) -> Cache:
        """A `DynamicCache` of the caller's own."""
        return self.model.cache_of(self.past)

    def described(self, cube_id: str = "") -> ActivationMemoryItem:
        """What it is, without its tensors. `extracted_at` of the metadata says when it was made."""
        sources = self.sources or ()
        return ActivationMemoryItem(
            id=self.id,
            memory=f"{len(self.ids)} tokens of {len(sources)} memories (kv_cache)",
            metadata=ActivationMemoryMetadata(
                mem_cube_id=cube_id,
                backend="kv_cache",
                tokens=len(self.ids),
                bytes=self.past.bytes,
                memory_ids=[one.item_id for one in sources],
                versions=[one.version for one in sources],
                usable_memories=len(sources),
                created_at=str(self.metadata.get("extracted_at", "")),
            ),
        )


class KVCacheMemory:
    """See the module docstring. Thread-safe."""

    def __init__(
        self,
        config: Mapping[str, Any] | HFModel | HFChat,
        *,
        clock: Clock | None = None,
        sources: CacheSources | None = None,
    ) -> None:
        """The documented configuration, or a model that is loaded. sources: the memories that items may be made of;
        None: the program sees to it itself. Raises ConfigError, ModelUnavailable, ActivationUnsupported."""
        if isinstance(config, HFChat):
            config = config.model
        self.llm = config if isinstance(config, HFModel) else _configured(config)
        if self.llm.unsupported:
            raise ActivationUnsupported(f"{self.llm.name} keeps no prefix: {self.llm.unsupported}")
        self._clock = clock or SystemClock()
        self._sources = sources
        self._items: dict[str, KVCacheItem] = {}
        self._lock = threading.Lock()

    def extract(self, text: str, *, of: Sequence[TextualMemoryItem] = ()) -> KVCacheItem:
        """Read a text as the system message of a chat. Nothing is kept before `add`.

        of: the memories it was written from. Those of the cube whose whole text stands in it are found without.
        """
        told = {"source_text": text, "extracted_at": utc(self._clock.now()).isoformat()}
        return self._item(text, told, of)

    def from_textual_memory(self, memory: TextualMemoryItem) -> KVCacheItem:
        """The same of a memory, with its metadata and text."""
        made = {"source_text": memory.memory, "extracted_at": utc(self._clock.now()).isoformat()}
        return self._item(memory.memory, memory.metadata.model_dump(mode="json") | made, (memory,))

    def add(self, memories: Sequence[KVCacheItem]) -> None:
        """Keep items; one of the same id is replaced. Raises ActivationMiss: another model's, or made of memories that
        changed meanwhile; then none is kept. Raises StoreError."""
        for item in memories:
            if item.model.fingerprint() != self.llm.fingerprint():
                raise ActivationMiss(MissReason.FINGERPRINT, f"item {item.id} was made by another model")
        known = [self._sourced(item) for item in memories]
        for item in known:
            if self._changed(item):
                raise _invalidated(item)
        with self._lock:
            self._items |= {item.id: item for item in known}

    def get(self, memory_id: str) -> KVCacheItem | None:
        """An item. Raises StoreError where its memories cannot be asked after."""
        item = self._items.get(memory_id)
        return item if item is None or self._usable(item) else None

    def get_by_ids(self, memory_ids: Sequence[str]) -> list[KVCacheItem | None]:
        """Items, None for each that is not there."""
        return [self.get(memory_id) for memory_id in memory_ids]

    def get_all(self) -> list[KVCacheItem]:
        """All items, in the order in which they came."""
        with self._lock:
            kept = list(self._items.values())
        return [item for item in kept if self._usable(item)]

    def get_cache(self, cache_ids: Sequence[str]) -> Cache | None:
        """A cache of its own for each call, of these items one after the other; None when none is there. An item whose
        memories changed is not: it is dropped, and the miss is counted (`invalidated`)."""
        found = [item for item in self.get_by_ids(cache_ids) if item is not None]
        if not found:
            return None
        cache = found[0].memory
        for item in found[1:]:
            self.llm.step(item.ids, cache)
        return cache

    def delete(self, memory_ids: Sequence[str]) -> None:
        """Forget items. What was dumped stays in its folder until the next dump there."""
        with self._lock:
            for memory_id in memory_ids:
                self._items.pop(memory_id, None)

    def delete_all(self) -> None:
        """Forget all."""
        with self._lock:
            self._items.clear()

    def dump(self, folder: str | Path) -> None:
        """Write all items to a folder; an older dump there is replaced and its files removed. OSError."""
        target, kept = Path(folder), self.get_all()
        kind: Kind = "bf16" if str(self.llm.dtype) == "torch.bfloat16" else "fp32"
        fingerprint = self.llm.fingerprint()
        told: list[dict[str, Any]] = []
        named: set[str] = set()
        with disk.locked(target):
            for item in kept:
                ids = as_ids(item.ids)
                chain = chain_of(fingerprint, item.id, "", ids)
                segment = Segment(chain, "", 0, kind, ids, encode(item.past, kind))
                proof = self._put(target / disk.segment_name(chain), segment)
                told.append(_listed(item, proof))
                named.add(disk.segment_name(chain))
            text = json.dumps({"format": FORMAT, "items": told}, ensure_ascii=False).encode()
            disk.put(target / LISTING, lambda file: file.write(text))
            for path in target.glob("seg-*.safetensors"):
                if path.name not in named:
                    path.unlink()

    def load(self, folder: str | Path) -> None:
        """Take the place of all items by those of a dump; all of them or none. Raises ActivationMiss.

        Those whose memories changed since they were dumped are dropped as anywhere else. Raises StoreError.
        """
        source = Path(folder)
        if not (source / LISTING).exists() and (source / PICKLE).exists():
            raise ActivationMiss(
                MissReason.FORMAT, f"{PICKLE} is a pickle, which is never read: build it anew"
            )
        text = disk.read_listing(source / LISTING)
        try:
            listed = json.loads(text)
            if listed["format"] != FORMAT:
                raise ActivationMiss(MissReason.FORMAT, f"{LISTING} is not of the format {FORMAT}")
            told = [
                (
                    str(one["id"]),
                    _mapping(one["metadata"]),
                    _proof(one["proof"]),
                    _sources(one.get("sources")),
                )
                for one in listed["items"]
            ]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ActivationMiss(MissReason.DAMAGED, f"{LISTING} is not whole") from error
        items = [self._sourced(self._read(source, *one)) for one in told]
        items = [item for item in items if self._usable(item)]
        with self._lock:
            self._items = {item.id: item for item in items}

    def _put(self, path: Path, segment: Segment) -> Proof:
        proofs: list[Proof] = []
        shape, fingerprint = KvShape(*self.llm.shape), self.llm.fingerprint()
        disk.put(path, lambda file: proofs.append(write(file, segment, fingerprint=fingerprint, shape=shape)))
        return proofs[0]

    def _read(
        self,
        folder: Path,
        item_id: str,
        metadata: dict[str, Any],
        proof: Proof,
        sources: tuple[CacheSource, ...] | None,
    ) -> KVCacheItem:
        fingerprint = self.llm.fingerprint()
        path = folder / disk.segment_name(proof.chain)
        segment = read(path, fingerprint=fingerprint, shape=KvShape(*self.llm.shape), proof=proof)
        told = (segment.chain, segment.parent, segment.start, len(segment.ids), segment.kind)
        said = (proof.chain, proof.parent, proof.start, proof.tokens, proof.kind)
        if told != said or proof.parent or proof.start:
            raise ActivationMiss(MissReason.DAMAGED, f"{LISTING} and {path.name} disagree")
        if segment.chain != chain_of(fingerprint, item_id, "", segment.ids):
            raise ActivationMiss(MissReason.DAMAGED, f"{path.name} is not that of item {item_id}")
        past = decode(segment.tensors, segment.kind, dtype=self.llm.dtype, device=self.llm.device)
        return KVCacheItem(tuple(segment.ids.tolist()), past, self.llm, item_id, metadata, sources)

    def _item(self, text: str, metadata: Mapping[str, Any], of: Sequence[TextualMemoryItem]) -> KVCacheItem:
        named = {one.id: CacheSource.of(one) for one in of if one.id}
        found = {one.item_id: one for one in self._sources.within(text)} if self._sources else {}
        ids, cache = self.llm.build_kv_cache(text)
        sources = tuple((found | named).values()) if named or self._sources else None
        return KVCacheItem(ids, self.llm.past_of(cache), self.llm, metadata=metadata, sources=sources)

    # -- what items are made of -------------------------------------------------------------------------

    def _sourced(self, item: KVCacheItem) -> KVCacheItem:
        """The item with its sources: one that was made elsewhere is looked through by its text."""
        if self._sources is None or item.sources is not None:
            return item
        text = item.metadata.get("source_text")
        if not isinstance(text, str):
            text = self.llm.text.text_of(item.ids)
        return replace(item, sources=self._sources.within(text))

    def _changed(self, item: KVCacheItem) -> bool:
        return bool(self._sources and item.sources and self._sources.changed(item.sources))

    def _usable(self, item: KVCacheItem) -> bool:
        """Whether the item may be given away; one that may not is dropped, counted and told."""
        if not self._changed(item):
            return True
        with self._lock:
            if self._items.get(item.id) is item:
                del self._items[item.id]
        reason = str(MissReason.INVALIDATED)
        metrics.ACTIVATION_LOOKUPS.add(outcome="miss", reason=reason)
        metrics.ACTIVATION_DROPS.add(reason=reason)
        logger.warning("activation.cache_dropped", reason=reason, item=item.id)
        return False


def _invalidated(item: KVCacheItem) -> ActivationMiss:
    return ActivationMiss(
        MissReason.INVALIDATED, f"a memory that item {item.id} was made of changed or went; make it anew"
    )


def _listed(item: KVCacheItem, proof: Proof) -> dict[str, Any]:
    told = {"id": item.id, "metadata": dict(item.metadata), "proof": asdict(proof)}
    return told if item.sources is None else told | {"sources": [asdict(one) for one in item.sources]}


def _mapping(told: Any) -> dict[str, Any]:
    if not isinstance(told, dict):
        raise TypeError("no metadata")
    return told


def _proof(told: Any) -> Proof:
    """Raises TypeError, ValueError for anything but what a writer puts down: a chain becomes a file's name."""
    proof = Proof(**told)
    if not is_whole(proof):
        raise ValueError("not a segment")
    return proof


def _sources(told: Any) -> tuple[CacheSource, ...] | None:
    """Raises TypeError, ValueError for anything but what `_listed` wrote."""
    if told is None:
        return None
    found = tuple(CacheSource(**one) for one in told)
    if not all((type(one.item_id), type(one.version), type(one.digest)) == (str, int, str) for one in found):
        raise ValueError("not a source")
    return found


def _configured(config: Mapping[str, Any]) -> HFModel:
    try:
        llm = config["extractor_llm"]
        backend, folder = llm["backend"], llm["config"]["model_name_or_path"]
    except (KeyError, TypeError) as error:
        raise ConfigError("give extractor_llm: {backend, config: {model_name_or_path}}") from error
    if backend not in ("huggingface", "hf"):
        raise ConfigError(f"extractor_llm.backend={backend!r}: only 'huggingface' gives tensors")
    return HFModel.load(Path(folder))
