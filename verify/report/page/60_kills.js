// SPDX-License-Identifier: Apache-2.0
// The kill matrix by check: a choice of which check's kills the cells count.

function shade(share) {
  return share <= 0 ? "k0" : share < 0.34 ? "k1" : share < 0.67 ? "k2" : share < 1 ? "k3" : "k4";
}

function bringKillsToLife() {
  for (const table of document.querySelectorAll("table.kills")) {
    const {mutants} = data.mutations[Number(table.dataset.file)];
    const checks = new Set();
    for (const mutant of mutants)
      for (const regime of Object.values(mutant?.kills ?? {})) for (const check of Object.keys(regime ?? {})) checks.add(check);
    if (checks.size < 2) continue;
    const regimes = [...table.tHead.rows[0].cells].slice(2).map((cell) => cell.textContent); // as they are in the file
    const before = [...table.tBodies[0].rows].map((row) => [...row.cells].map((cell) => [cell.textContent, cell.className]));
    const select = element("select", {}, element("option", {value: ""}, "whichever kills most"), ...[...checks].sort().map((check) => element("option", {value: check}, check)));
    select.addEventListener("change", () => {
      [...table.tBodies[0].rows].forEach((row, r) => {
        const kills = mutants[Number(row.dataset.mutant)].kills ?? {};
        regimes.forEach((regime, column) => {
          const cell = row.cells[column + 2], counts = kills[regime]?.[select.value];
          if (select.value === "") [cell.textContent, cell.className] = before[r][column + 2];
          else if (!counts) [cell.textContent, cell.className] = ["", "none"];
          else [cell.textContent, cell.className] = [`${counts[0]}/${counts[1]}`, `kill ${shade(counts[1] > 0 ? counts[0] / counts[1] : 0)}`];
        });
      });
    });
    table.parentElement.before(element("p", {}, element("label", {}, "Check: ", select)));
  }
}
