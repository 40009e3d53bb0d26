"use strict";
// The report's HTML was escaped where it was made, and the page's policy runs no script but its own.
const STATES = ["finished", "failed", "stopped", "running", "pending"];
const EVERY = 2000;
let drawn = "", newest = 0;
const asked = new Set(), trialsSection = element("section");
trialsSection.id = "explorer";

function showState(view) {
  const status = view.status || {}, counts = view.counts || {};
  const { text, live } = view.gone ? { text: "The driver has ended", live: false } : stateOf(status, view.now);
  byId("state").textContent = text;
  const parts = [];
  const done = (counts.finished || 0) + (counts.failed || 0) + (counts.stopped || 0);
  if (view.total) parts.push(`${done.toLocaleString("en")} of ${view.total.toLocaleString("en")} trials`);
  if (live && status.seconds_left) parts.push(`about ${duration(status.seconds_left)} left`);
  if (status.started) parts.push(`started ${new Date(status.started * 1000).toLocaleString()}`);
  if (status.host) parts.push(`driver on ${status.host}`);
  byId("left").textContent = parts.join(" · ");
  byId("stop-study").hidden = !live || status.stopping;

  byId("track").replaceChildren(...STATES.filter((s) => s !== "pending" && counts[s]).map((s) => {
    const part = element("div", null, s);
    part.style.width = `${100 * counts[s] / Math.max(1, view.total)}%`;
    part.title = `${counts[s]} ${s}`;
    return part;
  }));
  byId("counts").replaceChildren(...STATES.filter((s) => counts[s]).map((s) => element("li", `${counts[s].toLocaleString("en")} ${s}`, s)));
  const facts = (status.nodes || []).map((node) => {
    const uses = Object.entries(node.resources || {}).map(([name, [used, total]]) => name === "memory"
      ? `${(total / 2 ** 30).toFixed(1)} GiB of memory` : `${used} of ${total} ${name}s in use`);
    return element("span", `Node ${node.address}: ${node.alive ? uses.join(", ") : "gone"}`, node.alive ? "" : "gone");
  });
  if (view.spent) facts.unshift(element("span", `Spent on training: ${number(view.spent)} ${view.unit}`));
  for (const oracle of status.oracles || []) facts.push(element("span", `Oracle ${oracle}`));
  byId("facts").replaceChildren(...facts);
  byId("links").replaceChildren(...Object.entries(view.links || status.links || {}).flatMap(([name, where]) => {
    if (!/^https?:\/\//.test(where)) return [element("span", `${name}: ${where} `)];
    const link = element("a", `${name} ↗`);
    link.href = where;
    link.rel = "noreferrer noopener";
    link.target = "_blank";
    return [link, document.createTextNode(" ")];
  }));
  const troubles = [view.trouble, ...(status.notes || [])].filter(Boolean);
  byId("trouble").hidden = !troubles.length;
  byId("trouble").textContent = troubles.join("; ");
  if (view.total) document.title = `${done}/${view.total} · ${byId("state").textContent}`;
  return live;
}

function showTrials(view, list, live) {
  const metric = view.metric;
  const head = element("tr");
  for (const name of ["trial", "status", ...list.settings, "seed", "budget", ...(metric ? [metric, ""] : []), "time", ""]) head.append(element("th", name));
  const rows = list.trials.map((trial) => {
    const row = element("tr");
    const name = element("td");
    name.append(trialLink(trial.id));
    row.append(name, element("td", trial.status, trial.status));
    for (const value of trial.settings) {
      const cell = element("td", value);
      cell.title = value;
      row.append(cell);
    }
    row.append(element("td", trial.seed), element("td", number(trial.budget), "number"));
    if (metric) {
      const cell = element("td");
      if (trial.curve.length) cell.append(sparkline(trial.curve));
      row.append(element("td", number(trial.value), "number"), cell);
    }
    // By the driver's clock, as the start: another machine's may differ.
    const end = trial.ended || (trial.status === "running" ? (view.status || {}).updated || view.now : null);
    row.append(element("td", trial.started && end ? duration(end - trial.started) : "–", "number"));
    const tools = element("td");
    if (trial.status !== "pending") tools.append(button("log", () => showLog(trial)));
    if (live && trial.status === "running") {
      const stop = button(asked.has(trial.id) ? "stopping" : "stop", () => confirmStop(trial), "danger");
      stop.disabled = asked.has(trial.id);
      tools.append(" ", stop);
    }
    row.append(tools);
    if (trial.error) row.append(element("td", trial.error, "error"));
    return row;
  });
  const table = byId("trials");
  table.tHead.replaceChildren(head);
  table.tBodies[0].replaceChildren(...rows);
  byId("listed").textContent = list.found > rows.length ? `${rows.length} of ${list.found.toLocaleString("en")}` : `${list.found}`;
}

function sparkline(points) {
  const box = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const line = document.createElementNS(box.namespaceURI, "polyline");
  const [xs, ys] = [0, 1].map((axis) => points.map((point) => point[axis]));
  const place = (value, all, length) => (length * (value - Math.min(...all))) / (Math.max(...all) - Math.min(...all) || 1);
  line.setAttribute("points", points.map(([x, y]) => `${1 + place(x, xs, 78)},${17 - place(y, ys, 16)}`).join(" "));
  box.setAttribute("viewBox", "0 0 80 18");
  box.setAttribute("class", "sparkline");
  box.setAttribute("aria-hidden", "true");
  box.append(line);
  return box;
}

const readLog = async (id) => (await call(`/api/log?trial=${encodeURIComponent(id)}`)).text();

async function showLog(trial) {
  byId("log-title").textContent = `Trial ${trial.id}`;
  await showLogEnd(trial.id, byId("log-text"), readLog);
  byId("log").showModal();
}

let confirmed = null;
function confirmStop(trial) {
  byId("confirm-title").textContent = trial ? `Stop trial ${trial.id}?` : "Stop the study?";
  byId("confirm-text").textContent = trial
    ? "It counts in no table then. Running the study again takes it up from its last checkpoint."
    : "Trials that run are ended. What is finished stays, and running the study again goes on.";
  confirmed = async () => {
    if (trial) asked.add(trial.id);
    await call("/api/stop", trial ? { trial: trial.id } : {});
  };
  byId("confirm").showModal();
}
byId("confirm-no").addEventListener("click", () => byId("confirm").close());
byId("confirm-yes").addEventListener("click", async () => {
  byId("confirm").close();
  try { await confirmed(); } catch (error) {
    byId("trouble").hidden = false;
    byId("trouble").textContent = error.message;
  }
  refresh();
});
byId("stop-study").addEventListener("click", () => confirmStop(null));

async function showReport(view) {
  if (view.drawn < 0 || view.drawn === drawn) return;
  const answer = await call(`/api/report?version=${encodeURIComponent(drawn)}`);
  if (answer.status === 204) return;
  const trials = await (await call("/api/explorer")).json();
  const open = new Set([...document.querySelectorAll("#report details[open] summary")].map((s) => s.textContent));
  const parsed = new DOMParser().parseFromString(await answer.text(), "text/html");
  const top = scrollY;
  // The section with the reader's choices stays, in its new place.
  parsed.getElementById("explorer").replaceWith(trialsSection);
  byId("report").replaceChildren(...parsed.body.childNodes);
  enliven(byId("report"));
  setTrials(trialsSection, trials, readLog);
  for (const summary of document.querySelectorAll("#report details summary")) {
    if (open.has(summary.textContent)) summary.parentElement.open = true;
  }
  scrollTo(scrollX, top);
  drawn = view.drawn;
}

async function refresh() {
  const mine = ++newest;
  try {
    const [view, list] = await Promise.all([
      call("/api/view").then((answer) => answer.json()),
      call(`/api/trials?limit=100&query=${encodeURIComponent(byId("query").value)}`).then((answer) => answer.json()),
    ]);
    if (mine !== newest) return;
    const live = showState(view);
    showTrials(view, list, live);
    await showReport(view);
  } catch (error) {
    byId("state").textContent = "The dashboard does not answer";
    byId("left").textContent = error.message;
  }
}

let typing;
byId("query").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(refresh, 250); });
if (run !== null) {
  const back = element("a", "← all runs");
  back.href = `/?token=${encodeURIComponent(token)}`;
  document.body.prepend(back);
}
async function follow() {
  await refresh();
  setTimeout(follow, document.hidden ? 5 * EVERY : EVERY);
}
follow();
