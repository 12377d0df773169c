"use strict";
(() => {
  const table = document.getElementById("cohort");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const filter = document.getElementById("filter");
  const chosen = [document.getElementById("status"), document.getElementById("light")];
  const groups = [...document.querySelectorAll(".group-filter")];
  const count = document.getElementById("count");
  const texts = new Map(rows.map((row) => [row, row.dataset.text.toLowerCase()]));

  function fits(row, wanted) {
    const groupOf = (each) => row.getAttribute(`data-group-${each.dataset.column}`);
    return texts.get(row).includes(wanted)
      && chosen.every((each) => each.value === "" || row.dataset[each.id] === each.value)
      && groups.every((each) => each.value === "" || groupOf(each) === each.value);
  }

  function narrow() {
    const wanted = filter.value.trim().toLowerCase();
    let shown = 0;
    for (const row of rows) {
      row.hidden = !fits(row, wanted);
      if (!row.hidden) shown += 1;
    }
    count.textContent = `${shown} of ${rows.length} shown`;
  }

  const order = new Intl.Collator(undefined, { numeric: true });

  function compare(a, b) {
    const x = Number(a), y = Number(b);
    return Number.isNaN(x) || Number.isNaN(y) ? order.compare(a, b) : x - y;
  }

  function sortBy(header) {
    const column = header.cellIndex;
    const direction = header.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
    const value = (row) => row.cells[column].dataset.sort ?? "";
    rows.sort((a, b) => {
      const x = value(a), y = value(b);
      // A missing score is neither good nor bad: it stays at the end in both directions.
      if (x === "" || y === "") return (x === "") - (y === "");
      return direction * compare(x, y);
    });
    body.append(...rows);
  }

  for (const button of table.tHead.querySelectorAll("button")) {
    button.addEventListener("click", () => sortBy(button.closest("th")));
  }
  filter.addEventListener("input", narrow);
  for (const each of [...chosen, ...groups]) each.addEventListener("change", narrow);
  window.addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) details.open = true;
  });
  narrow();
})();
