"use strict";
// Tables are sorted by the column whose head is pressed; charts say the values under the pointer.
const number = text => { const m = /^[≤<]?\s*(-?[\d,]*\.?\d+(?:e[+-]?\d+)?)/i.exec(text.trim()); return m ? parseFloat(m[1].replace(/,/g, "")) : NaN; };
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button"; button.textContent = head.textContent; head.replaceChildren(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const keyed = [...body.rows].map(row => { const text = row.cells[column].textContent; return [number(text), text, row]; });
      keyed.sort(([a, s, p], [b, t, q]) => {
        if (isNaN(a) !== isNaN(b)) return isNaN(a) ? 1 : -1; // what has no number comes last
        const order = isNaN(a) ? s.localeCompare(t, undefined, {numeric: true}) : a - b;
        return (up ? order : -order) || p.rowIndex - q.rowIndex;
      });
      body.append(...keyed.map(([, , row]) => row));
    });
  });
  if (body.rows.length > 15) {
    const search = document.createElement("input");
    search.type = "search"; search.placeholder = "Show rows that hold ..."; search.setAttribute("aria-label", "Show rows that hold");
    search.addEventListener("input", () => {
      const words = search.value.toLowerCase().split(/\s+/);
      for (const row of body.rows) row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
    });
    table.parentElement.before(search);
  }
}
for (const figure of document.querySelectorAll("figure.chart")) {
  const svg = figure.querySelector("svg.curves"), cursor = svg.querySelector(".cursor"), said = figure.querySelector("output");
  const curves = [...svg.querySelectorAll("polyline")].map(line => ({name: line.dataset.name, values: JSON.parse(line.dataset.values)}));
  const rounds = new Map(curves.flatMap(curve => curve.values.map(([round, x]) => [round, x])));
  const hint = said.textContent;
  svg.addEventListener("pointermove", event => {
    const box = svg.getBoundingClientRect(), at = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    let nearest = null;
    for (const [round, x] of rounds) if (nearest === null || Math.abs(x - at) < Math.abs(rounds.get(nearest) - at)) nearest = round;
    cursor.setAttribute("x1", rounds.get(nearest)); cursor.setAttribute("x2", rounds.get(nearest)); cursor.style.visibility = "visible";
    const values = curves.flatMap(curve => curve.values.filter(([round]) => round === nearest).map(([, , value]) => `${curve.name} ${value}`));
    said.textContent = `Round ${nearest}: ${values.join(", ")}`;
  });
  svg.addEventListener("pointerleave", () => { cursor.style.visibility = "hidden"; said.textContent = hint; });
}
