// SPDX-License-Identifier: Apache-2.0
// error_ratio over eps and over gate regime: one line each, a sign for outputs and for the gradients of each convention.

const series = [["outputs", "outputs"], ["exact", "exact gradients"], ["detached", "detached gradients"], ["both", "gradients that fit both"]];
const signs = {outputs: "M-4 0A4 4 0 1 0 4 0A4 4 0 1 0 -4 0Z", exact: "M0 -5L4.6 3.6L-4.6 3.6Z", detached: "M-5 -5H5V5H-5Z",
  both: "M0 -5L5 0L0 5L-5 0Z"};

const seriesOf = (item) => data.conventions[item[3]] || "outputs";

function sign(name, x, y, title) {
  return drawn("svg", {x, y, overflow: "visible"}, drawn("path", {d: signs[name], class: name}, drawn("title", {}, title)));
}

function chart(title, noun, numbers, rowOf, orderOf) {
  const rows = new Map();
  for (const number of numbers) {
    const item = data.items[number], row = rowOf(item), ratio = ratioOf(item);
    if (row === undefined || ratio < 0) continue;
    if (!rows.has(row)) rows.set(row, {});
    const largest = rows.get(row), name = seriesOf(item);
    if (!(largest[name]?.ratio >= ratio)) largest[name] = {ratio, variant: variantOf(item)};
  }
  if (rows.size < 2) return null;
  const values = [...rows.values()].flatMap((largest) => Object.values(largest).map(({ratio}) => ratio));
  const [lowest, top] = decades(values), bottom = Math.max(lowest, -6);
  const place = (ratio) => {
    if (!Number.isFinite(ratio)) return "100%";
    const part = ratio <= 0 ? 0 : (Math.log10(ratio) - bottom) / (top - bottom);
    return `${(100 * Math.min(1, Math.max(0, part))).toFixed(2)}%`;
  };
  const used = series.filter(([name]) => [...rows.values()].some((largest) => largest[name]));
  const made = element("figure", {class: "chart"}, element("figcaption", {}, title,
    element("span", {}, "largest over what the filters let through; dashed: the bound")));
  made.append(element("div", {class: "legend", "aria-hidden": "true"}, ...used.map(([name, text]) =>
    element("span", {}, drawn("svg", {}, sign(name, 8, 9, text)), text))));
  const lines = element("div", {class: "rows"});
  const axis = drawn("svg", {"aria-hidden": "true"});
  const every = Math.ceil((top - bottom) / 6);
  for (let exponent = top; exponent >= bottom; exponent -= every)
    axis.append(drawn("text", {x: place(10 ** exponent), y: 12, "text-anchor": "middle"}, power(exponent)));
  lines.append(element("div", {class: "row axis"}, element("span", {}, noun), axis));
  for (const row of [...rows.keys()].sort((a, b) => orderOf(a) - orderOf(b))) {
    const largest = rows.get(row);
    const words = used.filter(([name]) => largest[name]).map(([name, text]) => `${text} ${ratioText(largest[name].ratio)} (${largest[name].variant})`);
    const line = drawn("svg", {role: "img", "aria-label": `${noun} ${row}: ${words.join(", ")}`},
      drawn("line", {class: "track", x1: "0", x2: "100%", y1: "50%", y2: "50%"}),
      drawn("line", {class: "bound", x1: place(1), x2: place(1), y1: "0", y2: "100%"}));
    used.forEach(([name, text]) => {
      if (largest[name]) line.append(sign(name, place(largest[name].ratio), "50%", `${text}: ${ratioText(largest[name].ratio)}, ${largest[name].variant}`));
    });
    lines.append(element("div", {class: "row"}, element("span", {}, row), line));
  }
  made.append(lines);
  return made;
}

function drawCharts(numbers) {
  const charts = [chart("error_ratio over eps", "eps", numbers, (item) => caseOf(item).eps, Number),
    chart("error_ratio over gate regime", "regime", numbers, (item) => caseOf(item).regime, (regime) => data.regimes.indexOf(regime))].filter((made) => made);
  const place = document.getElementById("charts");
  place.replaceChildren(...charts);
  place.hidden = charts.length === 0;
}
