/* The page by keyboard: tabs and groups of choices walked with the arrow keys, and single-key shortcuts that
   can be switched off (they would get in the way of speech input). */

import { byId, h } from "./dom.js";

const OFF = "memos.shortcuts";
const TABS = ["overview", "memory", "dead", "logs", "search"];

/** Let one of `buttons` be in the order of focus and the arrow keys go between them. */
export function roving(group, buttons, choose) {
  group.addEventListener("keydown", (event) => {
    const all = buttons();
    const at = all.indexOf(document.activeElement);
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    let to = -1;
    if (step && at >= 0) to = (at + step + all.length) % all.length;
    else if (event.key === "Home") to = 0;
    else if (event.key === "End") to = all.length - 1;
    if (to < 0) return;
    event.preventDefault();
    all[to].focus();
    choose(all[to]);
  });
}

/** Show one tab; `focus` moves there as well. */
export function showTab(name, { focus = false } = {}) {
  for (const one of TABS) {
    const tab = byId(`tab-${one}`);
    const on = one === name;
    tab.setAttribute("aria-selected", String(on));
    tab.tabIndex = on ? 0 : -1;
    byId(one).hidden = !on;
    if (on && focus) tab.focus();
    // Not scrollIntoView: the order of focus would begin here instead of at the top.
    if (on) tab.parentElement.scrollLeft = tab.offsetLeft - tab.parentElement.offsetLeft - 24;
  }
  if (location.hash.slice(1) !== name && (location.hash || name !== TABS[0])) history.replaceState(null, "", `#${name}`);
  dispatchEvent(new CustomEvent("memos:tab", { detail: name }));
}

export const shownTab = () => TABS.find((name) => !byId(name).hidden);

function wireTabs() {
  const list = document.querySelector("[role=tablist]");
  const tabs = () => Array.from(list.querySelectorAll("[role=tab]"));
  for (const tab of tabs()) tab.addEventListener("click", () => showTab(tab.getAttribute("aria-controls")));
  roving(list, tabs, (tab) => showTab(tab.getAttribute("aria-controls")));
  const named = () => (TABS.includes(location.hash.slice(1)) ? location.hash.slice(1) : "overview");
  addEventListener("hashchange", () => TABS.includes(location.hash.slice(1)) && showTab(named()));
  showTab(named());
}

function typing(target) {
  return target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName);
}

/** `keys`: what each key does, as {key: [what it is for, what to do]}. */
export function wireKeyboard(keys) {
  wireTabs();
  const shown = [
    ["1 – 5", "go to a part of the page"],
    ...Object.entries(keys).map(([key, [said]]) => [key, said]),
    ["← →", "between tabs and choices"],
    ["Esc", "close a dialog"],
  ];
  byId("keys").append(...shown.map(([key, said]) => h("div", {}, h("dt", {}, h("kbd", {}, key)), h("dd", {}, said))));
  const box = byId("shortcuts-on");
  box.checked = localStorage.getItem(OFF) === null;
  box.addEventListener("change", () => (box.checked ? localStorage.removeItem(OFF) : localStorage.setItem(OFF, "off")));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (typing(event.target) || document.querySelector("dialog[open]") || !box.checked) return;
    const act = keys[event.key]?.[1] ?? (TABS[Number(event.key) - 1] && (() => showTab(TABS[Number(event.key) - 1], { focus: true })));
    if (!act) return;
    event.preventDefault();
    act();
  });
}
