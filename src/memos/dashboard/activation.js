/* The activation memory of the cube that is looked at, as the server describes it: known fields first and in
   their own form, all others as they come, lists of things one below the other. A server without the route has
   no such memory, and the card is not shown. */

import { get } from "./api.js";
import { h } from "./dom.js";
import { ago, bytes, count, percent, span } from "./format.js";
import { Panel } from "./poll.js";
import { session } from "./session.js";

const EVERY_MS = 5000;
const AGAIN_MS = 300000; // a server without the route is not asked all the time
const FIELDS_MAX = 40;
const PARTS_MAX = 20;
const TITLES = {
  backend: "Kept by", builds: "Prepared ahead", tokens: "Tokens", bytes: "Bytes", hit_rate: "Hit rate",
  update_reuse: "Reused after the last update", reuse: "Reused after the last update", last_miss: "Reason of the last miss",
  last_miss_reason: "Reason of the last miss", memories: "Memories", hits: "Hits", misses: "Misses", chats: "Chats",
  changes: "Changes of the block", usable_memories: "Memories still usable", blocks: "Blocks", prefix: "Kept prefix",
};
const HEADS = ["user_id", "name", "id"]; // what a part is called by
const HIDDEN = new Set(["cube_id", "mem_cube_id", "mem_cube_ids"]);

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
      const parts = Object.values(found ?? {}).filter(Array.isArray);
      const none = parts.length ? parts.every((one) => !one.length) : !Object.keys(found ?? {}).length;
      if (none) return "No activation memory yet.";
      this.body.replaceChildren(h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Activation memory" }, drawn(found)));
      return null;
    },
  });
}

function drawn(thing) {
  const fields = Object.entries(thing).filter(([name, value]) => value !== null && !HIDDEN.has(name)).slice(0, FIELDS_MAX);
  const place = ([name]) => Object.keys(TITLES).indexOf(name) + 1 || FIELDS_MAX;
  fields.sort((a, b) => place(a) - place(b));
  const plain = fields.filter(([, value]) => typeof value !== "object");
  const deep = fields.filter(([, value]) => typeof value === "object");
  return [
    plain.length ? h("dl", { class: "facts" }, plain.map(([name, value]) => h("div", {}, h("dt", {}, titleOf(name)), h("dd", {}, form(name, value))))) : null,
    ...deep.map(([name, value]) => (Array.isArray(value) ? several(name, value) : [h("h4", {}, titleOf(name)), ...drawn(value)])),
  ].flat();
}

function several(name, parts) {
  if (!parts.some((one) => one && typeof one === "object")) return [h("h4", {}, titleOf(name)), h("p", { class: "mono" }, parts.slice(0, PARTS_MAX).join(", "))];
  return parts.slice(0, PARTS_MAX).flatMap((one, at) => {
    const head = HEADS.find((field) => typeof one[field] === "string");
    const rest = Object.fromEntries(Object.entries(one).filter(([field]) => field !== head));
    return [h("h4", {}, head ? `${titleOf(name).replace(/s$/, "")} of ` : `${titleOf(name)} ${at + 1}`, head ? h("span", { class: "mono" }, one[head]) : null), ...drawn(rest)];
  });
}

const titleOf = (name) => TITLES[name] ?? (name[0]?.toUpperCase() ?? "") + name.slice(1).replaceAll("_", " ");

function form(name, value) {
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value !== "number") return /_at$/.test(name) && Date.parse(value) ? ago(Date.parse(value)) : String(value);
  if (/(^|_)bytes$/.test(name)) return bytes(value);
  if (/(rate|share|ratio|reuse)$/.test(name) && value <= 1) return percent(value);
  if (/_ms$/.test(name)) return span(value / 1000);
  if (/_s$/.test(name)) return span(value);
  return Number.isInteger(value) ? count(value) : value.toPrecision(4);
}
