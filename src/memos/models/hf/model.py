"""A causal language model of transformers: read tokens into a cache, go on from a cache.

Only the part of transformers' cache that has been stable is used: `DynamicCache()`, `.update(k, v, layer)`,
`.layers[i].keys` and `.values`. A model whose layers forget (sliding windows) or fold the past into a state
(recurrent, hybrid) cannot have its past cut and kept: it answers chats, and `unsupported` says why it keeps
nothing. Weights are read from safetensors only, code of a checkpoint is never run, nothing is downloaded.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

import torch
import transformers

from memos.clock import Clock, SystemClock
from memos.errors import ModelRefused, ModelUnavailable
from memos.models.base import ChatMessage
from memos.models.hf.fingerprint import CheckpointFile, checkpoint_files, fingerprint_of
from memos.models.hf.sampling import Sampling, choose
from memos.models.hf.text import ChatText

Tensor: TypeAlias = Any  # torch.Tensor: (L, H, n, D) for all layers of a cache together
Cache: TypeAlias = Any  # transformers.DynamicCache


@dataclass(frozen=True, slots=True)
class Past:
    """Keys (L, H, n, Dk) and values (L, H, n, Dv) of n tokens that were read. Never changed."""

    keys: Tensor
    values: Tensor

    @property
    def tokens(self) -> int:
        return int(self.keys.shape[2])

    @property
    def bytes(self) -> int:
        return int(self.keys.nbytes + self.values.nbytes)

    def first(self, tokens: int) -> Past:
        """The beginning of it, without copying."""
        return Past(self.keys[:, :, :tokens], self.values[:, :, :tokens])

    def after(self, tokens: int) -> Past:
        """The rest of it, without copying."""
        return Past(self.keys[:, :, tokens:], self.values[:, :, tokens:])


class HFModel:
    """A loaded model with its tokenizer. Thread-safe: one forward pass at a time, answers take turns."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str,
        files: Sequence[CheckpointFile] = (),
        clock: Clock | None = None,
    ) -> None:
        self.name = name
        self.text = ChatText(tokenizer)
        self.device = model.device
        self.dtype = model.dtype
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._files = tuple(files)
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._closed = False
        self._fingerprint = ""
        accepted = inspect.signature(model.forward).parameters
        self._cache_name = "cache" if "cache" in accepted else "past_key_values"
        self._last_logits = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        self._stops = _stops(model, tokenizer)
        self.tokens_max = _context(model.config)
        self.unsupported = _unsupported(model.config)
        self.shape = (0, 0, 0, 0)  # layers, heads, key and value width of what one token leaves
        if not self.unsupported:
            self.shape, self.unsupported = self._probed()

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        device: str = "auto",
        dtype: str = "auto",
        threads: int | None = None,
        clock: Clock | None = None,
    ) -> HFModel:
        """A checkpoint's folder, as `save_pretrained` writes it. Raises ModelUnavailable, saying why.

        device: auto (the first GPU, else the CPU) or torch's name; threads: of torch, for the whole process.
        """
        folder = folder.expanduser()
        if not (folder / "config.json").is_file():
            raise ModelUnavailable(f"{folder} is no folder of a model: it has no config.json")
        if threads is not None:
            torch.set_num_threads(threads)
        place = _device(device)
        kinds = {
            "auto": "auto",
            "float32": torch.float32,
            "bfloat16": torch.bfloat16,
            "float16": torch.float16,
        }
        transformers.utils.logging.disable_progress_bar()
        only_here = {"local_files_only": True, "trust_remote_code": False}
        try:
            files = checkpoint_files(folder)
            tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), **only_here)
            model = transformers.AutoModelForCausalLM.from_pretrained(
                str(folder), dtype=kinds[dtype], use_safetensors=True, **only_here
            )
            model = model.to(place)
        except (OSError, ValueError, RuntimeError, ImportError, KeyError) as error:
            raise ModelUnavailable(f"cannot load the model in {folder}: {error}") from error
        if not tokenizer.chat_template:
            raise ModelUnavailable(f"the tokenizer in {folder} has no chat template: it is no chat model")
        return cls(model, tokenizer, name=folder.name, files=files, clock=clock)

    def fingerprint(self) -> str:
        """Changes whenever what a cache holds would change. Slow the first time, with checkpoint files.
        Raises ActivationUnsupported when those were changed since they were loaded."""
        if not self._fingerprint:
            self._fingerprint = fingerprint_of(self._model, self._tokenizer, files=self._files)
        return self._fingerprint

    def close(self) -> None:
        """End all answers at their next token; when this returns nothing is computed any more. A process
        that ends while a thread computes is aborted by torch."""
        self._closed = True
        with self._lock:
            pass

    # -- reading ----------------------------------------------------------------------------------------

    def read(self, ids: Sequence[int], past: Past | None = None) -> tuple[Tensor, Cache]:
        """Read `ids` (at least one) after `past`: the logits (vocabulary,) behind the last one, and a new
        cache that holds both. `past` stays as it is."""
        cache = self.cache_of(past)
        return self.step(ids, cache), cache

    def step(self, ids: Sequence[int], cache: Cache) -> Tensor:
        """Read `ids` on top of a cache, which grows; the logits behind the last one."""
        fed = torch.tensor([list(ids)], dtype=torch.long, device=self.device)
        given = {self._cache_name: cache, "use_cache": True, **self._last_logits}
        with self._lock, torch.inference_mode():
            if self._closed:
                raise ModelUnavailable(f"the model {self.name!r} is closed")
            try:
                out = self._model(input_ids=fed, **given)
            except (RuntimeError, torch.OutOfMemoryError) as error:
                raise ModelUnavailable(f"the model {self.name!r} failed: {error}") from error
        return out.logits[0, -1]

    def cache_of(self, past: Past | None) -> Cache:
        """A cache of its own with a copy of `past` in it."""
        cache = transformers.DynamicCache()
        if past is not None and past.tokens:
            with torch.inference_mode():
                for layer in range(past.keys.shape[0]):
                    cache.update(past.keys[layer].unsqueeze(0), past.values[layer].unsqueeze(0), layer)
        return cache

    def past_of(self, cache: Cache) -> Past:
        """A copy of what a cache holds."""
        with torch.inference_mode():
            return Past(
                torch.stack([layer.keys[0] for layer in cache.layers]),
                torch.stack([layer.values[0] for layer in cache.layers]),
            )

    def build_kv_cache(self, text: str) -> tuple[tuple[int, ...], Cache]:
        """The ids and the cache of a text that was read as the system message of a chat."""
        ids = self.text.ids((ChatMessage("system", text),), opening=False)
        return ids, self.read(ids)[1]

    # -- answering --------------------------------------------------------------------------------------

    def answer(
        self,
        ids: Sequence[int],
        *,
        past: Past | None = None,
        max_tokens: int,
        sampling: Sampling,
        timeout_s: float,
        stop: Sequence[str] = (),
    ) -> Answer:
        """Answer the chat `ids`, whose first tokens `past` holds. Nothing is computed before the first piece
        is asked for. Raises ModelRefused for a chat that is longer than the model reads."""
        cached = past.tokens if past is not None else 0
        if self.tokens_max is not None and len(ids) >= self.tokens_max:
            raise ModelRefused(
                f"{len(ids)} tokens are more than the {self.tokens_max} of this model", status=0
            )
        if not cached < len(ids):
            raise ValueError("a cache of the whole chat leaves nothing to read")
        if self.tokens_max is not None:
            max_tokens = min(max_tokens, self.tokens_max - len(ids))
        return Answer(
            self, ids, past, max_tokens=max_tokens, sampling=sampling, timeout_s=timeout_s, stop=stop
        )

    def is_end(self, token: int) -> bool:
        """Whether the model ends its answer with this token."""
        return token in self._stops

    def now(self) -> float:
        """Seconds on a clock that only goes forward."""
        return self._clock.monotonic()

    def _probed(self) -> tuple[tuple[int, int, int, int], str]:
        """What one token leaves in the cache, seen; and why that cannot be kept, "" if it can."""
        _, cache = self.read([0, 0])
        nothing = (0, 0, 0, 0)
        kinds = {type(layer).__name__ for layer in cache.layers}
        if kinds != {"DynamicLayer"}:
            return nothing, f"its cache is made of {', '.join(sorted(kinds)) or 'nothing'}"
        shapes = {(tuple(layer.keys.shape), tuple(layer.values.shape)) for layer in cache.layers}
        if len(shapes) != 1:
            return nothing, "its layers differ in width"
        keys, values = shapes.pop()
        if len(keys) != 4 or keys[:3] != values[:3] or keys[0] != 1 or keys[2] != 2:
            return nothing, f"its cache has the shapes {keys} and {values}"
        return (len(cache.layers), keys[1], keys[3], values[3]), ""


class Answer:
    """An answer in pieces. Iterate once; the counts are right when it ended. Closing it ends it."""

    def __init__(
        self,
        model: HFModel,
        ids: Sequence[int],
        past: Past | None,
        *,
        max_tokens: int,
        sampling: Sampling,
        timeout_s: float,
        stop: Sequence[str],
    ) -> None:
        self.tokens_in = len(ids)
        self.tokens_cached = past.tokens if past is not None else 0
        self.tokens_out = 0
        self.finish_reason = ""
        self.ids: list[int] = []
        self._model = model
        self._fed = list(ids[self.tokens_cached :])
        self._past = past
        self._max_tokens = max_tokens
        self._sampling = sampling
        self._timeout_s = timeout_s
        self._stop = tuple(sign for sign in stop if sign)

    def __iter__(self) -> Iterator[str]:
        return _until(self._model.text.pieces(self._tokens()), self._stop, self._stopped)

    def _stopped(self) -> None:
        self.finish_reason = "stop"

    def _tokens(self) -> Iterator[int]:
        model = self._model
        until = model.now() + self._timeout_s
        cache = model.cache_of(self._past)
        self._past = None
        pick = choose(self._sampling)
        fed = self._fed
        while self.tokens_out < self._max_tokens:
            token = pick(model.step(fed, cache))
            self.ids.append(token)
            self.tokens_out += 1
            if model.is_end(token):
                self.finish_reason = "stop"
                return
            yield token
            if model.now() > until:
                raise ModelUnavailable(
                    f"the model {model.name!r} had not finished after {self._timeout_s:g} s"
                )
            fed = [token]
        self.finish_reason = "length"


def _until(pieces: Iterator[str], stop: Sequence[str], stopped: Any) -> Iterator[str]:
    """The pieces before the first of the signs in `stop`, which may come in parts."""
    if not stop:
        yield from pieces
        return
    held, longest = "", max(map(len, stop)) - 1
    for piece in pieces:
        held += piece
        places = [place for sign in stop if (place := held.find(sign)) >= 0]
        if places:
            stopped()
            if held[: min(places)]:
                yield held[: min(places)]
            return
        sure = len(held) - longest
        if sure > 0:
            yield held[:sure]
            held = held[sure:]
    if held:
        yield held


def _device(name: str) -> str:
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def _stops(model: Any, tokenizer: Any) -> frozenset[int]:
    found: set[int] = set()
    for ids in (model.generation_config.eos_token_id, tokenizer.eos_token_id):
        if isinstance(ids, int):
            found.add(ids)
        elif ids is not None:
            found.update(ids)
    return frozenset(found)


def _context(config: Any) -> int | None:
    told = config.get_text_config().to_dict().get("max_position_embeddings")
    return told if isinstance(told, int) and told > 0 else None


def _unsupported(config: Any) -> str:
    """Why what this model has read cannot be cut and kept; "" where it can."""
    if config.is_encoder_decoder:
        return "it is an encoder with a decoder"
    try:
        layers = transformers.DynamicCache(config=config).layers
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return f"transformers makes no plain cache for it ({error})"
    kinds = sorted({type(layer).__name__ for layer in layers} - {"DynamicLayer"})
    if kinds:
        named = cast(str, getattr(config, "model_type", "it"))
        return f"{named} has layers that do not keep all of the past ({', '.join(kinds)})"
    return ""
