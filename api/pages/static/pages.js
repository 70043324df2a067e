// What every page needs: times that age, forms that submit themselves, text to copy, and a word when the
// service is away.
"use strict";

(() => {
  const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

  function age(moment) {
    const seconds = (Date.now() - moment) / 1000;
    const length = Math.abs(seconds);
    if (length < 1) return "just now";
    const [size, unit] = UNITS.find(([size]) => length >= size);
    const count = `${Math.floor(length / size)} ${unit}`;
    return seconds > 0 ? `${count} ago` : `in ${count}`;
  }

  function tick() {
    for (const element of document.querySelectorAll("time[datetime]")) {
      const text = age(Date.parse(element.dateTime));
      if (element.textContent !== text) element.textContent = text;
    }
  }

  function tellConnection(isThere) {
    document.getElementById("connection").hidden = isThere;
  }

  // What a visitor has opened stays open, and what a script draws stays drawn, when the page is refreshed.
  Idiomorph.defaults.callbacks.beforeNodeMorphed = (old) =>
    !(old instanceof Element && old.hasAttribute("data-keep"));
  Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name, element) =>
    !(name === "open" && element.tagName === "DETAILS");

  document.addEventListener("connection", (event) => tellConnection(event.detail));
  document.addEventListener("htmx:sendError", () => tellConnection(false));
  document.addEventListener("htmx:afterRequest", (event) => {
    const status = event.detail.xhr.status;
    if (status >= 500) tellConnection(false);
    else if (status) tellConnection(true);
  });
  document.addEventListener("htmx:afterSettle", tick);

  document.addEventListener("change", (event) => {
    const form = event.target.closest("form[data-submit-on-change]");
    if (form) form.requestSubmit();
  });

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-copy]");
    if (!button) return;
    const text = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(text.textContent);
      button.textContent = "Copied";
    } catch {
      // Browsers give the clipboard to pages of HTTPS and of this very machine alone.
      getSelection().selectAllChildren(text);
      button.textContent = "Selected: press Ctrl+C";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });

  setInterval(tick, 5000);
})();
