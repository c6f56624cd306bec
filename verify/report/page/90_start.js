// SPDX-License-Identifier: Apache-2.0

const regimeOrder = new Map(data.regimes.map((regime, n) => [regime, n]));
const grids = [new Grid("by-regime", "regime", (item) => caseOf(item).regime, (regime) => regimeOrder.get(regime)),
  new Grid("by-eps", "eps", (item) => caseOf(item).eps, Number)];

function redraw() {
  const numbers = filtered();
  for (const grid of grids) grid.draw(numbers);
  drawCharts(numbers);
  const output = document.querySelector("#filters output");
  if (output) output.textContent = plural(numbers.length, "tensor");
}

bringCopyButtonsToLife();
bringFailuresToLife();
bringWorstElementsToLife();
bringKillsToLife();
makeFilters(redraw);
redraw();
document.documentElement.dataset.ready = "true";
