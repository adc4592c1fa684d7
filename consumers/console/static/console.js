"use strict";
(() => {
  const root = document.documentElement;
  document.getElementById("theme")?.addEventListener("click", () => {
    root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
    localStorage.setItem("theme", root.dataset.theme);
    document.dispatchEvent(new Event("theme"));
  });

  // Ages count from capture, by the server's clock: the browser's own may be wrong.
  const ahead = Number(document.body.dataset.now) - Date.now();
  function age(seconds) {
    if (seconds < 0.95) return "now";
    if (seconds < 60) return `${Math.round(seconds)} s ago`;
    if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
    if (seconds < 172800) return `${Math.floor(seconds / 3600)} h ago`;
    return `${Math.floor(seconds / 86400)} days ago`;
  }
  function until(at) {
    const time = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
    return `until ${new Date(at).toLocaleString([], at - Date.now() < 72e6 ? time : { ...time, day: "numeric", month: "short" })}`;
  }
  function grow() {
    for (const each of document.querySelectorAll(".until[data-at]")) {
      const text = until(Number(each.dataset.at));
      if (each.textContent !== text) each.textContent = text;
    }
    for (const each of document.querySelectorAll(".age[data-at]")) {
      const text = age((Date.now() + ahead - Number(each.dataset.at)) / 1000);
      if (each.textContent !== text) each.textContent = text;
    }
  }
  grow();
  setInterval(() => { grow(); watch(); }, 500);
  document.addEventListener("htmx:after:swap", grow);

  // An ended stream shows a warning; the next message hides it.
  const lost = document.getElementById("lost");
  const silent = lost.textContent;
  let changed = false;
  function warn(status) {
    if (changed) return;
    lost.textContent = status === 401 ? lost.dataset.ended : silent;
    lost.hidden = false;
  }
  // Every ten seconds comes a message. A broken way and a console that hangs end no stream: it is opened again.
  let heard = Date.now();
  function watch() {
    if (document.hidden || Date.now() - heard < 25000) return;
    heard = Date.now();
    warn();
    document.querySelector("[hx-sse\\:connect]")?._htmx?.sse?.reader?.cancel();
  }
  document.addEventListener("visibilitychange", () => { heard = Date.now(); });
  // After a restart of the console or another login, the forms of this page are refused.
  document.addEventListener("session", (event) => {
    if (changed || event.detail.data === document.body.dataset.session) return;
    changed = true;
    lost.textContent = lost.dataset.changed;
    lost.hidden = false;
  });
  document.addEventListener("htmx:sse:error", (event) => warn(event.detail.status));
  // The extension retries a stream that has begun. A refused first connection is retried here.
  for (const name of ["htmx:response:error", "htmx:error"]) document.addEventListener(name, (event) => {
    if (!event.target.hasAttribute("hx-sse:connect")) return;
    warn(event.detail.ctx?.response?.status);
    setTimeout(() => event.target.dispatchEvent(new Event("again")), 5000);
  });
  document.addEventListener("htmx:sse:after:message", () => {
    if (!changed) lost.hidden = true;
    heard = Date.now();
    grow();
    // A page that was opened in the background pauses like one that goes there: browsers open few streams to a server.
    if (document.hidden) document.dispatchEvent(new Event("visibilitychange"));
  });

  // Keys: / focuses the search, j and k move through cards or rows, g and a letter opens a page.
  let going = false;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
    if (going) {
      going = false;
      const link = [...document.querySelectorAll("nav a")].find((each) => each.textContent.toLowerCase().trim().startsWith(event.key));
      if (link) link.click();
      return;
    }
    const step = { j: 1, ArrowRight: 1, ArrowDown: 1, k: -1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const within = event.key.length === 1 || document.activeElement?.closest(".grid");
    if (event.key === "g") going = true;
    else if (event.key === "/") {
      if (search) { event.preventDefault(); search.focus(); search.select(); }
    } else if (step && within) {
      const links = [...document.querySelectorAll("main .card > a, main tbody a")].filter((each) => each.offsetParent !== null);
      if (!links.length) return;
      const now = links.indexOf(document.activeElement);
      const grid = getComputedStyle(document.querySelector(".grid") ?? document.body).gridTemplateColumns;
      const by = event.key.endsWith("Up") || event.key.endsWith("Down") ? step * grid.split(" ").length : step;
      event.preventDefault();
      links[Math.max(0, Math.min(now + by, links.length - 1))].focus();
    }
  });

  // The cards of this page are filtered while a person types; Enter searches all pages.
  const search = document.getElementById("search");
  function sift() {
    const text = search.value.trim().toLowerCase();
    for (const card of document.querySelectorAll("#grid .card")) card.hidden = !card.textContent.toLowerCase().includes(text);
  }
  if (search) {
    search.addEventListener("input", sift);
    document.addEventListener("htmx:after:swap", () => { if (search.value !== search.defaultValue) sift(); });
  }

  // All boxes of a form at once.
  document.addEventListener("change", (event) => {
    const name = event.target.dataset.all;
    if (name) for (const each of document.querySelectorAll(`input[data-of="${name}"]`)) each.checked = event.target.checked;
  });

  // Boxes belong to one form: the form to mute takes the ticked ones with it.
  document.getElementById("mute")?.addEventListener("formdata", (event) => {
    for (const each of document.querySelectorAll('input[data-of="alerts"]:checked')) event.formData.set(each.name, "on");
  });

  // Irreversible actions ask for confirmation first, and a second click sends nothing twice.
  document.addEventListener("submit", (event) => {
    const form = event.target, question = event.submitter?.dataset.ask ?? form.dataset.ask;
    if (form.dataset.sent || (question && !confirm(question))) event.preventDefault();
    else if (form.method === "post" && !event.defaultPrevented) {
      form.dataset.sent = "yes";
      setTimeout(() => delete form.dataset.sent, 10000);
    }
  });
  // After an error, a form shows again what was typed. No form of these pages has a password.
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (!event.defaultPrevented && form.matches("form.stacked[method=post]")) {
      const fields = [...new FormData(form)].filter(([name]) => name !== "csrf");
      sessionStorage.setItem("typed", JSON.stringify({ action: form.getAttribute("action"), fields }));
    }
  });
  const typed = JSON.parse(sessionStorage.getItem("typed"));
  sessionStorage.removeItem("typed");
  if (typed && document.getElementById("failed")) {
    const form = [...document.querySelectorAll("form.stacked")].find((each) => each.getAttribute("action") === typed.action);
    for (let each = form; each; each = each.parentElement) if (each.tagName === "DETAILS") each.open = true;
    for (const [name, value] of form ? typed.fields : []) if (form.elements[name]) form.elements[name].value = value;
  }
  // A clip takes some seconds to read, and a second request would be refused meanwhile.
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href*="/clip.mp4"]');
    if (!link) return;
    if (link.dataset.sent) event.preventDefault();
    link.dataset.sent = "yes";
    setTimeout(() => delete link.dataset.sent, 20000);
  });
  addEventListener("pageshow", () => { for (const each of document.querySelectorAll("form[data-sent]")) delete each.dataset.sent; });

  // What a person has opened or closed stays so, and a page in the background asks for nothing.
  document.addEventListener("htmx:before:morph:attr", (event) => {
    if (event.target.tagName === "DETAILS" && event.detail.attrName === "open") event.preventDefault();
  });
  document.addEventListener("htmx:config:request", (event) => {
    if (document.hidden && event.detail.ctx.sourceEvent?.type === "every") event.preventDefault();
  });
})();
