/* How long tasks waited and ran: p50 to p95 by label over the last minutes, as a band a label. The labels below
   carry their p95 over all of it and are shown or hidden by a click; the table of labels has the same numbers. */

import { get } from "./api.js";
import { latencyChart } from "./chart.js";
import { byId, h, sync, text } from "./dom.js";
import { clock, count, plural, span } from "./format.js";
import { roving } from "./keyboard.js";
import { Panel } from "./poll.js";
import { session } from "./session.js";

const EVERY_MS = 5000; // the server reads anew every 4 s at most
const TONES = 8;
const SHOWN_FIRST = 4; // labels that are drawn until somebody chooses
const KINDS = [["waiting", "Waiting"], ["running", "Running"]];

const chosen = new Map(); // label -> shown, as somebody clicked
const tones = new Map(); // label -> its colour, for as long as the page is open
let kind = "waiting";
let last = null;
let panel = null;
let pointed = null;

export function latencyPanel() {
  panel = new Panel("latency", {
    every_ms: EVERY_MS,
    ask: async () => (await get("product/scheduler/latency", { minutes: byId("latency-minutes").value, ...session.narrowed })).data,
    show: (answer) => {
      last = answer;
      return draw();
    },
  });
  const group = byId("latency-kind");
  for (const [name, title] of KINDS) {
    group.append(h("button", { type: "button", role: "radio", "data-kind": name, on: { click: () => choose(name) } }, title));
  }
  const buttons = () => Array.from(group.children);
  roving(group, buttons, (button) => choose(button.dataset.kind));
  choose(kind);
  byId("latency-minutes").addEventListener("change", () => panel.restart());
  new ResizeObserver(() => last?.labels.length && panel.body.querySelector(".plot") && draw()).observe(panel.root);
  return panel;
}

function choose(name) {
  kind = name;
  for (const button of byId("latency-kind").children) {
    const on = button.dataset.kind === name;
    button.setAttribute("aria-checked", String(on));
    button.tabIndex = on ? 0 : -1;
  }
  if (last?.labels.length) draw();
}

/** The colour of a label, the same for as long as the page is open. */
export function toneOf(label) {
  if (!tones.has(label)) tones.set(label, tones.size % TONES);
  return tones.get(label);
}

function draw() {
  const { labels, since, until, complete, tasks } = last;
  const finished = labels.reduce((sum, one) => sum + one.finished, 0);
  text(byId("latency-note"), complete ? `${plural(finished, "task")} finished, p50 to p95` : `of the newest ${count(tasks)} tasks, p50 to p95`);
  if (!labels.length) return "Nothing finished in this time.";
  labels.forEach((one) => toneOf(one.label));
  const shown = labels.filter((one, at) => chosen.get(one.label) ?? at < SHOWN_FIRST);
  const width = Math.max(280, Math.round(panel.body.clientWidth - 32));
  const chart = latencyChart({ since, until, width, series: shown.map((one) => ({ ...one[kind], counts: one.counts, tone: toneOf(one.label) })) });
  let box = panel.body.querySelector(".plot");
  if (!box) {
    box = h("div", { class: "plot", tabindex: "0", role: "group", "aria-label": "Latency over time; left and right arrow keys read the steps" });
    wirePlot(box);
    panel.body.replaceChildren(box, h("p", { class: "reading mono", role: "status" }), h("div", { class: "legends", role: "group", "aria-label": "Labels in the chart, with their p95" }));
  }
  box.chart = chart;
  box.replaceChildren(chart.drawing);
  point(pointed);
  const chips = panel.body.querySelector(".legends");
  sync(chips, labels, (one) => one.label, makeChip, (chip, one) => fillChip(chip, one, shown.includes(one)));
}

function wirePlot(box) {
  box.addEventListener("pointermove", (event) => point(box.chart.stepAt(event.clientX)));
  box.addEventListener("pointerleave", () => point(null));
  box.addEventListener("blur", () => point(null));
  box.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const all = box.chart.steps;
    point(pointed === null ? all - 1 : Math.min(all - 1, Math.max(0, pointed + step)));
  });
}

/** Read one step aloud: its time, and p50 and p95 of each label that has values there. */
function point(step) {
  pointed = step;
  const box = panel.body.querySelector(".plot");
  box.chart.point(step);
  const line = panel.body.querySelector(".reading");
  if (step === null) {
    text(line, "");
    return;
  }
  const parts = last.labels.filter((one) => one[kind].p50[step] !== null).map((one) => `${one.label} ${span(one[kind].p50[step])} / ${span(one[kind].p95[step])}`);
  text(line, `${clock(new Date(1000 * (last.since + (step + 1) * last.step_s)))}  ${parts.join("   ") || "nothing finished"}`);
}

/** The label's times over the whole span, for tables; null before there are any. */
export const timesOf = (label) => last?.labels.find((one) => one.label === label) ?? null;

function makeChip({ label }) {
  const chip = h("button", { type: "button", class: "legend", on: { click: () => {
    chosen.set(label, chip.getAttribute("aria-pressed") !== "true");
    draw();
  } } }, h("i", { class: `swatch tone${toneOf(label)}`, "aria-hidden": "true" }), h("span", { class: "mono" }, label), h("span", { class: "quiet" }));
  return chip;
}

function fillChip(chip, one, shown) {
  chip.setAttribute("aria-pressed", String(shown));
  text(chip.lastChild, span(one[kind].all_p95));
  chip.title = `${plural(one.finished, "task")} finished, ${count(one.failed)} failed; p50 ${span(one[kind].all_p50)}, p95 ${span(one[kind].all_p95)}`;
}
