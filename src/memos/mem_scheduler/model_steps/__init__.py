"""Where a language model takes part in the work on memory: one step a file, each beside the rules that it helps.

A step asks once, through `memos.models.ask`, and gives back values. What it gives has been checked: places
that do not exist, words that nobody said and texts that give orders are dropped and counted, and without
a usable answer the caller's rules do the work. A step writes nothing and holds no transaction open.
"""
