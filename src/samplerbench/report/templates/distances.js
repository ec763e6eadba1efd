// Distance against cost, from the rows of the tables: one chart for each measure and start.
{
  const section = document.getElementById("distances");
  const { floors, order, palette, group: grouped } = content.distances;
  const objects = ({ columns, rows }) =>
    rows.map((row) => Object.fromEntries(columns.map(([name], place) => [name, row[place]])));
  const each = objects(content.data).filter((row) => row.mean !== null);
  const pooled = content.curves ? objects(content.curves) : each;
  const unique = (values) => [...new Set(values)];
  const collator = new Intl.Collator(undefined, { numeric: true });
  const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "x"];
  const DASHES = { learned: "solid", oracle: "dash", empirical: "dot" };
  const OPEN = { learned: "", empirical: "-open-dot" };
  const AXES = { nfe: "network evaluations per sample (NFE)", rounds: "sequential rounds of evaluations", steps: "number of steps N",
    seconds: "seconds for a cell's samples" };
  const escaped = (text) => String(text).replace(/[&<>]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[c]);

  // what the reader chooses
  const tools = section.querySelector(".tools");
  const choice = (name, options) => {
    const select = document.createElement("select");
    select.name = name;
    select.setAttribute("aria-label", name);
    for (const [value, text] of options) select.append(new Option(`${name}: ${text}`, value));
    select.addEventListener("change", show);
    if (options.length > 1) tools.append(select);
    return select;
  };
  const costs = Object.entries(AXES).filter(([name]) => unique(each.map((row) => row[name])).length > 1 &&
    (name !== "nfe" || each.some((row) => row.nfe !== row.steps)) &&
    (name !== "rounds" || each.some((row) => row.rounds !== row.nfe)));
  const x = choice("x", costs.length ? costs : [["steps", AXES.steps]]);
  const y = choice("y", [["", "as the values need"], ["linear", "linear"], ["log", "logarithmic"]]);
  const seeds = content.curves
    ? choice("seeds", [["mean", "mean and 95 % band over them"], ["each", "one by one"]]) : null;
  const GROUPS = { name: "sampler", run: "run", denoiser: "denoiser", objective: "objective",
    network: "network", schedule: "schedule", grid: "grid", dataset: "data" };
  const several = Object.entries(GROUPS).filter(([name]) => unique(pooled.map((row) => row[name])).length > 1);
  const group = choice("colour", several.length ? several : [["name", "sampler"]]);
  if (several.some(([name]) => name === grouped)) group.value = grouped;
  const most = choice("curves", [["20", "the 20 nearest"], ["10", "the 10 nearest"], ["", "all"]]);
  const words = section.querySelector(".filter");
  words.addEventListener("input", show);
  tools.hidden = false;

  const rows = () => seeds?.value === "each" || !seeds ? each : pooled;
  const found = (row) => matches(searched(Object.keys(row).map((name) => [name]), Object.values(row)), words.value);

  function curvesOf(floor) {
    const own = rows().filter((row) => row.measure === floor.measure && row.start === floor.start);
    const all = unique(own.map((row) => row.curve));
    const fitting = own.filter(found);
    const best = new Map();
    // the mean of the survivors of lost repetitions is no distance
    const near = (row) => row.lost ? Infinity : row.mean;
    for (const row of fitting) best.set(row.curve, Math.min(near(row), best.get(row.curve) ?? Infinity));
    const kept = [...best.keys()].sort((a, b) => best.get(a) - best.get(b)).slice(0, +most.value || Infinity);
    return { all: all.length, found: best.size, kept: kept.length, rows: fitting.filter((row) => kept.includes(row.curve)) };
  }
  const ticks = (numbers) => unique(numbers).sort((a, b) => b - a)
    .reduce((chosen, number) => (!chosen.length || chosen.at(-1) / number > 1.35) ? [...chosen, number] : chosen, []);

  function chart(floor) {
    const { rows: own } = curvesOf(floor);
    const cost = x.value, by = group.value;
    const means = own.map((row) => row.mean), low = Math.min(...means), high = Math.max(...means);
    const log = low > 0 && (y.value === "log" || (y.value === "" && high > 10 * low));
    // the exact score has no objective and no network: its colour is that of the learned score on its path
    const ofCurve = new Map([...each, ...pooled].filter((row) => row[by]).map((row) => [row.curve, row[by]]));
    const valueOf = (row) => row[by] || ofCurve.get(row.curve) || "";
    const groups = by === "name" ? order : unique(pooled.map(valueOf)).sort(collator.compare);
    const others = unique(pooled.map((row) => by === "name" ? row.run : row.name)).sort(collator.compare);
    const data = [], inLegend = new Set();
    for (const denoiser of floor.ordered ? unique(own.map((row) => row.denoiser)) : []) {
      let least = Infinity;
      const front = own.filter((row) => row.denoiser === denoiser && row[cost] > 0 && !row.lost)
        .sort((a, b) => a[cost] - b[cost] || a.mean - b.mean)
        .filter((row) => row.mean < least && ((least = row.mean), true));
      data.push({ type: "scatter", x: front.map((row) => row[cost]), y: front.map((row) => row.mean),
        name: "Pareto front", legendgroup: "Pareto front", showlegend: !inLegend.has("Pareto front"),
        mode: "lines", line: { shape: "hv", width: 9, color: "rgba(128,128,128,0.45)" }, hoverinfo: "skip" });
      inLegend.add("Pareto front");
    }
    for (const name of unique(own.map((row) => row.curve)).sort(collator.compare)) {
      for (const denoiser of unique(own.filter((row) => row.curve === name).map((row) => row.denoiser))) {
        const curve = own.filter((row) => row.curve === name && row.denoiser === denoiser)
          .sort((a, b) => a[cost] - b[cost]);
        const place = Math.max(groups.indexOf(valueOf(curve[0])), 0);
        const other = others.indexOf(by === "name" ? curve[0].run : curve[0].name);
        const colour = palette[place % palette.length], title = escaped(name);
        const symbol = SYMBOLS[(other + Math.floor(place / palette.length)) % SYMBOLS.length];
        const costsOf = curve.map((row) => row[cost]), half = curve.map((row) => row.half ?? 0);
        // an interval below 0 has no end on a log axis, and a distance is not negative
        const down = curve.map((row, k) => Math.min(half[k], row.mean > 0 && !SIGNED.test(row.measure) ? (log ? 0.9 : 1) * row.mean : half[k]));
        const line = { type: "scatter", x: costsOf, y: curve.map((row) => row.mean), name: title,
          legendgroup: title, showlegend: !inLegend.has(title), mode: "lines+markers",
          line: { color: colour, width: 1.8, dash: DASHES[denoiser] ?? "dot" },
          marker: { symbol: symbol + (OPEN[denoiser] ?? "-open"), size: 7 },
          text: curve.map((row) => `<b>${interval(row.mean, row.half, !SIGNED.test(row.measure))}</b><br>N = ${row.steps}, ` +
            `NFE ${row.nfe}${row.rounds === row.nfe ? "" : ` in ${row.rounds} rounds`}, ${+row.seconds.toPrecision(3)} s<br>${escaped(row.verdict)}`),
          hovertemplate: `%{text}<extra>${title}<br>${escaped(denoiser)}</extra>` };
        if (curve[0].verdict.startsWith("mean over")) {
          data.push({ type: "scatter", x: [...costsOf, ...costsOf.toReversed()],
            y: [...curve.map((row, k) => row.mean + half[k]), ...curve.map((row, k) => row.mean - down[k]).toReversed()],
            fill: "toself", fillcolor: colour, opacity: 0.1, mode: "none", hoverinfo: "skip",
            legendgroup: title, showlegend: false });
        } else {
          line.error_y = { type: "data", symmetric: false, array: half, arrayminus: down, thickness: 1.2,
            width: 3, color: colour };
        }
        data.push(line);
        const lost = curve.filter((row) => row.lost);  // a cross: the mean of the others
        if (lost.length) {
          data.push({ type: "scatter", x: lost.map((row) => row[cost]), y: lost.map((row) => row.mean), mode: "markers",
            marker: { symbol: "x-thin-open", size: 13, color: "#777777" }, hoverinfo: "skip", legendgroup: title, showlegend: false });
        }
        inLegend.add(title);
      }
    }
    const shapes = [];
    if (floor.band) {
      const [bottom, mean, top] = floor.band;
      const across = { xref: "paper", x0: 0, x1: 1, layer: "below" };
      shapes.push({ ...across, type: "rect", y0: bottom, y1: top, fillcolor: "rgba(128,128,128,0.22)", line: { width: 0 } },
        { ...across, type: "line", y0: mean, y1: mean, line: { width: 1, color: "rgba(128,128,128,0.8)" } });
    }
    // all means are shown, and not all of a very long interval
    const longest = own.map((row) => Math.min(row.half ?? 0, 0.3 * (high - Math.min(low, 0))));
    const top = Math.max(...own.map((row, k) => row.mean + longest[k]), floor.band?.[2] ?? -Infinity);
    const bottom = low < 0 ? Math.min(...own.map((row, k) => row.mean - longest[k])) : 0;
    const least = Math.min(low, floor.band?.[0] > 0 ? floor.band[0] : low);
    const range = log ? [Math.log10(least / 1.4), Math.log10(top * 1.2)]
      : [bottom + Math.min(bottom, 0) * 0.05, top + 0.05 * (top - bottom)];
    const steps = cost === "seconds" ? {} : { tickvals: ticks(own.map((row) => row[cost])) };
    return { data, layout: { shapes,
      xaxis: { type: "log", title: { text: AXES[cost] }, ...steps },
      yaxis: { type: log ? "log" : "linear", title: { text: escaped(floor.title) }, range: own.length ? range : undefined,
        ...(log ? { dtick: "D2" } : {}) } } };
  }

  const shownIn = section.querySelector(".shown");
  function show() {
    let all = 0, kept = 0, found = 0;
    for (const floor of floors) {
      const curves = curvesOf(floor);
      all += curves.all;
      kept += curves.kept;
      found += curves.found;
    }
    const nearest = kept < found ? ": of each chart those that come nearest to the data" : "";
    shownIn.textContent = `${kept} of ${all} curves are shown${nearest}. The table above has all.`;
    charts.again();
  }
  for (const place of section.querySelectorAll("[data-distance]")) {
    charts.add(place, () => chart(floors[place.dataset.distance]));
  }
  show();
}
