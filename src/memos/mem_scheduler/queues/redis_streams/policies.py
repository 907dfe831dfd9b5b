"""The policy table in Redis: a hash with a version, and a copy of it in each process.

Every reply of a script carries the version, so a process that does anything with the queue follows what
another one wrote. A version that went back says that the server lost writes (a restart without a file, a
failover): whoever sees it first writes again what is missing, so that an ordered label stays ordered.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from memos import log
from memos.errors import QueueUnavailable
from memos.mem_scheduler.orchestrator import TaskPolicy
from memos.mem_scheduler.queues.policies import KnownPolicies, check_policy, policy_of, policy_text

logger = log.get_logger(__name__)


class RedisPolicyTable(KnownPolicies):
    """Policies by label. Thread-safe; `get` asks no server."""

    def __init__(
        self, *, read: Callable[[], tuple[int, Mapping[str, str]]], write: Callable[[str, str], int]
    ) -> None:
        """`read` gives the version and the policies as JSON; `write` stores one and gives the version."""
        super().__init__()
        self._read = read
        self._write = write
        self._lock = threading.Lock()

    def put(self, label: str, policy: TaskPolicy) -> None:
        check_policy(label, policy)
        self.follow(self._write(label, policy_text(policy)))

    def follow(self, version: int) -> None:
        """Take over what was written since, if the version says that something was.

        Raises nothing where the server has gone away meanwhile: the call that brought the version has done
        its work. The next one brings it again.
        """
        if version == self._version:
            return
        try:
            with self._lock:
                lost = self._read_again() if version != self._version else {}
            for label, policy in lost.items():
                self._write(label, policy_text(policy))
            if lost:
                with self._lock:
                    self._read_again()
        except QueueUnavailable as error:
            logger.warning("policies.not_read", error=str(error))

    def _read_again(self) -> dict[str, TaskPolicy]:
        """Gives what the server has lost, if its version went back; keeps to it until it is written again."""
        version, texts = self._read()
        found = {label: policy_of(text) for label, text in texts.items()}
        lost: dict[str, TaskPolicy] = {}
        if version < self._version:
            lost = {label: policy for label, policy in self._written.items() if label not in found}
        self._written = lost | found
        if not lost:
            self._version = version
        return lost
