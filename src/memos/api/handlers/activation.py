"""ActivationHandler: what of a cube's prompts need not be read again, for the dashboard."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from memos.api import access
from memos.api.activation_models import ActivationResponse, BlockRow
from memos.clock import utc
from memos.memory.activation.status import BlockStatus, status_of

if TYPE_CHECKING:
    from memos.runtime_activation import Activation


class ActivationHandler:
    """Reads only."""

    def __init__(self, activation: Activation) -> None:
        self._activation = activation

    def handle_activation(self, cube_id: str) -> ActivationResponse:
        """Of the readers and cubes in the scope of who asks; no blocks for a cube that nobody chatted over.

        Raises AccessDenied.
        """
        access.may_read(cubes=[cube_id])
        principal = access.current()
        found = [
            one
            for one in status_of(self._activation.blocks.index, cube_id=cube_id)
            if principal.has_user(one.user_id) and all(principal.has_cube(cube) for cube in one.cube_ids)
        ]
        keeper = self._activation.keeper
        prefixes = [one.prefix for one in found if one.prefix is not None]
        return ActivationResponse(
            message="Activation memory retrieved successfully",
            data={
                "mem_cube_id": cube_id,
                "backend": None if keeper is None else keeper.name,
                "builds": keeper is not None and keeper.builds,
                "tokens": sum(one.tokens for one in prefixes),
                "bytes": sum(one.bytes for one in prefixes),
                "blocks": [_row(one) for one in found],
            },
        )


def _row(one: BlockStatus) -> BlockRow:
    prefix = one.prefix
    return {
        "user_id": one.user_id,
        "mem_cube_ids": list(one.cube_ids),
        "memories": one.memories,
        "tokens": one.tokens,
        "chats": one.chats,
        "changes": one.changes,
        "hits": one.hits,
        "misses": one.misses,
        "hit_rate": one.hit_rate,
        "last_miss": one.last_miss,
        "last_miss_at": None if one.last_miss_at is None else utc(one.last_miss_at).isoformat(),
        "predicted_tokens": one.predicted_tokens,
        "reused_tokens": one.reused_tokens,
        "prompt_tokens": one.prompt_tokens,
        "update_reuse": one.update_reuse,
        "changed_at": _iso(one.changed_at),
        "used_at": _iso(one.used_at),
        "prefix": None
        if prefix is None
        else {
            "backend": prefix.backend,
            "tokens": prefix.tokens,
            "bytes": prefix.bytes,
            "memories": prefix.memories,
            "usable_memories": prefix.usable,
            "built_at": _iso(prefix.built_at),
        },
    }


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
