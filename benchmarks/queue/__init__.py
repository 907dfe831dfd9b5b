"""The task queue against its bars: `python -m benchmarks.queue [--quick] [--json FILE]`.

submit_batch      the Redis queue, 500 a call, against pipelined XADD of the same bytes; share of its rate
submit_single     one message a call, against one XADD a round trip
drain             a whole scheduler with a no-op handler, against XREADGROUP 500 + XACK
cycle             500 in over 100 lanes, claimed and finished, again and again, against the bare cycle (one
                  stream); what one claim brought is settled together, as a scheduler does with batches that
                  end at the same time; cycle_4_lanes: the same over four (no bar: for information)
vs_dramatiq …     tasks/s of that scheduler against one worker of theirs on the same server
idle_p50, _p99    from submit to the waiting claim's return, against a blocked XREADGROUP
urgent_10k, _100k p99 of an urgent message past a backlog of that size, against idle_p99 (100k: against 10k)
fair_lag          the furthest any backlogged user was from its fair share, in messages
kill_…            SIGKILL of workers at random: time to the first re-dispatch beyond lease + heartbeat, messages
                  lost, effects twice, repeats of handlers beyond what was in flight
instances_2, _4   rate of that many worker processes, handlers sleeping 5 ms, against one; violations of order
local_batch       messages/s through the queue in memory: submitted 500 at a time, claimed, finished as done
sqlite_batch      the queue in a file against bare SQLite: the same bodies inserted 500 to a transaction and
                  deleted in the same batches, one transaction each, with the queue's own pragmas (FULL for what
                  is submitted, NORMAL for what is finished); share of its rate
sqlite_rate       messages/s of the queue in a file in that run (no bar: for information)
memory_after      keys of work left in Redis after the last message
idle_cpu_…        CPU of a started scheduler over 20 s without work, in percent of one core
idle_local_…      as idle_p50 and idle_p99, of the queue in memory, in ms (no bar: for information)
"""
