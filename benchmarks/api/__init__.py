"""The HTTP API: adds and searches a second, and how long one takes, by clients at once.

    python -m benchmarks.api [--quick] [--json FILE]              the embedded stack beside a bare application
    python -m benchmarks.api --workers [--quick] [--json FILE]    the embedded stack beside servers and workers

`memos serve` runs as a process of its own with the defaults a user gets (durable queue, the embedder where it is
installed); the clients are threads of this process, each with a connection of its own, so their cost is part of the
figures. Each client asks for a user of its own, and no two send the same text: encodings are kept, and would be shared.
After the adds every one that was answered 200 is looked for: `adds lost` must be 0.

The floor is what the same clients get from a bare FastAPI application that gives back the JSON it was sent, in a process
like the server's; `of the floor` and the CPU time of the server's process for each request say more on a busy machine
than rates do. The last row kills the server in the middle of adds and looks again after a restart.

`parts` starts the processes, `load` asks them, `beside` compares what docs/scale.md recommends.
"""
