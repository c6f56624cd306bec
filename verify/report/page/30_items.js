// SPDX-License-Identifier: Apache-2.0
// Cards of single items, lists of them, and the copy buttons.

const pageOfItems = 40;

function copyLine(line) {
  if (!line) return null;
  return element("div", {class: "repro"},
    element("code", {tabindex: "0", "aria-label": "Reproduction line"}, line),
    element("button", {type: "button", class: "copy"}, "Copy"));
}

function card(number) {
  const item = data.items[number], about = caseOf(item);
  const list = element("dl");
  const fact = (name, value) => {
    if (value !== undefined && value !== null && value !== "") list.append(element("div", {}, element("dt", {}, name), element("dd", {}, String(value))));
  };
  fact("Problem", about.name);
  fact("Shape", about.shape);
  fact("Element", placeOf(item));
  fact("Got", item[11]);
  fact("Expected", item[12]);
  fact("Bound", item[13]);
  fact("Largest absolute error", item[6] === null ? "" : ratioText(item[6]));
  fact("Relative, Frobenius norm", item[7] === null ? "" : ratioText(item[7]));
  const bias = data.biases[number];
  fact("Bias", bias === null ? "" : `${ratioText(bias[0])} of what is allowed (${(100 * bias[1]).toPrecision(2)} %)`);
  fact("Note", data.notes[item[9]]);
  const made = element("div", {class: "card", "data-item": number}, list);
  const line = copyLine(data.repros[item[8]]);
  if (line) made.append(line);
  const pictures = element("div", {class: "pictures"});
  made.append(pictures);
  drawPictures(number, pictures);
  return made;
}

function row(number) {
  const item = data.items[number];
  const details = element("details", {class: "item", "data-item": number}, element("summary", {}, pill(statusOf(item)),
    element("span", {class: "what"}, element("b", {}, tensorName(item)), " ", element("span", {class: "variant"}, variantOf(item))),
    element("span", {class: "figures"}, `${ratioOf(item) < 0 ? "" : `error_ratio ${ratioText(ratioOf(item))}, `}${caseOf(item).name}`)));
  details.addEventListener("toggle", () => {
    if (details.open && details.children.length === 1) details.append(card(number));
  });
  return details;
}

// Puts the items into `place`, a page at a time.
function list(numbers, place) {
  let shown = 0;
  const more = element("button", {type: "button", class: "more"});
  const next = () => {
    const page = numbers.slice(shown, shown + pageOfItems);
    shown += page.length;
    more.before(...page.map(row));
    more.textContent = `Show more of the other ${numbers.length - shown}`;
    more.hidden = shown === numbers.length;
  };
  place.replaceChildren(more);
  more.addEventListener("click", next);
  next();
}

function copied(button, worked) {
  button.textContent = worked ? "Copied" : "Press Ctrl+C";
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
}

// One listener for all buttons, those to come included. Without access to the clipboard the line is selected.
function bringCopyButtonsToLife() {
  for (const button of document.querySelectorAll("button.copy")) button.hidden = false;
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("button.copy");
    if (!button) return;
    const code = button.parentElement.querySelector("code");
    const select = () => {
      getSelection().selectAllChildren(code);
      copied(button, document.execCommand("copy"));
    };
    if (navigator.clipboard) navigator.clipboard.writeText(code.textContent).then(() => copied(button, true), select);
    else select();
  });
}

function bringFailuresToLife() {
  for (const details of document.querySelectorAll("details.failure")) {
    const open = () => {
      const pictures = details.querySelector(":scope > .card > .pictures");
      if (details.open && pictures && !pictures.hasChildNodes())
        drawPictures(Number(pictures.parentElement.dataset.item), pictures);
    };
    details.addEventListener("toggle", open);
    open();
  }
  for (const others of document.querySelectorAll("details.others"))
    others.addEventListener("toggle", () => {
      const place = others.querySelector("[data-items]");
      if (others.open && !place.hasChildNodes()) list(place.dataset.items.split(" ").map(Number), place);
    });
}

// Rows of the tables of worst elements open a card below.
function bringWorstElementsToLife() {
  for (const line of document.querySelectorAll(".worst tr[data-item]")) {
    const heading = line.querySelector("th");
    const button = element("button", {type: "button", "aria-expanded": "false"}, heading.textContent);
    heading.replaceChildren(button);
    line.classList.add("opener");
    let opened = null;
    line.addEventListener("click", (event) => {
      if (getSelection().toString() && !event.target.closest("button")) return;
      if (opened) {
        opened.remove();
        opened = null;
      } else {
        opened = element("tr", {class: "opened"}, element("td", {colspan: line.children.length}, card(Number(line.dataset.item))));
        line.after(opened);
      }
      button.setAttribute("aria-expanded", String(opened !== null));
    });
  }
}
