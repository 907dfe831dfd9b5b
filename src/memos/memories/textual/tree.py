"""`TreeTextMemory`: the text memory of a cube under its documented name.

It is what `cube.text_mem` is an instance of: `search`, `add`, `update`, `get`, `get_all`, `delete`,
`get_working_memory` and the atomic `replace_working_memory`. It lives in `memos.memory.cube`.
"""

from memos.memory.cube import TextMemory as TreeTextMemory

__all__ = ["TreeTextMemory"]
