// Of what comes in several kinds, shows the fields of the kind that is chosen.
"use strict";

document.getElementById("spec-form").addEventListener("change", (event) => {
  const choice = event.target.closest("[data-choice]");
  if (!choice || !event.target.name.endsWith("~")) return;
  for (const kind of choice.querySelectorAll(":scope > .kind")) {
    kind.hidden = kind.dataset.kind !== event.target.value;
  }
});
