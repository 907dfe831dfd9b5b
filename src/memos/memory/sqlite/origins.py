"""What was read from deleted items alone, and has to go with them."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Collection

from memos.memory.item import PART, ItemStatus
from memos.memory.sqlite.lookup import find_by_id, find_by_no
from memos.memory.sqlite.rows import Stored

_ORIGINS = """
SELECT item.no, json_extract(source.value, '$.item_id'), json_extract(source.value, '$.type')
FROM item, json_each(item.body, '$.sources') AS source
WHERE item.cube_no = ? AND item.raw = 0 AND item.status <> 'deleted'
"""


def orphans(connection: sqlite3.Connection, cube_no: int, deleted: Collection[str]) -> list[Stored]:
    """Derived items of the cube that name one of `deleted` and no item that is still there; of those that
    name it as a part, all.

    One look at the derived items of the cube, however many were deleted.
    """
    origins: defaultdict[int, set[str]] = defaultdict(set)
    gone = frozenset(deleted)
    made_of: set[int] = set()  # summaries of which a part goes
    for no, item_id, kind in connection.execute(_ORIGINS, (cube_no,)):
        if item_id:
            origins[no].add(item_id)
            if kind == PART and item_id in gone:
                made_of.add(no)
    touched = {no: ids for no, ids in origins.items() if ids & gone}
    others = sorted(set().union(*touched.values()) - gone) if touched else []
    living = {
        item_id
        for item_id, stored in find_by_id(connection, others).items()
        if stored.item.status is not ItemStatus.DELETED
    }
    return find_by_no(connection, [no for no, ids in touched.items() if no in made_of or not ids & living])
