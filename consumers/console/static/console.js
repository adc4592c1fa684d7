"use strict";
(() => {
  const root = document.documentElement;
  document.getElementById("theme")?.addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
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
  function grow() {
    for (const each of document.querySelectorAll(".age[data-at]")) {
      const text = age((Date.now() + ahead - Number(each.dataset.at)) / 1000);
      if (each.textContent !== text) each.textContent = text;
    }
  }
  grow();
  setInterval(grow, 500);
  document.addEventListener("htmx:after:swap", grow);

  // An ended stream shows a warning; the next message hides it.
  const lost = document.getElementById("lost");
  document.addEventListener("htmx:sse:error", () => { lost.hidden = false; });
  document.addEventListener("htmx:sse:after:message", () => { lost.hidden = true; grow(); });

  // Keys: / focuses the search, j and k move through cards or rows, g and a letter opens a page.
  let going = false;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
    if (going) {
      going = false;
      const link = [...document.querySelectorAll("nav a")].find((each) => each.textContent.toLowerCase().startsWith(event.key));
      if (link) link.click();
      return;
    }
    if (event.key === "g") going = true;
    else if (event.key === "/") {
      const search = document.getElementById("search");
      if (search) { event.preventDefault(); search.focus(); search.select(); }
    } else if (event.key === "j" || event.key === "k") {
      const links = [...document.querySelectorAll("main .card > a, main tbody a")];
      if (!links.length) return;
      const now = links.indexOf(document.activeElement);
      const next = event.key === "j" ? Math.min(now + 1, links.length - 1) : Math.max(now - 1, 0);
      links[next].focus();
    }
  });

  // Irreversible actions ask for confirmation first.
  document.addEventListener("submit", (event) => {
    const question = event.target.dataset.ask;
    if (question && !confirm(question)) event.preventDefault();
  });
})();
