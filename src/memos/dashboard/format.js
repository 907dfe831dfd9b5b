/* Numbers and moments for people. */

const whole = new Intl.NumberFormat("en");
const oneDigit = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const clockForm = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const shortForm = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const dayForm = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });

export const count = (number) => whole.format(number);
export const percent = (share) => `${oneDigit.format(100 * share)} %`;
export const clock = (moment) => clockForm.format(moment);
export const shortClock = (moment) => shortForm.format(moment);
export const day = (moment) => dayForm.format(moment);

/** A length of time: 0.4 ms, 12 ms, 1.2 s, 3 min, 5 h. */
export function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const size = Math.abs(seconds);
  if (size === 0) return "0 s";
  if (size < 0.01) return `${oneDigit.format(seconds * 1000)} ms`;
  if (size < 1) return `${Math.round(seconds * 1000)} ms`;
  if (size < 10) return `${oneDigit.format(seconds)} s`;
  if (size < 120) return `${Math.round(seconds)} s`;
  if (size < 7200) return `${Math.round(seconds / 60)} min`;
  if (size < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

export function bytes(number) {
  if (number < 1024) return `${whole.format(number)} B`;
  const units = ["KiB", "MiB", "GiB", "TiB"];
  let size = number / 1024;
  let unit = 0;
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${size < 10 ? oneDigit.format(size) : Math.round(size)} ${units[unit]}`;
}

/** How long ago a moment (milliseconds) was. */
export function ago(moment) {
  const seconds = (Date.now() - moment) / 1000;
  return seconds < 1.5 ? "just now" : `${span(seconds)} ago`;
}

/** One of a thing, several of it. */
export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

/** A name that is short enough to show, its end kept: ids differ there. */
export function shortened(name, length = 28) {
  return name.length <= length ? name : `${name.slice(0, length - 9)}…${name.slice(-8)}`;
}
