// The curves of a job's training, read from the public API and extended while it runs.
"use strict";

class Curves {
  constructor(section, jobId) {
    this.section = section;
    this.jobId = jobId;
    this.values = new Map(); // of each curve: its value by step
    this.last = -1; // the last step of which all was read
    this.plots = [];
    this.reading = Promise.resolve();
    this.next = null; // the reading that has yet to begin,
    this.anew = false; // and whether it is of everything
    for (const knob of section.querySelectorAll("input")) {
      knob.addEventListener("input", () => this.draw());
    }
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    new ResizeObserver(() => this.resize()).observe(section);
  }

  // Reads what is there; after a new attempt has begun anew, all of it. Of many events at once, as after a
  // return to the page, the first and the last have it read.
  read({ anew = false } = {}) {
    this.anew ||= anew;
    this.next ??= this.reading.then(() => {
      this.next = null;
      const all = this.anew;
      this.anew = false;
      // Where the service is away, the next event has the same points asked for.
      this.reading = this.fetchPoints(all).catch(() => {});
      return this.reading;
    });
    return this.next;
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
      const curves = (await answer.json()).items.filter((curve) => curve.points.length);
      for (const { name, points } of curves) {
        if (!this.values.has(name)) this.values.set(name, new Map());
        for (const { step, value } of points) this.values.get(name).set(step, value);
      }
      const cut = curves.filter((curve) => curve.has_more);
      const lastSteps = (some) => some.map(({ points }) => points.at(-1).step);
      // Of the newest step there may be more to come: a distance is told some time after the losses.
      this.last = cut.length ? Math.min(...lastSteps(cut)) : Math.max(this.last, ...lastSteps(curves).map((step) => step - 1));
      more = cut.length > 0;
    }
    this.draw();
  }

  draw() {
    if (!this.values.size) return;
    this.section.hidden = false;
    for (const plot of this.plots) plot.destroy();
    this.span = this.findSpan();
    const colour = (name) => getComputedStyle(this.section).getPropertyValue(name);
    const losses = ["loss", "loss_output", "loss_feature", "loss_direction", "loss_task"].filter((name) => this.values.has(name));
    const words = { loss: "total", loss_output: "output", loss_feature: "feature", loss_direction: "direction", loss_task: "task" };
    const logarithmic = this.section.querySelector("#logarithmic").checked;
    const smoothing = Number(this.section.querySelector("#smoothing").value);
    this.plots = [
      this.plot("#loss-plot", losses.map((name, index) => ({ name, label: words[name], colour: colour(`--curve-${index + 1}`) })), { logarithmic, smoothing, height: 260 }),
      this.plot("#speed-plot", [{ name: "samples_per_second", label: "samples/s", colour: colour("--curve-1") }], { smoothing, height: 140 }),
    ];
    this.drawDistances(colour, logarithmic);
  }

  // The distances of the unfinished student, each with its interval, and the teacher's own as a dashed line.
  drawDistances(colour, logarithmic) {
    const splits = [["drawn", "drawn"], ["text_only", "text-only"], ["held_out", "held-out"]];
    const curves = splits.flatMap(([split, words], index) => {
      const name = `frechet_distance_${split}`;
      const of = { colour: colour(`--curve-${index + 1}`) };
      return [{ ...of, name, label: words, interval: true }, { ...of, name: `${name}_teacher`, label: `the teacher's, ${words}`, dash: [6, 5] }];
    }).filter(({ name }) => this.values.has(name));
    this.section.querySelector("#distance").hidden = !curves.length;
    if (curves.length) this.plots.push(this.plot("#distance-plot", curves, { logarithmic, height: 200 }));
  }

  // The first and the last step of all, which every plot has at the same places.
  findSpan() {
    const steps = [...this.values.values()].flatMap((values) => [...values.keys()]);
    const first = steps.reduce((a, b) => Math.min(a, b), Infinity);
    const last = steps.reduce((a, b) => Math.max(a, b), -Infinity);
    return first < last ? [first, last] : [first - 1, first + 1];
  }

  plot(selector, curves, { logarithmic = false, smoothing = 0, height }) {
    const place = this.section.querySelector(selector);
    place.replaceChildren();
    const steps = [...new Set(curves.flatMap(({ name }) => [...(this.values.get(name) ?? new Map()).keys()]))].sort((a, b) => a - b);
    const columns = curves.map(({ name }) => this.smooth(steps.map((step) => this.values.get(name)?.get(step) ?? null), smoothing));
    const colour = (name) => getComputedStyle(this.section).getPropertyValue(name);
    const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 } };
    const ends = (name, step) => [`${name}_low`, `${name}_high`].map((end) => this.values.get(end)?.get(step));
    const series = curves.map((curve) => ({
      label: curve.label,
      stroke: curve.colour,
      dash: curve.dash,
      width: curve.dash ? 1 : 2,
      spanGaps: true,
      points: { show: curve.interval || steps.length < 2, size: 8, fill: curve.colour },
      value: (plot, _, place, index) => {
        const at = index ?? plot.data[place].findLastIndex((value) => value !== null); // the newest, unless one is pointed at
        const value = plot.data[place][at] ?? null;
        if (value === null) return "–";
        const [low, high] = curve.interval ? ends(curve.name, steps[at]) : [];
        return value.toPrecision(3) + (low === undefined ? "" : ` (${low.toPrecision(3)} to ${high.toPrecision(3)})`);
      },
    }));
    const drawIntervals = (plot) => {
      for (const { name, colour } of curves.filter((curve) => curve.interval)) {
        for (const step of steps) {
          const [low, high] = ends(name, step);
          if (low === undefined) continue;
          const x = plot.valToPos(step, "x", true);
          plot.ctx.strokeStyle = colour;
          plot.ctx.lineWidth = devicePixelRatio;
          plot.ctx.beginPath();
          plot.ctx.moveTo(x, plot.valToPos(Math.max(low, plot.scales.y.min), "y", true)); // a logarithm has no place for nought
          plot.ctx.lineTo(x, plot.valToPos(high, "y", true));
          plot.ctx.stroke();
        }
      }
    };
    // A scale holds the intervals too; one that is not logarithmic begins at nought where there are some.
    const allEnds = curves.filter((curve) => curve.interval).flatMap(({ name }) => [`${name}_low`, `${name}_high`]).flatMap((end) => [...(this.values.get(end) ?? new Map()).values()]);
    const rangeWithEnds = (_, lowest, highest) => {
      const top = Math.max(highest, ...allEnds);
      return logarithmic ? uPlot.rangeLog(Math.min(lowest, ...allEnds.filter((end) => end > 0)), top, 10, false) : [0, 1.05 * top];
    };
    return new uPlot({
      width: Math.max(place.clientWidth, 200),
      height,
      cursor: { y: false, sync: { key: "training" } },
      legend: { live: true },
      hooks: { draw: [drawIntervals] },
      scales: { x: { time: false, range: () => this.span }, y: { distr: logarithmic ? 3 : 1, ...(allEnds.length ? { range: rangeWithEnds } : {}) } },
      axes: [{ ...axis, values: (_, ticks) => ticks.map((tick) => (Number.isInteger(tick) ? tick.toLocaleString("en") : "")) }, { ...axis, size: 56 }],
      series: [{ label: "step", value: (_, step) => (step ?? steps.at(-1) ?? 0).toLocaleString("en") }, ...series],
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
