"""Make the pictures of docs/images anew: a server with real traffic, looked at by a headless Chromium.

    python tools/make_screenshots.py [--seconds 240] [--out docs/images] [--all]

Three users talk to their memories, while tasks of an application run beside: quick ones, slow ones, some that
are due later and some that fail until they are dead letters. Needs the development extra (`playwright`,
`pillow`) and a Chromium (`apt-get install chromium`, or CHROMIUM_PATH). Text looks best with the fonts
Inter and JetBrains Mono (`apt-get install fonts-inter fonts-jetbrains-mono`).
"""

from __future__ import annotations

import argparse
import io
import os
import random
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import uvicorn
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from memos.api.app import create_app
from memos.api.handlers import handlers_of
from memos.api.product_models import APIADDRequest, APIChatCompleteRequest
from memos.cli.demo import CONVERSATION, QUESTIONS
from memos.context import bound, new_trace_id
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.runtime import Runtime, build
from memos.settings import Settings

CHROMIUM_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-sync",
)
BYTES_MAX = 250_000
OTHERS = {
    "boat": (
        "My boat is called Petrel and lies in the old harbour.",
        "The mast of Petrel was replaced in April.",
        "Petrel needs new antifouling before June.",
        "I sail with Tomas on Saturdays when the wind is below five.",
        "The harbour master is Mrs. Okafor; she wants the fee in cash.",
    ),
    "studio": (
        "The studio is booked on Mondays by the choir.",
        "Nadia keeps the spare key of the studio.",
        "The left monitor speaker hums above eighty hertz.",
        "Please never schedule recordings before ten in the morning.",
    ),
}
ASKED = {
    "pets": (
        *QUESTIONS,
        "Who is our vet?",
        "Where does Max stay in May?",
        "When is the puppy class?",
        "What did Priya offer?",
    ),
    "boat": ("What is my boat called?", "Who do I sail with?", "What does Petrel need before June?"),
    "studio": ("Who has the spare key?", "Which speaker hums?", "When may recordings begin?"),
}
USERS = {"pets": "ann", "boat": "bruno", "studio": "chen"}


def vet_visit(messages: list[ScheduleMessageItem]) -> None:
    """A quick task."""
    for _ in messages:
        time.sleep(random.uniform(0.005, 0.06))


def photo_index(messages: list[ScheduleMessageItem]) -> None:
    """A slow task."""
    for _ in messages:
        time.sleep(random.lognormvariate(0.35, 0.6))


def invoice_import(messages: list[ScheduleMessageItem]) -> None:
    """A task that fails for half of what it is given."""
    for message in messages:
        time.sleep(random.uniform(0.02, 0.2))
        if "scan" in message.content:
            raise ValueError(f"no total found on page 1 of {message.content.split()[-1]}")


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def served(home: Path) -> Iterator[tuple[str, Runtime]]:
    """A server with the application's handlers, and its address."""
    settings = Settings(home=home)
    settings = settings.model_copy(update={"scheduler": settings.scheduler.model_copy(update={"workers": 6})})
    with build(settings) as runtime:
        scheduler = runtime.scheduler
        scheduler.register_handlers(
            {"vet_visit": vet_visit, "photo_index": photo_index, "invoice_import": invoice_import}
        )
        for label in ("invoice_import", "photo_index"):
            policy = scheduler.orchestrator.get_policy(label)
            scheduler.orchestrator.set_policy(
                label, replace(policy, max_attempts=2, backoff_base_s=4.0, batch_size_max=2, concurrency=1)
            )
        port = free_port()
        server = uvicorn.Server(
            uvicorn.Config(create_app(runtime), port=port, log_level="warning", timeout_graceful_shutdown=1)
        )
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            yield f"http://127.0.0.1:{port}", runtime
        finally:
            server.should_exit = True
            thread.join()


def remember(runtime: Runtime) -> None:
    """What the users told before anybody looked."""
    add = handlers_of(runtime).add.handle_add_memories
    for session, turns in groupby(CONVERSATION, key=lambda turn: turn[0]):
        said = [{"role": role, "content": text, "chat_time": at} for _, at, role, text in turns]
        add(
            APIADDRequest(
                user_id="ann",
                writable_cube_ids=["pets"],
                session_id=session,
                messages=said,
                async_mode="sync",
            )
        )
    for cube, texts in OTHERS.items():
        said = [{"role": "user", "content": text} for text in texts]
        add(APIADDRequest(user_id=USERS[cube], writable_cube_ids=[cube], messages=said, async_mode="sync"))


def ask(runtime: Runtime, cube: str, question: str) -> None:
    """One question of a user, answered out of memory."""
    with bound(trace=new_trace_id(), user=USERS[cube], cube=cube):
        handlers_of(runtime).chat_service.answer(
            APIChatCompleteRequest(
                user_id=USERS[cube], query=question, readable_cube_ids=[cube], writable_cube_ids=[cube]
            )
        )


def submit(runtime: Runtime, label: str, content: str, *, delay_s: float = 0.0) -> None:
    """One task of the application."""
    cube = random.choice(list(USERS))
    message = ScheduleMessageItem(
        user_id=USERS[cube],
        mem_cube_id=cube,
        label=label,
        content=content,
        trace_id=new_trace_id(),
        task_id=f"{label}-{random.randrange(10**6):06d}",
    )
    runtime.queue.submit([message], delay_s=delay_s)


def traffic(runtime: Runtime, stop: threading.Event) -> None:
    """Tasks and questions until told to stop."""
    turn = 0
    while not stop.wait(random.expovariate(1 / 0.35)):
        turn += 1
        for _ in range(random.choice((1, 1, 2, 4))):
            submit(runtime, "vet_visit", f"Is there an allergy? ({turn})")
        if turn % 3 == 0:
            submit(
                runtime, "photo_index", f"album {turn}: {random.randrange(20, 400)} pictures of the harbour"
            )
        if turn % 60 == 0:
            submit(runtime, "photo_index", f"album {turn}, tonight", delay_s=random.uniform(1_200, 9_000))
        if turn % 14 == 0:
            kind = "scan" if turn % 56 == 0 else "letter"
            submit(runtime, "invoice_import", f"import the {kind} of invoice 2026-{1000 + turn}.pdf")
        if turn % 4 == 0:
            cube = random.choices(list(ASKED), weights=(4, 2, 1))[0]
            ask(runtime, cube, random.choice(ASKED[cube]))


def chromium() -> str:
    """The browser: CHROMIUM_PATH, or the machine's own."""
    found = os.environ.get("CHROMIUM_PATH") or shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        raise SystemExit("no Chromium here: apt-get install chromium, or set CHROMIUM_PATH")
    return found


def keep(page: Page, path: Path, *, whole: bool = False) -> None:
    """The picture; in fewer colours where it would weigh too much."""
    image = Image.open(io.BytesIO(page.screenshot(full_page=whole))).convert("RGB")
    image.save(path, optimize=True)
    for colours in (256, 128, 64):
        if path.stat().st_size < BYTES_MAX:
            break
        small = image.quantize(colours, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        small.save(path, optimize=True)
    print(f"{path}  {image.width}x{image.height}  {path.stat().st_size / 1024:.0f} KiB")


def opened(
    browser: Browser, url: str, *, width: int, height: int, dark: bool, tab: str, settle_s: float
) -> Page:
    """The page on one tab, its panels filled."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        device_scale_factor=1 if width > 1000 else 2,
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.on("console", lambda said: print("console:", said.text))
    page.on("pageerror", lambda error: print("error:", error))
    page.goto(f"{url}/#{tab}")
    if tab == "overview":
        page.locator("#latency-minutes").select_option("5")
    page.wait_for_timeout(1_000 * settle_s)
    return page


def memory(page: Page) -> None:
    page.locator("#cube").select_option("pets")
    page.wait_for_timeout(3_000)


def search(page: Page) -> None:
    memory(page)
    page.get_by_label("Query").fill("who looks after my dog while I am away?")
    page.get_by_label("weak matches too").check()
    page.get_by_role("button", name="Search", exact=True).click()
    page.get_by_label("Expected memory").fill("Priya offered to take Max")
    page.get_by_role("button", name="Explain").click()
    page.wait_for_timeout(2_000)


def dead(page: Page) -> None:
    if page.locator(".letters summary").count():
        page.locator(".letters summary").first.click()
    page.wait_for_timeout(300)


def logs(page: Page) -> None:
    page.locator(".log > li[data-category='Working memory'] summary").first.click()


def nothing(_: Page) -> None:
    pass


# name: (tab, dark, width, height, what to do first, kept for the documents)
PICTURES: dict[str, tuple[str, bool, int, int, Callable[[Page], None], bool]] = {
    "dashboard-overview": ("overview", False, 1440, 980, nothing, True),
    "dashboard-memory": ("memory", True, 1440, 1000, memory, True),
    "dashboard-search": ("search", False, 1440, 900, search, True),
    "dashboard-narrow": ("overview", True, 390, 844, nothing, True),
    "overview-dark": ("overview", True, 1440, 980, nothing, False),
    "memory-light": ("memory", False, 1440, 1000, memory, False),
    "dead-dark": ("dead", True, 1440, 800, dead, False),
    "dead-light": ("dead", False, 1440, 800, dead, False),
    "logs-light": ("logs", False, 1440, 900, logs, False),
    "logs-dark": ("logs", True, 1440, 900, logs, False),
    "search-dark": ("search", True, 1440, 900, search, False),
    "narrow-overview": ("overview", False, 390, 844, nothing, False),
    "narrow-memory": ("memory", False, 390, 844, memory, False),
    "narrow-dead": ("dead", False, 390, 844, dead, False),
    "narrow-logs": ("logs", True, 390, 844, nothing, False),
    "narrow-search": ("search", False, 390, 844, search, False),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=240, help="traffic before the first picture")
    parser.add_argument("--settle", type=float, default=30, help="seconds that each page is open before")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--all", action="store_true", help="every tab, light and dark, wide and narrow")
    parser.add_argument("--only", action="append", help="these pictures")
    asked = parser.parse_args()
    random.seed(7)
    asked.out.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="memos-pictures-") as folder,
        served(Path(folder)) as (url, runtime),
    ):
        remember(runtime)
        stop = threading.Event()
        feeding = threading.Thread(target=traffic, args=(runtime, stop))
        feeding.start()
        try:
            time.sleep(asked.seconds)
            with sync_playwright() as play:
                browser = play.chromium.launch(executable_path=chromium(), args=list(CHROMIUM_FLAGS))
                for name, (tab, dark_mode, width, height, prepare, kept) in PICTURES.items():
                    if (asked.only and name not in asked.only) or not (kept or asked.all or asked.only):
                        continue
                    page = opened(
                        browser,
                        url,
                        width=width,
                        height=height,
                        dark=dark_mode,
                        tab=tab,
                        settle_s=asked.settle,
                    )
                    prepare(page)
                    keep(page, asked.out / f"{name}.png", whole=asked.all and width < 1000 and not kept)
                    page.context.close()
                browser.close()
        finally:
            stop.set()
            feeding.join()


if __name__ == "__main__":
    main()
