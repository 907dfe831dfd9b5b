"""Prefixes in files of a llama.cpp server (level 2): a slot is filled, saved, and restored before a chat.

The server needs `--slot-save-path`. It checks neither that a file is of this model nor, on restoring, that it
will use it: some builds report success and read the whole prompt again. So a restore counts for nothing until
`timings.cache_n` of the answer says how much was reused. One slot is used for all prefixes; chats over it
take turns in this process, and what another process or program does with the slot shows as less reuse.

The server has no call that removes a file. `drop` empties the slot and saves it over the file, which leaves
a few bytes; where `folder` names the folder of `--slot-save-path`, the file is removed.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from memos import log
from memos.errors import (
    ActivationMiss,
    ActivationUnsupported,
    BadCompletion,
    ModelError,
    ModelRefused,
    ModelUnavailable,
)
from memos.memory.activation.base import (
    Capabilities,
    Generation,
    Handle,
    Layout,
    MissReason,
    Response,
    Reuse,
    Suffix,
)
from memos.models.base import ChatMessage
from memos.models.openai.chat import CacheHints, OpenAIChat
from memos.models.openai.prefix import STUB
from memos.models.openai.reply import Told

PREFIX = "memos-"
REUSED_SHARE_MIN = 0.5  # of what was restored; less is no reuse worth the name

logger = log.get_logger(__name__)


class SlotPrefixes:
    """Fulfils `ActivationBackend` over a llama.cpp server. Thread-safe."""

    def __init__(self, llm: OpenAIChat, *, slot: int = 0, folder: Path | None = None) -> None:
        self._llm = llm
        self._slot = slot
        self._folder = folder
        self._turn = threading.Lock()  # the slot holds one chat at a time
        self._model = ""

    def capabilities(self) -> Capabilities:
        return Capabilities(
            level=2,
            name="llama_cpp",
            builds=True,
            extends=True,
            survives_restart=True,
            token_ids=False,
            tells_reuse=True,
        )

    def fingerprint(self) -> str:
        """Of the model's file and template, as the server tells them (`/props`). Raises ActivationUnsupported,
        ModelUnavailable."""
        if not self._model:
            props = self._props()
            said = "\x1f".join(
                str(props.get(name, ""))
                for name in ("model_path", "model_alias", "chat_template", "build_info")
            )
            self._model = hashlib.sha256(said.encode()).hexdigest()[:16]
        return self._model

    def tokenize(self, messages: Sequence[ChatMessage]) -> tuple[int, ...]:
        raise ActivationUnsupported("llama.cpp is asked by text: its template renders the chat")

    def prepare(self, layout: Layout) -> Handle:
        """Fill the slot and save it. Raises ActivationMiss (the server keeps no files), ModelError."""
        fingerprint = self.fingerprint()
        said = "\x1f".join((fingerprint, layout.namespace, *layout.parts)).encode()
        name = f"{PREFIX}{layout.namespace[:16]}-{hashlib.sha256(said).hexdigest()[:24]}.bin"
        with self._turn:
            told = self._llm.warm((ChatMessage("system", layout.text), STUB), hints=self._hints())
            saved = self._act("save", name)
        tokens = _whole(saved.get("n_saved"))
        if tokens == 0:
            raise ActivationMiss(MissReason.FAILED, "the server saved an empty slot")
        return Handle(
            name,
            fingerprint,
            layout,
            tokens=told.tokens_in or tokens,
            bytes=_whole(saved.get("n_written")),
            extra={"saved": str(tokens)},
        )

    def extend(self, handle: Handle, keep: int, ids: Sequence[int], *, layout: Layout) -> Handle:
        """Restore the old prefix, so that only what differs is read, and save it as the new one."""
        with self._turn:
            try:
                self._act("restore", handle.id)
            except (ActivationMiss, ModelError) as error:
                logger.info("activation.restore_failed", error=str(error))
        return self.prepare(layout)

    def generate(self, handle: Handle, suffix: Suffix) -> Generation:
        if handle.fingerprint != self.fingerprint():
            raise ActivationMiss(MissReason.FINGERPRINT, "the server runs another model or template now")
        seen: list[Told] = []

        def pieces() -> Iterator[str]:
            with self._turn:
                if not _whole(self._act("restore", handle.id).get("n_restored")):
                    raise ActivationMiss(MissReason.MISSING, f"the slot's file {handle.id} held nothing")
                yield from self._llm.stream(
                    suffix.chat,
                    max_tokens=suffix.max_tokens,
                    timeout_s=suffix.timeout_s,
                    temperature=suffix.temperature,
                    top_p=suffix.top_p,
                    hints=self._hints(),
                    told=seen.append,
                )

        def response() -> Response:
            told = seen[-1] if seen else Told()
            expected = handle.ends[-1] if handle.ends else 0
            return Response(told.tokens_in, told.tokens_out, told.tokens_cached, extra={"expected": expected})

        return Generation(pieces(), response)

    def reused_tokens(self, response: Response) -> Reuse:
        cached = response.tokens_cached
        if cached is None:
            return Reuse(0, MissReason.UNTOLD)
        expected = response.extra.get("expected", 0)
        if cached == 0 or cached < REUSED_SHARE_MIN * expected:
            return Reuse(cached, MissReason.NOT_REUSED)
        return Reuse(cached)

    def drop(self, handle: Handle) -> int:
        if self._folder is not None:
            path = self._folder / handle.id
            if path.name == handle.id and path.is_file():
                path.unlink()
                return handle.bytes
            return 0
        with self._turn:
            self._act("erase", None)
            self._act("save", handle.id)
        return handle.bytes

    def drop_namespace(self, namespace: str) -> int:
        if self._folder is None:
            return 0
        gone = 0
        for path in self._folder.glob(f"{PREFIX}{namespace[:16]}-*.bin"):
            gone += path.stat().st_size
            path.unlink(missing_ok=True)
        return gone

    def _hints(self) -> CacheHints:
        return CacheHints({"id_slot": self._slot, "cache_prompt": True})

    def _act(self, action: str, name: str | None) -> dict[str, Any]:
        endpoint = self._llm.endpoint
        body = {} if name is None else {"filename": name}
        try:
            return endpoint.post(
                f"/slots/{self._slot}?action={action}", body, deadline=endpoint.deadline(None)
            )
        except ModelRefused as error:
            if error.status in (404, 501):
                raise ActivationUnsupported(
                    f"the server keeps no slots in files; start it with --slot-save-path ({error})"
                ) from error
            reason = MissReason.MISSING if action == "restore" else MissReason.FAILED
            raise ActivationMiss(reason, str(error)) from error
        except ModelUnavailable as error:
            raise ActivationMiss(MissReason.UNREACHABLE, str(error)) from error
        except BadCompletion as error:
            raise ActivationMiss(MissReason.FAILED, str(error)) from error

    def _props(self) -> dict[str, Any]:
        endpoint = self._llm.endpoint
        try:
            return endpoint.get("/props", deadline=endpoint.deadline(None))
        except ModelRefused as error:
            raise ActivationUnsupported(f"this is no llama.cpp server: {error}") from error
        except ModelUnavailable as error:
            raise ActivationMiss(MissReason.UNREACHABLE, str(error)) from error
        except BadCompletion as error:
            raise ActivationMiss(MissReason.FAILED, str(error)) from error


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
