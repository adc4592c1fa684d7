"use strict";
// Runs before the first paint: the last choice, else the system's theme.
const system = matchMedia("(prefers-color-scheme: dark)");
function applyTheme() { document.documentElement.dataset.theme = localStorage.getItem("theme") ?? (system.matches ? "dark" : "light"); }
system.addEventListener("change", () => { applyTheme(); document.dispatchEvent(new Event("theme")); });
applyTheme();
