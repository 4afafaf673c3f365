"use strict";
// What every chart needs: elements, scales, axes, the tip beside the pointer or under the keys, sortable tables.

const data = JSON.parse(document.getElementById("data").textContent);
const tip = document.getElementById("tip");
const charts = {}; // name of data-chart -> function (box) that draws into it

/** An SVG element. */
function svg(name, attributes = {}, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

/** An HTML element; its text is never taken for markup. */
function html(name, text, className) {
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
}

/** A number for a person, short. */
function short(value) {
  if (typeof value !== "number") return String(value);
  if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e6)) return value.toExponential(1).replace("e+", "e").replace(".0e", "e");
  return String(+value.toPrecision(4));
}

const score = (value) => (value !== 0 && Math.abs(value) < 1e-4 ? value.toExponential(2) : value.toFixed(4));

function niceTicks(low, high, count) {
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= raw * 0.999);
  const ticks = [];
  for (let tick = Math.ceil(low / step - 1e-9); tick * step <= high + step * 1e-9; tick++) ticks.push(+(tick * step).toPrecision(12));
  return ticks;
}

/** Numbers to pixels; what lies outside is drawn at the edge. */
function linear([low, high], [from, to], { count = 5, whole = false } = {}) {
  if (low === high) [low, high] = [low - (Math.abs(low) * 0.05 || 0.5), high + (Math.abs(high) * 0.05 || 0.5)];
  const at = (value) => from + ((Math.min(high, Math.max(low, value)) - low) / (high - low)) * (to - from);
  const ticks = niceTicks(low, high, count).filter((tick) => !whole || Number.isInteger(tick));
  return { at, low, high, ticks: ticks.map((value) => ({ value, text: short(value) })) };
}

/** The same by the logarithm. */
function logarithmic([low, high], [from, to], { count = 5 } = {}) {
  const inner = linear([Math.log10(low), Math.log10(high)], [from, to]);
  let ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high) + 1e-9; power++) {
    for (const digit of [1, 2, 5]) {
      const value = +(digit * 10 ** power).toPrecision(6);
      if (value >= low * 0.999 && value <= high * 1.001) ticks.push({ value, digit });
    }
  }
  if (ticks.length > count) {
    const tens = ticks.filter((tick) => tick.digit === 1);
    if (tens.length > 1) ticks = tens;
  }
  return { at: (value) => inner.at(Math.log10(value)), low, high, ticks: ticks.map(({ value }) => ({ value, text: short(value) })) };
}

/** Names to pixels, evenly. */
function places(values, [from, to]) {
  const at = (value) => from + ((values.indexOf(String(value)) + 0.5) / values.length) * (to - from);
  return { at, ticks: values.map((value) => ({ value, text: value })) };
}

const cut = (text, most) => (text.length > most ? text.slice(0, most - 1) + "…" : text);

/**
 * An empty chart with its axes.
 * x and y are functions of a range of pixels that give a scale.
 */
function frame(box, { x, y, xLabel = "", yLabel = "", height = 300, width, left = 52, label, upright = [] }) {
  const full = Math.max(width || box.clientWidth, 220);
  const area = { left, right: full - 12, top: yLabel ? 22 : 10, bottom: height - (xLabel ? 40 : 24) };
  const root = svg("svg", { width: full, height, viewBox: `0 0 ${full} ${height}`, role: "img", "aria-label": label || box.dataset.label || "" });
  const scaleX = x([area.left, area.right]);
  const scaleY = y([area.bottom, area.top]);
  for (const { value, text } of scaleY.ticks) {
    const at = scaleY.at(value);
    root.append(svg("line", { class: "grid", x1: area.left, x2: area.right, y1: at, y2: at }));
    root.append(svg("text", { x: area.left - 7, y: at + 4, "text-anchor": "end" }, text));
  }
  for (const at of upright) root.append(svg("line", { class: "rung", x1: scaleX.at(at), x2: scaleX.at(at), y1: area.top, y2: area.bottom }));
  root.append(svg("line", { class: "axis", x1: area.left, x2: area.right, y1: area.bottom, y2: area.bottom }));
  // Names that would run into each other are cut; numbers are left out.
  const room = (area.right - area.left) / Math.max(1, scaleX.ticks.length);
  let last = -Infinity;
  for (const { value, text } of scaleX.ticks) {
    const at = scaleX.at(value);
    const named = typeof value === "string";
    const shown = named ? cut(text, Math.max(3, Math.floor(room / 6.6))) : text;
    if (!named && at - last < shown.length * 7 + 8) continue;
    last = at;
    const tick = svg("text", { x: at, y: area.bottom + 16, "text-anchor": "middle" }, shown);
    if (shown !== text) tick.append(svg("title", {}, text));
    root.append(tick);
  }
  if (xLabel) root.append(svg("text", { x: (area.left + area.right) / 2, y: height - 6, "text-anchor": "middle" }, xLabel));
  if (yLabel) root.append(svg("text", { x: 2, y: 12, class: "name" }, yLabel));
  box.append(root);
  return { root, area, x: scaleX, y: scaleY };
}

/** The limits of a score axis: a few trials that are far off must not press the others together. */
function scoreLimits(values, better, patience = 2.5) {
  const sorted = values.filter((value) => value !== null && Number.isFinite(value)).sort((a, b) => a - b);
  if (!sorted.length) return { limits: [0, 1], cutAt: null };
  let [low, high] = [sorted[0], sorted[sorted.length - 1]];
  const middle = sorted[Math.floor(sorted.length / 2)];
  let cutAt = null;
  const reach = patience * (better === "max" ? high - middle : middle - low);
  const many = sorted.length >= 12;
  if (many && better === "max" && reach > 0 && middle - reach > low + reach / 4) cutAt = low = middle - reach;
  if (many && better === "min" && reach > 0 && middle + reach < high - reach / 4) cutAt = high = middle + reach;
  const pad = (high - low) * 0.04;
  return { limits: [cutAt !== null && better === "max" ? low : low - pad, cutAt !== null && better === "min" ? high : high + pad], cutAt };
}

function cutNote(cutAt, better) {
  if (cutAt === null) return "";
  return `Scores ${better === "max" ? "below" : "above"} ${short(+cutAt.toPrecision(3))} are drawn at the edge.`;
}

/** Adds a sentence to a chart's caption, once. */
function remark(box, text) {
  if (!text || box.dataset.remarked) return;
  box.dataset.remarked = "yes";
  let caption = box.parentElement.querySelector("figcaption");
  if (!caption) box.parentElement.append((caption = html("figcaption")));
  caption.append((caption.textContent ? " " : "") + text);
}

function showTip(lines, clientX, clientY) {
  tip.replaceChildren(...lines.map((line, index) => html(index ? "span" : "strong", line)));
  tip.hidden = false;
  const room = document.documentElement.clientWidth;
  const leftward = clientX + tip.offsetWidth + 24 > room;
  tip.style.left = `${Math.max(6, leftward ? clientX - tip.offsetWidth - 14 : clientX + 14) + window.scrollX}px`;
  const up = clientY + tip.offsetHeight + 24 > window.innerHeight;
  tip.style.top = `${(up ? clientY - tip.offsetHeight - 12 : clientY + 14) + window.scrollY}px`;
}

/**
 * Marks that tell about themselves: the nearest to the pointer, or one after the other with the arrow keys.
 * A mark is {x, y, lines, light}: pixels, a function that gives the text, a function of true or false.
 */
function tells(root, marks) {
  if (!marks.length) return;
  root.setAttribute("tabindex", "0");
  let lit = null;
  const choose = (mark, clientX, clientY) => {
    if (lit !== mark) {
      if (lit && lit.light) lit.light(false);
      if (mark && mark.light) mark.light(true);
      lit = mark;
    }
    if (mark) showTip(mark.lines(), clientX, clientY);
    else tip.hidden = true;
  };
  root.addEventListener("pointermove", (event) => {
    const box = root.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    let [near, least] = [null, 900];
    for (const mark of marks) {
      const distance = (mark.x - x) ** 2 + (mark.y - y) ** 2;
      if (distance < least) [near, least] = [mark, distance];
    }
    choose(near, event.clientX, event.clientY);
  });
  const leave = () => choose(null);
  root.addEventListener("pointerleave", leave);
  root.addEventListener("blur", leave);
  const stops = marks.filter((mark) => mark.stop !== false);
  root.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") return leave();
    if (!step || !stops.length) return;
    event.preventDefault();
    const place = (stops.indexOf(lit) + step + stops.length) % stops.length;
    const box = root.getBoundingClientRect();
    const mark = stops[lit === null && step < 0 ? stops.length - 1 : place];
    choose(mark, box.left + mark.x, box.top + mark.y);
  });
}

/** Switches a class on and off. */
const lightUp = (element) => (on) => {
  element.classList.toggle("lit", on);
  if (on && element.parentNode && element.tagName === "path") element.parentNode.append(element);
};

function sortable(table) {
  const body = table.tBodies[0];
  const key = (row, index) => {
    const cell = row.cells[index];
    if (!cell) return null;
    const held = cell.querySelector("data");
    const text = held ? held.value : cell.dataset.order !== undefined ? cell.dataset.order : cell.textContent.trim();
    if (text === "") return null;
    return Number.isNaN(Number(text)) ? text.toLowerCase() : Number(text);
  };
  table.tHead.addEventListener("click", (event) => {
    const head = event.target.closest("th");
    if (!head || !event.target.closest("button")) return;
    const descending = head.getAttribute("aria-sort") === "ascending";
    for (const each of table.tHead.rows[0].cells) each.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const rows = [...body.rows].map((row) => [key(row, head.cellIndex), row]);
    rows.sort(([one], [other]) => {
      if (one === null || other === null) return (one === null) - (other === null); // empty cells stay last
      const order = typeof one === typeof other ? (one < other ? -1 : one > other ? 1 : 0) : typeof one === "number" ? -1 : 1;
      return descending ? -order : order;
    });
    body.append(...rows.map(([, row]) => row));
  });
}

/** Draws every chart of the page, and again when its width has changed. */
function drawAll() {
  const widths = new WeakMap();
  const draw = (box) => {
    if (widths.get(box) === box.clientWidth || !charts[box.dataset.chart]) return;
    widths.set(box, box.clientWidth);
    tip.hidden = true;
    box.replaceChildren();
    charts[box.dataset.chart](box);
  };
  const observer = new ResizeObserver((entries) => requestAnimationFrame(() => entries.forEach((entry) => draw(entry.target))));
  for (const box of document.querySelectorAll("[data-chart]")) {
    draw(box);
    observer.observe(box);
  }
  document.querySelectorAll("table.sortable").forEach(sortable);
}
