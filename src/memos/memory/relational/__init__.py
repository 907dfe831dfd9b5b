"""What both SQL stores are: the rules of a transaction, of recall and of the journal, over a port of tables.

    RelationalStore ── Database (port) ── one transaction ── Tables (port) ── the SQL of one database
         │                                                     │
         ├─ Writing: changes in order, capacity, journal, cube rows
         └─ ReadView ── RecallCache: vectors, facets, posting lists by `seq`

`sqlite/` and `postgres/` bring the tables: every statement of theirs is written out there. Nothing in this
package knows a vendor, and no rule of the contract (`memos.memory.store`) is written twice.
"""
