"""`KVCacheMemory` under its documented names: kept as it was, dumped without a pickle, merged right."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from tests.torch_there import torch_or_skip

torch_or_skip()

import torch

from memos.errors import ActivationMiss, ConfigError
from memos.memories.activation.item import KVCacheItem
from memos.memories.activation.kv import KVCacheMemory
from memos.memory.activation.base import MissReason
from memos.memory.textual import TextualMemoryItem
from memos.testing_model import tiny_model, write_tiny_model


def test_what_is_kept_is_handed_out_as_copies(tmp_path: Path) -> None:
    """Documented calls on a checkpoint's folder; a cache that grows leaves the item as it was."""
    folder = write_tiny_model(tmp_path / "model", seed=1)
    memory = KVCacheMemory(
        {"extractor_llm": {"backend": "huggingface", "config": {"model_name_or_path": str(folder)}}}
    )
    item = memory.extract("Ann likes tea.")
    assert isinstance(item, KVCacheItem)
    assert memory.get_all() == []
    memory.add([item])
    cache = memory.get_cache([item.id])
    memory.llm.step([5, 6, 7], cache)
    again = memory.get_cache([item.id])
    assert (cache.get_seq_length(), again.get_seq_length()) == (len(item.ids) + 3, len(item.ids))
    assert item.metadata["source_text"] == "Ann likes tea."
    text = memory.from_textual_memory(TextualMemoryItem(id="x", memory="Max is a dog."))
    memory.add([text])
    assert memory.get_by_ids([text.id, "none"]) == [text, None]
    memory.delete([item.id])
    assert memory.get(item.id) is None
    memory.delete_all()
    assert memory.get_cache([text.id]) is None
    with pytest.raises(ConfigError):
        KVCacheMemory({"extractor_llm": {"backend": "openai", "config": {"model_name_or_path": "x"}}})


def test_several_are_what_reading_all_of_them_gives() -> None:
    """The cache of two items is that of their tokens in one go: the later one has its own positions."""
    memory = KVCacheMemory(tiny_model(seed=2))
    items = [memory.extract(text) for text in ("Ann likes tea.", "Max is a dog.")]
    memory.add(items)
    merged = memory.llm.past_of(memory.get_cache([one.id for one in items]))
    _, whole = memory.llm.read([*items[0].ids, *items[1].ids])
    assert torch.allclose(merged.keys, memory.llm.past_of(whole).keys, atol=1e-5)
    glued = torch.cat([one.past.keys for one in items], dim=2)
    assert not torch.allclose(merged.keys, glued, atol=1e-2)


def test_a_dump_comes_back_and_nothing_else_does(tmp_path: Path) -> None:
    """Bit by bit, for the same model; another model's, an edited, a cut and a pickled dump change nothing."""
    memory = KVCacheMemory(tiny_model(seed=2))
    items = [memory.extract(text) for text in ("Ann likes tea.", "Max is a dog.")]
    memory.add(items)
    memory.dump(tmp_path / "dump")
    other = KVCacheMemory(tiny_model(seed=2))
    other.load(tmp_path / "dump")
    assert [(one.id, one.ids, dict(one.metadata)) for one in other.get_all()] == [
        (one.id, one.ids, dict(one.metadata)) for one in items
    ]
    for mine, theirs in zip(items, other.get_all(), strict=True):
        assert torch.equal(mine.past.keys, theirs.past.keys)
        assert torch.equal(mine.past.values, theirs.past.values)
    with pytest.raises(ActivationMiss) as caught:
        KVCacheMemory(tiny_model(seed=3)).load(tmp_path / "dump")
    assert caught.value.reason == MissReason.FINGERPRINT
    with pytest.raises(ActivationMiss):
        KVCacheMemory(tiny_model(seed=3)).add(items)
    memory.delete([items[0].id])
    memory.dump(tmp_path / "dump")
    (path,) = (tmp_path / "dump").glob("seg-*")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    for spoilt in (bytes(content), bytes(content[:-5]), pickle.dumps([1])):
        path.write_bytes(spoilt)
        with pytest.raises(ActivationMiss):
            other.load(tmp_path / "dump")
        assert len(other.get_all()) == 2
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "activation_memory.pickle").write_bytes(pickle.dumps({}))
    for folder, reason in (("old", MissReason.FORMAT), ("none", MissReason.MISSING)):
        with pytest.raises(ActivationMiss) as caught:
            other.load(tmp_path / folder)
        assert caught.value.reason == reason


FORGED: list[dict[str, Any]] = [
    {"bytes": "x"},
    {"bytes": -5},
    {"bytes": True},
    {"tokens": 10**12},
    {"tokens": "7"},
    {"start": 3},
    {"parent": "ab" * 32},
    {"kind": "int8"},
    {"kind": []},
    {"chain": "../../etc/passwd"},
    {"chain": 7},
    {"chain": "\x00"},
    {"chain": "a" * 5_000},
    {"header_blake3": None},
]


def test_a_forged_listing_is_a_miss(tmp_path: Path) -> None:
    """Whatever a listing says, of another type, out of the folder or beyond any size: nothing of it is loaded, what
    was there stays, and it is an ActivationMiss. A link to a listing is not followed."""
    memory = KVCacheMemory(tiny_model(seed=2))
    memory.add([memory.extract("Ann likes tea.")])
    memory.dump(tmp_path)
    listing = tmp_path / "activation_memory.json"
    whole = json.loads(listing.read_bytes())
    [item] = whole["items"]
    forged: list[Any] = [item | {"proof": item["proof"] | change} for change in FORGED]
    forged += [item | {"metadata": []}, item | {"sources": [1]}, item | {"id": 7}, item | {"proof": None}, 1]
    texts = [json.dumps(whole | {"items": [one]}).encode() for one in forged]
    texts += [json.dumps(whole | {"items": None}).encode(), b"[" * 200_000, b"\xff\xfe", b"[1]", b"", b"\x00"]
    for text in texts:
        listing.write_bytes(text)
        with pytest.raises(ActivationMiss) as caught:
            memory.load(tmp_path)
        assert caught.value.reason == MissReason.DAMAGED, text[:200]
    assert len(memory.get_all()) == 1
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_text(json.dumps(whole))
    listing.unlink()
    listing.symlink_to(elsewhere)
    with pytest.raises(ActivationMiss):
        memory.load(tmp_path)
    elsewhere.rename(listing)
    memory.load(tmp_path)
