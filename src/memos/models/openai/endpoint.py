"""One OpenAI-compatible endpoint: its client, its limits, and its errors in our words.

Guarantees: one request is sent once (the SDK's own retries are off), takes at most its `timeout_s` all
together, however slowly bytes drip in, and reads at most `REPLY_BYTES_MAX`. Every failure comes out as a
`ModelError`: 429 as RateLimited with the seconds the endpoint asked for, other 4xx as ModelRefused (asking
again will not help), 5xx, time-outs and broken connections as ModelUnavailable. The key goes to this
base URL only and into no message. Not here: what is asked, and what a reply means.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from memos.clock import Clock, SystemClock
from memos.errors import (
    BadCompletion,
    ConfigError,
    InvalidInput,
    ModelError,
    ModelRefused,
    ModelUnavailable,
    RateLimited,
)

if TYPE_CHECKING:
    from openai import APIStatusError, OpenAI

OPENAI_URL = "https://api.openai.com/v1"
NO_KEY = "none"  # servers without authentication take any key, the SDK insists on one

CONNECT_TIMEOUT_S = 5.0
REPLY_BYTES_MAX = 32 * 1024 * 1024
LINE_BYTES_MAX = 4 * 1024 * 1024
RETRY_AFTER_S = 20.0  # when the endpoint does not say
RETRY_AFTER_MAX_S = 3_600.0
SAID_CHARS_MAX = 300

_TRANSIENT = frozenset({408, 409, 425})


class Endpoint:
    """A base URL and its key. Thread-safe. Raises InvalidInput for a URL or key that cannot work,
    ConfigError without the extra `openai`."""

    def __init__(
        self, base_url: str = OPENAI_URL, *, api_key: str = "", timeout_s: float, clock: Clock | None = None
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidInput(
                f"base URL {base_url!r}: give the whole URL, as http://localhost:11434/v1 for Ollama"
            )
        if not (api_key.isascii() and api_key.isprintable()):
            raise InvalidInput("the API key holds characters that no key has; copy it again")
        if timeout_s <= 0:
            raise InvalidInput(f"timeout_s must be more than 0, got {timeout_s!r}")
        try:
            self._vendor = importlib.import_module("openai")
        except ImportError as error:
            raise ConfigError(
                "the package `openai` is not installed: pip install 'memscheduler[openai]'"
            ) from error
        self.base_url = base_url.rstrip("/")
        self.host = parts.hostname
        self.timeout_s = timeout_s
        self._clock = clock or SystemClock()
        self.client: OpenAI = self._vendor.OpenAI(
            base_url=self.base_url, api_key=api_key or NO_KEY, max_retries=0, timeout=timeout_s
        )
        # The SDK lets errors of its transport through while a body is read; which transport that is
        # (httpx, httpx2) depends on the SDK's version, the ancestry of its client tells.
        ancestry = self._vendor.DefaultHttpxClient.__mro__
        kind = next(one for one in ancestry if not one.__module__.startswith("openai"))
        transport = importlib.import_module(kind.__module__.partition(".")[0])
        self._transport_errors = (transport.HTTPError, transport.StreamError, transport.InvalidURL)
        self._transport_timeout = transport.TimeoutException

    def close(self) -> None:
        """Close the connections."""
        self.client.close()

    def deadline(self, timeout_s: float | None) -> float:
        """When a request that starts now has to be over, on this endpoint's clock."""
        return self._clock.monotonic() + (self.timeout_s if timeout_s is None else timeout_s)

    def left_s(self, deadline: float) -> float:
        """Seconds until `deadline`. Raises ModelUnavailable when it is past."""
        left = deadline - self._clock.monotonic()
        if left <= 0:
            raise ModelUnavailable(f"{self.host} did not answer in time")
        return left

    def timeout(self, deadline: float) -> Any:
        """The SDK's form of what is left until `deadline`; connecting may take only a part of it."""
        left = self.left_s(deadline)
        return self._vendor.Timeout(left, connect=min(left, CONNECT_TIMEOUT_S))

    def chunks(self, opened: AbstractContextManager[Any], *, deadline: float) -> Iterator[bytes]:
        """The body of a streaming response as it comes, within the limits."""
        size = 0
        with self.translated(), opened as response:
            for chunk in response.iter_bytes():
                size += len(chunk)
                if size > REPLY_BYTES_MAX:
                    raise ModelUnavailable(f"{self.host} sent more than {REPLY_BYTES_MAX} bytes")
                self.left_s(deadline)
                yield chunk

    def lines(self, opened: AbstractContextManager[Any], *, deadline: float) -> Iterator[str]:
        """The same, line by line, the last one even without its end."""
        held = b""
        for chunk in self.chunks(opened, deadline=deadline):
            *whole, held = (held + chunk).split(b"\n")
            if len(held) > LINE_BYTES_MAX:
                raise ModelUnavailable(f"{self.host} sent a line of more than {LINE_BYTES_MAX} bytes")
            for line in whole:
                yield line.rstrip(b"\r").decode("utf-8", "replace")
        if held:
            yield held.decode("utf-8", "replace")

    def body(self, opened: AbstractContextManager[Any], *, deadline: float) -> str:
        """The whole body as text."""
        return b"".join(self.chunks(opened, deadline=deadline)).decode("utf-8", "replace")

    def get(self, path: str, *, deadline: float) -> dict[str, Any]:
        """What the server answers at a path of its own, beside the base URL's /v1. `{}` where it is no object.

        Raises ModelError; BadCompletion where it is not JSON.
        """
        options: Any = {"timeout": self.timeout(deadline)}
        with self.translated(), _parsed(self.host):
            answer = self.client.get(self._own(path), cast_to=object, options=options)
        return answer if isinstance(answer, dict) else {}

    def post(self, path: str, body: Any, *, deadline: float) -> dict[str, Any]:
        """The same with a body."""
        options: Any = {"timeout": self.timeout(deadline)}
        with self.translated(), _parsed(self.host):
            answer = self.client.post(self._own(path), cast_to=object, body=body, options=options)
        return answer if isinstance(answer, dict) else {}

    def _own(self, path: str) -> str:
        return self.base_url.removesuffix("/v1") + path

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Vendor errors out of this block become ours."""
        vendor = self._vendor
        try:
            yield
        except vendor.APIStatusError as error:
            raise self._of_status(error) from error
        except (vendor.APITimeoutError, self._transport_timeout) as error:
            raise ModelUnavailable(f"{self.host} did not answer in time") from error
        except vendor.APIConnectionError as error:
            raise ModelUnavailable(
                f"{self.base_url} cannot be reached: {error.__cause__ or error}"
            ) from error
        except self._transport_errors as error:
            raise ModelUnavailable(f"the connection to {self.host} broke off: {error}") from error
        except vendor.OpenAIError as error:
            raise ModelUnavailable(f"{self.host}: {_cut(str(error))}") from error

    def _of_status(self, error: APIStatusError) -> ModelError:
        status = error.status_code
        said = f"{self.host} answers {status}: {_cut(_said(error))}"
        if status == 429:
            if error.code == "insufficient_quota":  # waiting does not fill an account
                return ModelUnavailable(said)
            return RateLimited(_retry_after_s(error, self._clock.now), said)
        if (status >= 500 and status != 501) or status in _TRANSIENT:  # 501: asking again does not help
            return ModelUnavailable(said)
        if status == 404 and not urlsplit(self.base_url).path.strip("/"):
            said += f" (is /v1 missing at the end of {self.base_url}?)"
        return ModelRefused(said, status=status)


@contextmanager
def _parsed(host: str) -> Iterator[None]:
    """The SDK parses a body of status 200 without translating what is wrong with it."""
    try:
        yield
    except (ValueError, RecursionError) as error:
        raise BadCompletion(f"the answer of {host} is not JSON", "") from error


def sendable(text: str) -> str:
    """`text` as UTF-8 can carry it: a lone surrogate becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _said(error: APIStatusError) -> str:
    body = error.body
    if isinstance(body, dict):
        for inner in (body.get("message"), body.get("error"), body.get("detail")):
            if isinstance(inner, str) and inner:
                return inner
    return body if isinstance(body, str) and body.strip() else error.message


def _retry_after_s(error: APIStatusError, now: Callable[[], float]) -> float:
    """What `Retry-After` asks for, as seconds or as a date, within the bounds."""
    text = (error.response.headers.get("retry-after") or "").strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - now()
        except (ValueError, TypeError, OverflowError):
            return RETRY_AFTER_S
    return min(max(seconds, 0.0), RETRY_AFTER_MAX_S) if seconds == seconds else RETRY_AFTER_S


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= SAID_CHARS_MAX else text[: SAID_CHARS_MAX - 1] + "…"
