// The charts of one run over time: history, learning curves, timeline, Pareto front.

const fates = [
  ["completed", "completed"], ["stopped", "stopped early"], ["paused", "paused"], ["out of budget", "out of budget"],
  ["failed", "failed"], ["running", "unfinished"], ["waiting", "waiting"],
];
const fateName = Object.fromEntries(fates);
const fateClass = (trial) => `s-${trial.s.replaceAll(" ", "-")}`;
const isBetter = (one, other) => (data.better === "max" ? one > other : one < other);
const isBest = (trial) => trial.n === data.best;
const scored = () => data.trials.filter((trial) => trial.y !== null && trial.s !== "failed");

/** What a tip says of a trial. */
function about(trial) {
  const lines = [`trial ${trial.n}: ${fateName[trial.s]}${isBest(trial) ? ", the best" : ""}`];
  if (trial.y !== null) lines.push(`${data.metric} ${score(trial.y)} at epoch ${trial.b} of ${trial.e}`);
  if (trial.f) lines.push(cut(trial.f, 120));
  for (const [name, value] of Object.entries(trial.p)) lines.push(`${name}: ${cut(short(value), 60)}`);
  return lines;
}

function legend(box, trials) {
  const there = new Set(trials.map((trial) => trial.s));
  const row = html("div", undefined, "legend");
  for (const [status, name] of fates) if (there.has(status)) row.append(html("span", name, `s-${status.replaceAll(" ", "-")}`));
  box.append(row);
}

function dot(chart, trial, x, y, radius = 3.5) {
  const circle = svg("circle", { class: `dot ${fateClass(trial)}${isBest(trial) ? " best" : ""}`, cx: x, cy: y, r: isBest(trial) ? radius + 2 : radius });
  chart.root.append(circle);
  return { x, y, lines: () => about(trial), light: lightUp(circle) };
}

charts.history = (box) => {
  const byEpochs = box.dataset.by === "epochs";
  const order = [...data.trials];
  const end = (trial) => (trial.t ? trial.t[1] : Infinity);
  if (byEpochs) order.sort((one, other) => (end(one) === end(other) ? one.n - other.n : end(one) < end(other) ? -1 : 1));
  let epochs = 0;
  const points = order.map((trial) => ({ trial, at: byEpochs ? (epochs += trial.o) : trial.n }));
  const shown = points.filter(({ trial }) => trial.y !== null && trial.s !== "failed");
  const { limits, cutAt } = scoreLimits(shown.map(({ trial }) => trial.y), data.better);
  const last = points.length ? points[points.length - 1].at : 1;
  legend(box, shown.map(({ trial }) => trial));
  const chart = frame(box, {
    x: (range) => linear([0, Math.max(1, last)], range, { count: 6, whole: true }),
    y: (range) => linear(limits, range),
    xLabel: byEpochs ? "epochs of all trials" : "trial", yLabel: data.metric, height: 320,
  });
  let best = null;
  let path = "";
  for (const { trial, at } of shown) {
    if (best !== null && !isBetter(trial.y, best)) continue;
    path += path ? `H${chart.x.at(at)}V${chart.y.at(trial.y)}` : `M${chart.x.at(at)},${chart.y.at(trial.y)}`;
    best = trial.y;
  }
  if (path) chart.root.append(svg("path", { class: "so-far", d: `${path}H${chart.x.at(last)}` }));
  tells(chart.root, shown.map(({ trial, at }) => dot(chart, trial, chart.x.at(at), chart.y.at(trial.y))));
  remark(box, cutNote(cutAt, data.better));
};

charts.curves = (box) => {
  const trials = data.trials.filter((trial) => trial.c.some((value) => value !== null));
  const { limits, cutAt } = scoreLimits(trials.flatMap((trial) => trial.c), data.better, 6);
  const longest = Math.max(...trials.map((trial) => trial.e));
  legend(box, trials);
  const chart = frame(box, {
    x: (range) => linear([1, Math.max(2, longest)], range, { count: 8, whole: true }),
    y: (range) => linear(limits, range, { count: 6 }),
    xLabel: "epoch", yLabel: data.metric, height: 420, upright: data.rungs.filter((epoch) => epoch <= longest),
  });
  const marks = [];
  for (const trial of [...trials].sort((one, other) => isBest(one) - isBest(other))) {
    const points = trial.c.map((value, index) => [trial.x ? trial.x[index] : index + 1, value]).filter(([, value]) => value !== null);
    const line = points.map(([epoch, value]) => `${chart.x.at(epoch).toFixed(1)},${chart.y.at(value).toFixed(1)}`);
    // A trial of one epoch has no line; it is a short stroke.
    const d = line.length > 1 ? `M${line.join("L")}` : `M${line[0]}h4`;
    const path = svg("path", { class: `curve ${fateClass(trial)}${isBest(trial) ? " best" : ""}`, d });
    chart.root.append(path);
    const light = lightUp(path);
    points.forEach(([epoch, value], index) => marks.push({
      x: chart.x.at(epoch), y: chart.y.at(value), light, stop: index === points.length - 1,
      lines: () => [`epoch ${epoch}: ${score(value)}`, ...about(trial)],
    }));
  }
  tells(chart.root, marks);
  remark(box, cutNote(cutAt, data.better));
};

/** Trials side by side where they overlap, each in the first row that is free. */
charts.timeline = (box) => {
  const trials = data.trials.filter((trial) => trial.t).sort((one, other) => one.t[0] - other.t[0]);
  const free = [];
  const rows = trials.map((trial) => {
    let row = free.findIndex((end) => end <= trial.t[0] + 0.05);
    if (row < 0) row = free.length;
    free[row] = trial.t[1];
    return row;
  });
  const last = Math.max(...trials.map((trial) => trial.t[1]), 1);
  const [unit, name] = last > 7200 ? [3600, "hours"] : last > 180 ? [60, "minutes"] : [1, "seconds"];
  const tall = Math.max(3, Math.min(16, Math.floor(260 / free.length)));
  const height = free.length * tall + 56;
  const chart = frame(box, {
    x: (range) => linear([0, last / unit], range, { count: 8 }), y: () => ({ at: (row) => 10 + row * tall, ticks: [] }),
    xLabel: `${name} since the first trial began`, height, left: 12,
  });
  tells(chart.root, trials.map((trial, index) => {
    const [from, to] = trial.t.map((time) => chart.x.at(time / unit));
    const bar = svg("rect", { class: `dot ${fateClass(trial)}${isBest(trial) ? " best" : ""}`, x: from, y: chart.y.at(rows[index]) + 1,
      width: Math.max(1, to - from - 0.5), height: Math.max(2, tall - 2) });
    chart.root.append(bar);
    return { x: (from + to) / 2, y: chart.y.at(rows[index]) + tall / 2, lines: () => about(trial), light: lightUp(bar) };
  }));
};

charts.pareto = (box) => {
  const { metric, lines, points } = data.pareto;
  const objective = box.dataset.objective;
  const cost = (point) => point.costs[objective];
  const limits = (of) => {
    const values = points.map(of);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const margin = (high - low) * 0.04 || Math.abs(high) * 0.04 || 1;
    return [low - margin, high + margin];
  };
  const costs = points.map(cost);
  const [least, most] = [Math.min(...costs), Math.max(...costs)];
  // Costs that span more than a power of ten would otherwise crowd at the edge.
  const wide = least > 0 && most > 10 * least;
  const chart = frame(box, {
    x: (range) => (wide ? logarithmic([least / 1.2, most * 1.2], range, { count: 7 }) : linear(limits(cost), range, { count: 7 })),
    y: (range) => linear(limits((point) => point.score), range),
    xLabel: wide ? `${objective}, logarithmic` : objective, yLabel: metric, height: 380, label: box.dataset.label,
  });
  const front = points.filter((point) => point.front).sort((one, other) => cost(one) - cost(other));
  // Steps: between two trials nothing better than the cheaper of them was found.
  const line = front.map((point, index) => `${index ? "H" : "M"}${chart.x.at(cost(point))}${index ? "V" : " "}${chart.y.at(point.score)}`).join("");
  if (lines && line) chart.root.append(svg("path", { class: "so-far", d: line }));
  const byNumber = new Map(data.trials.map((trial) => [trial.n, trial]));
  tells(chart.root, points.map((point) => {
    const trial = byNumber.get(point.n) || { n: point.n, s: "completed", y: null, p: {} };
    const mark = dot(chart, trial, chart.x.at(cost(point)), chart.y.at(point.score), point.front ? 5 : 3);
    mark.lines = () => [...Object.entries(point.costs).map(([name, value]) => `${name} ${short(value)}`), ...about(trial)];
    return mark;
  }));
};

drawAll();
