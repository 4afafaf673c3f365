// Charts of parameters against scores: parallel coordinates and slices.

/** A scale for a searched parameter; the values that trials have decide what is shown of a list of names. */
function paramScale(param, range, options) {
  if (param.values) return places(param.values, range);
  return param.log ? logarithmic([param.low, param.high], range, options) : linear([param.low, param.high], range, options);
}

const ABSENT = 22; // pixels below an axis, for trials that do not have the parameter

charts.parallel = (box) => {
  const trials = scored();
  const varied = data.params.filter((param) => new Set(trials.map((trial) => String(trial.p[param.name]))).size > 1);
  const { limits, cutAt } = scoreLimits(trials.map((trial) => trial.y), data.better);
  const [top, bottom, height] = [48, 330, 370];
  const width = Math.max(box.clientWidth, 102 * (varied.length + 1) + 40);
  const root = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": box.dataset.label });
  const axes = [
    ...varied.map((param) => ({ name: param.name, scale: paramScale(param, [bottom, top], { count: 5 }), value: (trial) => trial.p[param.name] })),
    { name: data.metric, scale: linear(limits, [bottom, top]), value: (trial) => trial.y },
  ];
  axes.forEach((axis, index) => {
    axis.x = 56 + index * ((width - 112) / Math.max(1, axes.length - 1));
    axis.at = (trial) => (axis.value(trial) === undefined ? bottom + ABSENT : axis.scale.at(axis.value(trial)));
  });
  // Worst first, so that the best are drawn over them. The colour is the place, not the score: scores lie close together.
  const order = [...trials].sort((one, other) => (isBetter(one.y, other.y) ? 1 : isBetter(other.y, one.y) ? -1 : 0));
  const strokes = order.map((trial, place) => {
    const share = order.length > 1 ? (place / (order.length - 1)) ** 2 : 1;
    const d = "M" + axes.map((axis) => `${axis.x.toFixed(1)},${axis.at(trial).toFixed(1)}`).join("L");
    const path = svg("path", { class: `path${isBest(trial) ? " best" : ""}`, d,
      style: `stroke:color-mix(in srgb, var(--high) ${(100 * share).toFixed(0)}%, var(--low))` });
    root.append(path);
    return { trial, path };
  });
  const kept = new Map(); // axis -> [lower, upper] in pixels
  const apply = () => {
    for (const { trial, path } of strokes) {
      path.classList.toggle("out", [...kept].some(([axis, [from, to]]) => axis.at(trial) < from || axis.at(trial) > to));
    }
  };
  for (const [index, axis] of axes.entries()) drawAxis(root, axis, { top, bottom, raised: index % 2 === 1, kept, apply });
  box.append(root);
  tells(root, strokes.flatMap(({ trial, path }) => axes.map((axis, index) => ({
    x: axis.x, y: axis.at(trial), lines: () => about(trial), stop: index === axes.length - 1,
    light: (on) => path.classList.toggle("lit", on),
  }))));
  remark(box, cutNote(cutAt, data.better));
};

function drawAxis(root, axis, { top, bottom, raised, kept, apply }) {
  root.append(svg("line", { class: "axis", x1: axis.x, x2: axis.x, y1: top, y2: bottom }));
  const name = svg("text", { class: "name", x: axis.x, y: raised ? 14 : 32, "text-anchor": "middle" }, cut(axis.name, 24));
  name.append(svg("title", {}, axis.name));
  root.append(name);
  for (const { value, text } of axis.scale.ticks) {
    root.append(svg("text", { x: axis.x + 6, y: axis.scale.at(value) + 4 }, cut(text, 15)));
  }
  if (axis.name !== data.metric && scored().some((trial) => axis.value(trial) === undefined)) {
    root.append(svg("text", { x: axis.x + 6, y: bottom + ABSENT + 4 }, "absent"));
  }
  const brush = svg("rect", { class: "brush", x: axis.x - 8, width: 16, height: 0 });
  const touch = svg("rect", { class: "axis-area", x: axis.x - 10, y: top - 6, width: 20, height: bottom - top + ABSENT + 14 });
  root.append(brush, touch);
  let start = null;
  const place = (event) => event.clientY - root.getBoundingClientRect().top;
  touch.addEventListener("pointerdown", (event) => {
    start = place(event);
    touch.setPointerCapture(event.pointerId);
  });
  touch.addEventListener("pointermove", (event) => {
    if (start === null) return;
    const [from, to] = [Math.min(start, place(event)), Math.max(start, place(event))];
    if (to - from < 4) return;
    brush.setAttribute("y", from);
    brush.setAttribute("height", to - from);
    kept.set(axis, [from, to]);
    apply();
  });
  touch.addEventListener("pointerup", (event) => {
    if (start !== null && Math.abs(place(event) - start) < 4) {
      brush.setAttribute("height", 0);
      kept.delete(axis);
      apply();
    }
    start = null;
  });
}

charts.slices = (box) => {
  const trials = scored();
  const { limits, cutAt } = scoreLimits(trials.map((trial) => trial.y), data.better);
  legend(box, trials);
  const grid = html("div", undefined, "slices");
  box.append(grid);
  for (const param of data.params) {
    const there = trials.filter((trial) => trial.p[param.name] !== undefined);
    if (new Set(there.map((trial) => String(trial.p[param.name]))).size < 2) continue;
    const cell = html("div");
    grid.append(cell);
    const chart = frame(cell, {
      x: (range) => paramScale(param, [range[0] + 4, range[1] - 4], { count: 4 }), y: (range) => linear(limits, range, { count: 4 }),
      xLabel: param.name, height: 210, label: `${data.metric} against ${param.name} of ${there.length} trials`,
    });
    const band = param.values ? Math.min(60, ((chart.area.right - chart.area.left) / param.values.length) * 0.6) : 0;
    tells(chart.root, there.map((trial) => {
      // Trials of one name are spread by their number, so that they do not hide each other.
      const spread = band * (((trial.n * 0.618034) % 1) - 0.5);
      return dot(chart, trial, chart.x.at(trial.p[param.name]) + spread, chart.y.at(trial.y), 3);
    }));
  }
  remark(box, cutNote(cutAt, data.better));
};
