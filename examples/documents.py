"""Files as memories: a small handbook and a price list are added, recalled with their place, replaced, deleted."""

import os
import tempfile
from pathlib import Path

folder = tempfile.TemporaryDirectory()
os.environ.setdefault("MEMOS_HOME", folder.name)

from memos.api.handlers import handlers_of  # noqa: E402
from memos.mem_os import MOS  # noqa: E402
from memos.runtime import reset  # noqa: E402

HANDBOOK = """# Pump handbook

## Warranty

The pump has a warranty of {years} years.

## Service

Call the workshop on weekdays before noon.
"""


def ask(mos: MOS, question: str) -> None:
    """Print the best memory for a question, and where it stands."""
    [cube] = mos.search(question, user_id="ann", top_k=1)["text_mem"]
    best = cube["memories"][0]
    document = best.metadata.info["document"]
    print(f"{question}\n  {best.memory.splitlines()[-1]}   [{document['name']}, {document['place']}]")


mos = MOS()
mos.create_user("ann")
mos.register_mem_cube("workshop", user_id="ann")
handbook, prices = Path(folder.name) / "handbook.md", Path(folder.name) / "prices.csv"
handbook.write_text(HANDBOOK.format(years="seven"))
prices.write_text("Part,Price\nHose,12 euros\nValve,30 euros\n")

for file in (handbook, prices):
    print(f"{file.name}: {len(mos.add(doc_path=file, user_id='ann'))} memories")
ask(mos, "How long is the warranty of the pump?")
ask(mos, "What is the price of a valve?")

handbook.write_text(HANDBOOK.format(years="nine"))
mos.add(doc_path=handbook, user_id="ann")
ask(mos, "How long is the warranty of the pump?")

memory = handlers_of(mos.runtime).memory
for first in memory.documents(cube_id="workshop"):
    print(f"deleted {first.extra['file']}: {memory.delete_documents([first.session_id])} memories")
reset()
folder.cleanup()
