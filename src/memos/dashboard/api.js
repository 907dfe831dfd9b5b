/* Requests to this server: the key in its header, a limit in time, errors with their status, a stream of
   events that can carry the key, and one place that knows whether the server answers at all. */

const KEY = "memos.key";
const TIMEOUT_MS = 15000;
const SILENCE_MS = 40000; // a stream says something at least every 15 s
const PAUSES_S = [1, 2, 4, 8, 15];
const BASE = new URL(".", location.href);

/** An answer that is not what was asked for. `status` 0: the server did not answer. */
export class Fault extends Error {
  constructor(status, message, retryAfter = 0) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

function headers(more = {}, given = key.get()) {
  return given ? { ...more, Authorization: `Bearer ${given}` } : more;
}

function address(path, query = {}) {
  const url = new URL(path, BASE);
  for (const [name, value] of Object.entries(query)) {
    if (value !== null && value !== undefined && value !== "") url.searchParams.set(name, value);
  }
  return url;
}

async function faultOf(response) {
  const body = await response.json().catch(() => ({}));
  return new Fault(response.status, body.message ?? response.statusText, Number(response.headers.get("Retry-After")) || 0);
}

async function request(path, { query, body, withKey } = {}) {
  const stop = new AbortController();
  const timer = setTimeout(() => stop.abort(), TIMEOUT_MS);
  try {
    const response = await fetch(address(path, query), {
      method: body === undefined ? "GET" : "POST",
      headers: headers(body === undefined ? {} : { "Content-Type": "application/json" }, withKey),
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: stop.signal,
      cache: "no-store",
      credentials: "omit",
    });
    if (!response.ok) throw await faultOf(response);
    const answer = await response.json();
    connection.answered();
    return answer;
  } catch (error) {
    if (error instanceof Fault) {
      connection.answered();
      if (error.status === 401 && withKey === undefined) dispatchEvent(new Event("memos:key-needed"));
      throw error;
    }
    connection.lost();
    throw new Fault(0, stop.signal.aborted ? "the server did not answer in time" : "the server does not answer");
  } finally {
    clearTimeout(timer);
  }
}

export const get = (path, query) => request(path, { query });
export const post = (path, body) => request(path, { body });
export const tryKey = (given) => request("product/me", { withKey: given });

/** Whether the server answers. Events: `gone`, `waiting` (detail: seconds), `back`. */
class Connection extends EventTarget {
  up = true;
  #timer = 0;
  #tries = 0;

  answered() {
    if (this.up) return;
    this.up = true;
    this.#tries = 0;
    clearTimeout(this.#timer);
    this.dispatchEvent(new Event("back"));
  }

  lost() {
    if (!this.up) return;
    this.up = false;
    this.dispatchEvent(new Event("gone"));
    this.#wait();
  }

  /** Ask now instead of waiting longer. */
  async probe() {
    clearTimeout(this.#timer);
    try {
      await fetch(address("health"), { cache: "no-store", signal: AbortSignal.timeout(5000) });
      this.answered();
    } catch {
      this.#wait();
    }
  }

  #wait() {
    const seconds = PAUSES_S[Math.min(this.#tries, PAUSES_S.length - 1)];
    this.#tries += 1;
    this.dispatchEvent(new CustomEvent("waiting", { detail: seconds }));
    this.#timer = setTimeout(() => this.probe(), 1000 * seconds);
  }
}

export const connection = new Connection();

/** Read a stream of events until it ends or `signal` says so; `take` is given each event's data, parsed.
    Ends with a Fault: the caller decides whether and from where to go on. */
export async function stream(path, query, signal, take) {
  const quiet = new AbortController();
  signal.addEventListener("abort", () => quiet.abort(), { once: true });
  let timer = 0;
  const heard = () => {
    clearTimeout(timer);
    timer = setTimeout(() => quiet.abort(), SILENCE_MS);
  };
  try {
    heard();
    const response = await fetch(address(path, query), {
      headers: headers({ Accept: "text/event-stream" }),
      signal: quiet.signal,
      cache: "no-store",
      credentials: "omit",
    });
    if (!response.ok) throw await faultOf(response);
    connection.answered();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) throw new Fault(0, "the stream ended");
      heard();
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      for (const part of parts) {
        const said = part.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trim());
        if (said.length) take(JSON.parse(said.join("\n")));
      }
    }
  } catch (error) {
    if (error instanceof Fault && error.status) throw error;
    throw new Fault(0, "the stream was cut");
  } finally {
    clearTimeout(timer);
  }
}
