// Comforts of a report page, which is complete without them: sort a table, copy it as CSV, follow an objective through all
// tables, keep the filter in the address. Meets no network, writes no text as markup, and the page's policy names its hash.
"use strict";
(() => {
  const all = (what, where = document) => [...where.querySelectorAll(what)];
  const text = (cell) => cell.firstChild ? [...cell.childNodes].filter((n) => n.nodeName !== "SMALL").map((n) => n.textContent).join("").trim() : "";
  const value = (cell) => parseFloat(text(cell).replace("\u2212", "-"));
  const button = (label, act) => {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = label;
    made.addEventListener("click", act);
    return made;
  };

  const sort = (table, place, head) => {
    const down = head.getAttribute("aria-sort") !== "descending";
    const rows = all("tbody tr", table).map((row) => [row, row.cells[place]]);
    const numbers = rows.some(([, cell]) => !isNaN(value(cell)));
    const order = ([, a], [, b]) => {
      if (!numbers) return text(a).localeCompare(text(b)) * (down ? -1 : 1);
      const [x, y] = [value(a), value(b)];
      if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y); // what was not measured stays last
      return (x - y) * (down ? -1 : 1);
    };
    all("thead th", table).forEach((one) => one.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    table.tBodies[0].append(...rows.sort(order).map(([row]) => row));
  };

  const csv = (table) =>
    all("tr", table)
      .map((row) => [...row.cells].map((cell) => {
        const shown = [text(cell), ...all("small", cell).map((one) => one.textContent)].filter(Boolean).join("; ");
        const safe = /^[=+@\t\r-]/.test(shown) ? "'" + shown : shown; // no formula in a spreadsheet
        return '"' + safe.replaceAll('"', '""') + '"';
      }).join(","))
      .join("\r\n");

  const copy = (content) => {
    const place = document.createElement("textarea");
    place.value = content;
    document.body.append(place);
    place.select();
    const done = document.execCommand("copy"); // works on a page opened from disk, too
    place.remove();
    return done;
  };

  for (const table of all("figure.table table")) {
    const heads = all("thead th", table);
    if (table.tBodies[0].rows.length > 1) {
      heads.forEach((head, place) => {
        if (!head.textContent) return;
        const control = button("", () => sort(table, place, head));
        control.className = "sort";
        control.append(...head.childNodes);
        head.append(control);
      });
    }
    const tool = button("Copy as CSV", () => {
      tool.textContent = copy(csv(table)) ? "Copied" : "Not copied";
      setTimeout(() => { tool.textContent = "Copy as CSV"; }, 1500);
    });
    tool.className = "tool";
    table.closest("figure").append(tool);
  }

  const rows = all("figure.table tbody tr");
  const name = (row) => text(row.cells[0]).split(/ at |, /)[0];
  rows.forEach((row) => row.cells[0].addEventListener("click", () => {
    const off = row.classList.contains("lit");
    rows.forEach((other) => other.classList.toggle("lit", !off && name(other) === name(row)));
  }));

  const radios = all(".filter input");
  const kept = new URLSearchParams(location.hash.slice(1)).get("case");
  (kept || "").split(" ").forEach((id) => radios.forEach((radio) => { if (radio.id === "case-" + id) radio.checked = true; }));
  radios.forEach((radio) => radio.addEventListener("change", () => {
    const chosen = radios.filter((one) => one.checked).map((one) => one.id.slice(5));
    history.replaceState(null, "", "#" + new URLSearchParams({ case: chosen.join(" ") }));
  }));
})();
