"""All tables of the file in one transaction."""

from __future__ import annotations

import sqlite3

from memos.memory.relational import tables as port
from memos.memory.sqlite.blocks import SqliteBlocks
from memos.memory.sqlite.checks import SqliteChecks
from memos.memory.sqlite.copying import SqliteCopying
from memos.memory.sqlite.cubes import SqliteCubes, SqliteMeta
from memos.memory.sqlite.erasing import SqliteErasing
from memos.memory.sqlite.index import SqliteIndexes
from memos.memory.sqlite.items import SqliteItems
from memos.memory.sqlite.journal import SqliteJournal
from memos.memory.sqlite.outbox import SqliteOutbox
from memos.memory.sqlite.recall import SqliteRecall
from memos.memory.sqlite.web_logs import SqliteWebLogs
from memos.memory.sqlite.working import SqliteWorking


class SqliteTables:
    """Fulfils `Tables` on one connection."""

    shared_writes: bool = False

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.meta: port.MetaTable = SqliteMeta(connection)
        self.cubes: port.CubeTable = SqliteCubes(connection)
        self.items: port.ItemTable = SqliteItems(connection)
        self.indexes: port.IndexTables = SqliteIndexes(connection)
        self.working: port.WorkingTable = SqliteWorking(connection)
        self.journal: port.JournalTable = SqliteJournal(connection)
        self.outbox: port.OutboxTables = SqliteOutbox(connection)
        self.logs: port.WebLogTable = SqliteWebLogs(connection)
        self.erasing: port.ErasingTables = SqliteErasing(connection)
        self.recall: port.RecallTables = SqliteRecall(connection)
        self.blocks: port.BlockTables = SqliteBlocks(connection)
        self.checks: port.VerifyTables = SqliteChecks(connection)
        self.copying: port.CopyTables = SqliteCopying(connection)
