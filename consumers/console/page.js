"use strict";
const cards = new Map();

function element(tag, parent, name) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  parent.append(made);
  return made;
}

function card(camera) {
  let found = cards.get(camera);
  if (!found) {
    const root = element("article", document.getElementById("cameras"));
    const picture = element("img", root);
    picture.alt = `last picture of ${camera}`;
    picture.onerror = () => { picture.style.visibility = "hidden"; };
    picture.onload = () => { picture.style.visibility = "visible"; };
    element("h2", root).textContent = camera;
    found = { root, picture, state: element("p", root), verdict: element("p", root), counts: element("p", root) };
    cards.set(camera, found);
  }
  return found;
}

function percent(share) { return `${(100 * share).toFixed(1)} %`; }

function show(camera) {
  const { picture, state, verdict, counts } = card(camera.camera);
  picture.src = `/preview/${camera.camera}.jpg?${Date.now()}`;
  state.className = `state ${camera.status}`;
  const age = camera.age_s === null ? "no frame yet" : `${camera.age_s.toFixed(1)} s ago`;
  state.textContent = `${camera.status}, ${age}${camera.detail ? `: ${camera.detail}` : ""}`;
  verdict.textContent = camera.verdict ? `${camera.verdict.class} ${percent(camera.verdict.confidence)}` : "";
  const size = camera.size ? `${camera.size.width} × ${camera.size.height}, ` : "";
  const flagged = camera.flagged_share === null ? "" : `, ${percent(camera.flagged_share)} of probes flagged`;
  counts.textContent = `${size}${camera.frames_recorded} frames${flagged}`;
}

async function refresh() {
  const summary = document.getElementById("summary");
  try {
    const cameras = await (await fetch("/cameras")).json();
    const names = new Set(cameras.map((camera) => camera.camera));
    for (const [name, { root }] of cards) if (!names.has(name)) { root.remove(); cards.delete(name); }
    cameras.forEach(show);
    summary.textContent = cameras.length ? `${cameras.length} camera${cameras.length === 1 ? "" : "s"}` : "No camera has sent anything yet.";
  } catch {
    summary.textContent = "The recorder does not answer.";
  }
  setTimeout(refresh, document.hidden ? 5000 : 1000);
}

refresh();
