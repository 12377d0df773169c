"use strict";
(() => {
  const data = JSON.parse(document.getElementById("viewer-data").textContent);
  const slider = document.getElementById("z");
  const text = document.getElementById("z-text");
  const brightness = document.getElementById("brightness");
  const brightnessText = document.getElementById("brightness-text");
  const figures = [...document.querySelectorAll("figure[data-panel]")];

  function show() {
    const i = Number(slider.value);
    const position = `z = ${data.z[i]} µm`;
    text.textContent = `${position}; nearest: ${data.projection[i]}`;
    slider.setAttribute("aria-valuetext", position);
    for (const figure of figures) {
      const panel = data.panels[figure.dataset.panel];
      const image = figure.querySelector("img");
      const frame = panel.frames[panel.of[i]];
      if (image.src !== frame) image.src = frame;
      image.alt = `${figure.querySelector("h3").textContent} at ${position}`;
      const scores = data.psnr[figure.dataset.panel];
      const score = scores && scores[i] !== null ? `PSNR ${scores[i].toFixed(1)} dB in this slice` : "";
      figure.querySelector(".score").textContent = score;
    }
  }

  function brighten() {
    const factor = Number(brightness.value);
    brightnessText.textContent = `× ${factor.toFixed(1)}`;
    for (const image of document.querySelectorAll("img.intensity")) {
      image.style.filter = factor === 1 ? "" : `brightness(${factor})`;
    }
  }

  slider.addEventListener("input", show);
  brightness.addEventListener("input", brighten);
  for (const control of document.querySelectorAll(".to-suspect")) {
    control.addEventListener("click", () => {
      slider.value = data.start;
      show();
    });
  }
  window.addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) details.open = true;
  });
  slider.value = data.start;
  brightness.value = 1;
  show();
})();
