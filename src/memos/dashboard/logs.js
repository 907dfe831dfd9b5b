/* The log stream: the newest page, then what happens, live. Trace, label and cube are asked of the server;
   categories are groups of labels and narrow what is shown here. At most `ROWS_MAX` rows are kept. */

import { connection, get, stream } from "./api.js";
import { byId, h, text } from "./dom.js";
import { clock, count, plural, shortened } from "./format.js";
import { Panel } from "./poll.js";
import { session } from "./session.js";
import { shownTab } from "./keyboard.js";

const PAGE = 100;
const ROWS_MAX = 400;
const HELD_MAX = 400; // what comes while the list is paused
const PAUSES_MS = [500, 1000, 2000, 5000, 10000];
const CATEGORIES = {
  Conversation: ["addMessage"],
  Memory: ["addMemory", "updateMemory", "mergeMemory", "archiveMemory", "knowledgeBaseUpdate"],
  "Working memory": ["scheduleMemory"],
  Tasks: ["taskStatus"],
  Models: ["modelFault"],
};
const categoryOf = (label) => Object.keys(CATEGORIES).find((name) => CATEGORIES[name].includes(label)) ?? "Other";

let panel = null;
let list = null;
let stop = null; // ends the stream that is open
let newest = 0;
let paused = false;
let held = [];
let tries = 0;
const hidden = new Set(); // categories that are not shown

export function logsPanel() {
  panel = new Panel("logs", { ask: async () => null, show: () => null });
  const label = byId("logs-label");
  for (const name of Object.values(CATEGORIES).flat()) label.append(h("option", { value: name }, name));
  const chips = byId("logs-categories");
  for (const name of [...Object.keys(CATEGORIES), "Other"]) {
    chips.append(h("button", { type: "button", "aria-pressed": "true", on: { click: (event) => toggle(name, event.currentTarget) } }, name));
  }
  byId("logs-filters").addEventListener("submit", (event) => event.preventDefault());
  byId("logs-filters").addEventListener("reset", () => setTimeout(clearFilters));
  byId("logs-trace").addEventListener("change", restartLogs);
  label.addEventListener("change", restartLogs);
  byId("logs-pause").addEventListener("click", pause);
  addEventListener("memos:tab", wake);
  document.addEventListener("visibilitychange", wake);
  connection.addEventListener("back", wake);
  return panel;
}

/** Begin anew: something else is asked for. */
export function restartLogs() {
  stop?.abort();
  stop = null;
  newest = 0;
  held = [];
  list = null;
  panel.state("loading");
  wake();
}

/** Open the stream while the tab is shown and the page seen; close it otherwise. */
function wake() {
  const wanted = shownTab() === "logs" && !document.hidden && connection.up;
  if (wanted && !stop) open();
  if (!wanted && stop) {
    stop.abort();
    stop = null;
  }
}

function query() {
  return { ...session.named, trace_id: byId("logs-trace").value.trim(), label: byId("logs-label").value };
}

async function open() {
  const own = new AbortController();
  stop = own;
  try {
    if (!list) {
      const page = await get("product/scheduler/logs", { ...query(), limit: PAGE });
      if (own.signal.aborted) return;
      newest = page.data[0]?.number ?? 0;
      begin();
      page.data.reverse().forEach(add);
      showCounts();
    }
    tries = 0;
    note("live");
    await stream("product/scheduler/logs/stream", { ...query(), after: newest }, own.signal, take);
  } catch (error) {
    if (own.signal.aborted) return;
    stop = null;
    if (error.status === 401 || error.status === 403) panel.say(error.status === 401 ? "A key is needed." : `Not allowed: ${error.message}.`, "error");
    if (error.status === 401) dispatchEvent(new Event("memos:key-needed"));
    if (error.status && error.status < 500 && error.status !== 429) return note("");
    note("reconnecting");
    if (!error.status) connection.probe();
    setTimeout(wake, PAUSES_MS[Math.min(tries, PAUSES_MS.length - 1)]);
    tries += 1;
  }
}

function take(row) {
  newest = Math.max(newest, row.number);
  if (paused) {
    held.push(row);
    if (held.length > HELD_MAX) held.shift();
    text(byId("logs-pause"), `Go on (${count(held.length)})`);
    return;
  }
  add(row);
  showCounts();
}

function begin() {
  list = h("ol", { class: "log" });
  panel.body.replaceChildren(h("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": "Log, newest first" }, list), h("p", { class: "nothing", hidden: true }, "No logs that fit. What the scheduler does to memory is told here."));
  panel.state("ready");
}

function note(state) {
  text(byId("logs-note"), { live: paused ? "paused" : "live, newest first", reconnecting: "cut off, connecting again" }[state] ?? state);
}

function pause(event) {
  paused = !paused;
  event.currentTarget.setAttribute("aria-pressed", String(paused));
  text(event.currentTarget, paused ? "Go on" : "Pause");
  note("live");
  if (paused) return;
  held.forEach(add);
  held = [];
  if (list) showCounts();
}

function toggle(name, button) {
  if (hidden.has(name)) hidden.delete(name);
  else hidden.add(name);
  button.setAttribute("aria-pressed", String(!hidden.has(name)));
  if (!list) return;
  for (const row of list.children) row.hidden = hidden.has(row.dataset.category);
  showCounts();
}

function clearFilters() {
  hidden.clear();
  for (const chip of byId("logs-categories").children) chip.setAttribute("aria-pressed", "true");
  restartLogs();
}

function showCounts() {
  const any = Array.from(list.children).some((row) => !row.hidden);
  list.parentElement.hidden = !any;
  panel.body.lastElementChild.hidden = any;
}

/** Put a row on top; the oldest leave. */
function add({ number, log }) {
  const category = categoryOf(log.label);
  const row = h("li", { "data-category": category, "data-number": number, "data-trace": log.trace_id, hidden: hidden.has(category) }, line(log, category));
  list.prepend(row);
  while (list.children.length > ROWS_MAX) list.lastElementChild.remove();
}

function line(log, category) {
  const parts = log.memcube_log_content ?? [];
  const head = [
    h("time", { class: "mono quiet", datetime: log.timestamp, title: log.timestamp }, clock(new Date(log.timestamp))),
    h("span", { class: `kind mono k-${category.toLowerCase().replace(" ", "-")}` }, log.label),
    h("span", { class: "said" }, log.log_content),
    h("span", { class: "quiet owner" }, shortened(log.user_id === log.mem_cube_id ? log.user_id : `${log.user_id} · ${log.mem_cube_id}`, 30)),
  ];
  return h("details", {}, h("summary", {}, head), h("div", { class: "detail" },
    h("p", { class: "quiet" }, `${log.from_memory_type ?? "–"} → ${log.to_memory_type ?? "–"}`, log.status ? ` · ${log.status}` : "", log.task_id ? ` · task ${log.task_id}` : ""),
    log.trace_id ? h("p", {}, h("button", { type: "button", class: "small", on: { click: () => only(log.trace_id) } }, "Only this trace"), h("span", { class: "mono quiet" }, ` ${log.trace_id}`)) : null,
    parts.length ? h("ul", { class: "moves" }, parts.slice(0, 30).map(part)) : null,
    parts.length > 30 ? h("p", { class: "quiet" }, `and ${plural(parts.length - 30, "more", "more")}`) : null));
}

function part(one) {
  const kind = { added: "in", removed: "out", archived: "out" }[one.type] ?? "same";
  return h("li", { class: kind },
    h("span", { class: "sign", "aria-hidden": "true" }, { in: "+", out: "−", same: "·" }[kind]),
    h("div", {}, h("p", { class: "said" }, String(one.content ?? "")), h("p", { class: "quiet why" }, one.reason?.startsWith(one.type) ? one.reason : [one.type, one.reason].filter(Boolean).join(": "))));
}

function only(trace) {
  byId("logs-trace").value = trace;
  restartLogs();
  byId("logs-trace").focus();
}

/** Pause or go on, by key. */
export const togglePause = () => byId("logs-pause").click();
