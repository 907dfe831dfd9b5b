/* The dialogs of the page: help, the key, and the question before something is lost. They are the browser's
   own modal dialogs: focus stays inside, Escape closes, focus goes back to where it was. */

import { Fault, key, tryKey } from "./api.js";
import { byId, text } from "./dom.js";

/** Ask before something that cannot be undone; true for yes. Cancel has the focus. */
export function confirm(title, said, yes) {
  const dialog = byId("dialog-confirm");
  text(byId("h-confirm"), title);
  text(byId("confirm-text"), said);
  text(byId("confirm-yes"), yes);
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((answer) => {
    dialog.addEventListener("close", () => answer(dialog.returnValue === "yes"), { once: true });
  });
}

export function openHelp() {
  const dialog = byId("dialog-help");
  if (!dialog.open) dialog.showModal();
}

/** Ask for the key. `why`: what the server said about the one it was given. */
export function askKey(why = "") {
  const dialog = byId("dialog-key");
  text(byId("key-fault"), why);
  byId("key-forget").hidden = !key.get();
  if (dialog.open) return;
  byId("key-input").value = "";
  dialog.showModal();
  byId("key-input").focus();
}

async function useKey(event) {
  event.preventDefault();
  const given = byId("key-input").value.trim();
  if (!given) return;
  try {
    await tryKey(given);
  } catch (error) {
    const said = error instanceof Fault && error.status === 401 ? "The server does not know this key." : error.message;
    text(byId("key-fault"), said);
    byId("key-input").focus();
    return;
  }
  key.set(given);
  location.reload();
}

export function wireDialogs() {
  byId("help").addEventListener("click", openHelp);
  byId("key").addEventListener("click", () => askKey());
  byId("key-form").addEventListener("submit", useKey);
  byId("key-cancel").addEventListener("click", () => byId("dialog-key").close());
  byId("key-forget").addEventListener("click", () => {
    key.set("");
    location.reload();
  });
}
