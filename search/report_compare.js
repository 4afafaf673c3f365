// The best score so far of several runs, over epochs or over time.

const colours = ["--completed", "--stopped", "--failed", "--budget", "--paused", "--ink", "--soft", "--accent"];
const dashes = ["", "7 4", "2 3"];

charts["so-far"] = (box) => {
  const byTime = box.dataset.by === "time";
  const runs = data.runs.map((run, index) => ({ ...run, index, points: run.points.map(([s, epochs, best]) => [byTime ? s : epochs, best]) })).filter((run) => run.points.length);
  const last = Math.max(1, ...runs.map((run) => run.points[run.points.length - 1][0]));
  const [unit, name] = !byTime ? [1, "epochs of all trials"] : last > 7200 ? [3600, "hours"] : last > 180 ? [60, "minutes"] : [1, "seconds"];
  const { limits, cutAt } = scoreLimits(runs.flatMap((run) => run.points.map(([, best]) => best)), data.better, 4);
  const look = (run) => `--c:var(${colours[run.index % colours.length]})`;
  const row = html("div", undefined, "legend");
  for (const run of runs) {
    const item = html("span", run.name);
    item.style.cssText = look(run);
    row.append(item);
  }
  box.append(row);
  const chart = frame(box, {
    x: (range) => linear([0, last / unit], range, { count: 6 }), y: (range) => linear(limits, range),
    xLabel: name, yLabel: data.metric, height: 340,
  });
  const marks = [];
  for (const run of runs) {
    let path = "";
    for (const [at, best] of run.points) {
      const [x, y] = [chart.x.at(at / unit), chart.y.at(best)];
      path += path ? `H${x}V${y}` : `M${x},${y}`;
      marks.push({ x, y, lines: () => [run.name, `${data.metric} ${score(best)}`, `${short(at / unit)} ${name}`] });
    }
    // A run that consists of one trial, or has ended, shows where it ended.
    const [x, y] = [chart.x.at(run.points[run.points.length - 1][0] / unit), chart.y.at(run.points[run.points.length - 1][1])];
    chart.root.append(svg("path", { class: "curve best", d: path, style: look(run), "stroke-dasharray": dashes[Math.floor(run.index / colours.length) % dashes.length] }));
    chart.root.append(svg("circle", { class: "dot", cx: x, cy: y, r: 4, style: look(run) }));
  }
  tells(chart.root, marks);
  remark(box, cutNote(cutAt, data.better));
};

drawAll();
