/* Drawings: a line over time on a logarithmic scale, and small lines without a scale. Values come in, SVG
   comes out; the numbers behind a drawing stand in a table beside it. */

import { h, s } from "./dom.js";
import { shortClock, span } from "./format.js";

const HEIGHTS = [252, 322]; // narrow, wide
const LEFT = 54;
const BOTTOM = 22;
const TOP = 10;
const BARS = 26; // the height of the bars that say how many there were
const GAP = 2; // steps without a value that a line may cross

/** Decades around all values: [lowest, highest] as powers of ten, at least one apart. */
function decades(values) {
  if (!values.length) return [-3, 0];
  const low = Math.floor(Math.log10(Math.max(1e-4, Math.min(...values))));
  const high = Math.ceil(Math.log10(Math.max(1e-4, Math.max(...values))) + 1e-9);
  return [low, Math.max(high, low + 1)];
}

/** The places of a row of values in runs that hang together: [[step, value], …]. */
function runs(row) {
  const found = [];
  let last = -Infinity;
  row.forEach((value, step) => {
    if (value === null) return;
    if (step - last > GAP + 1) found.push([]);
    found.at(-1).push([step, value]);
    last = step;
  });
  return found;
}

/** `series`: {tone, p50, p95, counts}, rows of equal length; `since` and `until` in seconds; `width` in pixels.
    Returns the drawing, `point(step)`, which shows a step (null: none), and `stepAt(clientX)`. */
export function latencyChart({ series, since, until, width }) {
  const height = HEIGHTS[Number(width > 600)];
  const steps = series[0]?.p50.length ?? 0;
  const [low, high] = decades(series.flatMap((one) => [...one.p50, ...one.p95]).filter((value) => value !== null));
  const x = (step) => LEFT + ((step + 0.5) / Math.max(steps, 1)) * (width - LEFT);
  const floor = height - BOTTOM - BARS;
  const y = (value) => floor - ((Math.log10(Math.max(value, 10 ** low)) - low) / (high - low)) * (floor - TOP);
  const drawing = s("svg", { viewBox: `0 0 ${width} ${height}`, width, height, class: "chart", "aria-hidden": "true" });
  for (let power = low; power <= high; power += 1) {
    const at = y(10 ** power);
    drawing.append(
      s("line", { class: "rule", x1: LEFT, x2: width, y1: at, y2: at }),
      s("text", { class: "scale", x: LEFT - 8, y: at + 4, "text-anchor": "end" }, span(10 ** power)),
    );
  }
  for (let part = 0; part <= 4; part += 1) {
    const moment = new Date(1000 * (since + ((until - since) * part) / 4));
    const anchor = part === 0 ? "start" : part === 4 ? "end" : "middle";
    drawing.append(s("text", { class: "scale", x: LEFT + ((width - LEFT) * part) / 4, y: height - 5, "text-anchor": anchor }, shortClock(moment)));
  }
  drawing.append(bars(series, steps, x, width - LEFT, height - BOTTOM));
  for (const one of series) drawing.append(lines(one, x, y));
  const cross = s("line", { class: "cross", y1: TOP, y2: height - BOTTOM, visibility: "hidden" });
  drawing.append(cross);
  const point = (step) => {
    cross.setAttribute("visibility", step === null ? "hidden" : "visible");
    if (step === null) return;
    cross.setAttribute("x1", x(step));
    cross.setAttribute("x2", x(step));
  };
  const stepAt = (clientX) => {
    const box = drawing.getBoundingClientRect();
    const inside = ((clientX - box.left) / box.width) * width;
    const step = Math.floor(((inside - LEFT) / (width - LEFT)) * steps);
    return step >= 0 && step < steps ? step : null;
  };
  return { drawing, point, stepAt, steps };
}

function bars(series, steps, x, room, base) {
  const sums = Array.from({ length: steps }, (_, step) => series.reduce((sum, one) => sum + one.counts[step], 0));
  const most = Math.max(1, ...sums);
  const width = Math.max(1, room / Math.max(steps, 1) - 2);
  return s("g", { class: "bars" }, sums.map((sum, step) => {
    const height = sum ? Math.max(1.5, (sum / most) * (BARS - 6)) : 0;
    return height ? s("rect", { x: x(step) - width / 2, y: base - height, width, height, rx: 1 }) : null;
  }));
}

function lines({ p50, p95, tone }, x, y) {
  const group = s("g", { class: `line tone${tone}` });
  const path = (points) => points.map(([step, value], at) => `${at ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  const upper = runs(p95);
  runs(p50).forEach((lower, at) => {
    const above = upper[at];
    if (lower.length === 1) {
      const [[step, value]] = lower;
      group.append(
        s("line", { class: "stem", x1: x(step), x2: x(step), y1: y(value), y2: y(above[0][1]) }),
        s("circle", { cx: x(step), cy: y(above[0][1]), r: 2.6 }),
        s("circle", { class: "half", cx: x(step), cy: y(value), r: 2 }),
      );
      return;
    }
    const back = lower.slice().reverse().map(([step, value]) => `L${x(step).toFixed(1)} ${y(value).toFixed(1)}`).join("");
    group.append(
      s("path", { class: "band", d: `${path(above)}${back}Z` }),
      s("path", { class: "p50", d: path(lower) }),
      s("path", { class: "p95", d: path(above) }),
    );
  });
  return group;
}

/** A small line of the last values, newest right; `room` is how many there may be. */
export function sparkline(values, tone, room = values.length) {
  const width = 96;
  const height = 24;
  const most = Math.max(1, ...values);
  const step = width / Math.max(room - 1, 1);
  const first = width - (values.length - 1) * step;
  const path = values.map((value, at) => `${at ? "L" : "M"}${(first + at * step).toFixed(1)} ${(height - 2 - (value / most) * (height - 5)).toFixed(1)}`).join("");
  return s("svg", { viewBox: `0 0 ${width} ${height}`, class: `spark ${tone}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    values.length > 1 ? [s("path", { class: "under", d: `${path}L${width} ${height}L${first.toFixed(1)} ${height}Z` }), s("path", { class: "over", d: path })] : []);
}

/** A bar of a share 0..1, with what it says beside it. */
export function meter(label, share, said, { warn = 0.85 } = {}) {
  const bar = h("i", { class: share >= warn ? "fill high" : "fill" });
  bar.style.width = `${Math.min(100, Math.max(share > 0 ? 1.5 : 0, 100 * share))}%`;
  return h("div", { class: "meter" },
    h("span", { class: "name" }, label),
    h("span", { class: "value" }, said),
    h("span", { class: "bar", "aria-hidden": "true" }, bar));
}
