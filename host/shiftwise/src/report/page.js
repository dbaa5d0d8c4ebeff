document.querySelectorAll("table").forEach(table => table.querySelectorAll("th").forEach((head, column) => {
  head.title = "sort";
  head.addEventListener("click", () => {
    const down = head.dataset.down !== "1";
    const body = table.tBodies[0];
    const key = row => {
      const cell = row.cells[column];
      const text = cell.dataset.value ?? cell.textContent;
      const number = parseFloat(text);
      return Number.isNaN(number) ? text : number;
    };
    const order = (a, b) => (typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? 1 : -1);
    [...body.rows].sort((a, b) => (down ? -1 : 1) * order(key(a), key(b))).forEach(row => body.append(row));
    table.querySelectorAll("th").forEach(other => delete other.dataset.down);
    if (down) head.dataset.down = "1";
  });
}));
