"use strict";
// The runs of a folder: found by words, sorted by any column, two or more compared.
const choices = { words: "", sort: "started", down: true, chosen: new Set() };
let runs = [], now = 0;

const startOf = (each) => each.started ?? each.status?.started;
const COLUMNS = [
  ["run", (each) => each.name],
  ["best", (each) => each.best, "number"],
  ["with", (each) => each.best_settings],
  ["state", (each) => stateOf(each.status || {}, now).text],
  ["trials", (each) => each.total],
  ["started", startOf],
  ["experiment", (each) => each.experiment],
];

function found() {
  const words = choices.words.toLowerCase().split(/\s+/).filter(Boolean), column = COLUMNS.find(([name]) => name === choices.sort);
  return runs.filter((each) => {
    const text = [each.study, each.metric, each.note, ...each.tags, Object.keys(each.counts).join(" "), ...COLUMNS.map(([, value]) => value(each))].join(" ").toLowerCase();
    return words.every((word) => text.includes(word));
  }).sort((a, b) => inOrder(column[1](a), column[1](b), choices.down));
}

function runLink(name) {
  const link = element("a", name);
  link.href = `/?token=${encodeURIComponent(token)}&run=${encodeURIComponent(name)}`;
  return link;
}

function box(each) {
  const made = element("input");
  Object.assign(made, { type: "checkbox", checked: choices.chosen.has(each.name) });
  made.setAttribute("aria-label", `Compare ${each.name}`);
  made.addEventListener("change", () => {
    choices.chosen[made.checked ? "add" : "delete"](each.name);
    showChosen();
  });
  return made;
}

function cells(each) {
  const state = stateOf(each.status || {}, now), counts = Object.entries(each.counts).map(([status, count]) => `${count} ${status}`).join(", ");
  const chosen = element("td"), name = element("td", null, "wrapped"), start = startOf(each);
  chosen.append(box(each));
  name.append(runLink(each.name), " ", ...each.tags.flatMap((tag) => [button(tag, () => show({ words: tag }), "tool"), " "]));
  if (each.note) name.append(element("div", each.note, "soft"));
  if (each.trouble) name.append(element("div", each.trouble, "failed"));
  return [
    chosen, name, element("td", each.metric ? `${each.metric} ${number(each.best)}` : "–", "number"), element("td", each.best_settings),
    element("td", state.text, state.live ? "running" : ""), element("td", counts),
    element("td", start ? new Date(start * 1000).toLocaleString() : "–"), element("td", each.experiment),
  ];
}

function showChosen() {
  byId("compare").disabled = choices.chosen.size < 2;
  byId("compare").textContent = choices.chosen.size < 2 ? "Compare: choose two or more" : `Compare ${choices.chosen.size} runs`;
}

function show(change) {
  Object.assign(choices, change);
  if (byId("query").value !== choices.words) byId("query").value = choices.words;
  const head = element("tr"), chosen = found();
  head.append(element("th"), ...COLUMNS.map(([name, , kind]) => {
    const cell = element("th", null, kind), sign = choices.sort === name ? (choices.down ? " ↓" : " ↑") : "";
    cell.append(button(name + sign, () => show({ sort: name, down: choices.sort === name && !choices.down }), "sorting"));
    return cell;
  }));
  byId("runs").tHead.replaceChildren(head);
  byId("runs").tBodies[0].replaceChildren(...chosen.map((each) => {
    const row = element("tr");
    row.append(...cells(each));
    return row;
  }));
  byId("listed").textContent = `${chosen.length} of ${runs.length} runs`;
  showChosen();
}

function blockOf(block) {
  const part = element("section"), scroll = element("div", null, "scroll"), table = element("table"), head = element("tr");
  part.append(element("h2", block.title));
  if (block.rows.length) {
    head.append(...block.header.map((text) => element("th", text)));
    table.append(element("thead"), element("tbody"));
    table.tHead.append(head);
    table.tBodies[0].append(...block.rows.map((texts) => {
      const row = element("tr");
      row.append(...texts.map((text) => element("td", text)));
      return row;
    }));
    scroll.append(table);
    part.append(scroll);
  }
  const legend = element("p", block.remark, "legend");
  if (block.rows.length) legend.append(" ", csvButton(block.title, () => [block.header, ...block.rows]));
  part.append(legend);
  return part;
}

async function showComparison() {
  const wanted = location.hash.match(/^#compare=(.+)$/), place = byId("comparison");
  byId("index").hidden = Boolean(wanted);
  place.hidden = !wanted;
  if (!wanted) return;
  const back = element("a", "← all runs"), asked = wanted[1].split("&").map((name) => `name=${name}`).join("&");
  back.href = "#";
  place.replaceChildren(back, element("h1", "Comparison"), element("p", "…", "soft"));
  try {
    const blocks = await (await call(`/api/compare?${asked}`)).json();
    place.replaceChildren(back, element("h1", "Comparison"), ...blocks.map(blockOf));
  } catch (error) {
    place.lastChild.textContent = error.message;
  }
}

async function refresh() {
  try {
    const answer = await (await call("/api/runs")).json();
    [runs, now] = [answer.runs, answer.now];
    byId("trouble").hidden = true;
    show();
  } catch (error) {
    byId("trouble").hidden = false;
    byId("trouble").textContent = error.message;
  }
}

byId("query").addEventListener("input", () => show({ words: byId("query").value }));
byId("compare").addEventListener("click", () => { location.hash = `#compare=${[...choices.chosen].map(encodeURIComponent).join("&")}`; });
addEventListener("hashchange", showComparison);
async function follow() {
  if (!document.hidden) await refresh();
  setTimeout(follow, 5000);
}
showComparison();
follow();
