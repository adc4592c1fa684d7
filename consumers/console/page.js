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

function told(camera, age) { return `${camera.status}, ${age}${camera.detail ? `: ${camera.detail}` : ""}`; }

function show(camera) {
  const found = card(camera.camera);
  const { picture, state, verdict, counts } = found;
  Object.assign(found, { camera, heard: performance.now() });
  picture.src = `/preview/${camera.camera}.jpg?${Date.now()}`;
  state.className = `state ${camera.status}`;
  state.textContent = told(camera, camera.age_s === null ? "no frame yet" : `${camera.age_s.toFixed(1)} s ago`);
  verdict.textContent = camera.verdict ? `${camera.verdict.class} ${percent(camera.verdict.confidence)}` : "";
  const size = camera.size ? `${camera.size.width} × ${camera.size.height}, ` : "";
  const flagged = camera.flagged_share === null ? "" : `, ${percent(camera.flagged_share)} of probes flagged`;
  counts.textContent = `${size}${camera.frames_recorded} frames${flagged}`;
}

function forget(name) {
  cards.get(name)?.root.remove();
  cards.delete(name);
}

// Ages go on between two answers: one comes only for what changed.
function grow() {
  for (const { state, camera, heard } of cards.values()) {
    if (camera.age_s === null) continue;
    const age = camera.age_s + (performance.now() - heard) / 1000;
    state.textContent = told(camera, `${age.toFixed(1)} s ago`);
  }
}

let version = 0;

async function refresh() {
  const summary = document.getElementById("summary");
  try {
    const answer = await (await fetch(`/changes?since=${version}`)).json();
    if (answer.all) {
      const names = new Set(answer.cameras.map((camera) => camera.camera));
      for (const name of [...cards.keys()]) if (!names.has(name)) forget(name);
    }
    answer.gone.forEach(forget);
    answer.cameras.sort((a, b) => (a.camera < b.camera ? -1 : 1)).forEach(show);
    version = answer.version;
    grow();
    summary.textContent = cards.size ? `${cards.size} camera${cards.size === 1 ? "" : "s"}` : "No camera has sent anything yet.";
  } catch {
    summary.textContent = "The recorder does not answer.";
  }
  setTimeout(refresh, document.hidden ? 5000 : 1000);
}

refresh();
