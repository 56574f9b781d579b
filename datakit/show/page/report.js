"use strict";
// Header, facts and origin; then everything is wired to the state.
function buildHeader() {
  const { tags, certificate } = payload, badges = byId("badges");
  const badge = (name, value) => make("span", { class: "badge", title: `${name}: ${value}` }, make("b", {}, name), value);
  if (certificate) badges.append(verdictBadge(certificate.verdict));
  badges.append(badge("dataset", tags.dataset), badge("split", tags.split), badge("scale", tags.scale), badge("time", tags.time_kind), badge("licence", tags.licence));
}

function buildFacts() {
  const { tags, views, instances } = payload, host = byId("facts");
  const kinds = new Map();
  for (const instance of instances) kinds.set(instance.motion, (kinds.get(instance.motion) || 0) + 1);
  const frames = views.reduce((sum, one) => sum + one.num_frames, 0), shown = views.reduce((sum, one) => sum + one.slots.length, 0);
  const poses = views.reduce((sum, one) => sum + one.num_known_poses, 0);
  const one = view(), k = one.intrinsics[0], depth = one.layers.find((layer) => layer.name === "z_depth");
  const facts = [
    ["Views", views.length === 1 ? `1 (${one.name})` : views.length],
    ["Frames", shown === frames ? frames : `${frames}, ${shown} shown`],
    ["Known poses", poses === frames ? "all" : `${poses} of ${frames}`],
    ["Clock", isSet ? "none: a set of photos" : clockText(one)],
    ["Colour grid", `${one.size.join(" x ")} px`],
    ["K, first shown frame", `f ${shortNumber(k[0], 5)}, ${shortNumber(k[4], 5)}  c ${shortNumber(k[2], 5)}, ${shortNumber(k[5], 5)}`],
    ["Camera model", one.camera_model],
    ["Depth", depth ? `${depth.kind}, ${depth.size.join(" x ")} px` : "none"],
    ["Depth range", depth ? `${shortNumber(depth.lo, 3)} to ${shortNumber(depth.hi, 3)} ${depth.unit}` : "none"],
    ["Motion", [...kinds].map(([kind, count]) => `${count} ${kind}`).join(", ") || "none"],
    ["World up", tags.world_up ? tags.world_up.map((value) => shortNumber(value, 3)).join(", ") : "unknown"],
  ];
  host.replaceChildren(...facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
}

function clockText(one) {
  const { times } = one, length = times[times.length - 1] - times[0];
  return one.num_frames > 1 && length > 0 ? `${shortNumber((one.num_frames - 1) / length, 4)} Hz, ${shortNumber(length, 4)} s` : "one frame";
}

function buildOrigin() {
  const { provenance, tags, metadata } = payload, list = make("dl", { class: "origin" });
  const row = (name, ...value) => list.append(make("dt", {}, name), make("dd", {}, ...value));
  row("Converter", `${provenance.converter} ${provenance.converter_version}`);
  row("Contract", `schema ${tags.schema_version}`);
  row("Sources", `${provenance.num_sources} file(s), ${bytesText(provenance.source_bytes)}`);
  row("Fingerprint", make("code", {}, provenance.fingerprint));
  row("Licence", tags.licence);
  row("Pixels", tags.pixel_convention);
  row("Camera axes", tags.camera_axes);
  row("Source's own", tags.source_conventions);
  const more = (title, text) => make("details", {}, make("summary", {}, title), make("pre", {}, text));
  const files = provenance.sources.map((source) => `${source.sha256}  ${source.path}  ${bytesText(source.size)}`);
  if (files.length < provenance.num_sources) files.push(`and ${provenance.num_sources - files.length} more`);
  const card = make("div", { class: "card" }, list, more("Citation", tags.citation), more("Parameters", JSON.stringify(provenance.params, null, 2)));
  if (files.length) card.append(more("Source files", files.join("\n")));
  if (Object.keys(metadata).length) card.append(more("Metadata of the source", JSON.stringify(metadata, null, 2)));
  byId("origin").append(card);
}

function buildTabs() {
  const host = byId("tabs");
  host.replaceChildren(...(payload.views.length < 2 ? [] : payload.views.map((one, index) =>
    make("button", { type: "button", role: "tab", "aria-selected": String(index === state.view), onclick: () => chooseView(index) }, one.name))));
}

function buildView() {
  const count = view().slots.length, alone = count < 2;
  byId("slider").max = String(count - 1);
  for (const id of ["slider", "first", "back", "play", "forth", "speed"]) byId(id).disabled = alone;
  byId("trail").max = String(Math.max(count - 1, 1));
  byId("track-bar").style.display = view().tracks.state.length ? "" : "none";
  buildTabs(); buildFacts(); buildPanels(); buildChips();
}

function setTheme() {
  const root = document.documentElement;
  const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = isDark ? "light" : "dark";
  buildStates();
  update({ theme: root.dataset.theme });
}

/** "#view=left&frame=12" opens there, so that a finding can be sent as a link; frames count from 0. */
function readHash() {
  const asked = new URLSearchParams(location.hash.slice(1));
  const index = payload.views.findIndex((one) => one.name === asked.get("view"));
  const chosen = Math.max(index, 0), frame = Number(asked.get("frame") || 0);
  let slot = 0;
  payload.views[chosen].slots.forEach((value, k) => { if (value <= frame) slot = k; });
  update({ view: chosen, slot, through: asked.has("through") });
}
function writeHash() {
  const asked = new URLSearchParams({ view: view().name, frame: view().slots[state.slot] });
  try { history.replaceState(null, "", `#${asked}`); } catch { /* some browsers forbid it for local files */ }
}

function wire() {
  const on = (id, kind, action) => byId(id).addEventListener(kind, action);
  on("first", "click", () => goTo(0));
  on("back", "click", () => goTo(state.slot - 1));
  on("forth", "click", () => goTo(state.slot + 1));
  on("play", "click", () => update({ isPlaying: !state.isPlaying }));
  on("slider", "input", (event) => update({ slot: Number(event.target.value), isPlaying: false }));
  on("speed", "change", (event) => update({ speed: Number(event.target.value) }));
  on("trail", "input", (event) => update({ trail: Number(event.target.value) }));
  on("colour-by", "change", (event) => update({ colourBy: event.target.value }));
  on("point-size", "input", (event) => update({ pointSize: Number(event.target.value) }));
  on("theme", "click", setTheme);
  for (const button of document.querySelectorAll("[data-toggle]"))
    button.addEventListener("click", () => update({ [button.dataset.toggle]: !state[button.dataset.toggle] }));
  window.addEventListener("resize", () => update({ layout: 0 }));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { buildStates(); update({ theme: "" }); });
  document.addEventListener("keydown", onKey);
}

const savedStates = new Set(state.states);
function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || /^(SELECT|INPUT)$/.test(event.target.tagName)) return;
  const last = view().slots.length - 1;
  const actions = {
    ArrowLeft: () => goTo(state.slot - 1), ArrowRight: () => goTo(state.slot + 1), Home: () => goTo(0), End: () => goTo(last),
    " ": () => update({ isPlaying: !state.isPlaying }),
    t: () => { update({ states: state.states.size ? new Set() : new Set(savedStates) }); buildStates(); },
  };
  // Space on a focused button is that button's own.
  if (event.key === " " && event.target.tagName === "BUTTON") return;
  if (/^[1-9]$/.test(event.key)) chooseView(Number(event.key) - 1);
  else if (actions[event.key]) { actions[event.key](); event.preventDefault(); }
}

function start() {
  buildHeader(); buildCertificate(); buildOrigin(); buildStates(); wire();
  const hasObjects = payload.instances.some((instance) => instance.id !== 0);
  const most = Math.max(...payload.views.map((one) => one.slots.length));
  state.colourBy = hasObjects ? "instance" : "track";
  state.trail = isSet ? 0 : Math.min(8, most - 1);
  byId("colour-by").value = state.colourBy;
  let lastView = -1;
  onChange((changed) => {
    if (state.view !== lastView) { lastView = state.view; buildView(); byId("trail").value = String(state.trail); }
    if (changed.has("slot") || changed.has("view") || changed.has("isPlaying") || changed.has("speed")) schedule();
    for (const button of document.querySelectorAll("[data-toggle]")) button.setAttribute("aria-pressed", String(state[button.dataset.toggle]));
    byId("trail-length").textContent = String(state.trail);
    showClock(); countStates(); drawPanels(); showProbe(); drawSpace();
    if (changed.has("slot") || changed.has("view")) { writeHash(); if (state.slot + 1 < view().slots.length) for (const { name } of view().layers) picture(state.view, state.slot + 1, name); }
  });
  readHash();
  // For tests in a browser, and for people at the console.
  window.datakitReport = { payload, state, update, goTo, chooseView, readProbe, space };
}
start();
