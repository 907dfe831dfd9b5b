"""What a message, a recall and a turn cost as an installation grows, and how many machines that makes.

    python -m benchmarks.scale [--quick] [--json FILE]

`costs` measures CPU time, `waiting` holds measured waiting against the queueing model of `queueing`, `machines` counts
what users need with the assumptions that it prints. CPU times are of the whole process and all its threads.
"""
