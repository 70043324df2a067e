// A job's page while the job goes on: told of every event by the service's own stream, it has its parts
// rendered anew, its curves extended and its pictures shown.
"use strict";

(() => {
  const EVENTS = [
    "status", "phase", "progress", "metrics", "checkpoint", "sample", "artifact", "result", "warning",
    "captions", "failed", "cancel_requested", "pause_requested", "pause_withdrawn",
    "save_requested", "sample_requested",
  ];
  const REFRESH_MILLISECONDS = 800;
  const RECONNECT_MILLISECONDS = 2000;

  const job = document.getElementById("job");
  const curves = new Curves(document.getElementById("curves"), job.dataset.job);
  let seen = job.dataset.version;
  let stream = null;
  let refresh = null;

  function announce(isThere) {
    document.dispatchEvent(new CustomEvent("connection", { detail: isThere }));
  }

  function hasEnded() {
    return document.getElementById("job-state").dataset.ended === "true";
  }

  function refreshSoon() {
    refresh ??= setTimeout(() => {
      refresh = null;
      htmx.trigger(job, "job-changed");
    }, REFRESH_MILLISECONDS);
  }

  function disconnect() {
    stream?.close();
    stream = null;
  }

  // Only while the page is seen: a browser has six connections to a server over HTTP/1.1, for all of its tabs.
  function connect() {
    disconnect();
    if (document.hidden) return;
    stream = new EventSource(`/jobs/${job.dataset.job}/events?after=${seen}`);
    stream.addEventListener("open", () => {
      announce(true);
      refreshSoon();
    });
    stream.addEventListener("error", () => {
      // A stream that is refused is not opened again by the browser; one that was told of the end need not be.
      if (stream.readyState !== EventSource.CLOSED) announce(false);
      else if (!hasEnded()) {
        refreshSoon(); // whoever has to sign in again is taken there
        setTimeout(connect, RECONNECT_MILLISECONDS);
      }
    });
    for (const type of EVENTS) stream.addEventListener(type, hear);
  }

  function hear(event) {
    seen = event.lastEventId;
    if (event.type === "metrics") curves.read();
    if (event.type === "status") curves.read({ anew: true });
    refreshSoon();
  }

  document.addEventListener("htmx:afterSettle", () => {
    samples.update();
    if (hasEnded()) disconnect();
    else if (!stream) connect();
  });
  document.addEventListener("htmx:responseError", (event) => {
    if (event.detail.xhr.status === 404) location.reload(); // it was deleted
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) disconnect();
    else {
      refreshSoon();
      if (!hasEnded()) connect();
    }
  });

  const samples = {
    section: document.getElementById("samples"),
    slider: document.getElementById("sample-step"),
    prompt: 0,
    shown: null,

    get layout() {
      return JSON.parse(this.section.dataset.layout);
    },

    items() {
      return [...document.querySelectorAll("#sample-list li")].map((item) => item.dataset);
    },

    update() {
      const items = this.items();
      if (!items.length) return;
      this.section.hidden = false;
      const wasLast = this.slider.value === this.slider.max;
      this.slider.max = items.length - 1;
      if (wasLast) this.slider.value = items.length - 1;
      this.show();
    },

    async show() {
      const item = this.items()[Number(this.slider.value)];
      document.getElementById("sample-label").textContent = item.label;
      this.slider.setAttribute("aria-valuetext", item.label);
      const key = `${item.url} ${this.prompt}`;
      if (this.shown === key) return;
      this.shown = key;
      try {
        const image = await Grids.load(item.url);
        if (this.shown === key) this.paint(image, JSON.parse(item.prompts));
      } catch {
        this.shown = null; // the service is away: the next refresh asks again
      }
    },

    paint(image, prompts) {
      const layout = this.layout;
      const count = Grids.columns(image, layout);
      const pairs = document.getElementById("pairs");
      while (pairs.children.length > count) pairs.lastElementChild.remove();
      while (pairs.children.length < count) pairs.append(this.pair(pairs.children.length));
      [...pairs.children].forEach((pair, column) => {
        const prompt = prompts[column] ?? `picture ${column + 1}`;
        pair.querySelector("span").textContent = prompt;
        pair.setAttribute("aria-pressed", String(column === this.prompt));
        const [teacher, student] = pair.querySelectorAll("canvas");
        Grids.cut(image, layout, column, "teacher", teacher);
        Grids.cut(image, layout, column, "student", student);
      });
      const comparator = document.getElementById("comparator");
      for (const row of ["teacher", "student"]) {
        Grids.cut(image, layout, this.prompt, row, comparator.querySelector(`[data-row=${row}]`));
      }
      document.getElementById("comparator-prompt").textContent = prompts[this.prompt] ?? "";
    },

    pair(column) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "pair";
      button.append(Grids.picture("teacher"), Grids.picture("student"), document.createElement("span"));
      button.addEventListener("click", () => {
        this.prompt = column;
        this.show();
      });
      return button;
    },
  };

  samples.slider.addEventListener("input", () => samples.show());
  samples.update();
  curves.read();
  if (!hasEnded()) connect();
})();
