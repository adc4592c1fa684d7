"use strict";
// Before the page is painted: what was chosen last, else what the system says.
const chosen = localStorage.getItem("theme");
if (chosen) document.documentElement.dataset.theme = chosen;
