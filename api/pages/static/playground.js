// Shows what the sliders say, makes seeds, and gives up what is being drawn when the page closes.
"use strict";

(() => {
  const form = document.getElementById("play-form");
  if (!form) return;

  function show(slider) {
    slider.closest(".slider").querySelector("output").textContent = slider.value;
  }

  function follow() {
    for (const slider of form.querySelectorAll("input[type=range]")) {
      slider.disabled = form.elements.own.checked;
      show(slider);
    }
  }

  form.addEventListener("input", (event) => {
    if (event.target.type === "range") show(event.target);
  });
  form.elements.own.addEventListener("change", follow);
  document.getElementById("new-seed").addEventListener("click", () => {
    form.elements.seed.value = crypto.getRandomValues(new Uint32Array(1))[0] % 10000;
  });
  document.addEventListener("htmx:afterSwap", (event) => {
    if (event.target.id === "play") event.target.scrollIntoView({ block: "nearest" });
  });
  addEventListener("pageshow", follow);
  addEventListener("pagehide", () => {
    if (document.getElementById("generation-state")?.dataset.open !== "true") return;
    const { generation } = document.getElementById("generation").dataset;
    navigator.sendBeacon(`/ui/generations/${generation}/cancel`);
  });
  follow();
})();
