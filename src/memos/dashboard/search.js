/* Search as a user would, and why: for each hit, or for a memory that was expected, the walk through every
   gate between being written and being found. */

import { get, post } from "./api.js";
import { byId, h, text } from "./dom.js";
import { count, day, percent, plural } from "./format.js";
import { Panel } from "./poll.js";
import { session } from "./session.js";

const TOP_K = 20;
const EXPECTED_OF_A_SEARCH = 0.45; // what a search asks for by default

let results = null;
let why = null;
let asked = null;

export function searchPanels() {
  results = new Panel("search", { ask: async () => null, show: () => null });
  why = new Panel("explain", { ask: async () => null, show: () => null });
  forgetSearch();
  byId("search-form").addEventListener("submit", (event) => {
    event.preventDefault();
    search();
  });
  byId("explain-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const expected = byId("explain-expected").value.trim();
    if (expected) explain({ expected });
  });
}

export function forgetSearch() {
  asked = null;
  results.say("Ask something that the chosen cube should know.", "empty");
  why.say("Choose “Why” beside a hit, or say what you expected to find.", "empty");
  text(byId("search-note"), session.cube ? `in ${session.cube}` : "");
  tellUser();
}

/** Say in whose name a search asks: somebody whose memories the cube holds, where nobody is named. */
async function tellUser() {
  const cube = session.cube;
  if (cube && !session.me.users?.length && !session.users.has(cube)) {
    const answer = await get("product/working_memory/history", { mem_cube_id: cube, limit: 1 }).catch(() => null);
    session.users.set(cube, answer?.data.places[0]?.user_id ?? cube);
  }
  byId("search-user").placeholder = session.user;
}

function request() {
  return {
    query: byId("search-query").value.trim(),
    user_id: byId("search-user").value.trim() || session.user || "nobody",
    readable_cube_ids: session.cube ? [session.cube] : [],
    top_k: TOP_K,
    relativity: byId("search-weak").checked ? 0 : EXPECTED_OF_A_SEARCH,
  };
}

async function search() {
  const wanted = request();
  if (!wanted.query) {
    byId("search-query").focus();
    return;
  }
  asked = wanted;
  results.state("loading");
  try {
    const answer = await post("product/search", wanted);
    if (asked === wanted) show(answer);
  } catch (error) {
    if (asked === wanted) results.say(error.status === 403 ? `Not allowed: ${error.message}.` : error.message, "error");
  }
}

function show({ data, degraded, freshness }) {
  const hits = [...data.text_mem, ...data.pref_mem].flatMap((cube) => cube.memories.map((one) => ({ ...one, cube: cube.cube_id })));
  hits.sort((a, b) => b.metadata.relativity - a.metadata.relativity);
  const unread = Object.values(freshness).reduce((sum, one) => sum + one.unread, 0);
  const notes = [...degraded, ...(unread ? [`no facts were read from ${plural(unread, "turn")} yet`] : [])];
  text(byId("search-note"), [`${plural(hits.length, "hit")} in ${asked.readable_cube_ids[0] ?? asked.user_id}`, ...notes].join("; "));
  if (!hits.length) {
    results.say("Nothing fits. Say what you expected, and see at which gate it was lost.", "empty");
    return;
  }
  results.body.replaceChildren(h("ol", { class: "hits" }, hits.map(hit)));
  results.state("ready");
}

function hit({ id, memory, cube, metadata }) {
  const share = Number(metadata.relativity) || 0;
  const li = h("li", { "data-id": id },
    h("span", { class: "score mono", title: "how well it fits" }, share.toFixed(2)),
    h("div", {}, h("p", { class: "said" }, memory),
      h("p", { class: "quiet" }, [metadata.memory_type, cube, day(new Date(metadata.happened_at || metadata.created_at || Date.now()))].join(" · "))),
    h("button", { type: "button", class: "small", "aria-label": `Why: ${memory.slice(0, 80)}`, on: { click: () => explain({ memory_id: id }) } }, "Why"));
  li.style.setProperty("--score", share.toFixed(3));
  return li;
}

async function explain(expectation) {
  const wanted = { ...(asked ?? request()), ...expectation };
  if (!wanted.query) {
    why.say("A search comes first: type a query.", "empty");
    byId("search-query").focus();
    return;
  }
  why.state("loading");
  try {
    const { data } = await post("product/explain", wanted);
    why.body.replaceChildren(...walk(data, wanted.query));
    why.state("ready");
  } catch (error) {
    why.say(error.status === 403 ? `Not allowed: ${error.message}.` : error.message, "error");
  }
}

function walk({ verdict, explanation, memory, gates, tasks, channels, candidates }, query) {
  const found = verdict === "found";
  return [
    h("p", { class: `verdict ${found ? "yes" : "no"}` }, h("b", { id: "verdict" }, verdict.replaceAll("_", " ")), h("span", {}, explanation)),
    h("p", { class: "quiet" }, `for “${query}”`),
    memory ? h("blockquote", {}, memory.memory) : null,
    h("ol", { class: "gates" }, gates.map(({ gate, passed, detail }) => h("li", { class: passed ? "yes" : "no" },
      h("span", { class: "sign", "aria-hidden": "true" }, passed ? "✓" : "✕"), h("div", {}, h("b", {}, gate), h("span", { class: "hidden" }, passed ? " passed: " : " not passed: "), h("p", { class: "quiet" }, detail))))),
    Object.keys(channels).length ? h("h4", {}, `Channels, of ${plural(candidates, "candidate")}`) : null,
    h("dl", { class: "facts" }, Object.entries(channels).map(([name, one]) => h("div", {}, h("dt", {}, name), h("dd", {}, `place ${count(one.rank)} of ${count(one.of)}`)))),
    tasks.length ? h("h4", {}, "Tasks that concern it") : null,
    h("ul", { class: "tasks" }, tasks.map((one) => h("li", {}, h("b", { class: "mono" }, one.label), ` ${one.state}`, one.ahead === null ? "" : `, ${plural(one.ahead, "task")} before it`, one.error ? h("p", { class: "fault" }, one.error) : null))),
  ].filter(Boolean);
}
