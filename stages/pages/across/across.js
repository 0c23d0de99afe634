"use strict";

// The page works without this script, which chooses a metric.
(() => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const chooser = document.getElementById("view");

  function show() {
    for (const element of all("[data-view]")) element.hidden = element.dataset.view !== chooser.value;
  }

  if (!chooser) return;
  chooser.addEventListener("change", show);
  show();
})();
