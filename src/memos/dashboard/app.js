/* The page as a whole: who looks, the panels, the banner when the server is gone, and the keys. */

import { activationPanel } from "./activation.js";
import { connection, get } from "./api.js";
import { deadPanel, forgetDead } from "./dead.js";
import { askKey, openHelp, wireDialogs } from "./dialogs.js";
import { announce, byId, text } from "./dom.js";
import { healthPanel } from "./health.js";
import { showTab, shownTab, wireKeyboard } from "./keyboard.js";
import { latencyPanel } from "./latency.js";
import { logsPanel, restartLogs, togglePause } from "./logs.js";
import { refreshAll, restartAll, wakeAll } from "./poll.js";
import { forgetQueue, queuePanels } from "./queue.js";
import { forgetSearch, searchPanels } from "./search.js";
import { session } from "./session.js";
import { utilisationPanel } from "./utilisation.js";
import { forgetWorking, workingPanel } from "./working.js";

const turnTheme = () => dispatchEvent(new Event("memos:theme"));

function pulse(state, said) {
  byId("pulse").dataset.state = state;
  text(byId("pulse-text"), said);
}

/* The banner: what stands in the way of the whole page, and what can be done about it. */

function banner(said, action, act) {
  byId("banner").hidden = !said;
  text(byId("banner-text"), said);
  byId("banner-act").hidden = !action;
  text(byId("banner-act"), action ?? "");
  byId("banner-act").onclick = act ?? null;
}

function wireConnection() {
  connection.addEventListener("gone", () => {
    pulse("gone", "Offline");
    document.body.toggleAttribute("data-gone", true);
  });
  connection.addEventListener("waiting", ({ detail }) => {
    banner(`The server does not answer. What is shown is old. Trying again in ${detail} s.`, "Try now", () => connection.probe());
  });
  connection.addEventListener("back", () => {
    document.body.toggleAttribute("data-gone", false);
    banner("");
    pulse("live", "Live");
    announce("The server answers again");
    if (!started) start();
  });
  addEventListener("memos:key-needed", () => {
    pulse("denied", "Locked");
    banner("This server asks for an API key.", "Give a key", () => askKey());
    if (!asked) askKey();
    asked = true;
  });
}

/* The start. */

let started = false;
let asked = false;

async function start() {
  try {
    await session.load();
  } catch (error) {
    if (error.status && error.status !== 401) {
      pulse("denied", "Refused");
      banner(`The server refused: ${error.message} (${error.status}).`, "Try again", start);
    }
    return;
  }
  started = true;
  banner("");
  pulse("live", "Live");
  const { role, name, users, cubes } = session.me;
  get("health").then(({ version }) => {
    const scope = session.admin ? "everything" : `${[...(users ?? ["every user"])].join(", ")} · ${[...(cubes ?? ["every cube"])].join(", ")}`;
    text(byId("about"), `MemScheduler ${version} · ${name ? `${role} key ${name}` : "no key needed here"} · sees ${scope}`);
  }).catch(() => {});
  queuePanels();
  latencyPanel();
  utilisationPanel();
  workingPanel();
  activationPanel();
  healthPanel();
  deadPanel();
  logsPanel();
  searchPanels();
  addEventListener("memos:tab", wakeAll);
  addEventListener("memos:cube", () => {
    forgetQueue();
    forgetWorking();
    forgetDead();
    forgetSearch();
    restartAll();
    restartLogs();
  });
  wakeAll();
  showTab(shownTab());
}

wireDialogs();
wireConnection();
wireKeyboard({
  "/": ["search memory", () => { showTab("search"); byId("search-query").focus(); }],
  c: ["choose a cube", () => byId("cube").focus()],
  r: ["look again now", refreshAll],
  p: ["pause the log, or go on", () => { showTab("logs"); togglePause(); }],
  t: ["light or dark", turnTheme],
  k: ["give an API key", () => askKey()],
  "?": ["this help", openHelp],
});
byId("theme").addEventListener("click", turnTheme);
byId("cube").addEventListener("change", (event) => session.choose(event.target.value));
start();
