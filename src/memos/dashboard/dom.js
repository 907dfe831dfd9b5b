/* Elements out of values. Text goes in as text, always: nothing here parses markup. */

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes (`on` holds listeners, false and null are left out) and children. */
export function h(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same for drawings. */
export function s(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    } else {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const byId = (id) => document.getElementById(id);

/** Set the text of an element, touching the page only when it changes. */
export function text(element, value) {
  const said = String(value);
  if (element.textContent !== said) element.textContent = said;
}

/** Let the children of `parent` be those of `items`, in their order. Elements are kept by key, so that
    focus, open details and selections survive an update. `make(item)` gives an element once, `update` fills it. */
export function sync(parent, items, keyOf, make, update) {
  const before = new Map(Array.from(parent.children, (child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    let element = before.get(key);
    if (element === undefined) {
      element = make(item);
      element.dataset.key = key;
    }
    before.delete(key);
    update(element, item);
    if (element === place) place = place.nextElementSibling;
    else parent.insertBefore(element, place);
  }
  for (const gone of before.values()) gone.remove();
}

const SILENCE_MS = 1500;
let waiting = "";
let spokenAt = 0;

/** Tell those who listen to the page; what comes too fast is said together, the newest last. */
export function announce(said) {
  const pending = waiting !== "";
  waiting = pending ? `${waiting}. ${said}`.slice(-300) : said;
  if (pending) return;
  setTimeout(() => {
    byId("live").textContent = waiting;
    waiting = "";
    spokenAt = performance.now();
  }, Math.max(50, SILENCE_MS - (performance.now() - spokenAt)));
}
