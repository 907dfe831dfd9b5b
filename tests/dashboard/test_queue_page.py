"""The page and the queue: numbers, dead letters, and a server that goes and comes back."""

from __future__ import annotations

import re
from typing import Any

from memos.api.access import Role
from memos.testing import run_until_idle

from .browser import expect, settled
from .conftest import Opener, World, fail, free_port, serving


def numbers(page: Any, row: str) -> list[str]:
    cells = page.locator(f"{row} td.number")
    return [cells.nth(place).inner_text() for place in range(4)]


def test_the_page_asks_nobody_else_and_complains_about_nothing(
    world: World, url: str, open_page: Opener
) -> None:
    """All five parts load from the server alone, without an error or a violation of the policy."""
    world.add("My boat is called Petrel.")
    world.submit("mem_update", "What is my boat called?")
    world.submit("bad", "invoice")
    world.idle()
    page = open_page(url)
    for name in ("Overview", "Memory", "Dead letters", "Logs", "Search"):
        page.get_by_role("tab", name=re.compile(f"^{name}")).click()
        settled(page)
    assert page.seen.urls and all(asked.startswith(f"{url}/") for asked in page.seen.urls)
    assert page.seen.complaints == []


def test_the_numbers_are_those_of_the_queue(world: World, url: str, open_page: Opener) -> None:
    """Waiting, running, delayed and dead are shown as the queue counts them, by label and by lane."""
    world.submit("bad")
    world.submit("bad")
    world.idle()
    world.runtime.scheduler.stop()
    for number in range(3):
        world.submit("walk", user=f"u{number}")
    world.submit("walk", user="u0", delay_s=3_600)
    [batch] = world.runtime.queue.claim(["walk"], lanes_max=1, batch_max=1, timeout_s=1)
    depth = world.runtime.queue.depth()
    page = open_page(url)
    for name, number in (
        ("waiting", depth.queued + depth.parked),
        ("running", depth.running),
        ("delayed", depth.delayed),
        ("dead", depth.dead),
    ):
        expect(page.locator(f"#tile-{name}")).to_have_text(str(number))
    assert (depth.queued + depth.parked, depth.running, depth.delayed, depth.dead) == (2, 1, 1, 2)
    page.wait_for_selector("tr[data-label=walk]")
    assert numbers(page, "tr[data-label=walk]") == ["2", "1", "1", "0"]
    assert numbers(page, "tr[data-label=bad]") == ["0", "0", "0", "2"]
    lane = f"tr[data-lane='{batch.lane}']"
    held = next(one for one in depth.lanes if one.lane == batch.lane)
    assert numbers(page, lane) == [
        str(held.queued.get("walk", 0) + held.parked.get("walk", 0)),
        "1",
        str(held.delayed.get("walk", 0)),
        "0",
    ]
    world.submit("walk", user="u9")
    expect(page.locator("#tile-waiting")).to_have_text("3")  # by itself


def test_retry_requeues_and_purge_asks_first(world: World, url: str, open_page: Opener) -> None:
    """Retry puts the letter back into the queue; purge drops it only after yes, and Escape is no."""
    again, gone = world.submit("bad", "first"), world.submit("bad", "second")
    world.idle()
    world.runtime.scheduler.stop()  # what is retried waits, to be seen
    queue = world.runtime.queue
    page = open_page(url, "dead")
    letter = page.locator(f".letters li[data-key='{again}']")
    letter.locator("summary").click()
    expect(letter.locator("pre")).to_have_text("first")
    expect(letter.locator(".detail .fault")).to_contain_text("no total on <b>first</b>")
    letter.get_by_role("button", name="Retry").click()
    expect(page.locator(".letters > li")).to_have_count(1)
    assert [letter.key for letter in queue.dead.list()] == [gone]
    assert queue.live([again]) == {again} and queue.depth().queued + queue.depth().parked == 1
    [delivery] = queue.get([again])
    assert (delivery.message.content, delivery.attempts) == ("first", 0)

    other = page.locator(f".letters li[data-key='{gone}']")
    other.locator(".choose").check()
    page.locator("#dead-purge").click()
    asked = page.locator("#dialog-confirm")
    expect(asked).to_be_visible()
    expect(asked.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Escape")
    expect(asked).to_be_hidden()
    assert [letter.key for letter in queue.dead.list()] == [gone]
    page.locator("#dead-purge").click()
    asked.get_by_role("button", name="Purge").click()
    expect(page.locator("[data-panel=dead] .nothing")).to_be_visible()
    assert queue.dead.list() == [] and queue.live([gone]) == set()


def test_a_retried_letter_runs_again(world: World, url: str, open_page: Opener) -> None:
    """With the fault mended, a retry from the page ends as a completed task."""
    key = world.submit("bad", "first")
    world.idle()
    ran: list[str] = []
    world.runtime.scheduler.register_handlers(
        {"bad": lambda messages: ran.extend(one.content for one in messages)}
    )
    page = open_page(url, "dead")
    page.locator(".choose").check()
    page.locator("#dead-retry").click()
    expect(page.locator("[data-panel=dead] .nothing")).to_be_visible()
    run_until_idle(world.runtime.scheduler)
    assert ran == ["first"]
    assert [one.state for one in world.runtime.queue.statuses() if one.key == key] == ["completed"]
    world.runtime.scheduler.register_handlers({"bad": fail})


def test_a_smaller_key_sees_its_own_and_no_buttons(world: World, url: str, open_page: Opener) -> None:
    """The page asks for a key, refuses a wrong one in words, and shows a reading key its own, read-only."""
    world.add("My boat is called Petrel.")
    world.add("Secret of bruno.", user="bruno", cube="boat")
    world.submit("bad", "mine")
    world.submit("bad", "theirs", user="bruno", cube="boat")
    world.idle()
    key = world.key(Role.READ_ONLY, users=("ann",), cubes=("pets",))
    page = open_page(url, "dead", ready=False)
    expect(page.locator("#dialog-key")).to_be_visible()
    page.locator("#key-input").fill("memos_000000000000_wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#key-fault")).to_have_text("The server does not know this key.")
    page.locator("#key-input").fill(key)
    page.get_by_role("button", name="Use this key").click()
    page.wait_for_selector("#pulse[data-state=live]")
    expect(page.locator(".letters > li")).to_have_count(1)
    page.locator(".letters summary").click()
    expect(page.locator(".letters pre")).to_have_text("mine")
    assert page.get_by_role("button", name=re.compile("Retry|Purge")).count() == 0
    assert page.locator(".choose").count() == 0
    assert page.evaluate("sessionStorage.getItem('memos.key')") == key
    assert page.evaluate("localStorage.getItem('memos.key')") is None
    assert page.locator("#cube option").all_inner_texts() == ["All cubes", "pets"]
    page.get_by_role("tab", name="Logs").click()
    page.wait_for_selector(".log > li")
    page.get_by_role("tab", name="Overview").click()
    expect(page.locator("#tile-dead")).to_have_text("1")
    assert "boat" not in page.inner_text("main") and "bruno" not in page.inner_text("main")
    page.evaluate("sessionStorage.setItem('memos.cube', 'boat')")
    page.reload()
    page.wait_for_selector("#pulse[data-state=live]")
    assert "bruno" not in page.inner_text("main")


def test_a_revoked_key_is_said_plainly(world: World, url: str, open_page: Opener) -> None:
    """A key that stops being good while the page is open leads to the question for a new one."""
    key = world.key(Role.ADMIN)
    page = open_page(url, key=key)
    from memos.api.keys import KeyFile

    keys = KeyFile(world.runtime.settings.keys_path)
    keys.revoke(keys.all()[0].id)
    expect(page.locator("#dialog-key")).to_be_visible()
    expect(page.locator("#banner")).to_contain_text("asks for an API key")


def test_the_page_comes_back_with_the_server(world: World, open_page: Opener) -> None:
    """When the server goes, a banner says so and the numbers are marked; when it is back, the page goes on."""
    port = free_port()
    with serving(world.runtime, port) as url:
        page = open_page(url)
        expect(page.locator("#tile-dead")).to_have_text("0")
    expect(page.locator("#banner")).to_contain_text("The server does not answer")
    expect(page.locator("#pulse")).to_have_attribute("data-state", "gone")
    assert page.locator("body[data-gone]").count() == 1
    world.submit("bad")
    world.idle()
    with serving(world.runtime, port):
        page.get_by_role("button", name="Try now").click()
        expect(page.locator("#banner")).to_be_hidden()
        expect(page.locator("#tile-dead")).to_have_text("1")
        expect(page.locator("#pulse")).to_have_attribute("data-state", "live")
