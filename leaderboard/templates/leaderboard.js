"use strict";
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const body = table.tBodies[0];
  const headers = [...table.tHead.rows[0].cells];
  const key = (row, column) => {
    const text = row.cells[column].dataset.value;
    const number = text === "" ? NaN : Number(text);
    return column === 1 ? text.toLowerCase() : number;
  };
  const sort = (column, direction) => {
    const sign = direction === "ascending" ? 1 : -1;
    const rows = [...body.rows].sort((a, b) => {
      const first = key(a, column), second = key(b, column);
      if (Number.isNaN(first) || Number.isNaN(second)) return Number.isNaN(first) - Number.isNaN(second);
      return first < second ? -sign : first > second ? sign : key(a, 0) - key(b, 0);
    });
    body.append(...rows);
    for (const header of headers) header.removeAttribute("aria-sort");
    headers[column].setAttribute("aria-sort", direction);
  };
  headers.forEach((header, column) => {
    if ("fixed" in header.dataset) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    const best = header.classList.contains("num") ? "descending" : "ascending";
    const other = best === "descending" ? "ascending" : "descending";
    button.addEventListener("click", () => sort(column, header.getAttribute("aria-sort") === best ? other : best));
  });
  const choice = table.previousElementSibling;
  choice.hidden = false;
  choice.querySelector("select").addEventListener("change", (event) => {
    const option = event.target.selectedOptions[0];
    sort(Number(option.value), option.dataset.direction);
  });
}
