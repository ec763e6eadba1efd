// The page of a suite: what the reader chooses, its figure, tables, curves, and a view per entrant.
{
  const { entrants, tasks, grids, constants } = suite;
  const element = (tag, text, kind) => {
    const node = document.createElement(tag);
    if (text !== undefined) node.append(text);  // a text is never markup
    if (kind) node.className = kind;
    return node;
  };
  const find = (part, within = document) => within.querySelector(part);
  const unique = (all) => [...new Set(all)];
  const collator = new Intl.Collator(undefined, { numeric: true });
  const escaped = (text) => String(text).replace(/[&<>]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[c]);
  const short = (value, digits = 3) => value === Infinity ? "∞" : value === -Infinity ? "−∞" :
    Number.isNaN(value) ? "–" : Math.abs(value) >= 100 && Math.abs(value) < 1e6 ? value.toFixed(0) : number(+value.toPrecision(digits));
  const range = (lower, upper) => lower === 0 && upper === Infinity ? "too few tasks" : `[${short(lower)}, ${short(upper)}]`;
  const bounded = (lower, upper) => lower === 0 && upper === Infinity ? "" : ` ${range(lower, upper)}`;
  const percent = (share) => `${Math.round(100 * share)} %`;
  const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
  const taskName = ({ law, path, denoiser }) => `${law} · ${path} · ${denoiser}`;
  const title = ({ quantity, unit }) => `${content.titles[quantity]}${unit ? `, ${content.units[unit]}` : ""}`;

  // What the reader chooses. It is in the address, so a link leads to the same selection.
  const FIELDS = {
    law: ["every law", unique(tasks.map(({ law }) => law))],
    path: ["every path", unique(tasks.map(({ path }) => path))],
    denoiser: ["every denoiser", unique(tasks.map(({ denoiser }) => denoiser))],
    quantity: ["every error", unique(tasks.map(({ quantity }) => quantity))],
    grid: [null, grids],
    noise: ["any noise", ["with", "without"]],
    order: ["any order", unique(entrants.map(suite.orderOf)).sort(collator.compare)],
    colour: [null, ["kind", "package", "sampler"]],
  };
  const TEXTS = { with: "with noise", without: "without noise", package: "colours: packages",
    kind: "colours: orders", sampler: "colours: samplers" };
  const textOf = (name, value) => TEXTS[value] ??
    { grid: `${value} grid`, order: `order ${value}`, quantity: content.titles[value] }[name] ?? value;
  const SELECTS = Object.keys(FIELDS).filter((name) => name !== "colour");
  const START = { ...Object.fromEntries(Object.entries(FIELDS).map(([name, [all, values]]) =>
    [name, all === null ? values[0] : ""])), targets: [] };
  let selection = { ...START }, opened = null, shown = null, standing = null;
  const fields = {};
  for (const [name, [all, values]] of Object.entries(FIELDS)) {
    const select = fields[name] = element("select");
    select.name = name;
    select.setAttribute("aria-label", name);
    if (all !== null) select.append(new Option(all, ""));
    for (const value of values) select.append(new Option(textOf(name, value), value));
    select.addEventListener("change", () => choose({ [name]: select.value }));
    if (values.length > 1) find(name === "colour" ? "#shares .colours" : ".chosen .tools").append(select);
  }
  function choose(changes) {
    selection = { ...selection, ...changes };
    if (changes.quantity !== undefined) selection.targets = [];
    history.replaceState(null, "", address(opened));
    update();
  }
  function address(entrant) {
    const words = new URLSearchParams();
    if (entrant !== null) words.set("entrant", entrants[entrant].entrant);
    for (const name of Object.keys(FIELDS)) if (selection[name] !== START[name]) words.set(name, selection[name]);
    if (selection.targets.length) words.set("targets", selection.targets.join(","));
    return `#${words}`;
  }
  function follow() {
    const anchor = location.hash.slice(1);
    if (anchor && !anchor.includes("=")) return;  // a section of this page
    const words = new URLSearchParams(anchor);
    selection = { ...START, targets: (words.get("targets") ?? "").split(",").filter(Boolean) };
    for (const [name, [, values]] of Object.entries(FIELDS)) if (values.includes(words.get(name))) selection[name] = words.get(name);
    const place = entrants.findIndex(({ entrant }) => entrant === words.get("entrant"));
    opened = place < 0 ? null : place;
    close();
    update();
    if (opened !== null) scrollTo(0, 0);
  }

  // Colours and marks of the curves: one colour a group, and marks that stay while others come and go.
  const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "x"], DASHES = ["solid", "dash", "dot"];
  const GROUPS = {
    package: ({ package: name }) => name,
    kind: ({ order, noise }) => noise ? "with noise" : order === null ? "order not stated" : order < 3 ? `order ${order}` : "order 3 and more",
    sampler: ({ entrant }) => entrant,
  };
  let marks = new Map();
  function look(entrant) {
    if (!marks.has(entrant)) {
      const groupOf = GROUPS[selection.colour], group = groupOf(entrants[entrant]);
      const groups = selection.colour === "sampler" ? null : unique(entrants.map(groupOf));
      if (selection.colour === "kind") groups.sort(collator.compare);
      const taken = [...marks.values()].filter((mark) => mark.group === group || !groups).map(({ slot }) => slot);
      let slot = 0;
      while (taken.includes(slot)) slot++;
      const colours = content.palette.length, place = groups ? groups.indexOf(group) : slot;
      const lap = groups ? slot : Math.floor(slot / colours);
      marks.set(entrant, { group, slot, color: content.palette[place % colours],
        symbol: SYMBOLS[(groups ? lap : slot) % 6], dash: DASHES[Math.floor(lap / 6) % 3] });
    }
    return marks.get(entrant);
  }
  const traceOf = (entrant) => {
    const { color, symbol, dash } = look(entrant);
    return { type: "scatter", mode: "lines+markers", name: escaped(entrants[entrant].entrant), legendgroup: String(entrant),
      showlegend: false, line: { color, width: entrant === opened ? 3.2 : 1.8, dash }, marker: { symbol, size: 7, color } };
  };
  const crosses = (entrant, points) => ({ ...traceOf(entrant), mode: "markers", ...points,
    marker: { symbol: "x-thin", size: 9, line: { color: look(entrant).color, width: 2.4 } } });
  const best = () => standing.lines.slice(0, constants.shown).map(({ entrant }) => entrant);
  const lineOf = (entrant) => standing.lines.find((line) => line.entrant === entrant);
  const visible = () => (shown ?? best()).filter(lineOf);
  function showOnly(list) {
    shown = list;
    for (const entrant of [...marks.keys()]) if (list && !list.includes(entrant)) marks.delete(entrant);
    draw();
  }
  const toggle = (entrant) => showOnly(visible().includes(entrant)
    ? visible().filter((other) => other !== entrant) : [...visible(), entrant]);

  // The number that is touched, with all that is needed to compute it again
  const bar = find("#value");
  let pinned = false;
  function close() { pinned = false; bar.hidden = true; }
  addEventListener("keydown", ({ key }) => key === "Escape" && close());
  function tell(paragraphs, command, pin, more = []) {
    if (pinned && !pin) return;
    pinned = pin;
    const button = element("button", "×", "close");
    button.setAttribute("aria-label", "close");
    button.addEventListener("click", close);
    bar.replaceChildren(button, ...paragraphs.map((parts) => {
      const paragraph = element("p");
      paragraph.append(...[parts].flat());
      return paragraph;
    }));
    if (command) bar.append(element("code", command, "command"));
    bar.append(...more);
    bar.hidden = false;
  }
  const link = (entrant) => {
    const node = element("a", entrants[entrant].entrant);
    node.href = address(entrant);
    return node;
  };
  const error = ({ status, message, value, lower, upper, task }) => status !== "ok"
    ? `${status}${message ? `: ${message}` : ""}`
    : `${Math.abs(value) < 1e-3 && value !== 0 ? value.toExponential(3) : number(value)}${task.unit && task.unit !== "share" ? ` ${task.unit}` : ""}${lower === null && upper === null ? "" : ` ${range(lower ?? value, upper ?? value)}`}`;
  function tellValue(point, pin) {
    const own = suite.details(point), { entrant, task } = own;
    tell([
      [link(entrants.indexOf(entrant)), ` on ${taskName(task)}, ${own.grid} grid${own.chosen ? ` (${own.chosen})` : ""}`],
      [element("b", error(own)), ` at ${plural(own.nfe, "evaluation")}, ${plural(own.steps, "step")}; ${content.titles[task.quantity]}`],
      [`identity ${own.id}, ${entrant.package} ${own.version}; ${own.made}`],
    ], own.command, pin);
  }

  // A number that is computed from many values: the command that computes it again from the results
  // beside this page, and the values behind it, by job, with the command that computes these.
  const quoted = (word) => /^[A-Za-z0-9_@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`;
  function tellNumber({ entrant, over = null, among = selection, name, text }, pin = true) {
    const words = [["entrant", entrants[entrant].entrant], ["over", over === null ? "" : entrants[over].entrant],
      ...SELECTS.map((key) => [key, among[key]]), ["targets", among.targets.join(",")]];
    const command = ["samplerbench", "suite", "table", content.folder,
      ...words.filter(([, value]) => value).map(([key, value]) => `${key}=${value}`)].map(quoted).join(" ");
    const list = suite.chosenTasks(among).filter((task) => suite.chosenTargets(tasks[task].quantity, among).length);
    const both = over === null ? [entrant] : [entrant, over], jobs = new Map();
    const own = list.flatMap((task) => both.flatMap((one) => suite.curve(task, among.grid, one))).map(suite.details);
    for (const value of own) jobs.set(value.command, [...jobs.get(value.command) ?? [], value]);
    const details = element("details", undefined, "behind");
    details.append(element("summary", `made of ${plural(own.length, "value")} of ${plural(jobs.size, "job")}`),
      ...[...jobs].flatMap(([job, some]) => [element("p", element("code", job)),
        element("p", `${unique(some.map(({ made }) => made)).join("; ")}; identities ${unique(some.map(({ id }) => id)).join(" ")}`)]));
    const versions = unique(both.map((one) => `${entrants[one].package} ${entrants[one].version}`)).join(", ");
    tell([[link(entrant), ...over === null ? [] : [" over ", link(over)], `, ${among.grid} grid: ${name}`],
      [element("b", text), `; ${versions}`]], command, pin, [details]);
  }
  const numberButton = (facts, label = facts.text) => {
    const button = element("button", label, "derived");
    button.type = "button";
    button.addEventListener("click", () => tellNumber(facts));
    return button;
  };

  const costs = (numbers) => {
    const all = unique(numbers.filter((nfe) => nfe > 0)).sort((a, b) => a - b), least = all[0] ?? 1, most = all.at(-1) ?? 1;
    const ticks = [];
    for (let tick = 2 ** Math.floor(Math.log2(least)); tick <= most * 1.01; tick *= 2) if (tick >= least * 0.99) ticks.push(tick);
    return { type: "log", title: { text: "evaluations of the denoiser (NFE)" }, tickvals: ticks,
      range: [Math.log10(least / 1.12), Math.log10(most * 1.2)] };
  };

  // The share of problems solved against evaluations
  function shares() {
    const data = [], list = visible();
    const solved = list.flatMap((entrant) => lineOf(entrant).times).filter((time) => time < Infinity);
    const starts = Math.min(constants.at[0], ...solved);  // undefined is not below infinity
    for (const entrant of list) {
      const line = lineOf(entrant);
      const x = unique(line.times.filter((time) => time < Infinity)).sort((a, b) => a - b);
      if (x[0] !== starts) x.unshift(starts);
      if (x.at(-1) !== constants.budget) x.push(constants.budget);
      const y = x.map(line.share);
      const words = x.map((nfe, k) => `<b>${percent(y[k])}</b> of ${plural(line.problems, "problem")} within ${nfe} evaluations`);
      data.push({ ...traceOf(entrant), x, y, text: words, customdata: x,
        line: { ...traceOf(entrant).line, shape: "hv" }, hovertemplate: "%{text}<extra>%{fullData.name}</extra>" });
      if (line.failed.size) {
        const failures = [...line.failed].map(([status, count]) => `${count} ${status}`).join(", ");
        data.push(crosses(entrant, { x: [constants.budget * 1.1], y: [y.at(-1)], text: [`runs that solve nothing: ${escaped(failures)}`],
          hovertemplate: "%{text}<extra>%{fullData.name}</extra>" }));
      }
    }
    return { data, layout: { height: 430, xaxis: costs([starts, constants.budget]),
      yaxis: { title: { text: "share of its problems solved" }, range: [-0.02, 1.02], tickformat: ".0%" } } };
  }
  charts.add(find("#ecdf"), shares, (point, pin) => {
    const entrant = +point.data.legendgroup;
    const text = new DOMParser().parseFromString(point.text, "text/html").body.textContent;
    tellNumber({ entrant, name: "share of problems solved", text }, pin);
  });

  // Error against evaluations on a task. A run that failed before its first evaluation is at its steps.
  const costOf = ({ nfe, steps }) => nfe || steps;
  function errors(task, list) {
    const curves = list.map((entrant) => [entrant, suite.ran(suite.curve(task, selection.grid, entrant))]);
    const sound = curves.flatMap(([, points]) => points.filter((point) => !suite.failed(point) && point.value > 0));
    const targets = suite.chosenTargets(tasks[task].quantity, selection);
    const all = [...sound.map(({ value }) => value), ...targets];
    const low = Math.min(...all), high = Math.max(...all), whole = high / low;
    const bad = curves.flatMap(([, points]) => points.filter(suite.failed).map(costOf));
    const most = Math.max(0, ...unique(bad).map((cost) => bad.filter((other) => other === cost).length));
    const top = high * whole ** (0.02 + 0.045 * most), bottom = low / whole ** 0.04;
    const data = [], crossed = new Map();
    for (const [entrant, points] of curves) {
      if (!points.length) continue;
      const words = (some) => some.map((point) => {
        const own = suite.details(point);
        return `<b>${escaped(error(own))}</b><br>${point.nfe} evaluations, ${point.steps} steps` +
          `<br>${escaped(own.grid)} grid${own.chosen ? ` (${escaped(own.chosen)})` : ""}<br>${escaped(own.id)}, ` +
          `${escaped(own.entrant.package)} ${escaped(own.version)}`;
      });
      const hover = (some) => ({ x: some.map(costOf), text: words(some), customdata: some,
        hovertemplate: "%{text}<extra>%{fullData.name}</extra>" });
      const own = points.map(suite.details);
      const trace = { ...traceOf(entrant), ...hover(points),
        y: points.map((point) => suite.failed(point) ? null : Math.max(point.value, bottom)) };
      if (own.some(({ lower, upper }) => lower !== null || upper !== null)) {
        trace.error_y = { type: "data", symmetric: false, thickness: 1.1, width: 2.5, color: trace.line.color,
          array: own.map(({ value, upper }) => upper === null ? 0 : upper - value),
          // an interval below 0 has no end on a log axis
          arrayminus: own.map(({ value, lower }) => lower === null ? 0 : Math.min(value - lower, 0.9 * value)) };
      }
      data.push(trace);
      const without = points.filter(suite.failed);
      // several at one number of evaluations are below each other
      const heights = without.map((point) => {
        crossed.set(costOf(point), (crossed.get(costOf(point)) ?? -1) + 1);
        return top / whole ** (0.045 * crossed.get(costOf(point)));
      });
      if (without.length) data.push(crosses(entrant, { ...hover(without), y: heights }));
    }
    const lines = targets.map((y) => ({ type: "line", xref: "paper", x0: 0, x1: 1, y0: y, y1: y, layer: "below",
      line: { width: 1, dash: "dot", color: "rgba(128,128,128,0.6)" } }));
    const [from, to] = [Math.log10(bottom / whole ** 0.03), Math.log10(top * whole ** 0.04)];
    return { data, layout: { shapes: lines, xaxis: costs(curves.flatMap(([, points]) => points.map(costOf))),
      yaxis: { type: "log", title: { text: escaped(title(tasks[task])) }, range: [from, to], exponentformat: "power",
        ...(to - from < 2.5 ? { dtick: "D2" } : { dtick: Math.ceil((to - from) / 6) }) } } };
  }
  const FIRST = 6;
  let allTasks = false;
  const figures = new Map();
  const curvesShown = () => opened === null ? visible() : [opened, ...neighbours(opened)];
  function figure(task) {
    if (!figures.has(task)) {
      const node = element("figure"), chart = element("div", undefined, "chart");
      chart.dataset.task = task;
      node.append(element("figcaption", `${content.titles[tasks[task].quantity]}: ${taskName(tasks[task])}`), chart, element("p", undefined, "reasons"));
      charts.add(chart, () => errors(task, curvesShown()), (point, pin) => tellValue(point.customdata, pin));
      figures.set(task, node);
    }
    const among = opened === null ? suite.chosenEntrants(selection) : curvesShown(), reasons = new Map();
    for (const entrant of among) {
      const reason = suite.cannotRun(task, selection.grid, entrant);
      if (reason !== null) reasons.set(reason, [...reasons.get(reason) ?? [], entrants[entrant].entrant]);
    }
    find(".reasons", figures.get(task)).textContent = reasons.size
      ? `not measured: ${[...reasons].map(([reason, names]) => `${names.join(", ")} (${reason})`).join("; ")}` : "";
    return figures.get(task);
  }
  function drawTasks() {
    const all = suite.chosenTasks(selection).filter((task) => suite.chosenTargets(tasks[task].quantity, selection).length);
    const some = allTasks || opened !== null ? all : all.slice(0, FIRST);
    find("#tasks .charts").replaceChildren(...some.map(figure));
    find("#tasks .chips").replaceChildren(...chips(curvesShown()));
    const button = find("#tasks .all");
    button.hidden = some.length === all.length;
    button.textContent = `Show all ${all.length} tasks`;
  }
  find("#tasks .all").addEventListener("click", () => { allTasks = true; drawTasks(); charts.again(); });

  // The table
  const COLUMNS = [["rank", "rank", true, "shown"], ["entrant", "sampler", false, "shown"], ["runtime", "mean runtime", true, "shown"],
    ...constants.at.map((nfe) => [`solved_${nfe}`, `≤ ${nfe}`, true, "shown"]), ["problems", "problems", true, "shown"],
    ["failed", "failed", true, "shown"], ["order", "order", false, "shown"], ["to_field", "to field", true, "shown"],
    ["package", "package", false, "menu"], ["noise", "noise", false, "hidden"], ["lower", "lower", true, "hidden"], ["upper", "upper", true, "hidden"],
    ["log2_runtime", "log₂", true, "hidden"], ["log2_lower", "lower", true, "hidden"], ["log2_upper", "upper", true, "hidden"],
    ["tied", "tied", false, "hidden"], ["number", "", true, "hidden"]];
  const at = Object.fromEntries(COLUMNS.map(([name], place) => [name, place]));
  const rowOf = (line) => {
    const one = entrants[line.entrant];
    return [line.rank, one.entrant, 2 ** line.mean, ...constants.at.map(line.share), line.problems,
      [...line.failed.values()].reduce((sum, count) => sum + count, 0), suite.orderOf(one), line.toField, one.package,
      one.noise ? "yes" : "no", 2 ** line.lower, 2 ** line.upper, line.mean, line.lower, line.upper, line.tied ? "yes" : "no", line.entrant];
  };
  function textOfCell(name, value, row) {
    if (name === "rank") return value === null ? "" : `${row[at.tied] === "yes" ? "≈ " : ""}${value}`;
    if (name === "problems") return row[at.rank] === null ? `${value} of ${standing.possible}` : String(value);
    if (name.startsWith("solved")) return percent(value);
    if (name === "runtime") return `${short(value)}${bounded(row[at.lower], row[at.upper])}`;
    if (name === "to_field") return short(value);
    if (name === "failed") return value ? `× ${value}` : "";
    return undefined;
  }
  const NAMES = { rank: "rank", problems: "problems", runtime: "mean runtime",
    to_field: "runtime relative to the field, all samplers of these problems", failed: "runs that failed or could not be measured" };
  function special(name, value, row) {
    const entrant = row[at.number], text = textOfCell(name, value, row);
    if (text) return numberButton({ entrant, text, name: NAMES[name] ?? `share of problems solved within ${name.slice(7)} evaluations` });
    if (name !== "entrant") return text;
    const node = element("span"), mark = element("button", undefined, "mark");
    mark.type = "button";
    mark.setAttribute("aria-label", `show or hide ${value}`);
    const on = visible().includes(entrant);
    mark.setAttribute("aria-pressed", on);
    mark.innerHTML = on ? charts.key(traceOf(entrant)) : charts.key({ mode: "lines+markers", line: { color: "currentColor" }, marker: {} });
    mark.addEventListener("click", () => toggle(entrant));
    node.append(mark, link(entrant));
    return node;
  }
  let refill = null;
  function drawTable() {
    const rows = standing.lines.map(rowOf), without = rows.length - standing.ranks;
    find("#standings .unranked").hidden = !without;
    find("#standings .unranked b").textContent = `${plural(without, "sampler")} without a rank`;
    if (refill) refill(rows);
    else refill = table(find("#standings .sheet"), { columns: COLUMNS, rows }, special);
  }

  // Chips of the shown curves, and how to show others
  function chips(list) {
    const groups = new Map();
    for (const entrant of list) {
      const { group } = look(entrant);
      groups.set(group, [...groups.get(group) ?? [], entrant]);
    }
    const nodes = [];
    for (const [group, members] of groups) {
      if (selection.colour !== "sampler") nodes.push(element("span", `${group}:`, "group-name"));
      for (const entrant of members) {
        const chip = element("button");
        chip.type = "button";
        chip.title = opened === null ? "hide this curve" : "open its page";
        chip.innerHTML = charts.key(traceOf(entrant));
        chip.append(entrants[entrant].entrant);
        chip.addEventListener("click", () => opened === null ? toggle(entrant) : location.assign(address(entrant)));
        const fade = (on) => globalThis.Plotly && document.querySelectorAll(".chart.js-plotly-plot").forEach((place) =>
          Plotly.restyle(place, { opacity: place.data.map((trace) => !on || trace.legendgroup === String(entrant) ? 1 : 0.15) }));
        chip.addEventListener("pointerenter", ({ pointerType }) => pointerType === "mouse" && fade(true));
        chip.addEventListener("pointerleave", ({ pointerType }) => pointerType === "mouse" && fade(false));
        nodes.push(chip);
      }
    }
    return nodes;
  }
  function drawChips() {
    const list = visible();
    find("#shares .chips").replaceChildren(...chips(list));
    const counts = unique(list.map((entrant) => lineOf(entrant).problems)).sort((a, b) => a - b);
    find("#shares .counts").textContent = counts.length < 2 ? "" : `These samplers have ${counts[0]} to ${counts.at(-1)} problems: ` +
      "a task on which a sampler of another package cannot run does not count for it. A ratio of two samplers is over the problems of both.";
    const add = element("select");
    add.setAttribute("aria-label", "show another sampler");
    add.append(new Option("show another sampler …", ""));
    for (const name of unique(entrants.map((one) => one.package))) {
      const group = element("optgroup");
      group.label = name;
      for (const { entrant } of standing.lines) {
        if (entrants[entrant].package === name && !list.includes(entrant)) group.append(new Option(entrants[entrant].entrant, entrant));
      }
      if (group.children.length) add.append(group);
    }
    add.addEventListener("change", () => toggle(+add.value));
    const button = (text, action) => {
      const node = element("button", text);
      node.type = "button";
      node.addEventListener("click", action);
      return node;
    };
    find(".more").replaceChildren(add, button(`the best ${Math.min(constants.shown, standing.lines.length)}`, () => { marks = new Map(); showOnly(null); }),
      button("all", () => showOnly(standing.lines.map(({ entrant }) => entrant))), button("none", () => showOnly([])));
  }

  // Ratios of runtimes
  const ends = ({ tasks: number, lower, upper }) => number ? range(lower, upper) : "–";
  const ratioButton = (own, of, label) => numberButton({ ...of, name: "ratio of mean runtimes, with its 95 % interval",
    text: `${short(own.value)} ${ends(own)} over ${plural(own.tasks, "task")}, ${plural(own.problems, "problem")}` }, label);
  const statement = (own, a, b, { value, lower, upper } = own) => Number.isNaN(value) ? ["They have no problem in common."] :
    [`${entrants[a].entrant} needs `, ratioButton(own, { entrant: a, over: b }, short(value)),
      ` times the evaluations of ${entrants[b].entrant}` + (lower > 0 ? `, with a 95 % interval of ${range(lower, upper)}` : "") +
      (lower > 1 || upper < 1 ? "." : ": these tasks do not distinguish them.")];
  // A line has its names, the ratio, and of what it is: an entrant over another one, among a selection.
  function ratioTable(place, head, lines) {
    const titles = element("tr");
    for (const text of [...head, "ratio", "95 % interval", "tasks", "problems"]) titles.append(element("th", text));
    const thead = element("thead", titles), body = element("tbody");
    for (const [names, own, of] of lines) {
      const row = element("tr");
      for (const name of names) row.append(element("td", name));
      for (const text of [short(own.value), ends(own), own.tasks, own.problems].map(String)) {
        row.append(element("td", ratioButton(own, of, text), "number"));
      }
      body.append(row);
    }
    place.replaceChildren(thead, body);
  }
  let pair = [null, null];
  function drawPair() {
    const names = standing.lines.map(({ entrant }) => entrant);
    pair = pair.map((one, k) => names.includes(one) ? one : names.find((name) => name !== pair[1 - k]) ?? null);
    if (pair[0] === pair[1]) pair[1] = names[1] ?? null;
    find("#compare").hidden = pair.includes(null);
    if (pair.includes(null)) return;
    find(".pair").replaceChildren(...pair.map((one, k) => {
      const select = element("select");
      select.name = "ab"[k];
      select.setAttribute("aria-label", k ? "the second sampler" : "the first sampler");
      for (const name of names) select.append(new Option(entrants[name].entrant, name, false, name === one));
      select.addEventListener("change", () => { pair[k] = +select.value; drawPair(); });
      return select;
    }));
    const [a, b] = pair, whole = suite.ratio(selection, a, b);
    find("#compare .statement").replaceChildren(...a === b ? ["Choose two different samplers."] : statement(whole, a, b));
    const lines = [[["all chosen problems", ""], whole, { entrant: a, over: b }]];
    for (const name of ["law", "path", "denoiser", "quantity"]) {
      const [, values] = FIELDS[name];
      if (selection[name] || values.length < 2) continue;
      for (const value of values) {
        const among = { ...selection, [name]: value }, own = suite.ratio(among, a, b);
        if (own.tasks) lines.push([[name === "quantity" ? "error" : name, name === "quantity" ? content.titles[value] : value], own,
          { entrant: a, over: b, among }]);
      }
    }
    ratioTable(find("#compare .ratios"), ["of", ""], lines);
  }

  // The view of one entrant
  function neighbours(entrant) {
    const own = lineOf(entrant);
    if (!own) return [];
    const far = (line) => Math.abs(Math.log(line.toField / own.toField));
    const alike = (line) => line !== own && (line.rank !== null || own.rank === null) &&
      entrants[line.entrant].noise === entrants[entrant].noise;
    return standing.lines.filter(alike).sort((a, b) => far(a) - far(b)).slice(0, 3).map((line) => line.entrant);
  }
  function drawEntrant() {
    const one = entrants[opened], line = lineOf(opened);
    find("#entrant .title").textContent = one.entrant;
    find("#entrant .back").href = address(null);
    const settings = Object.entries(JSON.parse(one.sampler_settings || "{}"))
      .map(([name, value]) => `${name} = ${typeof value === "string" ? value : JSON.stringify(value)}`).join(", ");
    const facts = { package: `${one.package} ${one.version}`, sampler: one.sampler, settings: settings || "none",
      order: suite.orderOf(one), noise: one.noise ? "draws noise" : "draws no noise" };
    if (line) {
      const failures = [...line.failed].map(([status, count]) => `${count} ${status}`).join(", ");
      Object.assign(facts, { rank: line.rank === null ? `none: it has ${line.problems} of the ${standing.possible} problems, less than half`
        : `${line.rank} of ${standing.ranks}`,
        "mean runtime": `${short(2 ** line.mean)}${bounded(2 ** line.lower, 2 ** line.upper)} evaluations over ${plural(line.problems, "problem")}`,
        solved: constants.at.map((nfe) => `${percent(line.share(nfe))} within ${nfe}`).join(", ") });
      if (failures) facts.failed = `× ${failures}`;
      const reasons = new Map();
      for (const [task, message] of line.notRun) reasons.set(message, [...reasons.get(message) ?? [], task]);
      if (reasons.size) facts["not measured"] = [...reasons].map(([message, list]) => `${plural(list.length, "task")}: ${message}`).join("; ");
    } else facts.rank = "it has no problem among the chosen ones";
    const list = suite.chosenTasks(selection).filter((task) => suite.curve(task, selection.grid, opened).length);
    const commands = unique(list.map((task) => suite.details(suite.curve(task, selection.grid, opened)[0]).command));
    const derived = line ? ["rank", "mean runtime", "solved", "failed"] : [];
    find(".facts").replaceChildren(...Object.entries(facts).flatMap(([name, text]) => [element("dt", name),
      element("dd", derived.includes(name) ? numberButton({ entrant: opened, name, text }) : text)]));
    if (commands.length) {
      const details = element("details"), description = element("dd");
      details.append(element("summary", plural(commands.length, "job")), ...commands.map((command) => element("p", element("code", command))));
      description.append(details);
      find(".facts").append(element("dt", "commands"), description);
    }
    const near = neighbours(opened);
    find("#entrant .others").hidden = !near.length;
    ratioTable(find("#entrant .ratios"), ["runtime over that of"], near.map((other) => [[link(other)], suite.ratio(selection, opened, other),
      { entrant: opened, over: other }]));
    find("#entrant .tables").replaceChildren(...unique(list.map((task) => tasks[task].quantity)).flatMap((quantity) =>
      runtimeTable(quantity, list.filter((task) => tasks[task].quantity === quantity))));
  }
  function runtimeTable(quantity, list) {
    const targets = suite.chosenTargets(quantity, selection);
    if (!targets.length) return [];
    const head = element("tr"), body = element("tbody");
    for (const text of ["law", "path", "denoiser", ...targets.map((target) => `≤ ${number(target)}`)]) head.append(element("th", text));
    for (const task of list) {
      const row = element("tr"), points = suite.curve(task, selection.grid, opened);
      for (const name of ["law", "path", "denoiser"]) row.append(element("td", tasks[task][name]));
      if (!suite.ran(points).length) {
        const cell = element("td", `not measured: ${suite.details(points[0]).message}`, "none");
        cell.colSpan = targets.length;
        row.append(cell);
      } else for (const target of targets) {
        const time = suite.runtime(points, target);
        const bad = suite.ran(points).findLast(suite.failed);
        const point = time < Infinity ? points.find(({ nfe }) => nfe === time) : bad ?? points.at(-1);
        const button = element("button", time < Infinity ? String(time) : bad ? "×" : "–", "runtime");
        button.type = "button";
        button.addEventListener("click", () => tellValue(point, true));
        row.append(element("td", button, "number"));
      }
      body.append(row);
    }
    const sheet = element("table"), scroll = element("div", sheet, "scroll");
    sheet.append(element("thead", head), body);
    return [element("p", title(tasks[list[0]])), scroll];
  }

  // Targets are chosen by a click on each
  function drawTargets() {
    const quantities = unique(suite.chosenTasks(selection).map((task) => tasks[task].quantity));
    const all = quantities.flatMap((quantity) => suite.targets[quantity].map((target) => `${quantity}:${target}`));
    selection.targets = selection.targets.filter((name) => all.includes(name));
    find(".targets summary").textContent = selection.targets.length
      ? `Targets: ${selection.targets.length} of ${all.length}` : `Targets: all ${all.length}`;
    find(".targets div").replaceChildren(...quantities.flatMap((quantity) => [
      element("span", title(tasks.find((task) => task.quantity === quantity)), "quantity"),
      ...suite.targets[quantity].map((target) => {
        const name = `${quantity}:${target}`, button = element("button", `≤ ${number(target)}`);
        button.type = "button";
        button.value = name;
        button.setAttribute("aria-pressed", selection.targets.includes(name));
        button.addEventListener("click", () => choose({ targets: selection.targets.includes(name)
          ? selection.targets.filter((other) => other !== name) : [...selection.targets, name] }));
        return button;
      })]));
  }

  function draw() {
    curvesShown().forEach(look);
    drawTasks();
    if (opened === null) {
      drawChips();
      drawTable();
    } else drawEntrant();
    charts.again();
  }
  let coloured = null;
  function update() {
    if (coloured !== selection.colour || shown === null) marks = new Map();
    coloured = selection.colour;
    for (const [name, select] of Object.entries(fields)) select.value = selection[name];
    drawTargets();
    standing = suite.standing(selection);
    const list = suite.chosenTasks(selection), others = suite.chosenEntrants(selection).filter((entrant) => !lineOf(entrant));
    const unable = others.filter((entrant) => list.some((task) => suite.cannotRun(task, selection.grid, entrant) !== null));
    const counted = (number, words) => number ? `; ${number} ${words}` : "";
    find(".chosen .shown").textContent = `${plural(standing.list.length, "problem")} of ` +
      `${plural(unique(standing.list.map(({ task }) => task)).length, "task")}, ${plural(standing.lines.length, "sampler")}` +
      counted(unable.length, "cannot be measured on any of them") + counted(others.length - unable.length, "have no results here");
    find("#suite").hidden = opened !== null;
    find("#entrant").hidden = opened === null;
    find("header nav").hidden = opened !== null;
    find("#guide").hidden = opened !== null;
    if (opened === null) drawPair();
    draw();
  }
  addEventListener("hashchange", follow);
  follow();
  if (standing === null) update();  // the address is a section of this page
}
