// A heading sorts the table by its column: numbers with the highest first, names from A; once more turns it round.
// Arms without a value stay last in both directions.
for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => {
    const heading = button.closest("th");
    const column = heading.cellIndex;
    const first = column === 0 ? "ascending" : "descending";
    const turned = { ascending: "descending", descending: "ascending" };
    const order = turned[heading.ariaSort] ?? first;
    for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", order);

    const sign = order === "ascending" ? 1 : -1;
    const compare = (one, two) => {
      const [a, b] = [one.cells[column], two.cells[column]];
      if (column === 0) return sign * a.textContent.localeCompare(b.textContent);
      const [x, y] = [a, b].map((cell) => (cell.dataset.value === "" ? NaN : Number(cell.dataset.value)));
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
      return sign * (x - y);
    };
    const body = heading.closest("table").tBodies[0];
    body.append(...[...body.rows].sort(compare));
  });
}
