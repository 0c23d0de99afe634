"use strict";

// Shows one message at a time. Labels stay in the browser until they are downloaded.
(() => {
  const byId = (id) => document.getElementById(id);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const main = byId("labelling");
  const messages = all(".messages [data-id]");
  const buttons = all("[data-label]");
  const ids = messages.map((message) => message.dataset.id);
  const classes = new Set(buttons.map((button) => button.dataset.label));
  // Other messages under the same name are another queue.
  const place = `ballast-labels/${main.dataset.window}/${JSON.stringify(ids).length}/${ids[0] ?? ""}`;
  const labels = new Map();
  // The positions that were labelled or skipped, in order.
  let history = [];
  let at = 0;

  function remembered() {
    try {
      const saved = JSON.parse(localStorage.getItem(place) ?? "{}");
      for (const [id, label] of Object.entries(saved)) {
        if (ids.includes(id) && classes.has(label)) labels.set(id, label);
      }
    } catch { /* The page works without storage. */ }
  }
  function remember() {
    try {
      localStorage.setItem(place, JSON.stringify(Object.fromEntries(labels)));
    } catch { /* As above. */ }
  }

  const next = (from) => {
    let position = from;
    while (position < ids.length && labels.has(ids[position])) position += 1;
    return position;
  };

  function show() {
    messages.forEach((message, position) => { message.hidden = position !== at; });
    byId("end").hidden = at < ids.length;
    byId("count").textContent = String(labels.size);
    byId("progress").value = labels.size;
    byId("undo").disabled = history.length === 0;
    byId("download").disabled = labels.size === 0;
    for (const button of [...buttons, byId("skip")]) button.disabled = at >= ids.length;
  }

  function step(label) {
    if (at >= ids.length) return;
    if (label !== null) labels.set(ids[at], label);
    byId("last").textContent = label === null ? "Skipped." : `The last message is ${label}.`;
    history.push(at);
    at = next(at + 1);
    remember();
    show();
  }

  function undo() {
    if (history.length === 0) return;
    at = history.pop();
    labels.delete(ids[at]);
    byId("last").textContent = "Undone.";
    remember();
    show();
  }

  const quoted = (value) => `"${value.replaceAll('"', '""')}"`;
  function download() {
    const rows = ids.filter((id) => labels.has(id)).map((id) => `${quoted(id)},${quoted(labels.get(id))}`);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([["id,label", ...rows, ""].join("\n")], { type: "text/csv" }));
    link.download = `${main.dataset.window}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  for (const button of buttons) button.addEventListener("click", () => step(button.dataset.label));
  byId("skip").addEventListener("click", () => step(null));
  byId("undo").addEventListener("click", undo);
  byId("download").addEventListener("click", download);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const key = event.key.toLowerCase();
    const button = key ? buttons.find((candidate) => candidate.dataset.key === key) : undefined;
    if (button) step(button.dataset.label);
    else if (key === "s") step(null);
    else if (key === "u" || key === "backspace") undo();
    else return;
    event.preventDefault();
  });

  remembered();
  at = next(0);
  main.hidden = false;
  show();
})();
