"use strict";
(() => {
  // What is folded away on the screen belongs on paper; the fixed pictures repeat the viewer.
  const fixed = document.getElementById("fixed-pictures");
  if (fixed) fixed.open = false;
  window.addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) details.open = true;
  });
})();
