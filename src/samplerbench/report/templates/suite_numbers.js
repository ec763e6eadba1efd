// Runtimes, shares, ratios and standings of chosen problems, by the definitions of
// bench/suite/standing.py. Intervals have random numbers of their own.
const suite = (() => {
  const { tasks, entrants, targets, values, links, texts, constants } = content;
  const { budget, unsolved, draws: DRAWS, ends: [LOW, HIGH] } = constants;
  const grids = [...texts.grid].sort();

  // the points of each task, grid setting and entrant, in the order of their steps
  const curves = new Map();
  const keyOf = (task, grid, entrant) => (task * grids.length + grids.indexOf(grid)) * entrants.length + entrant;
  let place = 0;
  links.value.forEach((step, link) => {
    place += step;
    const key = keyOf(values.task[place], texts.grid[links.grid[link]], values.entrant[place]);
    if (!curves.has(key)) curves.set(key, []);
    const at = place, own = curves.get(key), status = texts.status[values.status[at]];
    // a problem that a sampler of another package cannot run does not count for it
    const counts = status !== "incompatible" || !constants.peers.includes(entrants[values.entrant[at]].package);
    // a run that failed before its first evaluation counts as one of the run with fewer steps
    own.push({ at, link, nfe: values.nfe[at] || (own.at(-1)?.nfe ?? 0), steps: values.steps[at], value: values.value[at],
      status, counts });
  });
  const curve = (task, grid, entrant) => curves.get(keyOf(task, grid, entrant)) ?? [];
  // ends are thousandths of the value, away from it
  const end = (distance, value, way) => distance === null || value === null ? null : value + way * distance / 1000 * (Math.abs(value) || 1);
  const details = ({ at, link }) => ({ task: tasks[values.task[at]], entrant: entrants[values.entrant[at]],
    nfe: values.nfe[at], steps: values.steps[at], chosen: texts.chosen[values.chosen[at]],
    version: texts.version[values.version[at]], value: values.value[at],
    lower: end(values.lower[at], values.value[at], -1), upper: end(values.upper[at], values.value[at], 1), status: texts.status[values.status[at]], message: texts.message[values.message[at]],
    id: values.id[at], grid: texts.grid[links.grid[link]], command: texts.command[links.command[link]],
    made: texts.made[links.made[link]] });

  const ran = (points) => points.filter(({ counts }) => counts);
  const failed = ({ status, value }) => status !== "ok" || value === null;
  // undefined for an entrant for which the task does not count
  function runtime(points, target) {
    const own = ran(points);
    if (!own.length) return undefined;
    const misses = (point) => failed(point) || point.value > target;
    const last = Math.max(0, ...own.filter(misses).map(({ nfe }) => nfe));
    return Math.min(Infinity, ...own.filter((point) => point.nfe > last && point.nfe <= budget).map(({ nfe }) => nfe));
  }

  function cannotRun(task, grid, entrant) {
    const points = curve(task, grid, entrant);
    return points.length && points.every(({ status }) => status === "incompatible") ? details(points[0]).message : null;
  }

  // A selection: law, path, denoiser, quantity, noise, order and targets, each empty for all, and grid.
  const orderOf = ({ order }) => order === null ? "not stated" : String(order);
  const chosenTasks = (selection) => tasks.map((_, number) => number).filter((number) =>
    ["law", "path", "denoiser", "quantity"].every((name) => !selection[name] || tasks[number][name] === selection[name]));
  const chosenEntrants = ({ noise, order }) => entrants.map((_, number) => number).filter((number) =>
    (!noise || entrants[number].noise === (noise === "with")) && (!order || orderOf(entrants[number]) === order));
  const chosenTargets = (quantity, { targets: chosen }) =>
    targets[quantity].filter((target) => !chosen?.length || chosen.includes(`${quantity}:${target}`));
  const problems = (selection) => chosenTasks(selection).flatMap((task) =>
    chosenTargets(tasks[task].quantity, selection).map((target) => ({ task, target })));

  const known = new Map();
  function runtimesOf(task, grid, entrant) {
    const key = keyOf(task, grid, entrant);
    if (!known.has(key)) {
      const points = curve(task, grid, entrant);
      known.set(key, new Map(targets[tasks[task].quantity].map((target) => [target, runtime(points, target)])));
    }
    return known.get(key);
  }
  const runtimes = (selection, entrant, list = problems(selection)) =>
    list.map(({ task, target }) => runtimesOf(task, selection.grid, entrant).get(target));

  // pseudo-random numbers: Marsaglia's xorshift of 32 bits
  const counts = new Map();
  function draws(number) {
    if (!counts.has(number)) {
      let state = 2463534242;
      const drawn = new Uint16Array(DRAWS * number);
      for (let row = 0; row < DRAWS; row++) {
        for (let k = 0; k < number; k++) {
          state ^= state << 13; state ^= state >>> 17; state ^= state << 5;
          drawn[row * number + Math.floor((state >>> 0) / 2 ** 32 * number)]++;
        }
      }
      counts.set(number, drawn);
    }
    return counts.get(number);
  }
  const average = (x) => x.reduce((sum, value) => sum + value, 0) / x.length;
  // the 95 % interval of the studentised bootstrap; of few values it contains Student's
  function interval(x) {
    const number = x.length, mean = average(x);
    if (number < 2) return [-Infinity, Infinity];
    const d = x.map((value) => value - mean), drawn = draws(number);
    const spread = Math.max(...d.map(Math.abs)), least = 1e-12 * spread + 1e-300;
    const error = Math.sqrt(d.reduce((sum, value) => sum + value ** 2, 0) / (number * (number - 1)));
    if (error <= 1e-12 * (Math.abs(mean) + 1e-300)) return [mean, mean];
    const t = new Float64Array(DRAWS);
    for (let row = 0; row < DRAWS; row++) {
      let sum = 0, squares = 0;
      for (let k = 0, at = row * number; k < number; k++, at++) {
        sum += drawn[at] * d[k];
        squares += drawn[at] * d[k] * d[k];
      }
      const m = sum / number, e = Math.sqrt(Math.max(squares / number - m * m, 0) / (number - 1));
      t[row] = Math.abs(m) <= least ? 0 : e <= least ? Math.sign(m) * Infinity : m / e;
    }
    t.sort();
    const half = (constants.student[number] ?? 0) * error;
    return [mean - Math.max(t[HIGH] * error, half), mean + Math.max(-t[LOW] * error, half)];
  }
  // the mean over tasks of the means over their problems; undefined values are left out
  function meanOf(x, list) {
    const ofTasks = new Map();
    x.forEach((value, k) => {
      if (value === undefined) return;
      const own = ofTasks.get(list[k].task) ?? [0, 0];
      ofTasks.set(list[k].task, [own[0] + value, own[1] + 1]);
    });
    const means = [...ofTasks.values()].map(([sum, number]) => sum / number);
    if (!means.length) return { mean: NaN, tasks: 0, ends: () => [NaN, NaN] };
    return { mean: average(means), tasks: means.length, ends: () => interval(means) };
  }
  const logOf = (time) => time === undefined ? undefined : Math.log2(Math.min(time, unsolved));
  function ratioOf(first, second, list) {
    const differences = first.map((time, k) => time === undefined || second[k] === undefined ||
      Math.min(time, second[k]) === Infinity ? undefined : logOf(time) - logOf(second[k]));
    const { mean, tasks: number, ends } = meanOf(differences, list);
    const [lower, upper] = ends().map((end) => 2 ** end);
    return { value: 2 ** mean, lower, upper, tasks: number,
      problems: differences.filter((value) => value !== undefined).length };
  }
  function ratio(selection, a, b) {
    const list = problems(selection);
    return ratioOf(runtimes(selection, a, list), runtimes(selection, b, list), list);
  }

  // One line for each entrant with a problem that it can run, the best first. Those with few of the
  // problems have no rank and come last.
  function standing(selection) {
    const list = problems(selection);
    const lines = chosenEntrants(selection).map((entrant) => ({ entrant, times: runtimes(selection, entrant, list) }))
      .filter(({ times }) => times.some((time) => time !== undefined));
    const field = list.map((_, k) => {
      const logs = lines.map(({ times }) => logOf(times[k])).filter((value) => value !== undefined);
      return logs.length ? average(logs) : undefined;
    });
    for (const line of lines) {
      const logs = line.times.map(logOf), able = line.times.filter((time) => time !== undefined);
      const { mean, ends } = meanOf(logs, list);
      line.problems = able.length;
      line.share = (nfe) => able.filter((time) => time <= nfe).length / able.length;
      line.mean = mean;
      [line.lower, line.upper] = ends();
      line.toField = 2 ** meanOf(logs.map((value, k) => value === undefined ? undefined : value - field[k]), list).mean;
      line.failed = new Map();
      line.notRun = new Map();
      for (const task of new Set(list.map((problem) => problem.task))) {
        const points = curve(task, selection.grid, line.entrant);
        for (const point of ran(points).filter(failed)) line.failed.set(point.status, (line.failed.get(point.status) ?? 0) + 1);
        const reason = cannotRun(task, selection.grid, line.entrant);
        if (reason !== null) line.notRun.set(task, reason);
      }
    }
    const possible = field.filter((value) => value !== undefined).length;
    const few = (line) => line.problems < constants.ranked * possible;
    lines.sort((a, b) => few(a) - few(b) || a.toField - b.toField);
    lines.forEach((line, k) => {
      line.rank = few(line) ? null : k + 1;
      const { lower, upper } = k && line.rank ? ratioOf(line.times, lines[k - 1].times, list) : {};
      line.tied = k > 0 && line.rank !== null && !(lower > 1 || upper < 1);
    });
    return { list, lines, possible, ranks: lines.filter(({ rank }) => rank !== null).length };
  }
  return { tasks, entrants, targets, grids, constants, curve, details, ran, failed, runtime, runtimes, orderOf,
    cannotRun, problems, chosenTasks, chosenEntrants, chosenTargets, interval, ratio, standing };
})();
globalThis.suite = suite;  // for a reader's own questions, and for tests
