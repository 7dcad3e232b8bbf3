"use strict";
(() => {
  const words = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

  // Cells without a sort value stay last.
  const keyOf = (cell, numeric) => {
    const value = cell.dataset.value;
    if (value === undefined || value === "") return null;
    if (!numeric) return value;
    const number = Number(value);
    return Number.isNaN(number) ? null : number;
  };

  const sort = (table, heads, column) => {
    const head = heads[column];
    const falling = head.getAttribute("aria-sort") === "ascending";
    const numeric = head.dataset.numeric !== undefined;
    const body = table.tBodies[0];
    const rows = Array.from(body.rows, (row) => [keyOf(row.cells[column], numeric), row]);
    rows.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      const order = numeric ? (a > b) - (a < b) : words.compare(a, b);
      return falling ? -order : order;
    });
    for (const other of heads) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    body.append(...rows.map(([, row]) => row));
  };

  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = Array.from(table.tHead.rows[0].cells);
    heads.forEach((head, column) => {
      const button = head.querySelector("button");
      if (button) button.addEventListener("click", () => sort(table, heads, column));
    });
  }

  // Open all folded parts for printing and close them afterwards.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = Array.from(document.querySelectorAll("details:not([open])"));
    for (const one of opened) one.open = true;
  });
  addEventListener("afterprint", () => {
    for (const one of opened) one.open = false;
    opened = [];
  });
})();
