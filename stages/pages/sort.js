"use strict";

// Sorts the tables of a page by a click on a heading.
(() => {
  function valueOf(row, column, type) {
    const text = row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
    return type === "number" ? (text === "" ? null : Number(text)) : text;
  }

  function sort(heading, button) {
    const column = heading.cellIndex;
    const { type, first = "ascending" } = button.dataset;
    const other = first === "ascending" ? "descending" : "ascending";
    const order = heading.getAttribute("aria-sort") === first ? other : first;
    for (const cell of heading.parentElement.cells) cell.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    for (const body of heading.closest("table").tBodies) {
      const rows = [...body.rows].map((row) => [valueOf(row, column, type), row]);
      rows.sort(([a], [b]) => {
        // Missing values come last in both orders.
        if (a === null || b === null) return (a === null) - (b === null);
        return sign * (type === "number" ? a - b : a.localeCompare(b));
      });
      body.append(...rows.map(([, row]) => row));
    }
  }

  for (const button of document.querySelectorAll("[data-sortable] thead button")) {
    button.addEventListener("click", () => sort(button.closest("th"), button));
  }
})();
