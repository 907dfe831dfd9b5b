/* Panels that ask the server again and again: what a panel shows while it waits, fails or grows old, and
   when it asks: only while its tab is shown, the page is seen and the server answers. */

import { connection } from "./api.js";
import { h } from "./dom.js";
import { ago } from "./format.js";

const BACKOFF_MAX = 8;
const panels = new Set();

/** A card of the page, by its `data-panel`. `every_ms` 0: asks only when told to. `ask()` gives what
    `show(answer)` draws; `show` returns a text when there is nothing to draw. `followers` are
    panels that draw parts of the same answer; one that is `everywhere` asks under every tab. */
export class Panel {
  #timer = 0;
  #busy = false;
  #again = false;
  #failures = 0;
  #goodAt = 0;
  #askedAt = 0;

  constructor(name, { every_ms = 0, ask, show, followers = [], everywhere = false }) {
    this.root = document.querySelector(`[data-panel="${name}"]`);
    this.body = this.root.querySelector(".body") ?? this.root;
    this.every_ms = every_ms;
    this.ask = ask;
    this.show = show;
    this.followers = followers;
    this.everywhere = everywhere;
    this.age = h("span", { class: "age", role: "status" });
    this.root.querySelector("header")?.append(this.age);
    panels.add(this);
    this.state("loading");
  }

  get seen() {
    const tab = this.root.closest("[role=tabpanel]");
    return (this.everywhere || !tab?.hidden) && !document.hidden && connection.up;
  }

  state(name) {
    this.root.dataset.state = name;
    this.root.setAttribute("aria-busy", String(name === "loading"));
    if (name === "loading" && this.body.classList.contains("body")) {
      this.body.replaceChildren(h("div", { class: "skeleton", "aria-label": "loading" }, h("i"), h("i"), h("i")));
    }
  }

  /** A text in the place of the content. */
  say(said, state) {
    this.state(state);
    if (this.body.firstElementChild?.textContent !== said || this.body.childElementCount !== 1) {
      this.body.replaceChildren(h("p", { class: state === "error" ? "fault" : "nothing" }, said));
    }
  }

  /** Ask now; what is asked for while an answer is on its way is asked once more after it. */
  async refresh() {
    clearTimeout(this.#timer);
    if (this.#busy) {
      this.#again = true;
      return;
    }
    this.#busy = true;
    this.#askedAt = Date.now();
    let pause = 1;
    try {
      const nothing = this.show(await this.ask());
      this.#failures = 0;
      this.#goodAt = Date.now();
      if (typeof nothing === "string") this.say(nothing, "empty");
      else this.state("ready");
    } catch (error) {
      if (error.status === undefined) console.error(error);
      this.#failures += 1;
      pause = Math.min(BACKOFF_MAX, 2 ** this.#failures);
      if (error.retryAfter) pause = Math.max(pause, (1000 * error.retryAfter) / (this.every_ms || 1000));
      this.#failed(error);
    } finally {
      this.#busy = false;
      this.mark();
      if (this.#again) {
        this.#again = false;
        this.refresh();
      } else if (this.every_ms) {
        this.#timer = setTimeout(() => this.wake(), this.every_ms * pause);
      }
    }
  }

  #failed(error) {
    if (error.status === 401) this.say("A key is needed.", "error");
    else if (error.status === 403) this.say(`Not allowed: ${error.message}.`, "error");
    else if (!this.#goodAt) this.say(error.status ? `${error.message} (${error.status})` : "Waiting for the server.", "error");
    // else what is there stays, and is marked as old
  }

  /** Go on asking, now or when it is time to; called when a tab is shown or the page is seen. */
  wake() {
    if (!this.every_ms || !this.seen || this.#busy) return;
    clearTimeout(this.#timer);
    const early = this.#askedAt + 0.9 * this.every_ms - Date.now();
    if (early > 0) this.#timer = setTimeout(() => this.wake(), early);
    else this.refresh();
  }

  /** Forget what is shown: something else is asked for now. */
  restart() {
    this.#goodAt = 0;
    this.#failures = 0;
    this.state("loading");
    if (this.seen) this.refresh();
  }

  /** Mark content that should have been renewed by now. */
  mark() {
    if (!this.every_ms) return;
    const old = this.#goodAt && Date.now() - this.#goodAt > 3 * Math.max(this.every_ms, 1000);
    const stale = Boolean(old && (this.seen || !connection.up) && this.root.dataset.state === "ready");
    const said = stale ? `stale, from ${ago(this.#goodAt)}` : "";
    for (const { root, age } of [this, ...this.followers]) {
      root.toggleAttribute("data-stale", stale);
      if (age.textContent !== said) age.textContent = said;
    }
  }
}

export const wakeAll = () => panels.forEach((panel) => panel.wake());
export const refreshAll = () => panels.forEach((panel) => panel.every_ms && panel.seen && panel.refresh());
export const restartAll = () => panels.forEach((panel) => panel.every_ms && panel.restart());

document.addEventListener("visibilitychange", () => !document.hidden && wakeAll());
connection.addEventListener("back", refreshAll);
setInterval(() => panels.forEach((panel) => panel.mark()), 1000);
