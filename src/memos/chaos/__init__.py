"""Kill, pause and cut workers while they work, then hold what happened against what was promised.

    plan          which fault strikes whom and when, drawn from a seed (pure)
    nursery       a small process that forks light workers: a kill costs milliseconds, not imports
    child         what a worker or a submitter does, and the exact points at which it may kill itself
    witness       the queue as the child uses it; every claim and finish is written down outside
    ledger        the file of what was seen: one line an event, synced before the work goes on
    verdict       what the ledger, the store and the queue say about each guarantee (pure)
    conductor     carries the plan out
    redis_server, proxy   a private server to kill, and a wire to cut and slow down

`memos chaos` is the command line; `docs/guarantees.md` says what each number means.
"""
