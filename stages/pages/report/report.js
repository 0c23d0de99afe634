"use strict";

// The page works without this script, which chooses a class and highlights lines.
(() => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const chooser = document.getElementById("label");
  const tip = document.getElementById("tip");

  function show() {
    const family = document.querySelector("input[name=family]:checked").value;
    for (const element of all("[data-label], [data-family]")) {
      const { label, family: own } = element.dataset;
      element.hidden = (label !== undefined && label !== chooser.value) || (own !== undefined && own !== family);
    }
  }

  const curves = document.getElementById("curves");
  const chips = all(".legend button[data-technique]");

  function highlight(technique) {
    for (const element of curves.querySelectorAll("[data-technique]")) {
      element.classList.toggle("highlighted", element.dataset.technique === technique);
    }
  }

  function toggle(chip, shown) {
    chip.setAttribute("aria-pressed", String(shown));
    for (const line of curves.querySelectorAll(`svg [data-technique="${chip.dataset.technique}"]`)) {
      line.classList.toggle("muted", !shown);
    }
  }

  for (const chip of chips) {
    chip.addEventListener("click", () => toggle(chip, chip.getAttribute("aria-pressed") === "false"));
  }
  document.getElementById("all").addEventListener("click", () => chips.forEach((chip) => toggle(chip, true)));
  document.getElementById("few").addEventListener("click", () => {
    chips.forEach((chip) => toggle(chip, !chip.classList.contains("other")));
  });

  function point(event) {
    const line = event.target.closest("#curves [data-technique]");
    highlight(line?.dataset.technique);
    tip.hidden = !line || !line.closest("svg");
    if (tip.hidden) return;
    tip.textContent = chips.find((chip) => chip.dataset.technique === line.dataset.technique).textContent;
    tip.style.left = `${Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 8)}px`;
    tip.style.top = `${event.clientY - 30}px`;
  }
  curves.addEventListener("pointermove", point);
  curves.addEventListener("pointerdown", point);
  curves.addEventListener("pointerleave", () => { highlight(); tip.hidden = true; });
  curves.addEventListener("focusin", (event) => highlight(event.target.dataset.technique));

  const find = document.getElementById("find-class");
  find?.addEventListener("input", () => {
    const wanted = find.value.trim().toLowerCase();
    const rows = all("#classes tbody tr");
    for (const row of rows) row.hidden = !row.dataset.class.includes(wanted);
    const shown = rows.filter((row) => !row.hidden).length;
    document.getElementById("found-classes").textContent = wanted ? `${shown} of ${rows.length}` : "";
  });

  // A phone shows the three answers first, without their explanations.
  if (matchMedia("(max-width: 620px)").matches) for (const more of all(".more")) more.open = false;

  chooser.addEventListener("change", show);
  for (const input of all("input[name=family]")) input.addEventListener("change", show);
  show();
})();
