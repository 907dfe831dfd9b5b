/* The dead letters: what each was, why it was given up, and retry or purge of those that are chosen. Whoever
   carries a key that only reads sees them and no buttons. */

import { get, post } from "./api.js";
import { confirm } from "./dialogs.js";
import { announce, byId, h, sync, text } from "./dom.js";
import { ago, count, plural, shortened } from "./format.js";
import { Panel } from "./poll.js";
import { session } from "./session.js";

const EVERY_MS = 4000;
const PAGE = 100;

const chosen = new Set();
let letters = [];
let panel = null;

export function deadPanel() {
  panel = new Panel("dead", {
    every_ms: EVERY_MS,
    ask: async () => get("product/scheduler/dead", { limit: PAGE, ...session.narrowed }),
    show: showLetters,
  });
  byId("dead-retry").addEventListener("click", () => retry([...chosen]));
  byId("dead-purge").addEventListener("click", () => purge([...chosen]));
  return panel;
}

export function forgetDead() {
  chosen.clear();
  letters = [];
  showChosen();
}

function showLetters({ data, total }) {
  letters = data;
  for (const key of chosen) if (!data.some((one) => one.key === key)) chosen.delete(key);
  showChosen();
  const more = data.length === PAGE;
  text(byId("dead-note"), !data.length ? "messages that were given up"
    : more ? `the newest ${count(data.length)}${total > data.length ? ` of ${count(total)}` : ""}` : plural(data.length, "message that was given up", "messages that were given up"));
  if (!data.length) return "No dead letters. What fails again and again ends here, and is kept.";
  let list = this.body.querySelector("ul");
  if (!list) {
    list = h("ul", { class: "letters" });
    this.body.replaceChildren(list);
  }
  sync(list, data, (one) => one.key, makeLetter, fillLetter);
  return null;
}

function makeLetter(one) {
  const box = h("input", { type: "checkbox", class: "choose", "aria-label": `Choose the dead letter ${one.key}`, on: { change: () => {
    if (box.checked) chosen.add(one.key);
    else chosen.delete(one.key);
    showChosen();
  } } });
  const line = h("summary", {},
    h("span", { class: "mono label" }, one.label), h("span", { class: "error" }, one.error || "no error was kept"),
    h("span", { class: "quiet owner" }, shortened(`${one.user_id} · ${one.mem_cube_id}`, 32)), h("time", { class: "quiet", datetime: new Date(1000 * one.died_at).toISOString() }));
  const actions = session.me.may_write
    ? h("div", { class: "buttons" },
      h("button", { type: "button", class: "small", on: { click: () => retry([one.key]) } }, "Retry"),
      h("button", { type: "button", class: "small danger", on: { click: () => purge([one.key]) } }, "Purge…"))
    : null;
  return h("li", {}, session.me.may_write ? box : null, h("details", {}, line, h("div", { class: "detail" },
    h("p", { class: "fault" }, one.error),
    h("dl", { class: "facts" }, factsOf(one).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", { class: "mono" }, value)))),
    h("h4", {}, one.content_chars > one.content.length ? `Content, the first ${count(one.content.length)} of ${count(one.content_chars)} characters` : "Content"),
    h("pre", { tabindex: "0" }, one.content), actions)));
}

function factsOf(one) {
  return [
    ["Key", one.key], ["User", one.user_id], ["Cube", one.mem_cube_id], ["Task", one.task_id || "–"], ["Trace", one.trace_id || "–"],
    ["Failed runs", count(one.attempts)], ["Lost leases", count(one.recoveries)],
    ["Submitted", new Date(1000 * one.submitted_at).toISOString()], ["Given up", new Date(1000 * one.died_at).toISOString()],
  ];
}

function fillLetter(li, one) {
  const box = li.querySelector(".choose");
  if (box) box.checked = chosen.has(one.key);
  text(li.querySelector("time"), ago(1000 * one.died_at));
}

function showChosen() {
  const actions = byId("dead-actions");
  actions.hidden = !chosen.size || !session.me.may_write;
  text(byId("dead-chosen"), `${count(chosen.size)} chosen`);
}

async function act(path, keys, done) {
  try {
    const { handled, unknown } = (await post(path, { keys })).data;
    announce(`${plural(handled, "dead letter")} ${done}${unknown.length ? `, ${count(unknown.length)} not there any more` : ""}`);
  } catch (error) {
    announce(`That did not work: ${error.message}`);
    text(byId("dead-note"), `That did not work: ${error.message}`);
    return;
  }
  keys.forEach((key) => chosen.delete(key));
  showChosen();
  const at = letters.findIndex((one) => keys.includes(one.key));
  await panel.refresh();
  const left = panel.body.querySelectorAll("summary");
  (left[Math.min(at, left.length - 1)] ?? byId("tab-dead")).focus();
}

const retry = (keys) => act("product/scheduler/dead/retry", keys, "queued again");

async function purge(keys) {
  const labels = [...new Set(letters.filter((one) => keys.includes(one.key)).map((one) => one.label))].join(", ");
  const yes = await confirm(`Purge ${plural(keys.length, "dead letter")}?`, `What it was about (${labels}) is dropped for good and will never run.`, "Purge");
  if (yes) await act("product/scheduler/dead/purge", keys, "dropped");
}
