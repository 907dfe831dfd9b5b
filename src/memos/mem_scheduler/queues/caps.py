"""How many batches each user holds, and who is set aside for it. Pure.

What a user holds is the set of the leases themselves, so that nothing can be counted twice or forgotten:
a lease that ends, however it ends, leaves the set.
"""

from __future__ import annotations


class UserCaps:
    """`batches_max` leases of one user at a time, over all lanes; 0: no cap. Not thread-safe."""

    def __init__(self, batches_max: int) -> None:
        self.aside: set[str] = set()  # the users who hold as many as they may
        self._batches_max = batches_max
        self._held: dict[str, set[int]] = {}  # by user, epochs

    def leased(self, user_id: str, epoch: int) -> bool:
        """The user holds one more. True when it is set aside by that."""
        if not self._batches_max:
            return False
        held = self._held.setdefault(user_id, set())
        held.add(epoch)
        if len(held) < self._batches_max or user_id in self.aside:
            return False
        self.aside.add(user_id)
        return True

    def ended(self, user_id: str, epoch: int) -> bool:
        """The user holds one less. True when it comes back by that."""
        held = self._held.get(user_id)
        if held is None:
            return False
        held.discard(epoch)
        if not held:
            del self._held[user_id]
        if user_id not in self.aside or len(held) >= self._batches_max:
            return False
        self.aside.discard(user_id)
        return True

    def clear(self) -> None:
        self._held.clear()
        self.aside.clear()
