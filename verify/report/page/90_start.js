// SPDX-License-Identifier: Apache-2.0

const grids = [new Grid("by-regime", (item) => caseOf(item).regime), new Grid("by-eps", (item) => caseOf(item).eps)];

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
