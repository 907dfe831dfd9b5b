"""Every exception that the project raises on purpose, on one page.

    MemosError
    ├── InvalidInput                    a value that can never work; names the value and the way out
    │   └── DocumentError               a file that cannot be read into memories
    │       ├── DocumentUnsupported     no reader for what it holds; names the extra where one would do
    │       ├── DocumentUnreadable      damaged, cut off, or not what its name says
    │       ├── DocumentEncrypted       a password is needed
    │       ├── DocumentEmpty           it holds no text
    │       └── DocumentTooLarge        a bound is reached; names the setting
    ├── AccessDenied                    the key of this caller is not for that
    ├── ConfigError                     settings, YAML or wiring; raised at start, never in the middle
    ├── QueueError
    │   ├── QueueFull                   a bound is reached; nothing of the call was queued
    │   ├── QueueUnavailable            the backend does not answer
    │   │   └── ShardsUnavailable       a part of it does not
    │   └── LeaseLost                   somebody else may hold the batch now
    ├── HandlerError                    what a handler may raise to steer its own outcome
    │   ├── RetryLater(delay_s)         try again then; does not count as a failure
    │   ├── Discard(reason)             dead-letter at once, no retry
    │   ├── TaskCancelled               it stops because its message was cancelled
    │   └── PartialFailure(failed)      only these messages failed, the others are done
    ├── StoreError
    │   ├── CubeNotFound
    │   ├── ItemNotFound
    │   ├── ItemGone                    it existed and was deleted
    │   ├── SubjectErased               its user was erased after the task was submitted
    │   ├── VersionConflict             somebody wrote in between; read again and retry
    │   ├── StoreUnavailable            locked, full disk, unwritable, a statement that takes too long
    │   │   └── StoreAway               its server does not answer, whatever is asked
    │   ├── StoreCorrupt                the file is not a healthy database
    │   ├── SchemaTooNew                written by a newer version of this program
    │   └── EmbedderMismatch            vectors of another model; names `memos reembed`
    ├── ActivationError                 a prepared prefix; the chat goes on without it
    │   ├── ActivationMiss(reason)      what is kept cannot be used this time
    │   └── ActivationUnsupported       this model or server cannot keep prefixes
    └── ModelError
        ├── ModelUnavailable
        ├── RateLimited(retry_after_s)
        ├── ModelRefused(status)        the request, the key or the model's name is refused
        └── BadCompletion(raw)

`retryable` says whether the same call may succeed later without anybody changing anything. Vendor
exceptions are translated once, in the adapter that knows the vendor, with `raise … from`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class MemosError(Exception):
    """Root of the tree. Catch this to catch everything the project raises on purpose."""

    retryable: ClassVar[bool] = False


class InvalidInput(MemosError, ValueError):
    """A value from outside is refused. The message names the field, the value and what would be accepted."""


class DocumentError(InvalidInput):
    """A document cannot be read. Nothing of it is stored."""


class DocumentUnsupported(DocumentError):
    """There is no reader for what the file holds, or its package is not installed (the message names it)."""


class DocumentUnreadable(DocumentError):
    """The file is damaged, cut off, in an unknown encoding, or not what its name says."""


class DocumentEncrypted(DocumentError):
    """The file cannot be read without a password: remove the password, then add it."""


class DocumentEmpty(DocumentError):
    """The file holds no text."""


class DocumentTooLarge(DocumentError):
    """Reading the file reaches a bound of size, pages, time or memory; the message names the setting."""


class AccessDenied(MemosError):
    """Who asks may not do this: another user's data, another cube, or a role that does not reach so far."""


class ConfigError(MemosError):
    """The settings cannot work. Raised while the runtime is built."""


class QueueError(MemosError):
    """The task queue could not do what was asked."""


class QueueFull(QueueError):
    """A bound of the queue is reached. Nothing of the refused call was queued; submit again later."""

    retryable = True


class QueueUnavailable(QueueError):
    """The queue's backend does not answer."""

    retryable = True


class ShardsUnavailable(QueueUnavailable):
    """Some shards of the queue do not answer, others do: `lost` leases are lost, of the `unheard` nothing is known."""

    def __init__(self, message: str, *, lost: Sequence[Any] = (), unheard: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.lost = tuple(lost)
        self.unheard = tuple(unheard)


class LeaseLost(QueueError):
    """The lease of a batch ran out: another worker may run it. What this worker did is not recorded."""


class HandlerError(MemosError):
    """Raised by handlers to say what should become of their messages."""


class RetryLater(HandlerError):
    """Run the message again after `delay_s` seconds. Does not count against `max_attempts`."""

    retryable = True

    def __init__(self, delay_s: float, reason: str = "") -> None:
        super().__init__(reason or f"retry in {delay_s:g} s")
        self.delay_s = delay_s


class Discard(HandlerError):
    """The message can never succeed: dead-letter it now, without further attempts."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TaskCancelled(HandlerError):
    """The handler stops because its messages were cancelled (`current.stop_if_cancelled` raises it).

    A message that nobody cancelled has failed by it like by any other exception.
    """


class PartialFailure(HandlerError):
    """Some messages of the batch failed; all that are not named are done.

    `failed` maps the `item_id` (or message key) of a failed message to the error's text.
    """

    retryable = True

    def __init__(self, failed: Mapping[str, str]) -> None:
        super().__init__(f"{len(failed)} message(s) failed: {', '.join(failed)}")
        self.failed = dict(failed)


class StoreError(MemosError):
    """The memory store could not do what was asked."""


class CubeNotFound(StoreError):
    """No cube of that id holds or ever held memories."""


class ItemNotFound(StoreError):
    """No item of that id was ever stored."""


class ItemGone(StoreError):
    """The item existed and was deleted; its text is no longer kept."""


class SubjectErased(StoreError):
    """The task was submitted before its user was erased: what it would store must not come back."""


class VersionConflict(StoreError):
    """The stored version is not the expected one. Read again, decide again, retry."""

    retryable = True


class StoreUnavailable(StoreError):
    """The store cannot be read or written right now (locked, disk full, read-only)."""

    retryable = True


class StoreAway(StoreUnavailable):
    """The store's server does not answer, starts, or fails over. Nothing is wrong with what was asked: a task
    that meets it is handed back to the queue and loses none of its attempts."""


class StoreCorrupt(StoreError):
    """The store's file is not a healthy database."""


class SchemaTooNew(StoreError):
    """The store was written by a newer version of this program, which this one must not touch."""


class EmbedderMismatch(StoreError):
    """The stored vectors come from another embedding model than the configured one."""


class ActivationError(MemosError):
    """A prefix could not be prepared, kept or used. No chat fails by it."""


class ActivationMiss(ActivationError):
    """What is kept cannot be used this time. `reason` is a `memos.memory.activation.base.MissReason`."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason


class ActivationUnsupported(ActivationError):
    """The model or server cannot keep prefixes (sliding window, recurrent layers, no such interface)."""


class ModelError(MemosError):
    """A language or embedding model failed."""


class ModelUnavailable(ModelError):
    """The model cannot be loaded or reached."""

    retryable = True


class RateLimited(ModelError):
    """The endpoint asks to wait `retry_after_s` seconds."""

    retryable = True

    def __init__(self, retry_after_s: float, reason: str = "") -> None:
        super().__init__(reason or f"rate limited; retry in {retry_after_s:g} s")
        self.retry_after_s = retry_after_s


class ModelRefused(ModelError):
    """The endpoint refuses the request (wrong key, unknown model, too long a prompt): mend it, then ask
    again. `status` is the HTTP status, 0 where there was none."""

    def __init__(self, reason: str, *, status: int) -> None:
        super().__init__(reason)
        self.status = status


class BadCompletion(ModelError):
    """The model's reply could not be used. `raw` keeps the reply as it came."""

    def __init__(self, reason: str, raw: str) -> None:
        super().__init__(reason)
        self.raw = raw
