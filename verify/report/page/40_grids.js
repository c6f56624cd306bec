// SPDX-License-Identifier: Apache-2.0
// Filters, and the grids that follow them.

const filters = {dtype: "", gate: "", tensor: "", convention: "", text: "", failedOnly: false};

function passesFilters(item) {
  const about = caseOf(item);
  return isJudged(item) && (!filters.dtype || about.dtype === filters.dtype) && (!filters.gate || about.gate === filters.gate) &&
    (!filters.tensor || data.tensors[item[2]] === filters.tensor) &&
    (!filters.convention || (data.conventions[item[3]] || "outputs") === filters.convention) &&
    (!filters.failedOnly || hasFailed(item)) &&
    (!filters.text || `${variantOf(item)} ${about.name}`.toLowerCase().includes(filters.text));
}

const filtered = () => [...data.items.keys()].filter((number) => passesFilters(data.items[number]));

// Numbers of items by row and variant.
function pivot(numbers, rowOf) {
  const rows = new Map();
  for (const number of numbers) {
    const row = rowOf(data.items[number]);
    if (row === undefined) continue;
    if (!rows.has(row)) rows.set(row, new Map());
    const cells = rows.get(row), variant = variantOf(data.items[number]);
    if (cells.has(variant)) cells.get(variant).push(number);
    else cells.set(variant, [number]);
  }
  return rows;
}

function summary(numbers) {
  let status = "SKIPPED", failed = 0, ratio = -1;
  for (const number of numbers) {
    const item = data.items[number], mine = statusOf(item);
    if (worstStatusFirst.indexOf(mine) < worstStatusFirst.indexOf(status)) status = mine;
    if (hasFailed(item)) ++failed;
    ratio = Math.max(ratio, ratioOf(item));
  }
  return {status, failed, ratio};
}

// A grid as the page came with it: its headings, its rows in their order, and cells to copy. What is drawn is made of
// these, so that it looks the same with scripts and without.
class Grid {
  constructor(id, rowOf) {
    this.table = document.getElementById(id);
    this.panel = document.getElementById(`${id}-panel`);
    Object.assign(this, {rowOf, cellOpen: null});
    [this.someCell, this.noCell] = document.getElementById(`${id}-cells`).content.children;
    [this.corner, ...this.headings] = this.table.tHead.rows[0].cells;
    this.rows = [...this.table.tBodies[0].rows].map((row) => row.cells[0].textContent);
  }

  cell(numbers, row, variant) {
    if (!numbers) return this.noCell.cloneNode(true);
    const {status, failed, ratio} = summary(numbers), made = this.someCell.cloneNode(true);
    const set = (part, text) => { made.querySelector(part).textContent = text; };
    set(".mark", marks[status]);
    set(".ratio", ratioText(ratio));
    set(".n", failed > 0 ? ` ${failed} of ${numbers.length}` : "");
    made.querySelector(".sr").remove();  // the button says it
    const button = element("button", {type: "button", "aria-expanded": "false",
      "aria-label": `${row}, ${variant}: ${status}, ${plural(numbers.length, "tensor")}, ${failed} did not pass, largest error_ratio ${ratioText(ratio)}`},
      ...made.childNodes);
    button.addEventListener("click", () => this.openCell(button, numbers, row, variant));
    made.className = `cell ${status}`;
    made.dataset.n = numbers.length;
    made.replaceChildren(button);
    return made;
  }

  openCell(button, numbers, row, variant) {
    const again = this.cellOpen === button;
    this.close();
    if (again) return;
    button.setAttribute("aria-expanded", "true");
    this.cellOpen = button;
    const place = element("div"), shut = element("button", {type: "button"}, "Close");
    shut.addEventListener("click", () => {
      this.close();
      button.focus();
    });
    this.panel.replaceChildren(element("header", {}, element("p", {}, element("b", {}, row), ` ${variant}, ${plural(numbers.length, "tensor")}`), shut), place);
    list(worstFirst([...numbers]), place);
    this.panel.hidden = false;
    this.panel.focus({preventScroll: true});
    this.panel.scrollIntoView({block: "nearest"});
  }

  close() {
    this.cellOpen?.setAttribute("aria-expanded", "false");
    this.cellOpen = null;
    this.panel.hidden = true;
    this.panel.replaceChildren();
  }

  // One row; if it holds several problems it opens into one row for each.
  line(row, cells, variants, sub) {
    const heading = element("th", {scope: "row"});
    const made = element("tr", {class: sub ? "sub" : null}, heading, ...variants.map((variant) => this.cell(cells.get(variant), row, variant)));
    const problems = sub ? new Map() : pivot([...cells.values()].flat(), (item) => caseOf(item).name);
    if (problems.size < 2 && (problems.size === 0 || problems.has(row))) {
      heading.append(row);
      return made;
    }
    const button = element("button", {type: "button", "aria-expanded": "false", title: plural(problems.size, "problem")}, row);
    let opened = [];
    button.addEventListener("click", () => {
      if (opened.length) opened.forEach((line) => line.remove());
      opened = opened.length ? [] : [...problems.keys()].map((name) => this.line(name, problems.get(name), variants, true));
      made.after(...opened);
      button.setAttribute("aria-expanded", String(opened.length > 0));
    });
    heading.append(button);
    return made;
  }

  draw(numbers) {
    this.close();
    const rows = pivot(numbers, this.rowOf);
    const present = new Set();
    for (const cells of rows.values()) for (const variant of cells.keys()) present.add(variant);
    const headings = this.headings.filter((heading) => present.has(heading.dataset.name));
    const variants = headings.map((heading) => heading.dataset.name);
    this.table.tHead.rows[0].replaceChildren(this.corner, ...headings);
    this.table.tBodies[0].replaceChildren(
      ...this.rows.filter((row) => rows.has(row)).map((row) => this.line(row, rows.get(row), variants, false)));
  }
}

function choice(label, key, values, onChange) {
  const names = [...new Set(values.filter((value) => value))].sort();
  if (names.length < 2) return null;
  const select = element("select", {name: key}, element("option", {value: ""}, "all"), ...names.map((name) => element("option", {value: name}, name)));
  select.addEventListener("change", () => {
    filters[key] = select.value;
    onChange();
  });
  return element("label", {}, label, select);
}

function makeFilters(onChange) {
  const form = document.getElementById("filters");
  const text = element("input", {type: "search", name: "text", size: "18", placeholder: "e.g. bfloat16 or cuda"});
  let waiting = 0;
  text.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      filters.text = text.value.trim().toLowerCase();
      onChange();
    }, 150);
  });
  const tick = element("input", {type: "checkbox", name: "failed"});
  tick.addEventListener("change", () => {
    filters.failedOnly = tick.checked;
    onChange();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.append(...[choice("dtype", "dtype", data.cases.map((c) => c.dtype), onChange), choice("gate", "gate", data.cases.map((c) => c.gate), onChange),
    choice("tensor", "tensor", data.tensors, onChange), choice("gradient convention", "convention", data.conventions.map((c) => c || "outputs"), onChange),
    element("label", {}, "variant or problem contains", text),
    data.items.some(hasFailed) ? element("label", {class: "tick"}, tick, "only what did not pass") : null,
    element("output", {"aria-live": "polite"})].filter((field) => field));
  form.hidden = false;
}
