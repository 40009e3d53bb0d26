"use strict";
// Elements, files and curves of a page; uPlot draws the curves. Whatever comes from a study is set
// as text, never as markup.

function element(tag, text, name) {
  const made = document.createElement(tag);
  if (text !== undefined && text !== null) made.textContent = String(text);
  if (name) made.className = name;
  return made;
}

function button(text, action, name) {
  const made = element("button", text, name);
  made.type = "button";
  made.addEventListener("click", action);
  return made;
}

function number(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value) || Math.abs(value) >= 1000) return value.toLocaleString("en");
  return Math.abs(value) < 1e-3 ? value.toExponential(3) : value.toPrecision(4);
}

function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min ${String(whole % 60).padStart(2, "0")} s`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

// Order of two values in a table; missing ones come last in either direction.
function inOrder(a, b, down) {
  const missing = (value) => value === null || value === undefined || value === "";
  if (missing(a) || missing(b)) return missing(a) - missing(b);
  const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  return down ? -order : order;
}

const colourOf = (variable) => getComputedStyle(document.documentElement).getPropertyValue(variable).trim();

// ---- Files: CSV of rows, PNG of a canvas or of SVG.

function csvCell(value) {
  let text = value === null || value === undefined ? "" : String(value);
  // A spreadsheet would run text that starts like a formula.
  if (/^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text))) text = `'${text}`;
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

const csv = (rows) => rows.map((row) => row.map(csvCell).join(",") + "\r\n").join("");

function download(name, content, type) {
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.download = name.replace(/[^\p{L}\p{N}.-]+/gu, "_");
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

const csvButton = (name, rows) => button("CSV", () => download(`${name}.csv`, csv(rows()), "text/csv"), "tool");

function savePicture(name, width, height, draw) {
  const canvas = element("canvas"), scale = 2;
  [canvas.width, canvas.height] = [width * scale, height * scale];
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  context.fillStyle = colourOf("--ground");
  context.fillRect(0, 0, width, height);
  draw(context);
  canvas.toBlob((blob) => download(`${name}.png`, blob, "image/png"));
}

function svgButton(name, svg) {
  return button("PNG", () => {
    const { width, height } = svg.viewBox.baseVal, copy = svg.cloneNode(true), image = new Image();
    copy.setAttribute("style", `color: ${colourOf("--ink")}; font-family: sans-serif`);
    copy.setAttribute("width", width);
    copy.setAttribute("height", height);
    image.addEventListener("load", () => savePicture(name, width, height, (context) => context.drawImage(image, 0, 0, width, height)));
    image.src = `data:image/svg+xml,${encodeURIComponent(new XMLSerializer().serializeToString(copy))}`;
  }, "tool");
}

// ---- Curves. A line has a label, a colour and points [x, y, low, high], by rising x.

// Exponential moving average, without the pull of its start.
function smoothed(points, weight) {
  if (!weight) return points;
  const sums = [0, 0, 0];
  return points.map(([x, ...values], index) => {
    const share = 1 - weight ** (index + 1);
    return [x, ...values.map((value, place) => {
      if (value === null) return null;
      sums[place] = weight * sums[place] + (1 - weight) * value;
      return sums[place] / share;
    })];
  });
}

// The points with the smallest and largest y of each stretch, where there are more than pixels.
function thinned(points, most = 600) {
  const stretch = Math.ceil((2 * points.length) / most);
  if (points.length <= most) return points;
  const kept = [];
  for (let start = 0; start < points.length; start += stretch) {
    const part = points.slice(start, start + stretch).sort((a, b) => a[1] - b[1]);
    kept.push(...[part[0], part[part.length - 1]].sort((a, b) => a[0] - b[0]));
  }
  return [...new Set([points[0], ...kept, points[points.length - 1]])];
}

// Numbers 1, 2 and 5 times powers of ten within limits.
function logarithmicTicks(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
    for (const digit of [1, 2, 5]) found.push(Number(`${digit}e${power}`));
  }
  return found.filter((value) => value >= low && value <= high);
}

function tickText(value) {
  if (value === null) return "";
  if (Math.abs(value) >= 1e4) return value.toLocaleString("en", { notation: "compact", maximumSignificantDigits: 3 });
  if (value !== 0 && Math.abs(value) < 1e-3) return value.toExponential(1).replace(".0e", "e");
  return String(Number(value.toPrecision(6)));
}

// Those ticks whose labels have room, from the largest down.
function withRoom(plot, ticks) {
  const kept = [];
  let edge = Infinity;
  for (const tick of [...ticks].reverse()) {
    const place = plot.valToPos(tick, "x"), half = 3.5 * tickText(tick).length + 4;
    if (place + half > edge && kept.length) continue;
    kept.push(tick);
    edge = place - half;
  }
  return kept.reverse();
}

// Columns for uPlot: the x of all lines, then for each line its y, or y, high and low.
function columnsOf(lines, view) {
  const positive = (value) => (value !== null && value !== undefined && (!view.logY || value > 0) ? value : null);
  const xs = [...new Set(lines.flatMap((line) => line.points.map((point) => point[0])))].sort((a, b) => a - b);
  const at = new Map(xs.map((x, index) => [x, index]));
  const columns = [xs];
  for (const line of lines) {
    const parts = line.banded ? [1, 3, 2] : [1];
    for (const part of parts) {
      const column = new Array(xs.length).fill(null);
      for (const point of line.points) column[at.get(point[0])] = positive(point[part] ?? point[1]);
      columns.push(column);
    }
  }
  return columns;
}

// Wide intervals of few seeds would flatten the curves: the axis ends one span beyond all means.
function limitsOf(lines, logarithmic) {
  const means = lines.flatMap((line) => line.points.map((point) => point[1])).filter((y) => y !== null && (!logarithmic || y > 0));
  const low = means.reduce((a, b) => Math.min(a, b), Infinity), high = means.reduce((a, b) => Math.max(a, b), -Infinity);
  return (plot, from, to) => {
    if (from === null || !means.length) return logarithmic ? [0.1, 1] : [0, 1];
    if (logarithmic) return [Math.max(from, low / 2) / 1.1, Math.min(to, high * 2) * 1.1];
    const span = high - low || Math.abs(high) || 1;
    const [start, end] = [Math.max(from, low - span), Math.min(to, high + span)];
    const room = 0.06 * (end - start || span);
    return [start - room, end + room];
  };
}

function axesOf(spec, view, budgets) {
  const style = {
    stroke: () => colourOf("--soft"), font: "12px system-ui, sans-serif", labelFont: "13px system-ui, sans-serif", labelSize: 22,
    grid: { stroke: () => colourOf("--line"), width: 1 }, ticks: { stroke: () => colourOf("--line"), size: 4 },
    values: (plot, ticks) => ticks.map(tickText), filter: (plot, ticks) => ticks,
  };
  const across = { ...style, label: spec.x, size: 32 };
  if (spec.ticks && budgets.length <= 15) across.splits = (plot, axis, low, high) => withRoom(plot, budgets.filter((x) => x >= low && x <= high));
  else if (view.logX) across.splits = (plot, axis, low, high) => withRoom(plot, logarithmicTicks(Math.max(low, budgets.find((x) => x > 0) ?? 1), high));
  const up = { ...style, label: spec.y, size: (plot, texts) => 14 + 7 * Math.max(3, ...(texts || []).map((text) => text.length)) };
  if (view.logY) up.splits = (plot, axis, low, high) => {
    const ticks = logarithmicTicks(low, high);
    return ticks.length > 1 ? ticks : [0.1, 0.35, 0.6, 0.85].map((share) => Number((low + share * (high - low)).toPrecision(3)));
  };
  return [across, up];
}

// Index of the point of a line that is nearest to the pointer.
function nearest(plot, series, index) {
  const column = plot.data[series];
  if (index === null || column[index] !== null) return index;
  for (let away = 1; away < column.length; away++) {
    if (index - away >= 0 && column[index - away] !== null) return index - away;
    if (column[index + away] !== null && column[index + away] !== undefined) return index + away;
  }
  return index;
}

function uplotOptions(spec, view, lines, columns, size, onPointer) {
  const xs = columns[0], series = [{}], bands = [];
  for (const line of lines) {
    series.push({ label: line.label, stroke: line.colour, width: 1.8, spanGaps: true, points: { show: line.points.length < 31, size: 6, fill: line.colour } });
    if (!line.banded) continue;
    const edge = { stroke: "transparent", width: 0, spanGaps: true, points: { show: false } };
    series.push({ ...edge }, { ...edge });
    bands.push({ series: [series.length - 2, series.length - 1], fill: `${line.colour}26` });
  }
  const edges = xs.length > 1 ? [xs[0], xs[xs.length - 1]] : [(xs[0] ?? 1) * 0.9, (xs[0] ?? 1) * 1.1 || 1];
  const margin = view.logX && edges[0] > 0 ? [edges[0] / 1.04, edges[1] * 1.04] : [edges[0] - 0.02 * (edges[1] - edges[0]), edges[1] + 0.02 * (edges[1] - edges[0])];
  return {
    ...size, series, bands, legend: { show: false }, padding: [10, 14, 0, 0],
    axes: axesOf(spec, view, xs),
    scales: {
      x: { time: false, distr: view.logX ? (xs[0] > 0 ? 3 : 4) : 1, asinh: xs.find((x) => x > 0) ?? 1, range: (plot, low, high) => (low === xs[0] && high === xs[xs.length - 1] ? margin : [low, high]) },
      y: { distr: view.logY ? 3 : 1, range: limitsOf(lines, view.logY) },
    },
    cursor: { dataIdx: nearest, points: { size: 8 }, drag: { x: true, y: false } },
    hooks: { setCursor: [onPointer] },
  };
}

// A legend with the values under the pointer; a click on an entry hides its line.
function legendOf(spec, lines) {
  const box = element("div", null, "keys"), place = element("span", spec.legend || "", "soft");
  const entries = lines.map((line) => {
    const entry = button("", null, "key"), swatch = element("span", null, "swatch");
    swatch.style.background = line.colour;
    entry.append(swatch, element("span", line.label), element("output"));
    entry.setAttribute("aria-pressed", "true");
    return entry;
  });
  box.append(place, ...entries);
  return { box, place, entries };
}

const shown = new Set();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => shown.forEach((plot) => plot.redraw(false, true)));

function forget(plot) {
  plot.observer.disconnect();
  plot.destroy();
  shown.delete(plot);
}

// Draws curves into a place, in place of what it holds.
function drawCurves(place, spec, view) {
  if (place.plot) forget(place.plot);
  const usable = (point) => point[1] !== null && (!view.logX || view.logX === "symmetric" || point[0] > 0);
  const lines = spec.lines.map((line) => {
    const points = thinned(smoothed(line.points.filter(usable), view.smooth));
    return { ...line, points, banded: points.some((point) => typeof point[2] === "number") };
  }).filter((line) => line.points.length);
  const legend = legendOf(spec, lines), box = element("div", null, "plot");
  place.replaceChildren(box, legend.box);
  const columns = columnsOf(lines, view), starts = [];
  lines.reduce((start, line) => (starts.push(start), start + (line.banded ? 3 : 1)), 1);
  const pointed = (plot) => {
    const index = plot.cursor.idx;
    legend.place.textContent = index === null || index === undefined ? spec.legend || "" : `${spec.x} ${number(columns[0][index])}:`;
    legend.entries.forEach((entry, line) => {
      const at = index === null || index === undefined ? null : nearest(plot, starts[line], index);
      entry.lastChild.textContent = at === null ? "" : number(columns[starts[line]][at]);
    });
  };
  const size = () => ({ width: Math.max(240, place.clientWidth), height: place.clientWidth < 480 ? 280 : 340 });
  const plot = new uPlot(uplotOptions(spec, view, lines, columns, size(), pointed), columns, box);
  legend.entries.forEach((entry, line) => entry.addEventListener("click", () => {
    const on = !plot.series[starts[line]].show;
    entry.setAttribute("aria-pressed", String(on));
    for (let part = 0; part < (lines[line].banded ? 3 : 1); part++) plot.setSeries(starts[line] + part, { show: on });
  }));
  plot.observer = new ResizeObserver(() => { if (place.clientWidth && size().width !== plot.width) plot.setSize(size()); });
  plot.observer.observe(place);
  place.plot = plot;
  shown.add(plot);
  return lines;
}

function curvesPng(name, place) {
  return button("PNG", () => {
    const { width, height } = place.plot, keys = [...place.querySelectorAll(".key")];
    savePicture(name, width, height + 30 + 18 * keys.length, (context) => {
      context.font = "bold 13px system-ui, sans-serif";
      context.fillStyle = colourOf("--ink");
      context.fillText(name, 8, 18);
      context.drawImage(place.plot.ctx.canvas, 0, 26, width, height);
      context.font = "12px system-ui, sans-serif";
      keys.forEach((key, index) => {
        context.fillStyle = key.firstChild.style.background;
        context.fillRect(12, height + 32 + 18 * index, 14, 4);
        context.fillStyle = colourOf("--ink");
        context.fillText(key.children[1].textContent, 32, height + 38 + 18 * index);
      });
    });
  }, "tool");
}

function curvesCsv(name, lines, spec) {
  return csvButton(name, () => [["line", spec.x, spec.y, "low", "high"], ...lines().flatMap((line) => line.points.map((point) => [line.label, ...point]))]);
}

function toggle(text, on, action) {
  const label = element("label", null, "choice"), box = element("input");
  box.type = "checkbox";
  box.checked = on;
  box.addEventListener("change", () => action(box.checked));
  label.append(box, text);
  return label;
}

function slider(text, value, action) {
  const label = element("label", `${text} `, "choice"), box = element("input");
  Object.assign(box, { type: "range", min: 0, max: 0.99, step: 0.01, value });
  box.addEventListener("input", () => action(Number(box.value)));
  label.append(box);
  return label;
}

// A reader's choices for each figure: a live page draws its figures again and again.
const figureViews = new Map();

// Curves in place of a figure's picture, and files of every figure and table.
function enliven(root) {
  for (const plot of shown) if (!plot.root.isConnected) forget(plot);
  for (const figure of root.querySelectorAll("figure:not(#explorer *)")) {
    const name = figure.querySelector("h3").textContent, place = figure.querySelector(".drawing"), tools = element("p", null, "tools");
    if (figure.dataset.plot) {
      const spec = JSON.parse(figure.dataset.plot);
      const view = figureViews.get(name) || { logX: spec.logarithmic && "symmetric", logY: false, smooth: 0 };
      figureViews.set(name, view);
      const draw = (change) => drawCurves(place, spec, Object.assign(view, change));
      draw({});
      tools.append(toggle("log x", Boolean(view.logX), (on) => draw({ logX: on && "symmetric" })), toggle("log y", view.logY, (on) => draw({ logY: on })));
      if (spec.lines.some((line) => line.points.length > 9)) tools.append(slider("smooth", view.smooth, (smooth) => draw({ smooth })));
      tools.append(curvesCsv(name, () => spec.lines, spec), curvesPng(name, place));
    } else {
      tools.append(svgButton(name, place.querySelector("svg")));
    }
    figure.append(tools);
  }
  for (const table of root.querySelectorAll(".scroll > table:not(#explorer *)")) {
    const rows = () => [...table.rows].map((row) => [...row.cells].map((cell) => cell.textContent));
    const heading = table.closest("section")?.querySelector("h2")?.textContent ?? "table";
    const legend = table.parentElement.nextElementSibling;
    (legend?.matches(".legend") ? legend : table.parentElement).append(" ", csvButton(heading, rows));
  }
}
