"use strict";
// Requests of a page to its server, and the state of a study's driver.
const query = new URLSearchParams(location.search);
const token = query.get("token") || "", run = query.get("run");
const byId = (name) => document.getElementById(name);

// In a folder of runs, each request of a run's page names the run.
async function call(path, body) {
  const options = { headers: { "X-Modicum-Token": token } };
  if (body !== undefined) {
    options.method = "POST";
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  const named = run === null ? path : `${path}${path.includes("?") ? "&" : "?"}run=${encodeURIComponent(run)}`;
  const answer = await fetch(named, options);
  if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).error || answer.statusText);
  return answer;
}

function stateOf(status, now) {
  const silent = now - (status.updated || now);
  const lost = status.state === "running" && silent > Math.max(20, 4 * (status.interval || 2));
  let text = { running: "Running", ended: "Ended", stopped: "Stopped on request", interrupted: "Interrupted" }[status.state] || "Not running";
  if (status.stopping && status.state === "running") text = "Stopping";
  if (lost) text = `No sign of life for ${duration(silent)}`;
  return { text, live: status.state === "running" && !lost };
}
