"""What was read from deleted items alone, and has to go with them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from memos.memory.item import PART, ItemStatus
from memos.memory.relational.rows import Stored
from memos.memory.relational.tables import ItemTable


def orphans(items: ItemTable, cube_no: int, deleted: Collection[str]) -> list[Stored]:
    """Derived items of the cube that name one of `deleted` and no item that is still there; of those that
    name it as a part, all.

    One look at the derived items of the cube, however many were deleted.
    """
    origins: defaultdict[int, set[str]] = defaultdict(set)
    gone = frozenset(deleted)
    made_of: set[int] = set()  # summaries of which a part goes
    for no, item_id, kind in items.origins(cube_no):
        if item_id:
            origins[no].add(item_id)
            if kind == PART and item_id in gone:
                made_of.add(no)
    touched = {no: ids for no, ids in origins.items() if ids & gone}
    others = sorted(set().union(*touched.values()) - gone) if touched else []
    living = {
        item_id
        for item_id, stored in items.by_id(others).items()
        if stored.item.status is not ItemStatus.DELETED
    }
    return items.by_no([no for no, ids in touched.items() if no in made_of or not ids & living])
