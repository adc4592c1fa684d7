"use strict";
(() => {
  const place = document.getElementById("charts");
  if (!place) return;
  const REFRESH_MS = 15000;
  const note = document.getElementById("charts-note");
  let loaded = Date.now(), rested = 0;
  const HEIGHT = 110;
  const camera = [
    { title: "Frames per second", series: [["rate", "frames/s"]] },
    { title: "Latency from capture to record", unit: "s", series: [["late_s", "mean"], ["slowest_s", "slowest"]] },
    { title: "Bytes sent per second", series: [["sent", "sent"]] },
    { title: "Confidence", unit: "%", series: [["confidence", "mean"]], range: [0, 1] },
    { title: "Bytes saved", unit: "%", series: [["saved", "saved"]], range: [0, 1] },
    { title: "STRIP entropy, bits", series: [["entropy", "mean"], ["least", "least"], ["threshold", "threshold"]], baseline: true },
    { title: "Evidence of a trigger, and probes flagged", series: [["evidence", "evidence"], ["flagged", "flagged"]], range: [0, 1] },
  ];
  let drawn = [];
  let found = null;

  function colour(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }
  function element(name, text, kind) {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (kind) made.className = kind;
    return made;
  }
  function short(value) {
    if (value === null || value === undefined) return "–";
    if (value === 0) return "0";
    const size = Math.abs(value);
    if (size >= 1e6) return `${(value / 1e6).toPrecision(3)} M`;
    if (size >= 1e4) return `${(value / 1e3).toPrecision(3)} k`;
    if (size < 0.001) return "< 0.001";
    return size >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(3)));
  }
  // Seconds below one read as milliseconds, fractions as percentages.
  function worded(value, unit) {
    if (unit === "%") return value === null || value === undefined ? "–" : `${Number((100 * value).toPrecision(3))} %`;
    if (unit !== "s" || !value) return short(value);
    return Math.abs(value) < 1 ? `${Number((1000 * value).toPrecision(2))} ms` : `${short(value)} s`;
  }
  // Times of the browser's zone with 24 hours; a day and a month where the span is longer.
  const MOST_OUTAGES = 1000;
  const CLOCK = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  const FINE = { ...CLOCK, second: "2-digit" };
  function time(ms, long) { return new Date(ms).toLocaleString([], long ? { ...CLOCK, day: "numeric", month: "short" } : CLOCK); }
  function ticks(plot, all) {
    const { min, max } = plot.scales.x;
    const fine = max - min < 300 ? FINE : CLOCK;
    return all.map((at) => (max - min > 172800 ? new Date(at * 1000).toLocaleDateString([], { day: "numeric", month: "short" }) : new Date(at * 1000).toLocaleTimeString([], fine)));
  }
  // The present value: the last one, unless nothing came for three steps.
  function last(column) {
    const times = found.columns.t, step = found.step_s ?? (found.source === "recorder" ? 60 : times[1] - times[0]);
    for (let at = column.length - 1; at >= 0; at--) {
      if (times[at] < (found.summed_to_s ?? found.span_s[1]) - 3 * step) return null;
      if (column[at] !== null && column[at] !== undefined) return column[at];
    }
    return null;
  }
  function upTo(highest, limit) { return (_, low, high) => [Math.min(0, low ?? 0), highest ?? (Math.max(high ?? 0, limit ?? 0) || 1) * 1.1]; }

  // The span of the data that there is: the range, or the part of it since the first value.
  function span() {
    const [begin, end] = found.span_s, first = found.columns.t[0] ?? begin;
    return [Math.max(begin, Math.min(first, end - 60)), end];
  }

  function seriesOf(chart, baseline) {
    return chart.baseline && baseline ? [...chart.series, ["baseline", "baseline"]] : chart.series;
  }

  function draw() {
    for (const each of drawn) each.plot.destroy();
    drawn = [];
    const strokes = ["--link", "--warn", "--bad", "--good", "--soft"].map(colour);
    const axis = { stroke: colour("--soft"), font: "11px system-ui", grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
    const marks = (found.alerts || []).filter((each) => !each.wanted).map((each) => each.raised_ms / 1000);
    const baseline = (found.alerts || []).find((each) => each.baseline_bits > 0)?.baseline_bits;
    const parts = [];
    for (const chart of found.charts || camera) {
      const series = seriesOf(chart, baseline);
      const data = [found.columns.t, ...series.map(([name]) => (name === "baseline" ? found.columns.t.map(() => baseline) : found.columns[name]))];
      const root = element("section", undefined, "chart");
      // The value of the first curve; of parts, such as the roles' CPU, their sum.
      const headline = (columns, at) => {
        const values = columns.slice(1).map((each) => (at === undefined ? last(each) : each[at]));
        return worded(chart.summed ? values.reduce((sum, each) => sum + (each ?? 0), 0) : values[0], chart.unit);
      };
      const value = element("p", headline(data), "value");
      if (series.length > 1 && series.length < 4) value.append(element("small", series.slice(1).map(([, label], at) => `${label} ${worded(last(data[at + 2]), chart.unit)}`).join(" · ")));
      root.append(element("h3", chart.title), value);
      parts.push(root);
      const options = {
        width: 280, height: HEIGHT, legend: { show: false },
        cursor: { sync: { key: "all" }, drag: { setScale: false }, points: { size: 5 } },
        scales: { x: { range: () => span() }, y: { range: upTo(chart.range?.[1], chart.limit) } },
        axes: [{ ...axis, size: 22, space: 90, values: ticks }, { ...axis, size: 42, space: 32, values: (_, all) => all.map((each) => worded(each, chart.unit)) }],
        series: [{}, ...series.map(([, label], at) => ({ label, stroke: strokes[at % strokes.length], fill: at || series.length > 1 ? undefined : colour("--link-wash"), dash: at < strokes.length ? [] : [6, 4], width: 1.6, points: { show: data[0].length < 20, size: 4 } }))],
        hooks: {
          draw: [(plot) => {
            plot.ctx.fillStyle = strokes[2];
            if (chart.limit !== undefined) plot.ctx.fillRect(plot.bbox.left, plot.valToPos(chart.limit, "y", true) - 1, plot.bbox.width, 2);
            for (const at of marks) plot.ctx.fillRect(plot.valToPos(at, "x", true) - 1, plot.bbox.top, 2, plot.bbox.height);
          }],
          setCursor: [(plot) => {
            const at = plot.cursor.idx;
            value.firstChild.data = headline(plot.data, at ?? undefined);
          }],
        },
      };
      drawn.push({ plot: new uPlot(options, data, root), root });
    }
    place.replaceChildren(...parts);
    place.classList.remove("blank");
    fit();
  }

  function fit() {
    for (const { plot, root } of drawn) {
      const style = getComputedStyle(root);
      plot.setSize({ width: Math.max(120, root.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight)), height: HEIGHT });
    }
  }

  function fill(id, rows, none) {
    const body = document.querySelector(`#${id} tbody`);
    body.replaceChildren(...(rows.length ? rows : [[none, ""]]).map((cells) => {
      const row = element("tr");
      cells.forEach((text, at) => row.append(element("td", text, at ? "number" : "")));
      return row;
    }));
  }

  function length(ms) {
    const minutes = Math.round(ms / 60000);
    return minutes < 120 ? `${minutes} min` : `${(minutes / 60).toFixed(1)} h`;
  }

  // One band for the camera: online and offline, with alerts, models and commands as marks. An alert's mark leads to it.
  function timeline(root) {
    const svg = (name, given) => {
      const made = document.createElementNS("http://www.w3.org/2000/svg", name);
      for (const [key, value] of Object.entries(given)) made.setAttribute(key, value);
      return made;
    };
    const [begin, end] = span().map((each) => 1000 * each);
    const x = (ms) => Math.max(0, Math.min(1000, (1000 * (ms - begin)) / (end - begin)));
    const band = svg("svg", { viewBox: "0 0 1000 40", preserveAspectRatio: "none", class: "timeline", role: "group", "aria-label": "Timeline" });
    const part = (kind, since, until, words) => {
      const rect = svg("rect", { class: kind, x: x(since), y: 0, width: Math.max(until === since ? 3 : 0, x(until) - x(since)), height: 40 });
      const title = svg("title", {});
      title.textContent = `${words}, ${time(since, true)}`;
      rect.append(title);
      return rect;
    };
    const seen = found.columns.t.length ? [1000 * found.columns.t[0], 1000 * found.summed_to_s] : [end, end];
    // Of outages older than the oldest of a full list nothing is known.
    if (found.outages?.length === MOST_OUTAGES) seen[0] = Math.max(seen[0], found.outages.at(-1)[0]);
    band.append(part("on", seen[0], Math.min(end, seen[1]), "frames recorded"));
    for (const [since, until] of found.outages || []) if (until > begin) band.append(part("off", since, until, `no frames for ${length(until - since)}`));
    const models = (found.models || []).filter((at) => at >= begin);
    for (const at of models) band.append(part("model", at, at, "change of the model"));
    const commands = (found.commands || []).filter(([at]) => at >= begin);
    for (const [at, words] of commands) band.append(part("command", at, at, words));
    // The mark is too thin for a finger, so the link takes the space up to halfway to the next one, 12 units at most.
    const alerts = [...(found.alerts || [])].sort((one, other) => one.raised_ms - other.raised_ms);
    const middles = alerts.map((each) => x(each.raised_ms) + 1.5);
    for (const [at, each] of alerts.entries()) {
      const first = Math.max(middles[at] - 12, at ? (middles[at - 1] + middles[at]) / 2 : 0);
      const last = Math.min(middles[at] + 12, at + 1 < alerts.length ? (middles[at] + middles[at + 1]) / 2 : 1000);
      const words = each.wanted ? `${each.wanted} seen` : "alert";
      const link = svg("a", { href: `/alerts/${each.alert_id}`, "aria-label": `${each.wanted ? words : "Alert"}, ${time(each.raised_ms, true)}` });
      link.append(svg("rect", { class: "target", x: first, y: 0, width: last - first, height: 40 }), part(each.wanted ? "sighting" : "alert", each.raised_ms, each.raised_ms, words));
      band.append(link);
    }
    const marked = (seen) => (found.alerts || []).filter((each) => Boolean(each.wanted) === seen).length;
    const ends = element("p", undefined, "ends");
    for (const part of [0, 0.25, 0.5, 0.75]) ends.append(element("span", end - begin < 300e3 ? new Date(begin + part * (end - begin)).toLocaleTimeString([], FINE) : time(begin + part * (end - begin), end - begin > 72e6)));
    ends.append(element("span", "now"));
    const kinds = [["frames", "on", 1], ["no frames", "off", (found.outages || []).length], ["alert", "alert", marked(false)], ["sighting", "sighting", marked(true)], ["model", "model", models.length], ["command", "command", commands.length]];
    const legend = element("p", undefined, "legend");
    for (const [words, kind, number] of kinds) {
      if (!number) continue;
      const key = svg("svg", { viewBox: "0 0 10 10", class: "timeline", "aria-hidden": "true" });
      key.append(svg("rect", { class: kind, width: 10, height: 10 }));
      const entry = element("span");
      entry.append(key, ` ${words}`);
      legend.append(entry);
    }
    const focused = root.querySelector("a:focus")?.getAttribute("href");
    root.replaceChildren(band, ends);
    if (focused) root.querySelector(`a[href="${focused}"]`)?.focus();
    root.parentElement.querySelector(".legend")?.remove();
    root.before(legend);
  }

  async function load() {
    const answer = await fetch(place.dataset.from);
    if (answer.redirected) throw new Error(document.getElementById("lost").dataset.ended);
    if (!answer.ok) throw new Error(`${answer.status}`);
    found = await answer.json();
    loaded = Date.now();
    if (note) note.textContent = found.note || "";
    const band = document.getElementById("timeline");
    if (found.columns.t.length) draw();
    else {
      place.classList.add("blank");
      place.textContent = `No data in this time range yet. ${found.step_s === 3600 ? "An hour" : "A minute"} appears here when it is over.`;
    }
    if (band && [found.columns.t, found.outages, found.alerts].some((each) => each?.length)) timeline(band);
    else if (band) band.textContent = "Nothing has happened in this time range.";
    if (found.classes) {
      fill("classes", found.classes, "none");
      document.getElementById("classes-since").textContent = `Counted by the hour, since ${time(1000 * found.classes_since_s, true)}.`;
    }
    if (found.outages) {
      const rows = found.outages.slice(0, 100).map(([since, until]) => [time(since, true), length(until - since)]);
      if (found.outages.length > rows.length) rows.push([`${found.outages.length - rows.length} earlier ones`, ""]);
      fill("outages", rows, "none");
    }
    place.setAttribute("aria-busy", "false");
  }
  // A pointer that rests on the charts reads them; after a minute they go on.
  function again() {
    const isRead = place.matches(":hover") || document.getElementById("timeline")?.matches(":hover");
    if (document.hidden || (isRead && ++rested < 4)) return;
    rested = 0;
    load().catch(() => { if (note) note.textContent = `Not updated since ${time(loaded, true)}.`; });
  }
  load().catch((error) => { place.classList.add("blank"); place.textContent = `The history could not be read: ${error.message}`; });
  setInterval(again, REFRESH_MS);
  function repaint() { if (found && found.columns.t.length) draw(); }
  document.addEventListener("theme", repaint);
  let soon = 0;
  addEventListener("resize", () => { clearTimeout(soon); soon = setTimeout(fit, 150); });
})();
