/* Who looks, and at which cube: the answer of the server about the key, and the choice kept for this tab. */

import { get } from "./api.js";
import { byId, h, sync } from "./dom.js";
import { count } from "./format.js";

const CUBES_MAX = 200;
const CHOICE = "memos.cube";

export const session = {
  me: { role: "read-only", users: [], cubes: [], may_write: false, name: "" },
  cubes: [],
  capacities: null,
  total: 0,
  users: new Map(), // cube -> somebody whose memories it holds, as far as that was seen
  chosen: sessionStorage.getItem(CHOICE) ?? "",

  get admin() {
    return this.me.role === "admin";
  },

  /** The cube that is looked at: the chosen one, else the one with most changes. */
  get cube() {
    if (this.chosen) return this.chosen;
    return this.cubes.reduce((most, one) => (one.seq > (most?.seq ?? 0) ? one : most), null)?.cube_id ?? "";
  },

  /** Conditions of a request for what the chosen cube, or everything in sight, is about. */
  get narrowed() {
    return this.chosen ? { mem_cube_id: this.chosen } : {};
  },

  /** The same where a key without admin rights must name what it asks for. */
  get named() {
    if (this.chosen || this.admin) return this.narrowed;
    if (this.me.users?.length === 1) return { user_id: this.me.users[0] };
    return { mem_cube_id: this.cube || this.me.cubes?.[0] || "" };
  },

  /** In whose name the page searches until somebody says otherwise. */
  get user() {
    return this.me.users?.length ? this.me.users[0] : this.users.get(this.cube) ?? this.cube;
  },

  async load() {
    this.me = (await get("product/me")).data;
    document.body.dataset.write = this.me.may_write ? "yes" : "no";
    await this.loadCubes();
  },

  async loadCubes() {
    const answer = await get("product/cubes", { limit: CUBES_MAX });
    this.cubes = answer.data;
    this.capacities = answer.capacities;
    this.total = answer.total;
    if (this.chosen && answer.total <= CUBES_MAX && !this.cubes.some((one) => one.cube_id === this.chosen)) {
      this.chosen = "";
    }
    fill(byId("cube"), this);
    return answer;
  },

  choose(cube) {
    this.chosen = cube;
    sessionStorage.setItem(CHOICE, cube);
    byId("cube").value = cube;
    dispatchEvent(new Event("memos:cube"));
  },
};

function fill(select, { cubes, chosen, total }) {
  const names = ["", ...cubes.map((one) => one.cube_id)];
  if (chosen && !names.includes(chosen)) names.push(chosen);
  sync(select, names, (name) => name, (name) => h("option", { value: name }), (option, name) => {
    const said = name || (total > CUBES_MAX ? `All ${count(total)} cubes` : "All cubes");
    if (option.textContent !== said) option.textContent = said;
  });
  if (select.value !== chosen) select.value = chosen;
}
