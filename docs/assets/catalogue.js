// The filter of the catalogue: words, family, problem and status, kept in the address so that a view can be shared.
function filterCatalogue() {
  const table = document.getElementById("papers");
  if (!table) return;
  const words = document.querySelector("#filter input");
  const selects = [...document.querySelectorAll("#filter select")];
  const rows = [...table.tBodies[0].rows];
  const count = document.getElementById("count");
  const total = count.textContent;

  const show = () => {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = (row) =>
      wanted.every((word) => row.textContent.toLowerCase().includes(word)) &&
      selects.every((one) => !one.value || row.dataset[one.dataset.of].split("|").includes(one.value));
    rows.forEach((row) => (row.hidden = !fits(row)));
    const left = rows.filter((row) => !row.hidden).length;
    count.textContent = left === rows.length ? total : `${left} of ${rows.length} papers.`;
    const query = new URLSearchParams();
    if (words.value) query.set("words", words.value);
    selects.filter((one) => one.value).forEach((one) => query.set(one.dataset.of, one.value));
    history.replaceState(null, "", query.size ? `?${query}` : location.pathname);
  };

  const asked = new URLSearchParams(location.search);
  words.value = asked.get("words") ?? "";
  selects.forEach((one) => (one.value = asked.get(one.dataset.of) ?? ""));
  [words, ...selects].forEach((one) => one.addEventListener("input", show));
  if (asked.size) show();
}

document.addEventListener("DOMContentLoaded", filterCatalogue);
