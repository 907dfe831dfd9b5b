"""An installation under load and faults: private PostgreSQL and Redis behind proxies, servers and workers, clients with
a ledger, and the audit that holds the ledger against what the store says. `python -m benchmarks.soak` runs it for
minutes, `tests/faults/test_beyond_one_machine.py` fault by fault.
"""
