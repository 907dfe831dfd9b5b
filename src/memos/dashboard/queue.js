/* The queue: totals with their last minute, and what waits, runs, is delayed and was given up, by label
   and by lane. One request feeds all of it. */

import { get } from "./api.js";
import { sparkline } from "./chart.js";
import { announce, byId, h, sync, text } from "./dom.js";
import { count, plural, shortened, span } from "./format.js";
import { timesOf, toneOf } from "./latency.js";
import { Panel } from "./poll.js";
import { session } from "./session.js";

const EVERY_MS = 2000;
const HISTORY = 30; // one minute
const TILES = [
  ["waiting", "Waiting", "ready to run, or behind one that is not", (totals) => totals.queued + totals.parked],
  ["running", "Running", "held by a worker", (totals) => totals.running],
  ["delayed", "Delayed", "due later, or waiting for a retry", (totals) => totals.delayed],
  ["dead", "Dead", "given up, kept as dead letters", (totals) => totals.dead],
];
const COLUMNS = ["waiting", "running", "delayed", "dead"];

const past = Object.fromEntries(TILES.map(([name]) => [name, []]));
let deadBefore = null;
let labels = null;
let lanes = null;

/** The panels of the queue. Its numbers are asked for under every tab: the count of dead letters stands there. */
export function queuePanels() {
  lanes = new Panel("lanes", { ask: async () => null, show: () => null });
  labels = new Panel("labels", { ask: async () => null, show: () => null });
  return new Panel("tiles", { every_ms: EVERY_MS, ask: askQueue, show: showQueue, followers: [labels, lanes], everywhere: true });
}

async function askQueue() {
  try {
    return (await get("product/scheduler/queue", session.narrowed)).data;
  } catch (error) {
    if (error.status) for (const panel of [labels, lanes]) panel.say(`${error.message} (${error.status})`, "error");
    throw error;
  }
}

export function forgetQueue() {
  for (const row of Object.values(past)) row.length = 0;
  deadBefore = null;
  labels?.state("loading");
  lanes?.state("loading");
}

function showQueue(picture) {
  sync(byId("tiles"), TILES, ([name]) => name, makeTile, (tile, [name, , , value]) => {
    const now = value(picture.totals);
    past[name].push(now);
    if (past[name].length > HISTORY) past[name].shift();
    tile.dataset.value = String(now);
    tile.classList.toggle("some", now > 0);
    text(tile.querySelector("dd"), count(now));
    tile.querySelector("svg").replaceWith(sparkline(past[name], name, HISTORY));
  });
  tellDead(picture.totals.dead);
  table(labels, picture.labels, labelTable, labelRow, "Nothing is queued and nothing ran yet.");
  table(lanes, picture.lanes, laneTable, laneRow, "No lane holds anything.");
  const note = lanes.root.querySelector(".note");
  text(note, picture.lanes_left_out ? `those that lag most, ${count(picture.lanes_left_out)} more are not shown` : "one user’s work in one cube");
}

function makeTile([name, title, said]) {
  return h("div", { class: `tile ${name}`, title: said },
    h("dt", {}, h("i", { class: "dot", "aria-hidden": "true" }), title),
    h("dd", { id: `tile-${name}` }, "–"),
    sparkline([], name));
}

function tellDead(now) {
  const badge = byId("dead-badge");
  badge.hidden = !now;
  text(badge, now ? count(now) : "");
  if (deadBefore !== null && now > deadBefore) announce(`${plural(now - deadBefore, "new dead letter")}, ${count(now)} in all`);
  deadBefore = now;
}

/* Tables: rows are kept by key, so that a reader's place in them survives an update. */

function table(panel, rows, make, fill, nothing) {
  if (!rows.length) {
    panel.say(nothing, "empty");
    return;
  }
  let body = panel.body.querySelector("tbody");
  if (!body) {
    panel.body.replaceChildren(make());
    body = panel.body.querySelector("tbody");
  }
  sync(body, rows, (row) => `${row.lane ?? ""}|${row.label}`, () => h("tr"), fill);
  panel.state("ready");
}

function shell(title, head) {
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title },
    h("table", {}, h("thead", {}, h("tr", {}, head.map(([name, numeric]) => h("th", { scope: "col", class: numeric ? "number" : null }, name)))), h("tbody")));
}

const states = [["Waiting", 1], ["Running", 1], ["Delayed", 1], ["Dead", 1]];
const labelTable = () => shell("Queue by label", [["Label"], ...states, ["Lag", 1], ["Waited p50 / p95", 1], ["Ran p50 / p95", 1]]);
const laneTable = () => shell("Queue by lane", [["User · cube"], ["Label"], ...states, ["Lag", 1]]);

const numbersOf = (row) => ({ waiting: row.queued + row.parked, running: row.running, delayed: row.delayed, dead: row.dead });

function cells(row) {
  const numbers = numbersOf(row);
  return [
    ...COLUMNS.map((name) => ({ class: `number ${name}${numbers[name] ? "" : " zero"}`, said: count(numbers[name]) })),
    { class: `number${row.lag_s ? "" : " zero"}`, said: row.lag_s ? span(row.lag_s) : "–" },
  ];
}

function put(tr, all) {
  all.forEach(({ said, class: name = "", head = false, title = null }, at) => {
    let cell = tr.children[at];
    if (!cell) {
      cell = h(head ? "th" : "td", head ? { scope: "row" } : {});
      tr.append(cell);
    }
    if (cell.className !== name) cell.className = name;
    if (title !== null && cell.title !== title) cell.title = title;
    text(cell, said);
  });
}

function labelRow(tr, row) {
  tr.dataset.label = row.label;
  const times = timesOf(row.label);
  const took = (time) => ({ class: `number${times ? "" : " zero"}`, said: times ? `${span(times[time].all_p50)} / ${span(times[time].all_p95)}` : "–" });
  put(tr, [{ said: row.label, head: true, class: `mono label tone${toneOf(row.label)}` }, ...cells(row), took("waiting"), took("running")]);
}

function laneRow(tr, row) {
  tr.dataset.lane = row.lane;
  const own = row.user_id === row.mem_cube_id ? row.user_id : `${row.user_id} · ${row.mem_cube_id}`;
  put(tr, [{ said: shortened(own, 34), title: `${row.user_id} · ${row.mem_cube_id}`, head: true }, { said: row.label, class: "mono" }, ...cells(row)]);
}
