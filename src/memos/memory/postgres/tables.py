"""All tables of the database in one transaction."""

from __future__ import annotations

from memos.memory.postgres.blocks import PostgresBlocks
from memos.memory.postgres.checks import PostgresChecks
from memos.memory.postgres.copying import PostgresCopying
from memos.memory.postgres.cubes import PostgresCubes, PostgresMeta
from memos.memory.postgres.erasing import PostgresErasing
from memos.memory.postgres.index import PostgresIndexes
from memos.memory.postgres.items import PostgresItems
from memos.memory.postgres.journal import PostgresJournal
from memos.memory.postgres.outbox import PostgresOutbox
from memos.memory.postgres.recall import PostgresRecall
from memos.memory.postgres.session import Session
from memos.memory.postgres.web_logs import PostgresWebLogs
from memos.memory.postgres.working import PostgresWorking
from memos.memory.relational import tables as port


class PostgresTables:
    """Fulfils `Tables` on one transaction."""

    shared_writes: bool = True

    def __init__(self, session: Session, *, exact_max: int) -> None:
        self.session = session
        self.meta: port.MetaTable = PostgresMeta(session)
        self.cubes: port.CubeTable = PostgresCubes(session)
        self.items: port.ItemTable = PostgresItems(session)
        self.indexes: port.IndexTables = PostgresIndexes(session)
        self.working: port.WorkingTable = PostgresWorking(session)
        self.journal: port.JournalTable = PostgresJournal(session)
        self.outbox: port.OutboxTables = PostgresOutbox(session)
        self.logs: port.WebLogTable = PostgresWebLogs(session)
        self.erasing: port.ErasingTables = PostgresErasing(session)
        self.recall: port.RecallTables = PostgresRecall(session, exact_max)
        self.checks: port.VerifyTables = PostgresChecks(session)
        self.copying: port.CopyTables = PostgresCopying(session)
        self.blocks: port.BlockTables = PostgresBlocks(session)
