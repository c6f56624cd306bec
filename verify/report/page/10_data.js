// SPDX-License-Identifier: Apache-2.0
// The data of the report, and how to make elements. Texts from files become text nodes, never markup.
//
// data.statuses is in the order of severity, the worst first.
// An item is an array: [0 variant, 1 case, 2 tensor, 3 convention, 4 status (places in their tables), 5 error_ratio
// (number, "inf", or null), 6 max_abs_error, 7 rel_frobenius, 8 repro, 9 note (places), 10 index of the worst element,
// 11 got, 12 expected, 13 bound (text), 14 place in pictures]; what is unknown at the end is left out.
// data.biases has a place for each item: null, or [bias_ratio, bias].
const data = JSON.parse(document.getElementById("data").textContent);

const worstStatusFirst = data.statuses;
const marks = Object.fromEntries(data.statuses.map((status, n) => [status, data.marks[n]]));

const variantOf = (item) => data.variants[item[0]];
const caseOf = (item) => data.cases[item[1]];
const statusOf = (item) => data.statuses[item[4]];
const ratioOf = (item) => (item[5] === "inf" ? Infinity : item[5] === null ? -1 : item[5]);
const isJudged = (item) => statusOf(item) !== "SKIPPED";
const hasFailed = (item) => !["PASS", "EXPECTED", "SKIPPED"].includes(statusOf(item));
const pictureOf = (item) => (item.length > 14 ? data.pictures[item[14]] : null);

function tensorName(item) {
  const convention = data.conventions[item[3]];
  return data.tensors[item[2]] + (convention ? ` (${convention})` : "");
}

// "batch 0, head 1, time step 506 of 1024 (chunk 1, step 250 of 256 in it), key dim 34"
function placeOf(item) {
  const axes = data.axes[data.tensors[item[2]]] ?? [], index = item[10] ?? [], {S, L} = caseOf(item);
  if (axes.length !== index.length) return "";
  return axes.map((axis, n) => {
    const at = `${axis} ${index[n]}`;
    if (axis !== "time step" || S === undefined) return at;
    const inChunk = L > 0 && variantOf(item).startsWith("chunkwise") ? ` (chunk ${Math.floor(index[n] / L)}, step ${index[n] % L} of ${L} in it)` : "";
    return `${at} of ${S}${inChunk}`;
  }).join(", ");
}

function worstFirst(numbers) {
  return numbers.sort((a, b) =>
    worstStatusFirst.indexOf(statusOf(data.items[a])) - worstStatusFirst.indexOf(statusOf(data.items[b])) ||
    ratioOf(data.items[b]) - ratioOf(data.items[a]) || a - b);
}

// Three digits, like the tables.
function ratioText(ratio) {
  if (ratio < 0) return "–";
  if (!Number.isFinite(ratio)) return "not finite";
  if (ratio === 0) return "0";
  if (ratio >= 1e5 || ratio < 1e-3) return ratio.toExponential(1).replace(/e([+-])(\d)$/, "e$10$2");
  return ratio.toFixed(ratio >= 100 ? 0 : ratio >= 10 ? 1 : ratio >= 1 ? 2 : 3);
}

const plural = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes))
    if (value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
  made.append(...children.filter((child) => child !== null));
  return made;
}

function drawn(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function pill(status) {
  return element("span", {class: `pill ${status}`},
    element("span", {class: "mark", "aria-hidden": "true"}, marks[status]), status);
}
