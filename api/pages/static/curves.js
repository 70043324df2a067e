// The curves of a job's training, read from the public API and extended while it runs.
"use strict";

class Curves {
  constructor(section, jobId) {
    this.section = section;
    this.jobId = jobId;
    this.values = new Map(); // of each curve: its value by step
    this.last = -1; // the last step that was read
    this.plots = [];
    this.reading = Promise.resolve();
    for (const knob of section.querySelectorAll("input")) {
      knob.addEventListener("input", () => this.draw());
    }
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    new ResizeObserver(() => this.resize()).observe(section);
  }

  // Reads what is there; after a new attempt has begun anew, all of it.
  read({ anew = false } = {}) {
    // Where the service is away, the next event has the same points asked for.
    this.reading = this.reading.then(() => this.fetchPoints(anew)).catch(() => {});
    return this.reading;
  }

  async fetchPoints(anew) {
    if (anew) {
      this.values.clear();
      this.last = -1;
    }
    let more = true;
    while (more) {
      const answer = await fetch(`/jobs/${this.jobId}/metrics?after_step=${this.last}`);
      if (!answer.ok) return;
      const curves = (await answer.json()).items;
      for (const { name, points } of curves) {
        if (!this.values.has(name)) this.values.set(name, new Map());
        for (const { step, value } of points) this.values.get(name).set(step, value);
        this.last = Math.max(this.last, points.at(-1)?.step ?? -1);
      }
      more = curves.some((curve) => curve.has_more);
    }
    this.draw();
  }

  draw() {
    if (!this.values.size) return;
    this.section.hidden = false;
    for (const plot of this.plots) plot.destroy();
    const colour = (name) => getComputedStyle(this.section).getPropertyValue(name);
    const losses = ["loss", "loss_output", "loss_feature", "loss_direction", "loss_task"].filter((name) => this.values.has(name));
    const words = { loss: "total", loss_output: "output", loss_feature: "feature", loss_direction: "direction", loss_task: "task" };
    const logarithmic = this.section.querySelector("#logarithmic").checked;
    const smoothing = Number(this.section.querySelector("#smoothing").value);
    this.plots = [
      this.plot("#loss-plot", losses.map((name, index) => ({ name, label: words[name], colour: colour(`--curve-${index + 1}`) })), { logarithmic, smoothing, height: 260 }),
      this.plot("#speed-plot", [{ name: "samples_per_second", label: "samples/s", colour: colour("--curve-1") }], { smoothing, height: 140 }),
    ];
  }

  plot(selector, curves, { logarithmic = false, smoothing, height }) {
    const place = this.section.querySelector(selector);
    place.replaceChildren();
    const steps = [...new Set(curves.flatMap(({ name }) => [...(this.values.get(name) ?? new Map()).keys()]))].sort((a, b) => a - b);
    const columns = curves.map(({ name }) => this.smooth(steps.map((step) => this.values.get(name)?.get(step) ?? null), smoothing));
    const colour = (name) => getComputedStyle(this.section).getPropertyValue(name);
    const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 } };
    const series = curves.map((curve) => ({
      label: curve.label,
      stroke: curve.colour,
      width: 2,
      spanGaps: true,
      points: { show: steps.length < 2 },
      value: (_, value) => (value === null || value === undefined ? "–" : value.toPrecision(3)),
    }));
    return new uPlot({
      width: Math.max(place.clientWidth, 200),
      height,
      cursor: { y: false },
      legend: { live: true },
      scales: { x: { time: false }, y: { distr: logarithmic ? 3 : 1 } },
      axes: [{ ...axis, values: (_, ticks) => ticks.map((tick) => (Number.isInteger(tick) ? tick.toLocaleString("en") : "")) }, { ...axis, size: 56 }],
      series: [{ label: "step" }, ...series],
    }, [steps, ...columns], place);
  }

  // An exponential average that begins at the first value.
  smooth(values, weight) {
    let mean = null;
    return values.map((value) => {
      if (value === null) return null;
      mean = mean === null ? value : weight * mean + (1 - weight) * value;
      return mean;
    });
  }

  resize() {
    for (const plot of this.plots) {
      const width = plot.root.parentElement.clientWidth;
      if (width && width !== plot.width) plot.setSize({ width, height: plot.height });
    }
  }
}
