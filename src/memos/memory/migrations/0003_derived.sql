-- Derived items by cube: deleting what an item was read from has to find it.

CREATE INDEX item_derived ON item (cube_no, no) WHERE raw = 0 AND status <> 'deleted';
