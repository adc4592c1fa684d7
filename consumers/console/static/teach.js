"use strict";
(() => {
  const teach = document.getElementById("teach");
  if (!teach || teach.dataset.may !== "yes") return;
  const frames = document.getElementById("frames");
  const classes = document.querySelector(".classes");
  const fresh = document.getElementById("new-class");
  const status = document.getElementById("labelled");
  const changes = teach.dataset.show === "labelled"; // stored labels are shown, to be changed
  const done = []; // what `undo` takes back: figures, each with its earlier label
  let busy = Promise.resolve();
  let pending = 0;

  const all = () => [...frames.querySelectorAll("figure[role=button]:not([hidden])")]; // others are of cameras that the person may not operate
  // A button or form that takes the focus leaves the frame that had it last the current one.
  frames.addEventListener("focusin", (event) => {
    frames.querySelector(".current")?.classList.remove("current");
    event.target.closest("figure")?.classList.add("current");
  });
  const current = () => frames.querySelector(".current:not([hidden])") || all()[0];
  function chosen() {
    const several = all().filter((each) => each.getAttribute("aria-pressed") === "true");
    return several.length ? several : [current()].filter(Boolean);
  }
  function focus(figure) { (figure || all()[0])?.focus(); }

  function show(found) {
    const items = found.counts.map(([name, count], index) => {
      const item = document.createElement("li");
      item.dataset.label = name;
      const button = document.createElement("button");
      button.type = "button";
      button.className = "plain";
      const key = document.createElement("kbd");
      key.textContent = index < 9 ? String(index + 1) : "";
      const number = document.createElement("span");
      number.textContent = String(count);
      button.append(key, ` ${name} `, number);
      const bar = document.createElement("progress");
      bar.max = Number(teach.dataset.good);
      bar.value = count;
      bar.setAttribute("aria-label", `Labels of ${name}`);
      item.append(button, bar);
      return item;
    });
    classes.replaceChildren(...items);
    const more = document.getElementById("more");
    if (more) more.hidden = found.ready;
    const omitted = document.getElementById("omitted");
    if (omitted) {
      omitted.hidden = !found.omitted.length;
      omitted.querySelector("span").textContent = found.omitted.join(", ");
    }
    const train = document.querySelector("#train .main");
    if (train) train.disabled = !found.ready;
    if (changes) return;
    const suggestions = new Map(found.waiting.map((each) => [each.name, each.suggestion]));
    for (const figure of frames.querySelectorAll("figure:not([hidden])")) {
      const suggestion = suggestions.get(figure.dataset.name) ?? "";
      figure.dataset.suggestion = suggestion;
      figure.querySelector("strong").textContent = suggestion ? `${suggestion}?` : "";
    }
  }

  // One request after the other: labels arrive in the order of the keys.
  function send(names, more) {
    pending += 1;
    busy = busy.then(async () => {
      const body = new URLSearchParams({ names: names.join(" "), ...more });
      const answer = await fetch("/teach/label", { method: "POST", body, headers: { "x-csrf-token": teach.dataset.csrf } });
      if (!answer.ok) { status.textContent = (await answer.json()).error; return null; }
      if (answer.redirected) { status.textContent = document.getElementById("lost").dataset.ended; return null; }
      const found = await answer.json();
      show(found);
      return found;
    }).catch(() => { status.textContent = "The console does not respond. The last label may be missing."; return null; }).then((found) => {
      pending -= 1;
      // More frames wait than the page shows.
      if (found && !changes && !all().length && !pending && found.waiting.some((each) => each.may_label)) location.reload();
      return Boolean(found);
    });
    return busy;
  }

  // Leaving the page would cut off labels that wait for an earlier one.
  window.addEventListener("beforeunload", (event) => { if (pending) event.preventDefault(); });

  function mark(figure, name) {
    figure.dataset.label = name;
    if (changes) figure.querySelector("strong").textContent = name;
    figure.hidden = changes ? !name : Boolean(name);
  }

  async function label(figures, name, what = name ? "label" : "") {
    if (!figures.length || !what) return;
    const last = figures[figures.length - 1];
    const rest = all();
    const next = rest.slice(rest.indexOf(last) + 1).find((each) => !figures.includes(each));
    const earlier = figures.map((each) => [each, each.dataset.label]);
    for (const each of figures) {
      each.setAttribute("aria-pressed", "false");
      if (what === "discard") each.hidden = true;
      else mark(each, name);
    }
    if (what !== "discard") done.push(earlier);
    focus(next);
    status.textContent = `${figures.length} ${what === "discard" ? "discarded" : name ? `labelled ${name}` : "without a label"}`;
    const names = figures.map((each) => each.dataset.name);
    const sent = await send(names, what === "discard" ? { discard: "yes" } : { label: name });
    if (!sent) for (const [each, before] of earlier) mark(each, before);
    return sent;
  }

  async function undo() {
    const earlier = done.pop();
    if (!earlier) {
      // Labels that were given before the page was loaded.
      const names = teach.dataset.last.split(" ").filter(Boolean);
      if (names.length && await send(names, { label: "" })) location.reload();
      return;
    }
    for (const name of new Set(earlier.map(([, before]) => before))) {
      const figures = earlier.filter(([, before]) => before === name).map(([each]) => each);
      send(figures.map((each) => each.dataset.name), { label: name });
    }
    for (const [each, before] of earlier) mark(each, before);
    focus(earlier[0][0]);
    status.textContent = changes ? `${earlier.length} as before` : `${earlier.length} without a label again`;
  }

  const take = () => label(chosen(), chosen()[0]?.dataset.suggestion);
  const remove = () => label(chosen(), "", "unlabel");
  const discard = () => label(chosen(), "", "discard");
  function toggle(figure) {
    figure.setAttribute("aria-pressed", String(figure.getAttribute("aria-pressed") !== "true"));
    focus(figure);
  }
  frames.addEventListener("click", (event) => {
    const figure = event.target.closest("figure[role=button]");
    if (figure) toggle(figure);
  });
  document.getElementById("acts")?.addEventListener("click", (event) => {
    ({ take, undo, discard, remove })[event.target.dataset.act]?.();
  });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, button, a")) return;
    const list = all();
    const at = list.indexOf(current());
    const columns = Math.max(1, list.filter((each) => each.offsetTop === list[0].offsetTop).length);
    const moves = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns };
    if (/^[1-9]$/.test(event.key)) {
      const item = classes.children[Number(event.key) - 1];
      if (item) label(chosen(), item.dataset.label);
    } else if (event.key === "0" && changes) remove();
    else if (event.key === "Enter" && !changes) take();
    else if (event.key === "Delete") discard();
    else if (event.key === "u") undo();
    else if (event.key === "n") fresh.elements.label.focus();
    else if (event.key === " " && current()) toggle(current());
    else if (event.key in moves) focus(list[Math.min(list.length - 1, Math.max(0, at + moves[event.key]))]);
    else return;
    event.preventDefault();
  });
  classes.addEventListener("click", (event) => {
    const item = event.target.closest("li");
    if (item) label(chosen(), item.dataset.label);
  });
  fresh.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (await label(chosen(), fresh.elements.label.value.trim())) fresh.reset();
  });
  // Frames of a chosen camera arrive while none is shown.
  if (!changes && !all().length && teach.dataset.collects === "yes") setInterval(() => {
    if (!document.hidden && !document.activeElement?.closest("input, select, textarea")) location.reload();
  }, 5000);
})();
