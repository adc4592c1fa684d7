"use strict";
// Runs before the first paint: the last choice, else the system's theme.
const chosen = localStorage.getItem("theme");
if (chosen) document.documentElement.dataset.theme = chosen;
