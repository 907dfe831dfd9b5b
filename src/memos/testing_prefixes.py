"""What servers keep of prompts, for `memos.testing_server.ModelServer`: so that reuse can be tested without one.

    with ModelServer(default="yes", prefixes=PromptCache("vllm")) as server: …

A prompt is rendered by a plain template and cut into words; a word is a token. Each kind keeps and tells what
the real server does: a hosted endpoint whole steps of 128 tokens from 1,024 on; vLLM blocks of 16 under the
request's salt, told only when started for it and left out when it is 0; SGLang every token; llama.cpp what is
in the slot, which can be saved, restored and erased by name. Thread-safe.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["openai", "vllm", "sglang", "llama_cpp"]

HOSTED_MIN, HOSTED_STEP = 1_024, 128
BLOCK = 16
BYTES_A_TOKEN = 128


@dataclass(frozen=True, slots=True)
class Read:
    """What one prompt cost. `details`: whether the answer tells `cached`."""

    tokens: int
    cached: int
    details: bool
    timings: Mapping[str, int] | None = None


@dataclass
class PromptCache:
    """tells: the server was started to tell what it reused. rereads: a restored slot is reported as restored,
    and the next prompt is read whole all the same. saves: the server was started with a folder for slots."""

    kind: Kind = "openai"
    tells: bool = True
    rereads: bool = False
    saves: bool = True
    model: str = "model-1.gguf"
    files: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _known: set[tuple[str, tuple[str, ...]]] = field(default_factory=set)
    _slots: dict[int, tuple[str, ...]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def forget(self) -> None:
        """As after a restart of the server; files stay."""
        with self._lock:
            self._known.clear()
            self._slots.clear()

    def read(self, body: Mapping[str, Any]) -> Read:
        """The prompt of one chat request."""
        tokens = rendered(body.get("messages") or ())
        with self._lock:
            if self.kind == "llama_cpp":
                return self._in_slot(body, tokens)
            salt = str(body.get("cache_salt", "")) if self.kind != "openai" else ""
            step = {"openai": HOSTED_STEP, "vllm": BLOCK, "sglang": 1}[self.kind]
            least = HOSTED_MIN if self.kind == "openai" else step
            ends = [end for end in range(step, len(tokens), step) if end >= least]
            cached = max((end for end in ends if (salt, tokens[:end]) in self._known), default=0)
            self._known.update((salt, tokens[:end]) for end in ends)
            told = self.kind == "openai" or (self.tells and (cached > 0 or self.kind == "sglang"))
            return Read(len(tokens), cached, told)

    def _in_slot(self, body: Mapping[str, Any], tokens: tuple[str, ...]) -> Read:
        slot = int(body.get("id_slot", 0))
        held = self._slots.get(slot, ()) if body.get("cache_prompt", True) else ()
        cached = 0
        for mine, theirs in zip(held, tokens[:-1], strict=False):  # the last token is always computed
            if mine != theirs:
                break
            cached += 1
        self._slots[slot] = tokens
        timings = {"cache_n": cached, "prompt_n": len(tokens) - cached}
        return Read(len(tokens), cached, True, timings)

    def act(self, slot: int, action: str, name: str) -> tuple[int, dict[str, Any]]:
        """(HTTP status, body) of `POST /slots/N?action=…`."""
        if not self.saves and action != "erase":
            return 501, _fault(
                501, "This server does not support slots action. Start it with `--slot-save-path`"
            )
        with self._lock:
            if action == "erase":
                return 200, {"id_slot": slot, "n_erased": len(self._slots.pop(slot, ()))}
            if not name or not re.fullmatch(r"[\w.-]+", name):
                return 400, _fault(400, "Invalid filename")
            if action == "save":
                held = self.files[name] = self._slots.get(slot, ())
                size = len(held) * BYTES_A_TOKEN
                return 200, {"id_slot": slot, "filename": name, "n_saved": len(held), "n_written": size}
            if action == "restore":
                if name not in self.files:
                    return 400, _fault(
                        400,
                        "Unable to restore slot, no available space in KV cache or invalid slot save file",
                    )
                held = self.files[name]
                self._slots[slot] = () if self.rereads else held
                size = len(held) * BYTES_A_TOKEN
                return 200, {"id_slot": slot, "filename": name, "n_restored": len(held), "n_read": size}
        return 400, _fault(400, "Invalid action")

    def props(self) -> dict[str, Any]:
        """`GET /props`, as far as it is about the model."""
        return {"model_path": f"/models/{self.model}", "chat_template": "plain", "total_slots": 1}


def rendered(messages: Sequence[Any]) -> tuple[str, ...]:
    """The tokens of a chat."""
    text = "".join(f"<{one['role']}> {_text(one['content'])} <end> " for one in messages) + "<assistant> "
    return tuple(re.findall(r"\S+\s*", text))


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in content)


def _fault(status: int, message: str) -> dict[str, Any]:
    return {"error": {"code": status, "message": message, "type": "invalid_request_error"}}
