"use strict";
// All trials: curves that a reader groups, filters and smooths, a table, and a view of one trial.

const CURVE_LIMIT = 30, ROW_STEP = 100;
const explorer = {
  data: null, root: null, readLog: null, rows: ROW_STEP,
  view: { y: "", x: "budget", group: "", query: "", chosen: {}, smooth: 0, logX: false, logY: false, sort: null, down: false },
};

const valueOf = (trial, name) => (name === "seed" || name === "status" ? trial[name] : trial.settings[name]);
const textOf = (value) => (value === null || value === undefined ? "–" : typeof value === "number" ? String(Number(value.toPrecision(6))) : String(value));
const goalOf = (name) => explorer.data.metrics.find((metric) => metric.name === name)?.goal;

// ---- Which trials: words that must occur, comparisons such as rate>0.1, and chosen values.

function matches(trial, words) {
  const text = [trial.id, trial.status, `seed=${trial.seed}`, ...Object.entries(trial.settings).map(([name, value]) => `${name}=${textOf(value)}`)].join(" ").toLowerCase();
  return words.every((word) => {
    const [, name, sign, limit] = word.match(/^(.+?)(<=|>=|<|>)(-?[\d.]+(?:e-?\d+)?)$/) || [];
    if (!name) return text.includes(word);
    const known = { ...trial.settings, ...trial.last, seed: trial.seed };
    const value = Object.entries(known).find(([key]) => key.toLowerCase() === name)?.[1];
    if (typeof value !== "number") return false;
    return { "<": value < limit, ">": value > limit, "<=": value <= limit, ">=": value >= limit }[sign];
  });
}

function chosenTrials() {
  const { query, chosen } = explorer.view, words = query.toLowerCase().split(/\s+/).filter(Boolean);
  return explorer.data.trials.filter((trial) => matches(trial, words)
    && Object.entries(chosen).every(([name, text]) => !text || textOf(valueOf(trial, name)) === text));
}

// ---- Curves of groups.

function seriesOf(trial, x, y) {
  const xs = trial.rows[x], ys = trial.rows[y];
  if (!xs || !ys) return [];
  return xs.map((value, index) => [value, ys[index]]).filter(([a, b]) => a !== null && b !== null);
}

// Trials that differ only in settings that set the budget are one curve against it, as in the report.
function joined(trials, x, y) {
  const free = new Set(x === "budget" ? explorer.data.budget_settings : []), found = new Map();
  for (const trial of trials) {
    const points = seriesOf(trial, x, y);
    if (!points.length) continue;
    const own = free.size ? JSON.stringify([trial.seed, Object.entries(trial.settings).filter(([name]) => !free.has(name))]) : trial.id;
    const before = found.get(own) || { points: [], trials: 0 };
    found.set(own, { points: [...before.points, ...points], trials: before.trials + 1 });
  }
  return [...found.values()].map((each) => ({ ...each, points: each.points.sort((a, b) => a[0] - b[0]) }));
}

// Mean, smallest and largest value at each x, of the series that span it. Between two points a
// series has the value of the former, as in the report; between two of a thinned one a line is fairer.
function meanOf(series) {
  if (series.length === 1) return series[0].points;
  const carry = series.every((each) => each.trials === 1 && each.points.length > 1);
  const xs = [...new Set(series.flatMap((each) => each.points.map((point) => point[0])))].sort((a, b) => a - b);
  const at = series.map(() => 0);
  return xs.map((x) => {
    const values = [];
    series.forEach(({ points }, index) => {
      while (at[index] + 1 < points.length && points[at[index] + 1][0] <= x) at[index]++;
      const [place, value] = points[at[index]];
      if (place !== x && !(carry && place < x && points[points.length - 1][0] >= x)) return;
      const next = explorer.data.note && place !== x ? points[at[index] + 1] : null;
      values.push(next ? value + ((next[1] - value) * (x - place)) / (next[0] - place) : value);
    });
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    return values.length > 1 ? [x, mean, Math.min(...values), Math.max(...values)] : [x, mean, null, null];
  });
}

const trialNames = () => [...explorer.data.settings, "seed"];

function curveLines(trials) {
  const { x, y, group } = explorer.view, groups = new Map();
  for (const trial of trials) {
    const key = group === "trial" ? trial.id : group === "all" ? "all" : textOf(valueOf(trial, group));
    groups.set(key, [...(groups.get(key) || []), trial]);
  }
  const sign = { max: -1, min: 1 }[goalOf(y)] || 0;
  const lines = [...groups].map(([key, members]) => {
    const series = joined(members, x, y), label = group === "trial" ? trialNames().map((name) => textOf(valueOf(members[0], name))).join(", ") : key;
    return { label, points: series.length ? meanOf(series) : [] };
  }).filter((line) => line.points.length);
  const last = (line) => sign * line.points[line.points.length - 1][1];
  if (lines.length > CURVE_LIMIT) lines.sort((a, b) => last(a) - last(b));
  const colours = explorer.data.colours;
  return { count: lines.length, lines: lines.slice(0, CURVE_LIMIT).map((line, index) => ({ ...line, colour: colours[index % colours.length] })) };
}

function showCurves(trials) {
  const { view, data } = explorer, place = explorer.root.querySelector(".drawing"), { count, lines } = curveLines(trials);
  const axis = view.x === "budget" ? `budget (${data.budget})` : view.x;
  const legend = { trial: trialNames().join(", "), all: "" }[view.group] ?? view.group;
  explorer.spec = { x: axis, y: view.y, legend, ticks: view.x === "budget", lines };
  drawCurves(place, explorer.spec, view);
  const parts = [view.group === "trial" ? "A line for each trial." : "Mean of the group's trials that reach a point; shaded: smallest to largest."];
  if (count > lines.length) parts.push(`${lines.length} of ${count} lines, the best first.`);
  if (!count) parts.push("No record has these values.");
  if (data.note) parts.push(data.note);
  explorer.root.querySelector("figcaption").textContent = parts.join(" ");
}

// ---- The table.

function tableColumns() {
  const { data } = explorer;
  return [
    { name: "trial", value: (trial) => trial.id },
    { name: "status", value: (trial) => trial.status },
    ...data.settings.map((name) => ({ name, value: (trial) => trial.settings[name] })),
    { name: "seed", value: (trial) => trial.seed },
    { name: `budget (${data.budget})`, value: (trial) => lastOf(trial, "budget"), measured: true },
    ...data.metrics.map(({ name }) => ({ name, value: (trial) => trial.last[name], measured: true })),
    { name: "seconds", value: (trial) => (trial.ended && trial.started ? trial.ended - trial.started : lastOf(trial, "seconds")), measured: true },
    { name: "records", value: (trial) => trial.records, measured: true },
  ];
}

const lastOf = (trial, column) => trial.rows[column]?.at(-1);

function sorted(trials) {
  const { sort, down } = explorer.view, column = tableColumns().find(({ name }) => name === sort);
  if (!column) return trials;
  return [...trials].sort((a, b) => inOrder(column.value(a), column.value(b), down));
}

function headCell(column) {
  const { view } = explorer, cell = element("th", null, column.measured ? "number" : "");
  const sign = view.sort === column.name ? (view.down ? " ↓" : " ↑") : "";
  cell.append(button(column.name + sign, () => {
    // A metric to be maximised starts with its largest value.
    const down = view.sort === column.name ? !view.down : goalOf(column.name) === "max";
    showExplorer({ sort: column.name, down });
  }, "sorting"));
  if (view.sort === column.name) cell.setAttribute("aria-sort", view.down ? "descending" : "ascending");
  return cell;
}

function trialLink(id) {
  const link = element("a", id);
  link.href = `#trial=${encodeURIComponent(id)}`;
  return link;
}

function showTable(trials) {
  const columns = tableColumns(), table = explorer.root.querySelector("table"), head = element("tr");
  head.append(...columns.map(headCell));
  const rows = sorted(trials).slice(0, explorer.rows).map((trial) => {
    const row = element("tr");
    for (const column of columns) {
      const value = column.value(trial), cell = element("td", null, column.measured ? "number" : "");
      if (column.name === "trial") cell.append(trialLink(trial.id));
      else cell.textContent = column.measured ? number(value) : textOf(value);
      if (column.name === "status") Object.assign(cell, { className: trial.status, title: trial.error || "" });
      row.append(cell);
    }
    return row;
  });
  table.tHead.replaceChildren(head);
  table.tBodies[0].replaceChildren(...rows);
  explorer.root.querySelector(".found").textContent = `${trials.length.toLocaleString("en")} of ${explorer.data.trials.length.toLocaleString("en")} trials`;
  explorer.root.querySelector(".more").hidden = rows.length >= trials.length;
}

function settingNames() {
  return [...new Set(explorer.data.trials.flatMap((trial) => Object.keys(trial.settings)))];
}

function tableRows() {
  const columns = tableColumns(), fixed = settingNames().filter((name) => !explorer.data.settings.includes(name));
  const rows = sorted(chosenTrials()).map((trial) => [...columns.map((column) => column.value(trial)), ...fixed.map((name) => trial.settings[name]), trial.error]);
  return [[...columns.map(({ name }) => name), ...fixed, "error"], ...rows];
}

function recordRows(trials) {
  const { data } = explorer, names = ["step", "budget", "seconds", ...data.curves];
  const rows = trials.flatMap((trial) => trial.rows.step.map((step, index) => [
    trial.id, ...data.settings.map((name) => trial.settings[name]), trial.seed, ...names.map((name) => trial.rows[name]?.[index])]));
  return [["trial", ...data.settings, "seed", ...names], ...rows];
}

// ---- Controls, and the whole section.

function choice(text, options, value, action) {
  const label = element("label", `${text} `, "choice"), box = element("select");
  for (const [key, shownAs] of options) {
    const option = element("option", shownAs);
    option.value = key;
    box.append(option);
  }
  box.value = value;
  box.setAttribute("aria-label", text);
  box.addEventListener("change", () => action(box.value));
  label.append(box);
  return label;
}

function curveControls() {
  const { data, view } = explorer, tools = element("p", null, "tools"), same = (names) => names.map((name) => [name, name]);
  tools.append(
    choice("metric", same(data.curves), view.y, (y) => showExplorer({ y })),
    choice("against", [["budget", `budget (${data.budget})`], ["step", "step"], ["seconds", "seconds"], ...same(data.curves)], view.x, (x) => showExplorer({ x })),
    choice("group by", [["trial", "each trial"], ["all", "all together"], ...same([...data.settings, "seed", "status"])], view.group, (group) => showExplorer({ group })),
    toggle("log x", Boolean(view.logX), (on) => showExplorer({ logX: on && "symmetric" })),
    toggle("log y", view.logY, (logY) => showExplorer({ logY })),
    slider("smooth", view.smooth, (smooth) => showExplorer({ smooth })),
  );
  return tools;
}

function filterControls() {
  const { data, view } = explorer, box = element("p", null, "tools"), search = element("input");
  Object.assign(search, { type: "search", value: view.query, maxLength: 200, placeholder: "Filter: word, setting=value, rate>0.1" });
  search.setAttribute("aria-label", "Filter trials");
  search.addEventListener("input", () => showExplorer({ query: search.value }));
  box.append(search);
  for (const name of [...data.settings, "status"]) {
    const values = [...new Set(data.trials.map((trial) => textOf(valueOf(trial, name))))];
    if (values.length < 2 || values.length > 40) continue;
    values.sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    box.append(choice(name, [["", "all"], ...values.map((value) => [value, value])], view.chosen[name] || "", (value) => showExplorer({ chosen: { ...view.chosen, [name]: value } })));
  }
  box.append(element("span", null, "found soft"));
  return box;
}

function buildExplorer() {
  const { data, root } = explorer;
  const figure = element("figure", null, "wide"), name = () => `${explorer.view.y} against ${explorer.spec.x}`;
  const place = element("div", null, "drawing"), files = element("p", null, "tools");
  files.append(curvesCsv("curves", () => explorer.spec.lines, { x: "x", y: "y" }), button("PNG", () => curvesPng(name(), place).click(), "tool"));
  figure.append(curveControls(), place, element("figcaption"), files);
  const scroll = element("div", null, "scroll list"), table = element("table"), below = element("p", null, "tools");
  table.append(element("thead"), element("tbody"));
  scroll.append(table);
  below.append(
    button("Show more", () => { explorer.rows += 5 * ROW_STEP; showExplorer(); }, "more"),
    button("CSV of the trials", () => download("trials.csv", csv(tableRows()), "text/csv"), "tool"),
    button("CSV of their records", () => download("records.csv", csv(recordRows(chosenTrials())), "text/csv"), "tool"),
  );
  root.replaceChildren(element("h2", "All trials"), filterControls(), ...(data.curves.length ? [figure] : []), scroll, below);
}

function showExplorer(change) {
  Object.assign(explorer.view, change);
  const trials = chosenTrials();
  if (explorer.data.curves.length) showCurves(trials);
  showTable(trials);
}

// Sets the data, first or anew; the reader's choices stay where they still exist.
function setTrials(root, data, readLog) {
  const { view } = explorer, fresh = explorer.data === null;
  Object.assign(explorer, { root, data, readLog });
  if (!data.curves.includes(view.y)) view.y = data.curves[0] || "";
  if (fresh || !["trial", "all", "seed", "status", ...data.settings].includes(view.group)) view.group = data.group || "trial";
  if (fresh) Object.assign(view, firstAxis(data));
  if (!data.trials.length) return;
  const focused = document.activeElement, typing = root.contains(focused) && focused.type === "search";
  buildExplorer();
  showExplorer();
  if (typing) root.querySelector("input[type=search]").focus({ preventScroll: true });
  showTrial();
}

// The budget, unless it stands still within trials: then the step.
function firstAxis(data) {
  const several = data.trials.filter((trial) => trial.rows.step.length > 1);
  if (several.length && several.every((trial) => new Set(trial.rows.budget).size === 1)) return { x: "step", logX: false };
  const budgets = data.trials.flatMap((trial) => trial.rows.budget || []).filter((budget) => budget > 0);
  const [low, high] = [Math.min, Math.max].map((pick) => budgets.reduce((a, b) => pick(a, b), budgets[0]));
  return { x: "budget", logX: high > 20 * low && "symmetric" };
}

// ---- One trial, at #trial=ID.

function definitions(entries) {
  const list = element("dl");
  for (const [name, value] of entries) {
    if (value !== null && value !== undefined && value !== "") list.append(element("dt", name), element("dd", typeof value === "number" ? textOf(value) : value));
  }
  return list;
}

const moment = (seconds) => seconds && new Date(seconds * 1000).toLocaleString();

function trialFacts(trial) {
  return definitions([
    ["status", trial.stopped_by ? `${trial.status} (by ${trial.stopped_by})` : trial.status], ["seed", trial.seed],
    ["starts", trial.attempt === undefined || trial.attempt < 0 ? null : trial.attempt + 1],
    ["started", moment(trial.started)], ["ended", moment(trial.ended)],
    ["time", trial.started && trial.ended ? duration(trial.ended - trial.started) : null],
    ["machine", trial.host], ["commit", trial.commit],
    ["checkpoint", trial.checkpoint], ["best checkpoint", trial.best_checkpoint],
  ]);
}

function trialCurves(trial, x) {
  const pictures = element("div", null, "pictures"), colour = explorer.data.colours[0];
  for (const y of explorer.data.curves) {
    const points = seriesOf(trial, x, y);
    if (points.length < 2 || y === x) continue;
    const figure = element("figure"), place = element("div", null, "drawing"), tools = element("p", null, "tools");
    const spec = { x: x === "budget" ? `budget (${explorer.data.budget})` : x, y, ticks: x === "budget", lines: [{ label: y, colour, points }] };
    tools.append(curvesCsv(`${trial.id} ${y}`, () => spec.lines, spec), curvesPng(`${trial.id} ${y}`, place));
    figure.append(element("h3", y), place, tools);
    figure.draw = () => drawCurves(place, spec, { logX: false, logY: false, smooth: 0 });
    pictures.append(figure);
  }
  return pictures;
}

function recordTable(trial) {
  const names = ["step", "budget", "seconds", ...explorer.data.curves].filter((name) => trial.rows[name]);
  const scroll = element("div", null, "scroll list"), table = element("table"), head = element("tr");
  head.append(...names.map((name) => element("th", name, "number")));
  table.append(element("thead"), element("tbody"));
  table.tHead.append(head);
  trial.rows.step.slice(0, 1000).forEach((step, index) => {
    const row = element("tr");
    row.append(...names.map((name) => element("td", number(trial.rows[name][index]), "number")));
    table.tBodies[0].append(row);
  });
  scroll.append(table);
  return scroll;
}

async function showLogEnd(id, place, readLog) {
  try {
    place.textContent = (await readLog(id)) || "The trial has written nothing.";
  } catch (error) {
    place.textContent = error.message;
  }
}

function buildTrial(trial, page) {
  const back = element("a", "← all trials"), varied = new Set(explorer.data.settings);
  back.href = "#explorer";
  const log = element("pre", "…"), named = ([name]) => varied.has(name);
  const x = new Set(trial.rows.budget).size > 1 ? "budget" : "step", curves = trialCurves(trial, x);
  const entries = Object.entries(trial.settings), shownRows = trial.rows.step.length;
  const title = element("h1", `Trial ${trial.id}`), mark = element("span", ` ${trial.status}`, trial.status);
  title.append(mark);
  page.append(back, title, ...(trial.error ? [element("p", trial.error, "note failed")] : []));
  page.append(trialFacts(trial), element("h2", "Settings"), definitions(entries.filter(named)));
  const rest = element("details");
  rest.append(element("summary", "Settings that all trials share"), definitions(entries.filter((entry) => !named(entry))));
  page.append(rest, element("h2", "Last values"), definitions(Object.entries(trial.last)));
  if (curves.children.length) page.append(element("h2", "Curves"), curves);
  page.append(element("h2", shownRows < trial.records ? `Records: ${shownRows} of ${trial.records}` : "Records"));
  if (shownRows) page.append(recordTable(trial), csvButton(`${trial.id} records`, () => recordRows([trial])));
  else page.append(element("p", "None.", "soft"));
  page.append(element("h2", "End of the log"), log);
  for (const figure of curves.children) figure.draw();
  showLogEnd(trial.id, log, explorer.readLog);
}

let before = 0;
function showTrial() {
  const wanted = location.hash.match(/^#trial=(.+)$/), id = wanted && decodeURIComponent(wanted[1]);
  const trial = id && explorer.data?.trials.find((each) => each.id === id), open = document.body.dataset.trial;
  document.getElementById("trial-page")?.remove();
  if (!trial) {
    delete document.body.dataset.trial;
    if (open) scrollTo(0, before);
    return;
  }
  if (!open) before = scrollY;
  const page = element("main");
  page.id = "trial-page";
  document.body.append(page);
  document.body.dataset.trial = id;
  buildTrial(trial, page);
  if (open !== id) scrollTo(0, 0);
}
addEventListener("hashchange", showTrial);

// A page that is written once holds its data; a live page brings it (setTrials).
const held = document.getElementById("explorer-data");
if (held) {
  const data = JSON.parse(held.textContent);
  const readLog = (id) => data.logs[id] ?? "The log is in the run folder; this page holds a hundred at most.";
  enliven(document);
  setTrials(document.getElementById("explorer"), data, readLog);
}
