// SPDX-License-Identifier: Apache-2.0
// Pictures of the errors of one tensor: over time, over its area, and in units in the last place.

const levels = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const passing = 44; // the highest level that passes, see judge/detail.hpp

const raised = (exponent) => String(exponent).replace(/[-0-9]/g, (c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)]);
const power = (exponent) => (exponent === 0 ? "1" : `10${raised(exponent)}`);

function figure(title, remark, ...children) {
  return element("figure", {}, element("figcaption", {}, title, element("span", {}, remark)), ...children);
}

// Decades from the smallest to the largest of `values`, the bound 1 included, at most eight.
function decades(values) {
  const positive = values.filter((value) => value > 0 && Number.isFinite(value));
  const top = Math.ceil(Math.log10(Math.max(1, ...positive)) + 1e-9) || 1;
  const bottom = Math.floor(Math.log10(Math.min(1, ...positive)));
  return [Math.max(bottom, top - 8), Math.max(top, bottom + 1)];
}

function overTime(item, picture) {
  const profile = picture.profile.map((ratio) => (ratio === null ? Infinity : ratio));
  const steps = picture.shape[2], bins = profile.length;
  const [bottom, top] = decades(profile);
  const height = (ratio) => {
    if (!Number.isFinite(ratio)) return 0;
    return ratio <= 0 ? 100 : Math.min(100, 100 * (top - Math.log10(ratio)) / (top - bottom));
  };
  const plot = drawn("svg", {viewBox: `0 0 ${bins} 100`, preserveAspectRatio: "none", role: "img"});
  const still = {"vector-effect": "non-scaling-stroke"};
  const {L} = caseOf(item);
  const chunks = L > 0 && variantOf(item).startsWith("chunkwise") ? Math.ceil(steps / L) : 0;
  if (chunks > 1 && chunks <= 128)
    for (let n = 1; n < chunks; ++n) {
      const x = n * L * bins / steps;
      plot.append(drawn("line", {class: "chunk", x1: x, x2: x, y1: 0, y2: 100, ...still}));
    }
  let path = "", over = 0, first = -1;
  profile.forEach((ratio, n) => {
    const y = height(ratio).toFixed(2);
    path += `${n ? "L" : "M"}${n} ${y}L${n + 1} ${y}`;
    if (ratio <= 1) return;
    ++over;
    if (first < 0) first = n;
    plot.append(drawn("rect", {class: "over", x: n, y, width: 1, height: Math.max(0, height(1) - y)}));
  });
  plot.append(drawn("line", {class: "bound", x1: 0, x2: bins, y1: height(1), y2: height(1), ...still}),
    drawn("path", {class: "line", d: path, ...still}));
  const step = first < 0 ? 0 : Math.ceil(first * steps / bins);
  let remark = over === 0 ? "within the bound (dashed) in all time steps" :
    `beyond the bound (dashed) in ${over} of ${plural(bins, bins === steps ? "time step" : "bin")}, first in step ${step}`;
  if (over > 0 && chunks > 1) remark += step % L === 0 ? `, the start of chunk ${step / L}` : `, in chunk ${Math.floor(step / L)}`;
  if (chunks > 1) remark += `; dotted: chunks of ${L}`;
  plot.setAttribute("aria-label", `error_ratio over time: ${remark}`);
  const y = element("div", {class: "y", "aria-hidden": "true"});
  const every = Math.ceil((top - bottom) / 5);
  for (let exponent = top; exponent >= bottom; exponent -= every)
    y.append(element("span", {style: `bottom:${100 * (exponent - bottom) / (top - bottom)}%`}, power(exponent)));
  const x = element("div", {class: "x", "aria-hidden": "true"}, element("span", {}, "0"), element("span", {}, "time step"),
    element("span", {}, String(steps - 1)));
  return figure("error_ratio over time", remark, element("div", {class: "plot"}, y, plot, x));
}

// Blue up to the bound, darker with the ratio; orange to red beyond it, with a dot.
function heatColour(level) {
  if (level === 0) return "#f4f6f8";
  if (level <= passing) {
    const part = Math.max(0, (level - 20) / (passing - 20));
    return `rgb(${Math.round(226 - 190 * part)},${Math.round(238 - 128 * part)},${Math.round(248 - 70 * part)})`;
  }
  const part = Math.min(1, (level - passing - 1) / 16);
  return `rgb(${Math.round(245 - 110 * part)},${Math.round(160 - 150 * part)},${Math.round(60 - 50 * part)})`;
}

function overArea(item, picture) {
  const axes = data.axes[data.tensors[item[2]]] ?? [];
  const heads = axes.length === 3;
  const [rowAxis, columnAxis] = axes.length === 4 ? [axes[2], axes[3]] : heads ? [axes[2], "head of batch"] : axes;
  const extent = (axis) => (axis === "head of batch" ? picture.shape[0] * picture.shape[1] : picture.shape[axes.indexOf(axis)]);
  const scale = 8;
  const canvas = element("canvas", {width: picture.columns * scale, height: picture.rows * scale, role: "img"});
  const context = canvas.getContext("2d");
  let over = 0;
  for (let row = 0; row < picture.rows; ++row)
    for (let column = 0; column < picture.columns; ++column) {
      const level = levels.indexOf(picture.heat[row * picture.columns + column]);
      context.fillStyle = heatColour(level);
      context.fillRect(column * scale, row * scale, scale, scale);
      if (level <= passing) continue;
      ++over;
      context.fillStyle = "#000";
      context.fillRect(column * scale + 3, row * scale + 3, 2, 2);
    }
  const rest = axes.filter((axis) => axis !== rowAxis && axis !== columnAxis && !(heads && (axis === "batch" || axis === "head")));
  const remark = (over === 0 ? "within the bound everywhere" : `${over} of ${plural(picture.rows * picture.columns, "pixel")} beyond the bound`) +
    (rest.length ? `; largest over ${rest.join(" and ")}` : "");
  canvas.setAttribute("aria-label", `Heat map of error_ratio, ${rowAxis} down, ${columnAxis} across: ${remark}`);
  const y = element("div", {class: "y", "aria-hidden": "true"},
    element("span", {style: "bottom:97%"}, "0"), element("span", {style: "bottom:50%"}, rowAxis.replace(" ", "\u00a0")),
    element("span", {style: "bottom:3%"}, String(extent(rowAxis) - 1)));
  const x = element("div", {class: "x", "aria-hidden": "true"}, element("span", {}, "0"), element("span", {}, columnAxis),
    element("span", {}, String(extent(columnAxis) - 1)));
  const ramp = element("div", {class: "ramp", "aria-hidden": "true"});
  for (const [level, name] of [[0, "0"], [31, "0.01"], [passing, "1"], [passing + 1, "above, dotted"], [62, "100 and more"]])
    ramp.append(element("span", {}, element("i", {style: `background:${heatColour(level)}`}), name));
  return figure(`error_ratio by ${rowAxis} and ${columnAxis}`, remark, element("div", {class: "plot"}, y, canvas, x), ramp);
}

function inUlps(item, picture) {
  const bins = [{name: "none", title: "no error", count: picture.without_error}];
  picture.ulps.forEach((count, n) => {
    const exponent = picture.first_ulp_exponent + n;
    const number = (e) => (e < 0 ? `1/${2 ** -e}` : e < 10 ? String(2 ** e) : `2${raised(e)}`);
    bins.push({name: number(exponent), title: `${number(exponent)} to ${number(exponent + 1)} ulp`, count});
  });
  if (picture.not_finite > 0) bins.push({name: "not finite", title: "not finite", count: picture.not_finite, bad: true});
  const total = bins.reduce((sum, bin) => sum + bin.count, 0), most = Math.max(...bins.map((bin) => bin.count));
  const bars = element("div", {class: "bars", role: "img"});
  for (const {title, count, bad} of bins)
    bars.append(element("i", {class: bad ? "bad" : null, title: `${title}: ${count}`,
      // A few elements among many still show.
      style: `height:${count === 0 ? 0 : Math.max(1.5, 100 * count / most)}%`}));
  const small = bins.slice(1).filter((bin) => bin.count > 0 && !bin.bad);
  const remark = `of ${picture.storage}, of ${plural(total, "element")}` +
    (small.length ? `; largest ${small.at(-1).title}` : "") + (picture.not_finite ? `; ${picture.not_finite} not finite` : "");
  bars.setAttribute("aria-label", `Histogram of errors in units in the last place: ${bins.map((b) => `${b.title} ${b.count}`).join(", ")}`);
  const x = element("div", {class: "x placed", "aria-hidden": "true"});
  const every = Math.ceil(bins.length / 7);
  bins.forEach(({name}, n) => {
    if (n % every === 0) x.append(element("span", {style: `left:${100 * (n + 0.5) / bins.length}%`}, name));
  });
  const y = element("div", {class: "y", "aria-hidden": "true"}, element("span", {style: "bottom:96%"}, String(most)),
    element("span", {style: "bottom:3%"}, "0"));
  return figure("|error| in units in the last place", remark, element("div", {class: "plot"}, y, bars, x));
}

// Draws the pictures of item `number` into `place`; says so where there is none.
function drawPictures(number, place) {
  const item = data.items[number], picture = pictureOf(item);
  if (!picture) {
    if (ratioOf(item) >= 0) place.append(element("p", {class: "lead"}, "Pictures are kept for the worst problems of each tensor only; the line above, with --report DIR, makes them for this one."));
    return;
  }
  if (picture.profile) place.append(overTime(item, picture));
  place.append(overArea(item, picture), inUlps(item, picture));
}
