// Tables of cells that can be sorted, filtered, paged through and downloaded as CSV.
// A row is found by its texts, and by the names of those columns that name a setting: "seed=1".
const searched = (columns, row) =>
  row.map((value, place) => ` ${value} ${columns[place][0]}=${value}`).join("").toLowerCase();
const matches = (text, words) => words.toLowerCase().split(/\s+/).every(
  (word) => text.includes(word.includes("=") ? ` ${word}` : word));  // "seed=1" is no train_seed=1
const number = (value) => value === null ? "–" : Math.abs(value) >= 1e5 || (value !== 0 &&
  Math.abs(value) < 1e-3) ? value.toExponential(2) : String(+value.toPrecision(4));
// as bench/rounding.py writes them
const exponent = (value) => +value.toExponential(1).split("e")[1];
function written(value, last, power) {
  let text = (Math.round(value / 10 ** last) * 10 ** last).toFixed(Math.max(-last, 0));
  if (power >= 6 || power < -4) text = value.toExponential(Math.max((value ? exponent(value) : power) - last, 0));
  return +text === 0 ? text.replace("-", "") : text;
}
const SIGNED = /^log_z\b/;  // metrics of any sign, as in bench/rounding.py
function interval(value, half, isDistance) {
  const sign = !isDistance && value > 0 ? "+" : "";
  if (value === null || half === null || half === 0) return sign + number(value);
  const last = exponent(half) - 1, power = exponent(Math.max(Math.abs(value), half));
  const text = sign + written(value, last, power);
  if (isDistance && value >= 0 && half > value) return `${text} (≤ ${written(value + half, last, power)})`;
  return `${text} ± ${written(half, last, power)}`;
}
// The content of a cell that is not plain text comes from `special(name, value, row)`: a text or a
// node, or undefined. Returns a function that shows other rows in the place of these.
function table(sheet, { columns, rows }, special = () => undefined) {
  const PAGE = 30, PRINTED = 300;
  const at = Object.fromEntries(columns.map(([name], place) => [name, place]));
  const find = (part) => sheet.querySelector(`.${part}`);
  const [head, body] = sheet.querySelector("table").children;
  let texts = rows.map((row) => searched(columns, row));
  // such a column with one value only is not shown; the CSV has it anyway
  const CHOSEN = columns.filter(([, , , kind]) => kind === "choice" || kind === "menu").map(([name]) => name);
  const values = (place) => [...new Set(rows.map((row) => row[place]))];
  const shown = columns.map((_, place) => place).filter(
    (place) => !["hidden", "menu"].includes(columns[place][3]) &&
      (!CHOSEN.includes(columns[place][0]) || values(place).length > 1 || rows.length === 0));
  const things = sheet.dataset.things;
  let order = rows.map((_, place) => place), page = 0, sorted = { by: -1, up: true };

  const element = (tag, text, kind) => {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;  // never as markup
    if (kind) node.className = kind;
    return node;
  };
  const kinds = [["above", "above"], ["not distinguishable", "same"], ["below", "below"]];

  function line(row) {
    const cells = element("tr");
    for (const place of shown) {
      const [name, , numeric] = columns[place];
      let text = numeric ? number(row[place]) : row[place], kind = numeric ? "number" : "";
      if (name === "mean" || name === "difference") text = interval(row[place], row[at.half], name === "mean" && !SIGNED.test(row[at.measure]));
      if (name === "verdict") {
        kind = "verdict " + (kinds.find(([start]) => text.startsWith(start)) || ["", "none"])[1];
      }
      const cell = element("td", undefined, kind);
      cell.append(special(name, row[place], row) ?? text);  // a text is never markup
      cells.append(cell);
    }
    return cells;
  }
  function draw(count = PAGE) {
    const last = Math.max(0, Math.ceil(order.length / count) - 1);
    page = Math.min(page, last);
    const part = order.slice(page * count, (page + 1) * count);
    body.replaceChildren(...part.map((place) => line(rows[place])));
    const first = part.length ? page * count + 1 : 0;
    find("shown").textContent = `${first}–${page * count + part.length} of ${order.length} ${things}` +
      (order.length < rows.length ? ` (${rows.length} in all)` : "");
    find("back").disabled = page === 0;
    find("next").disabled = page === last;
  }
  function arrange() {
    const words = find("filter").value;
    const chosen = [...find("selects").children]
      .filter((select) => select.value !== "").map((select) => [+select.name, select.value]);
    order = rows.map((_, place) => place).filter((place) =>
      matches(texts[place], words) &&
      chosen.every(([column, value]) => String(rows[place][column]) === value));
    if (sorted.by >= 0) {
      const way = sorted.up ? 1 : -1, by = sorted.by, collator = new Intl.Collator(undefined, { numeric: true });
      order.sort((a, b) => {
        const [x, y] = [rows[a][by], rows[b][by]];
        if (x === null || y === null) return (x === null) - (y === null);  // missing values come last
        return way * (typeof x === "number" ? x - y : collator.compare(x, y)) || a - b;
      });
    }
    page = 0;
    draw();
  }
  const titles = element("tr");
  for (const place of shown) {
    const cell = element("th", undefined, columns[place][2] ? "number" : "");
    const button = element("button", columns[place][1]);
    button.addEventListener("click", () => {
      sorted = { by: place, up: sorted.by === place ? !sorted.up : true };
      for (const other of titles.children) other.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", sorted.up ? "ascending" : "descending");
      arrange();
    });
    cell.append(button);
    titles.append(cell);
  }
  head.append(titles);
  for (const name of CHOSEN) {
    const choices = values(at[name]);
    if (choices.length < 2 || choices.length > 200) continue;
    const select = element("select");
    select.name = at[name];
    select.setAttribute("aria-label", columns[at[name]][1]);
    select.append(new Option(`every ${columns[at[name]][1]}`, ""));
    for (const value of choices) select.append(new Option(value, value));
    select.addEventListener("change", arrange);
    find("selects").append(select);
  }
  find("filter").addEventListener("input", arrange);
  find("back").addEventListener("click", () => { page -= 1; draw(); });
  find("next").addEventListener("click", () => { page += 1; draw(); });
  find("csv").addEventListener("click", () => {
    const quoted = (value) => value === null ? "" : /[",\r\n]/.test(value)
      ? `"${String(value).replaceAll('"', '""')}"` : String(value);
    const lines = [columns.map(([name]) => name), ...order.map((place) => rows[place])];
    const text = lines.map((row) => row.map(quoted).join(",")).join("\r\n") + "\r\n";
    const link = element("a");
    link.href = URL.createObjectURL(new Blob(["\ufeff", text], { type: "text/csv;charset=utf-8" }));
    link.download = sheet.dataset.file;
    link.click();
    URL.revokeObjectURL(link.href);
  });
  addEventListener("beforeprint", () => draw(PRINTED));
  addEventListener("afterprint", () => draw());
  find("tools").hidden = false;
  draw();
  return (others) => {
    rows = others;
    texts = rows.map((row) => searched(columns, row));
    arrange();
  };
}
for (const sheet of document.querySelectorAll(".sheet[data-rows]")) table(sheet, content[sheet.dataset.rows]);
