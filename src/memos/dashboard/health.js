/* The health of memory: what repeats, what grew old, what was never recalled. It reads every memory, so it
   looks when its tab is opened and when it is asked to, and at most once a minute by itself. */

import { get } from "./api.js";
import { meter } from "./chart.js";
import { byId, h, text } from "./dom.js";
import { clock, count, percent, plural } from "./format.js";
import { Panel } from "./poll.js";
import { session } from "./session.js";

const EVERY_MS = 60000;
const IDS_SHOWN = 8;
const FINDINGS = {
  duplicates: ["Duplicates", "the same text twice"],
  near_duplicates: ["Near duplicates", "almost the same text"],
  echoes: ["Echoes", "an answer that repeats a memory"],
  stale: ["Stale", "its time is over"],
  never_recalled: ["Never recalled", "old, and no question needed it"],
  dangerous: ["Dangerous", "looks like a secret or an order"],
};
const AREAS = { long_term: "Long-term", user: "User", preference: "Preferences", working: "Working" };

export function healthPanel() {
  const panel = new Panel("health", {
    every_ms: EVERY_MS,
    ask: async () => {
      const cube = session.admin && !session.chosen ? "" : session.cube;
      if (!cube && !session.cubes.length) return null;
      return { cube, ...(await get("health/memory", { mem_cube_id: cube })).data };
    },
    show(found) {
      if (found === null) return "No cube holds memories yet.";
      const { cube, live, unread, quarantined, findings, fill } = found;
      text(byId("health-note"), `${cube || "all cubes"}, looked at ${clock(new Date())}`);
      this.body.replaceChildren(
        h("p", { class: "sums" },
          h("span", {}, h("b", {}, count(live)), " live"), h("span", {}, h("b", {}, count(unread)), " not read yet"),
          h("span", {}, h("b", {}, count(quarantined)), " held for review")),
        h("ul", { class: "findings" }, Object.entries(findings).map(([name, one]) => finding(name, one))),
        h("h4", {}, cube ? "Fill" : "Fill of the fullest cube"),
        h("div", { class: "meters two" }, Object.entries(fill).map(([area, share]) => meter(AREAS[area] ?? area, share, percent(share)))));
      return null;
    },
  });
  byId("health-again").addEventListener("click", () => panel.refresh());
  return panel;
}

function finding(name, { count: number, rate, ids }) {
  const [title, said] = FINDINGS[name] ?? [name.replaceAll("_", " "), ""];
  const head = [h("span", { class: `dot ${number ? "warn" : "fine"}`, "aria-hidden": "true" }), h("b", {}, count(number)), h("span", {}, title),
    h("span", { class: "quiet" }, number ? `${percent(rate)}, ${said}` : said)];
  if (!number) return h("li", {}, h("div", { class: "line" }, head));
  return h("li", {}, h("details", {}, h("summary", { class: "line" }, head),
    h("p", { class: "ids mono" }, ids.slice(0, IDS_SHOWN).join("  "), number > IDS_SHOWN ? `  and ${plural(number - IDS_SHOWN, "more", "more")}` : "")));
}
