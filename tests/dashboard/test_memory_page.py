"""The page and memory: working memory, logs, search with explanation, and texts that are only texts."""

from __future__ import annotations

from memos.mem_scheduler.schemas.web_log_schemas import ScheduleLogForWebItem

from .browser import expect
from .conftest import Opener, World

HOSTILE = '<img src=x onerror="window.harmed=1"><script>window.harmed=2</script> My boat is called Petrel.'


def tell(world: World, text: str, *, trace: str, label: str = "addMessage", cube: str = "pets") -> None:
    entry = ScheduleLogForWebItem(
        user_id="ann", mem_cube_id=cube, label=label, log_content=text, trace_id=trace
    )
    world.runtime.store.apply([], logs=[entry])


def test_working_memory_tells_turn_by_turn(world: World, url: str, open_page: Opener) -> None:
    """Each question is a turn with what it brought and why; the page follows by itself."""
    world.add("My boat is called Petrel.")
    world.submit("mem_update", "What is my boat called?", trace="t1")
    world.idle()
    page = open_page(url, "memory")
    places = page.locator(".places .said")
    expect(places.first).to_have_text("My boat is called Petrel.")
    reason = page.locator(".places .why").first.inner_text()
    entry = world.runtime.store.working("pets").entries[0]
    assert reason == entry.reason
    expect(page.locator(".turns > li")).to_have_count(1)
    expect(page.locator(".turns .in .said").first).to_have_text("My boat is called Petrel.")
    world.add("My dog is called Max.")
    world.submit("mem_update", "What is my dog called?", trace="t2")
    world.idle()
    expect(page.locator(".turns > li")).to_have_count(2)
    newest = page.locator(".turns > li").first
    expect(newest.locator(".in .said").first).to_have_text("My dog is called Max.")
    version = world.runtime.store.working("pets").version
    expect(newest.locator("header b")).to_have_text(f"v{version}")


def test_activation_memory_is_shown_as_it_comes(world: World, url: str, open_page: Opener) -> None:
    """None yet is said; known and unknown fields are shown, lists one by one; a server without it has no card."""
    world.add("My boat is called Petrel.")
    page = open_page(url, "memory")
    panel = page.locator("[data-panel=activation]")
    expect(panel.locator(".nothing")).to_have_text("No activation memory yet.")
    block = {"user_id": "ann", "tokens": 1_234, "hit_rate": 0.75, "last_miss": "working memory changed"}
    prefix = {"bytes": 2_048, "built_at": None}
    told = {"backend": "slots", "blocks": [{**block, "surprise_ms": 12, "prefix": prefix}]}
    page.route("**/product/activation/*", lambda route: route.fulfill(json={"code": 200, "data": told}))
    expect(panel.locator("h4 .mono")).to_have_text("ann", timeout=30_000)  # at the panel's next look
    facts = dict(
        zip(panel.locator("dt").all_inner_texts(), panel.locator("dd").all_inner_texts(), strict=True)
    )
    assert facts == {
        "Kept by": "slots",
        "Tokens": "1,234",
        "Hit rate": "75 %",
        "Reason of the last miss": "working memory changed",
        "Surprise ms": "12 ms",
        "Bytes": "2 KiB",
    }
    page.route("**/product/activation/*", lambda route: route.fulfill(status=404, json={"code": 404}))
    expect(panel).to_be_hidden(timeout=30_000)


def test_texts_of_memories_are_only_texts(world: World, url: str, open_page: Opener) -> None:
    """Markup in a memory, an error and a log is shown as it is written and does nothing."""
    world.add(HOSTILE)
    world.submit("mem_update", "What is my boat called?")
    world.submit("bad", HOSTILE)
    world.idle()
    tell(world, HOSTILE, trace="t1")
    page = open_page(url, "memory")
    expect(page.locator(".places .said").first).to_have_text(HOSTILE)
    page.get_by_role("tab", name="Dead letters").click()
    page.locator(".letters summary").click()
    expect(page.locator(".letters pre")).to_have_text(HOSTILE)
    page.get_by_role("tab", name="Logs").click()
    expect(page.locator(".log summary .said", has_text="onerror").first).to_be_visible()
    page.get_by_role("tab", name="Search").click()
    page.locator("#search-query").fill("What is my boat called?")
    page.locator("#search-weak").check()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.locator(".hits .said").first).to_have_text(HOSTILE)
    assert page.evaluate("window.harmed") is None
    assert page.locator("main img, main script").count() == 0
    assert not any(asked.endswith("/x") for asked in page.seen.urls)


def test_the_log_stream_shows_one_trace(world: World, url: str, open_page: Opener) -> None:
    """Filtered by a trace, the page shows that trace alone, old rows and those that come."""
    tell(world, "one of the trace", trace="t-wanted")
    tell(world, "of another", trace="t-other")
    page = open_page(url, "logs")
    expect(page.locator(".log > li")).to_have_count(2)
    page.get_by_label("Trace", exact=True).fill("t-wanted")
    page.keyboard.press("Enter")
    page.locator("#logs-trace").blur()
    expect(page.locator(".log > li")).to_have_count(1)
    tell(world, "comes of another", trace="t-other")
    tell(world, "comes later", trace="t-wanted", label="scheduleMemory")
    expect(page.locator(".log > li")).to_have_count(2)
    expect(page.locator(".log > li .said").first).to_have_text("comes later")
    assert {row.get_attribute("data-trace") for row in page.locator(".log > li").all()} == {"t-wanted"}
    page.get_by_role("button", name="Working memory").click()
    visible = page.locator(".log > li:visible")
    expect(visible).to_have_count(1)
    expect(visible.locator(".said")).to_have_text("one of the trace")
    page.get_by_role("button", name="Clear").click()
    expect(page.locator(".log > li")).to_have_count(4)
    page.locator("#logs-label").select_option("scheduleMemory")
    expect(page.locator(".log > li")).to_have_count(1)


def test_explain_says_the_real_reason(world: World, url: str, open_page: Opener) -> None:
    """A hit is explained as found; what is in another cube, and what nobody said, by their gates."""
    world.add("My boat is called Petrel.")
    world.add("The studio key hangs behind the door.", cube="studio")
    page = open_page(url, "search")
    page.locator("#cube").select_option("pets")
    page.locator("#search-query").fill("What is my boat called?")
    page.locator("#search-user").fill("ann")
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.locator(".hits .said")).to_have_text("My boat is called Petrel.")
    page.get_by_role("button", name="Why: My boat is called Petrel.").click()
    expect(page.locator("#verdict")).to_have_text("found")
    assert page.locator(".gates li.no").count() == 0 and page.locator(".gates li.yes").count() >= 5
    for expected, verdict in (
        ("The studio key hangs behind the door.", "other cube"),
        ("A walrus plays the piano.", "never written"),
    ):
        page.locator("#explain-expected").fill(expected)
        page.get_by_role("button", name="Explain").click()
        expect(page.locator("#verdict")).to_have_text(verdict)
        expect(page.locator(".gates li.no")).to_have_count(1)
