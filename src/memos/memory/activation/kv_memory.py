"""`KVCacheMemory` under its documented names: texts that a model has read, as caches to go on from.

    memory = KVCacheMemory({"extractor_llm": {"backend": "huggingface", "config": {"model_name_or_path": FOLDER}}})
    item = memory.extract("Ann likes tea.")
    memory.add([item])
    cache = memory.get_cache([item.id])      # yours: generation may grow it, what is kept does not change
    memory.dump("folder"), memory.load("folder")

Files are those of `segment`, never a pickle: another model's, edited, cut or pickled ones are an ActivationMiss and
nothing of them is loaded. Several caches are not glued together (their positions would be wrong): the later
texts are read again behind the first. For one program; the chats of a runtime use `HFActivation`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from memos.clock import Clock, SystemClock, utc
from memos.errors import ActivationMiss, ActivationUnsupported, ConfigError
from memos.memory.activation import folder as disk
from memos.memory.activation.base import MissReason
from memos.memory.activation.codec import decode, encode
from memos.memory.activation.files import as_ids
from memos.memory.activation.segment import FORMAT, Kind, KvShape, Proof, Segment, chain_of, read, write
from memos.memory.textual import TextualMemoryItem
from memos.models.hf.chat import HFChat
from memos.models.hf.model import Cache, HFModel, Past

LISTING = "activation_memory.json"
PICKLE = "activation_memory.pickle"  # what the reference implementation writes


@dataclass(frozen=True, slots=True)
class KVCacheItem:
    """`past`: what is kept of `ids`; `memory`: a new cache with a copy of it."""

    ids: tuple[int, ...]
    past: Past
    model: HFModel
    id: str = field(default_factory=lambda: str(uuid4()))
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def memory(self) -> Cache:
        """A `DynamicCache` of the caller's own."""
        return self.model.cache_of(self.past)


class KVCacheMemory:
    """See the module docstring. Thread-safe."""

    def __init__(self, config: Mapping[str, Any] | HFModel | HFChat, *, clock: Clock | None = None) -> None:
        """The documented configuration, or a model that is loaded. Raises ConfigError, ModelUnavailable,
        ActivationUnsupported."""
        if isinstance(config, HFChat):
            config = config.model
        self.llm = config if isinstance(config, HFModel) else _configured(config)
        if self.llm.unsupported:
            raise ActivationUnsupported(f"{self.llm.name} keeps no prefix: {self.llm.unsupported}")
        self._clock = clock or SystemClock()
        self._items: dict[str, KVCacheItem] = {}
        self._lock = threading.Lock()

    def extract(self, text: str) -> KVCacheItem:
        """Read a text as the system message of a chat. Nothing is kept before `add`."""
        told = {"source_text": text, "extracted_at": utc(self._clock.now()).isoformat()}
        return self._item(text, told)

    def from_textual_memory(self, memory: TextualMemoryItem) -> KVCacheItem:
        """The same of a memory, with its metadata and text."""
        return self._item(
            memory.memory, memory.metadata.model_dump(mode="json") | {"source_text": memory.memory}
        )

    def add(self, memories: Sequence[KVCacheItem]) -> None:
        """Keep items; one of the same id is replaced. Raises ActivationMiss for another model's."""
        for item in memories:
            if item.model.fingerprint() != self.llm.fingerprint():
                raise ActivationMiss(MissReason.FINGERPRINT, f"item {item.id} was made by another model")
        with self._lock:
            self._items |= {item.id: item for item in memories}

    def get(self, memory_id: str) -> KVCacheItem | None:
        """An item."""
        return self._items.get(memory_id)

    def get_by_ids(self, memory_ids: Sequence[str]) -> list[KVCacheItem | None]:
        """Items, None for each that is not there."""
        return [self.get(memory_id) for memory_id in memory_ids]

    def get_all(self) -> list[KVCacheItem]:
        """All items, in the order in which they came."""
        with self._lock:
            return list(self._items.values())

    def get_cache(self, cache_ids: Sequence[str]) -> Cache | None:
        """A cache of its own for each call, of these items one after the other; None when none is there."""
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
                told.append({"id": item.id, "metadata": dict(item.metadata), "proof": asdict(proof)})
                named.add(disk.segment_name(chain))
            text = json.dumps({"format": FORMAT, "items": told}, ensure_ascii=False).encode()
            disk.put(target / LISTING, lambda file: file.write(text))
            for path in target.glob("seg-*.safetensors"):
                if path.name not in named:
                    path.unlink()

    def load(self, folder: str | Path) -> None:
        """Take the place of all items by those of a dump; all of them or none. Raises ActivationMiss."""
        source = Path(folder)
        if not (source / LISTING).is_file():
            if (source / PICKLE).exists():
                raise ActivationMiss(
                    MissReason.FORMAT, f"{PICKLE} is a pickle, which is never read: build it anew"
                )
            raise ActivationMiss(MissReason.MISSING, f"{source} holds no {LISTING}")
        try:
            listed = json.loads((source / LISTING).read_bytes())
            if listed["format"] != FORMAT:
                raise ActivationMiss(MissReason.FORMAT, f"{LISTING} is not of the format {FORMAT}")
            told = [(str(one["id"]), dict(one["metadata"]), Proof(**one["proof"])) for one in listed["items"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ActivationMiss(MissReason.DAMAGED, f"{LISTING} is not whole") from error
        items = [self._read(source, *one) for one in told]
        with self._lock:
            self._items = {item.id: item for item in items}

    def _put(self, path: Path, segment: Segment) -> Proof:
        proofs: list[Proof] = []
        shape, fingerprint = KvShape(*self.llm.shape), self.llm.fingerprint()
        disk.put(path, lambda file: proofs.append(write(file, segment, fingerprint=fingerprint, shape=shape)))
        return proofs[0]

    def _read(self, folder: Path, item_id: str, metadata: dict[str, Any], proof: Proof) -> KVCacheItem:
        fingerprint = self.llm.fingerprint()
        path = folder / disk.segment_name(Path(proof.chain).name)
        segment = read(path, fingerprint=fingerprint, shape=KvShape(*self.llm.shape), proof=proof)
        if segment.chain != chain_of(fingerprint, item_id, "", segment.ids):
            raise ActivationMiss(MissReason.DAMAGED, f"{path.name} is not that of item {item_id}")
        past = decode(segment.tensors, segment.kind, dtype=self.llm.dtype, device=self.llm.device)
        return KVCacheItem(tuple(segment.ids.tolist()), past, self.llm, item_id, metadata)

    def _item(self, text: str, metadata: Mapping[str, Any]) -> KVCacheItem:
        ids, cache = self.llm.build_kv_cache(text)
        return KVCacheItem(ids, self.llm.past_of(cache), self.llm, metadata=metadata)


def _configured(config: Mapping[str, Any]) -> HFModel:
    try:
        llm = config["extractor_llm"]
        backend, folder = llm["backend"], llm["config"]["model_name_or_path"]
    except (KeyError, TypeError) as error:
        raise ConfigError("give extractor_llm: {backend, config: {model_name_or_path}}") from error
    if backend not in ("huggingface", "hf"):
        raise ConfigError(f"extractor_llm.backend={backend!r}: only 'huggingface' gives tensors")
    return HFModel.load(Path(folder))
