"use strict";

// The page works without this script, which shows tips, chooses a class and zooms.
(() => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const tip = document.getElementById("tip");

  function point(event) {
    const area = event.target.closest?.("[data-tip]");
    tip.hidden = !area;
    if (tip.hidden) return;
    tip.textContent = area.dataset.tip;
    const left = event.clientX + 14;
    // Left of the pointer if there is no space on the right.
    const over = left + tip.offsetWidth > innerWidth - 8 ? event.clientX - tip.offsetWidth - 14 : left;
    tip.style.left = `${Math.max(8, over)}px`;
    tip.style.top = `${Math.max(8, event.clientY - tip.offsetHeight - 10)}px`;
  }
  document.addEventListener("pointermove", point);
  document.addEventListener("pointerdown", point);
  document.documentElement.addEventListener("pointerleave", () => { tip.hidden = true; });
  document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });

  const chooser = document.getElementById("label");
  function show() {
    for (const cell of all("#windows [data-label]")) cell.hidden = cell.dataset.label !== chooser.value;
  }
  if (chooser) {
    chooser.addEventListener("change", show);
    show();
  }

  const zoom = document.getElementById("zoom");
  if (zoom) {
    const panels = document.querySelector("#timeline .panels");
    zoom.hidden = false;
    zoom.addEventListener("change", (event) => {
      panels.classList.toggle("near", event.target.value === "near");
      for (const chart of all("#timeline .sideways")) chart.scrollLeft = chart.scrollWidth;
    });
  }
})();
