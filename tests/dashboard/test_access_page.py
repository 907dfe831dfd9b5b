"""The page for everybody: by keyboard alone, in light and dark, on narrow screens."""

from __future__ import annotations

from typing import Any

import pytest

from .browser import expect, settled
from .conftest import Opener, World

# The contrast of what is written to what lies behind it, by WCAG 2.2, of every visible text of the page.
CONTRASTS = """
() => {
  const channel = (value) => { value /= 255; return value <= .04045 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4; };
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255];
  };
  const over = ([r, g, b, a], below) => [r, g, b].map((value, at) => value * a + below[at] * (1 - a));
  const ground = (element) => {
    const all = [];
    for (let one = element; one; one = one.parentElement) all.unshift(rgba(getComputedStyle(one).backgroundColor));
    return all.reduce((below, colour) => over(colour, below), [255, 255, 255]);
  };
  const light = (rgb) => { const [r, g, b] = rgb.map(channel); return .2126 * r + .7152 * g + .0722 * b; };
  const opacity = (element) => { let all = 1; for (let one = element; one; one = one.parentElement) all *= Number(getComputedStyle(one).opacity); return all; };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const said = Array.from(element.childNodes).filter((node) => node.nodeType === 3).map((node) => node.textContent.trim()).join("");
    if (!said || !element.checkVisibility() || element.closest(".hidden, .skip, noscript, option, svg")) continue;
    const back = ground(element);
    const colour = rgba(getComputedStyle(element).color);
    const ink = over([...colour.slice(0, 3), colour[3] * opacity(element)], back);
    const [bright, dim] = [light(ink), light(back)].sort((a, b) => b - a);
    found.push([(bright + .05) / (dim + .05), said.slice(0, 40), element.className || element.tagName]);
  }
  return found;
}
"""


def focused(page: Any) -> str:
    return str(
        page.evaluate("document.activeElement.id || document.activeElement.textContent.trim().slice(0, 30)")
    )


@pytest.fixture
def filled(world: World) -> World:
    for text in ("My boat is called Petrel.", "My dog is called Max."):
        world.add(text)
    world.submit("mem_update", "What is my boat called?")
    world.submit("bad", "invoice")
    world.submit("fine")
    world.idle()
    return world


def test_everything_is_reached_by_keyboard(filled: World, url: str, open_page: Opener) -> None:
    """With Tab alone every control of each part gets a visible focus, in order, and none keeps it."""
    page = open_page(url)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert focused(page) == "main"
    for place, part in enumerate(("overview", "memory", "dead", "logs", "search"), start=1):
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press(str(place))
        expect(page.locator(f"#{part}")).to_be_visible()
        assert focused(page) == page.locator(f"#tab-{part}").get_attribute("id")
        settled(page)
        wanted = page.evaluate(
            """() => {
              const all = document.querySelectorAll('main > section:not([hidden]) :is(button, input, select, summary, [tabindex="0"])');
              const ours = Array.from(all).filter((one) => one.checkVisibility() && !one.disabled && one.tabIndex >= 0);
              ours.forEach((one, at) => { one.dataset.tabbed = at; });
              return ours.length;
            }"""
        )
        assert wanted >= 2, part
        reached: list[int] = []
        for _ in range(wanted + 12):
            page.keyboard.press("Tab")
            at, outlined = page.evaluate(
                """() => {
                  const one = document.activeElement;
                  const style = getComputedStyle(one);
                  return [Number(one.dataset?.tabbed ?? -1), style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2];
                }"""
            )
            if at >= 0:
                assert outlined, (part, at)
                reached.append(at)
            if len(set(reached)) == wanted:
                break
        assert reached == sorted(reached) and set(reached) == set(range(wanted)), part
        page.evaluate(
            "document.querySelectorAll('[data-tabbed]').forEach((one) => delete one.dataset.tabbed)"
        )


def test_tabs_are_walked_with_the_arrows_and_help_gives_focus_back(
    filled: World, url: str, open_page: Opener
) -> None:
    """Arrow keys, Home and End go between the tabs; `?` opens the help, Escape closes it, and focus returns."""
    page = open_page(url)
    page.locator("#tab-overview").focus()
    page.keyboard.press("ArrowRight")
    assert focused(page) == "tab-memory" and page.locator("#memory").is_visible()
    page.keyboard.press("End")
    assert focused(page) == "tab-search"
    page.keyboard.press("ArrowRight")
    assert focused(page) == "tab-overview"
    assert page.locator("[role=tab][tabindex='0'], [role=tab]:not([tabindex])").count() == 1
    page.keyboard.press("?")
    expect(page.locator("#dialog-help")).to_be_visible()
    assert page.evaluate("document.querySelector('#dialog-help').contains(document.activeElement)")
    page.keyboard.press("2")  # no shortcut while a dialog is open
    assert page.locator("#overview").is_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#dialog-help")).to_be_hidden()
    assert focused(page) == "tab-overview"
    page.keyboard.press("/")
    assert focused(page) == "search-query"
    page.keyboard.type("t?1")  # text, not shortcuts
    assert page.locator("#search-query").input_value() == "t?1"
    page.keyboard.press("Escape")


def test_shortcuts_can_be_switched_off(filled: World, url: str, open_page: Opener) -> None:
    """Switched off in the help, single keys do nothing any more, after a reload too."""
    page = open_page(url)
    page.locator("#help").click()
    page.locator("#shortcuts-on").uncheck()
    page.keyboard.press("Escape")
    for _ in range(2):
        page.keyboard.press("4")
        assert page.locator("#overview").is_visible()
        page.reload()
        page.wait_for_selector("#pulse[data-state=live]")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_holds_in_light_and_dark(filled: World, url: str, open_page: Opener, scheme: str) -> None:
    """The page follows the system, the choice here stays, and every text has a contrast of 4.5 at least."""
    page = open_page(url, color_scheme=scheme)
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    for part in ("overview", "memory", "dead", "logs", "search"):
        page.locator(f"#tab-{part}").click()
        settled(page)
        low = [one for one in page.evaluate(CONTRASTS) if one[0] < 4.5]
        assert low == [], part
    page.locator("#theme").click()
    other = {"light": "dark", "dark": "light"}[scheme]
    assert page.evaluate("document.documentElement.dataset.theme") == other
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == other


def test_a_narrow_screen_scrolls_only_downwards(filled: World, url: str, open_page: Opener) -> None:
    """At 390 and at 320 pixels no part of the page is wider than the screen."""
    page = open_page(url, viewport={"width": 390, "height": 844})
    for width in (390, 320):
        page.set_viewport_size({"width": width, "height": 800})
        for part in ("overview", "memory", "dead", "logs", "search"):
            page.locator(f"#tab-{part}").click()
            settled(page)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (part, width)


def test_a_hidden_page_asks_nothing(filled: World, url: str, open_page: Opener) -> None:
    """While the browser shows another tab the page sends no request, and goes on when it is seen again."""
    page = open_page(url, clock=True)
    page.evaluate(
        """() => {
          Object.defineProperty(document, 'hidden', { configurable: true, get: () => window.away });
          window.away = true; document.dispatchEvent(new Event('visibilitychange'));
        }"""
    )
    page.wait_for_load_state("networkidle")
    before = len(page.seen.urls)
    page.clock.run_for(60_000)
    assert len(page.seen.urls) == before
    page.evaluate("() => { window.away = false; document.dispatchEvent(new Event('visibilitychange')); }")
    with page.expect_request("**/product/scheduler/queue*"):
        page.clock.run_for(5_000)
