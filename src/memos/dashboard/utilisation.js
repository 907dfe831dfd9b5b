/* How full and how busy: workers, the queue's room, the areas of the cube that is looked at, and the caches. */

import { get } from "./api.js";
import { meter } from "./chart.js";
import { h, text } from "./dom.js";
import { bytes, count, percent, plural } from "./format.js";
import { Panel } from "./poll.js";
import { session } from "./session.js";

const EVERY_MS = 4000;
const AREAS = [["long_term", "Long-term"], ["user", "User"], ["preference", "Preferences"], ["working", "Working"]];
const LOOKS_BETWEEN_CUBES = 3; // the list of cubes costs more than the load

let looks = 0;

export function utilisationPanel() {
  return new Panel("utilisation", {
    every_ms: EVERY_MS,
    ask: async () => {
      if (looks % LOOKS_BETWEEN_CUBES === 0) await session.loadCubes();
      looks += 1;
      return (await get("product/load")).data;
    },
    show(load) {
      this.body.replaceChildren(...parts(load));
      text(this.root.querySelector("h3"), "Utilisation");
      return null;
    },
  });
}

function parts({ workers, queue_held, queue_capacity, embeddings, working_memory, store_bytes }) {
  const busy = meter(
    "Workers busy", workers.calls / Math.max(workers.threads, 1),
    workers.running ? `${count(workers.calls)} of ${count(workers.threads)}` : "no scheduler here", { warn: 2 },
  );
  const queue = meter("Queue", queue_held / Math.max(queue_capacity, 1), `${count(queue_held)} of ${count(queue_capacity)}`);
  const cube = session.cubes.find((one) => one.cube_id === session.cube);
  const areas = cube && session.capacities
    ? AREAS.map(([name, title]) => meter(title, cube.sizes[name] / session.capacities[name], `${count(cube.sizes[name])} of ${count(session.capacities[name])}`, { warn: name === "working" ? 2 : 0.85 }))
    : [h("p", { class: "nothing" }, "No cube holds memories yet.")];
  return [
    h("div", { class: "meters" }, busy, queue),
    h("h4", {}, cube ? "Memory of " : "Memory", cube ? h("span", { class: "mono" }, cube.cube_id) : null),
    h("div", { class: "meters" }, areas),
    h("h4", {}, "Found without work"),
    h("dl", { class: "facts" },
      fact("Working memory sufficed", rate(working_memory)),
      fact("Vectors from the cache", rate(embeddings)),
      fact("Processes that claim", count(workers.instances)),
      fact("Archived here", cube ? plural(cube.sizes.archived, "memory", "memories") : "–"),
      fact("Memory file", store_bytes === null ? "–" : bytes(store_bytes))),
  ];
}

const fact = (name, value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));

function rate({ hits, misses }) {
  const all = hits + misses;
  return all ? `${percent(hits / all)} of ${count(all)}` : "–";
}
