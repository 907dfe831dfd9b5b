-- Ids that were given out and now stand for another item (a merge). The alias may have a row of its own,
-- which is then archived; an alias never points at an alias.

CREATE TABLE alias (
    id      TEXT    PRIMARY KEY,
    item_no INTEGER NOT NULL REFERENCES item (no)
) WITHOUT ROWID;
CREATE INDEX alias_by_item ON alias (item_no);
