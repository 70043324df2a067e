// Sends a chosen file of captions as it is, piece by piece, and says how far it has come.
"use strict";

(() => {
  const form = document.getElementById("upload");
  if (!form) return;
  const bar = document.getElementById("upload-progress");
  const told = document.getElementById("upload-told");
  const button = form.querySelector("button");
  const file = form.querySelector("input[type=file]");

  function tell(text, isWrong = false) {
    told.textContent = text;
    told.className = isWrong ? "error" : "quiet";
  }

  function end(text) {
    bar.hidden = true;
    button.disabled = false;
    tell(text, true);
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const [chosen] = file.files;
    if (chosen.size > Number(form.dataset.maxBytes)) return end("The file is larger than the service takes.");
    const request = new XMLHttpRequest();
    request.open("POST", `${form.action}?name=${encodeURIComponent(chosen.name)}`);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.addEventListener("progress", ({ loaded, total }) => {
      bar.value = total ? loaded / total : 0;
      tell(loaded < total ? `${Math.floor((loaded / total) * 100)} % sent` : "All sent; the service is storing it");
    });
    request.addEventListener("error", () => end("The upload broke off. Send it again: nothing was left behind."));
    request.addEventListener("load", () => {
      if (request.status < 300 || request.status === 401) location.assign("/ui/captions");
      else end(refusal(request.responseText));
    });
    bar.hidden = false;
    button.disabled = true;
    tell("Sending");
    request.send(chosen);
  });

  function refusal(text) {
    try {
      const problem = JSON.parse(text);
      const allowed = problem.errors?.[0]?.allowed;
      return allowed ? `${problem.detail} Allowed: ${allowed.join(", ")}` : problem.detail;
    } catch {
      return "The service could not store the file. Try again.";
    }
  }
})();
