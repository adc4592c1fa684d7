"use strict";
(() => {
  const place = document.getElementById("charts");
  if (!place) return;
  const camera = [
    { title: "Frames per second", series: [["rate", "frames/s"]] },
    { title: "Confidence", series: [["confidence", "mean"]], range: [0, 1] },
    { title: "Latency from capture to record, s", series: [["late_s", "mean"], ["slowest_s", "slowest"]] },
    { title: "Bytes sent per second", series: [["sent", "sent"]] },
    { title: "Fraction of bytes saved", series: [["saved", "saved"]], range: [0, 1] },
    { title: "STRIP entropy, bits", series: [["entropy", "mean"], ["least", "least"], ["threshold", "threshold"]], baseline: true },
    { title: "Evidence of a backdoor, and probes flagged", series: [["evidence", "evidence"], ["flagged", "flagged"]], range: [0, 1] },
  ];
  let drawn = [];
  let found = null;

  function colour(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }

  function draw() {
    for (const each of drawn) each.destroy();
    drawn = [];
    place.replaceChildren();
    const strokes = ["--link", "--warn", "--bad", "--good", "--alarm", "--soft"].map(colour);
    const axis = { stroke: colour("--text"), grid: { stroke: colour("--line") }, ticks: { stroke: colour("--line") } };
    const marks = (found.alerts || []).map((each) => each.raised_ms / 1000);
    const baseline = (found.alerts || []).find((each) => each.baseline_bits > 0)?.baseline_bits;
    for (const chart of found.charts || camera) {
      const series = [...chart.series];
      const data = [found.columns.t, ...series.map(([name]) => found.columns[name])];
      if (chart.baseline && baseline) {
        series.push(["baseline", "baseline"]);
        data.push(found.columns.t.map(() => baseline));
      }
      const root = document.createElement("section");
      root.className = "chart";
      const title = document.createElement("h3");
      title.textContent = chart.title;
      root.append(title);
      place.append(root);
      const options = {
        width: Math.max(280, place.clientWidth), height: 190,
        cursor: { sync: { key: "camera" }, drag: { setScale: false } },
        scales: { x: { range: found.span_s }, ...(chart.range ? { y: { range: chart.range } } : {}) },
        axes: [axis, { ...axis, size: 64 }],
        series: [{}, ...series.map(([, label], index) => ({ label, stroke: strokes[index % strokes.length], dash: index < strokes.length ? [] : [6, 4], width: 2, points: { show: data[0].length < 30 } }))],
        hooks: { draw: [(plot) => {
          for (const at of marks) {
            const x = plot.valToPos(at, "x", true);
            plot.ctx.fillStyle = strokes[2];
            plot.ctx.fillRect(x - 1, plot.bbox.top, 2, plot.bbox.height);
          }
        }] },
      };
      drawn.push(new uPlot(options, data, root));
    }
  }

  function fill(id, rows, none) {
    const body = document.querySelector(`#${id} tbody`);
    body.replaceChildren(...(rows.length ? rows : [[none, ""]]).map((cells) => {
      const row = document.createElement("tr");
      cells.forEach((text, index) => {
        const cell = document.createElement("td");
        cell.textContent = text;
        if (index) cell.className = "number";
        row.append(cell);
      });
      return row;
    }));
  }

  function length(ms) {
    const minutes = Math.round(ms / 60000);
    return minutes < 120 ? `${minutes} min` : `${(minutes / 60).toFixed(1)} h`;
  }

  async function load() {
    const answer = await fetch(place.dataset.from);
    if (!answer.ok) throw new Error(`${answer.status}`);
    found = await answer.json();
    const note = document.getElementById("charts-note");
    if (note && found.note) note.textContent = found.note;
    if (found.columns.t.length) draw();
    else place.textContent = "No data in this time range yet.";
    if (found.classes) fill("classes", Object.entries(found.classes), "none");
    if (found.outages) fill("outages", found.outages.map(([since, until]) => [new Date(since).toLocaleString(), length(until - since)]), "none");
    place.setAttribute("aria-busy", "false");
  }
  load().catch((error) => { place.textContent = `The history could not be read: ${error.message}`; });
  function repaint() { if (found && found.columns.t.length) draw(); }
  document.addEventListener("theme", repaint);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
  let soon = 0;
  addEventListener("resize", () => {
    clearTimeout(soon);
    soon = setTimeout(() => { for (const each of drawn) each.setSize({ width: Math.max(280, place.clientWidth), height: 190 }); }, 150);
  });
})();
