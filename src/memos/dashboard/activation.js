/* The activation memory of the cube that is looked at, as the server describes it: known fields in their own
   form, all others as they come. A server without the route has no such memory, and the card is not shown. */

import { get } from "./api.js";
import { h } from "./dom.js";
import { bytes, count, percent, span } from "./format.js";
import { Panel } from "./poll.js";
import { session } from "./session.js";

const EVERY_MS = 5000;
const AGAIN_MS = 300000; // a server without the route is not asked all the time
const FIELDS_MAX = 40;
const TITLES = {
  tokens: "Tokens", bytes: "Bytes", hit_rate: "Hit rate", hits: "Hits", misses: "Misses",
  reused_tokens: "Tokens reused after the last update", reuse: "Reused after the last update",
  last_miss_reason: "Reason of the last miss", last_miss: "Reason of the last miss", model: "Model",
  updated_at: "Updated", built_at: "Built", fingerprint: "Fingerprint", status: "State",
};

const missing = new Map(); // cube -> when the server last said that there is no such thing

export function activationPanel() {
  return new Panel("activation", {
    every_ms: EVERY_MS,
    ask: async () => {
      if (!session.cube || Date.now() - (missing.get(session.cube) ?? 0) < AGAIN_MS) return null;
      try {
        const answer = await get(`product/activation/${encodeURIComponent(session.cube)}`);
        return answer.data ?? {};
      } catch (error) {
        if (error.status !== 404) throw error;
        missing.set(session.cube, Date.now());
        return null;
      }
    },
    show(found) {
      this.root.hidden = found === null;
      const rows = Object.entries(found ?? {}).filter(([name, value]) => value !== null && name !== "cube_id" && name !== "mem_cube_id");
      if (!rows.length) return "No activation memory yet.";
      this.body.replaceChildren(h("dl", { class: "facts" }, rows.slice(0, FIELDS_MAX).map(([name, value]) =>
        h("div", {}, h("dt", {}, TITLES[name] ?? title(name)), h("dd", {}, form(name, value))))));
      return null;
    },
  });
}

const title = (name) => (name[0]?.toUpperCase() ?? "") + name.slice(1).replaceAll("_", " ");

function form(name, value) {
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "number") {
    if (/(^|_)bytes$/.test(name)) return bytes(value);
    if (/(rate|share|ratio|reuse)$/.test(name) && value <= 1) return percent(value);
    if (/_ms$/.test(name)) return span(value / 1000);
    if (/_s$/.test(name)) return span(value);
    return Number.isInteger(value) ? count(value) : String(value);
  }
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
