/* Working memory of the cube that is looked at: its places with their reasons, and turn by turn what came in
   and what left, out of the journal. */

import { get } from "./api.js";
import { announce, byId, h, sync, text } from "./dom.js";
import { ago, clock, count, percent, plural } from "./format.js";
import { Panel } from "./poll.js";
import { session } from "./session.js";

const EVERY_MS = 2500;
const PAGE = 20;
const KEPT_MAX = 200;

let history = null;
let shown = { cube: "", seq: -1, version: -1, rows: [], before: null };

export function workingPanel() {
  history = new Panel("history", { ask: async () => null, show: () => null });
  return new Panel("working", { every_ms: EVERY_MS, ask: askWorking, show: showWorking, followers: [history] });
}

export function forgetWorking() {
  shown = { cube: "", seq: -1, version: -1, rows: [], before: null };
  history?.state("loading");
}

async function askWorking() {
  const cube = session.cube;
  if (!cube) return null;
  const known = shown.cube === cube && shown.seq >= 0 ? shown.seq : null;
  try {
    const answer = await get("product/working_memory/history", { mem_cube_id: cube, limit: PAGE, known_seq: known });
    const held = answer.data.unchanged ? null : (await get("product/working_memory", { mem_cube_id: cube })).data;
    return { ...answer.data, next_before: answer.next_before, held };
  } catch (error) {
    if (error.status) history.say(`${error.message} (${error.status})`, "error");
    throw error;
  }
}

function showWorking(answer) {
  if (answer === null) {
    history.say("Nothing happened yet.", "empty");
    text(byId("working-note"), "");
    return "No cube holds memories yet.";
  }
  if (answer.unchanged) {
    ages(this.body);
    return shown.places ? null : "Nothing stands in working memory.";
  }
  tellChange(answer);
  const first = shown.cube !== answer.cube_id;
  const newer = first ? [] : shown.rows.filter((row) => !answer.history.some((one) => one.n === row.n));
  const reaches = newer.length && answer.history.at(-1)?.n <= newer[0].n + 1;
  shown = {
    cube: answer.cube_id,
    seq: answer.seq,
    version: answer.version,
    places: answer.places.length,
    rows: [...answer.history, ...newer].slice(0, KEPT_MAX),
    before: reaches ? shown.before : answer.next_before,
  };
  text(byId("working-note"), `${answer.cube_id}, version ${count(answer.version)}, ${count(answer.places.length)} of ${plural(answer.capacity, "place")}`);
  showHistory();
  if (!answer.places.length) return "Nothing stands in working memory. A question about the cube fills it.";
  let list = this.body.querySelector("ol");
  if (!list) {
    list = h("ol", { class: "places" });
    this.body.replaceChildren(h("p", { class: "held" }), h("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": "Places of working memory" }, list));
  }
  tellHeld(this.body.querySelector(".held"), answer.held);
  const best = Math.max(...answer.places.map((one) => one.score), 1e-9);
  sync(list, answer.places, (one) => one.memory_id, makePlace, (li, one) => fillPlace(li, one, best));
  session.users.set(answer.cube_id, answer.places[0].user_id);
  return null;
}

/** How often the places held what was asked for, as the server counts it. */
function tellHeld(line, held) {
  const facts = held.accesses ? [[percent(held.hit_rate), `of what was ${held.basis === "uses" ? "used" : "recalled"} stood here`]] : [];
  facts.push([count(held.sufficed), "times it sufficed"], [count(held.replaced), "times it was replaced"]);
  line.replaceChildren(...facts.map(([number, said]) => h("span", {}, h("b", {}, number), ` ${said}`)));
  line.title = held.sentence;
}

function tellChange({ cube_id, version, history: rows }) {
  if (shown.cube !== cube_id || version === shown.version) return;
  const [newest] = rows;
  if (newest?.came.length || newest?.left.length) announce(`Working memory of ${cube_id}: ${newest.came.length} came in, ${newest.left.length} left`);
}

function makePlace() {
  return h("li", {},
    h("span", { class: "score mono" }),
    h("div", {}, h("p", { class: "said" }), h("p", { class: "quiet why" })),
    h("time", { class: "quiet" }));
}

function fillPlace(li, one, best) {
  text(li.querySelector(".score"), one.score.toFixed(2));
  li.style.setProperty("--score", Math.max(0, one.score / best).toFixed(3));
  text(li.querySelector(".said"), one.memory);
  text(li.querySelector(".why"), one.use_count ? `${one.reason} · used ${plural(one.use_count, "time")}` : one.reason);
  const time = li.querySelector("time");
  time.dateTime = one.admitted_at;
  text(time, ago(Date.parse(one.admitted_at)));
}

function ages(body) {
  for (const time of body.querySelectorAll("time")) text(time, ago(Date.parse(time.dateTime)));
}

/* The history. */

function showHistory() {
  if (!shown.rows.length) {
    history.say("Nothing happened yet.", "empty");
    return;
  }
  let list = history.body.querySelector("ol");
  if (!list) {
    list = h("ol", { class: "turns" });
    history.body.replaceChildren(
      h("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": "Changes of working memory" }, list,
        h("button", { type: "button", class: "small more", on: { click: older } }, "Show older")));
  }
  sync(list, shown.rows, (row) => row.n, makeTurn, () => {});
  history.body.querySelector(".more").hidden = shown.before === null || shown.rows.length >= KEPT_MAX;
  history.state("ready");
}

async function older() {
  const cube = shown.cube;
  try {
    const answer = await get("product/working_memory/history", { mem_cube_id: cube, limit: PAGE, before: shown.before });
    if (cube !== shown.cube) return;
    shown.rows = [...shown.rows, ...answer.data.history].slice(0, KEPT_MAX);
    shown.before = answer.next_before;
    showHistory();
  } catch (error) {
    announce(`The older part could not be read: ${error.message}`);
  }
}

function makeTurn(row) {
  const sum = [row.came.length ? `${row.came.length} in` : "", row.left.length ? `${row.left.length} out` : "", `${row.kept} kept`].filter(Boolean).join(", ");
  return h("li", {},
    h("header", {}, h("b", { class: "mono" }, `v${row.version}`), h("time", { datetime: row.at, title: row.at }, clock(new Date(row.at))), h("span", { class: "quiet" }, sum)),
    h("p", { class: "quiet why" }, row.reason),
    h("ul", { class: "moves" }, row.came.map((one) => move("in", "came in", one)), row.left.map((one) => move("out", "left", one))));
}

function move(kind, spoken, { memory, reason }) {
  return h("li", { class: kind },
    h("span", { class: "sign", "aria-hidden": "true" }, kind === "in" ? "+" : "−"), h("span", { class: "hidden" }, `${spoken}: `),
    h("div", {}, h("p", { class: memory === null ? "said gone" : "said" }, memory ?? "deleted since"), h("p", { class: "quiet why" }, reason)));
}
