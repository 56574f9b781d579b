"use strict";
// The frame player: panels, tracks on the colour image, and the probe that reads all layers under the pointer.
const pictures = new Map();

/** The decoded image of a layer at a slot; calls for a repaint when it arrives. */
function picture(viewIndex, slot, layer) {
  const key = `${viewIndex}/${slot}/${layer}`;
  if (!pictures.has(key)) {
    const source = payload.views[viewIndex].frames[slot][layer];
    const image = source ? new Image() : null;
    if (image) {
      image.addEventListener("load", () => { if (viewIndex === state.view && slot === state.slot) update({ picture: key }); });
      image.src = source;
    }
    pictures.set(key, image);
  }
  return pictures.get(key);
}
const isReady = (image) => image !== null && image.complete && image.naturalWidth > 0;

/** Maps pixels between a layer's grid and the colour grid; both are cameras with one centre. */
function toLayer(layer, slot, uv) { return mapGrid(view().intrinsics[slot], (layer.intrinsics || view().intrinsics)[slot], uv); }
function toColour(layer, slot, uv) { return mapGrid((layer.intrinsics || view().intrinsics)[slot], view().intrinsics[slot], uv); }
function mapGrid(from, to, uv) {
  if (from === to) return uv;
  const [x, y, w] = times3(to, times3(inverse3(from), [uv[0], uv[1], 1]));
  return [x / w, y / w];
}

let panels = [];

function buildPanels() {
  const host = byId("panels");
  host.replaceChildren();
  panels = view().layers.map((layer, index) => {
    const canvas = make("canvas", { class: "picture", role: "img", "aria-label": `${layer.title} of the current frame` });
    canvas.style.aspectRatio = `${layer.size[0]} / ${layer.size[1]}`;
    const legend = make("div", { class: "legend" });
    const figure = make("figure", { class: "panel" });
    const enlarge = make("button", {
      type: "button", title: "Enlarge or shrink this panel", "aria-label": `Enlarge ${layer.title}`, "aria-pressed": "false",
      onclick: () => { enlarge.setAttribute("aria-pressed", String(figure.classList.toggle("large"))); update({ layout: index }); },
    }, "Enlarge");
    const sizes = layer.size.join(" x ") + (layer.shown_size[0] === layer.size[0] ? "" : `, shown at ${layer.shown_size.join(" x ")}`);
    figure.append(make("figcaption", {}, layer.title, make("span", { title: sizes }, sizes), enlarge), canvas, legend);
    host.append(figure);
    const panel = { layer, canvas, legend, hasTracks: index === 0 && view().tracks.state.length > 0 };
    fillLegend(panel);
    canvas.addEventListener("pointermove", (event) => {
      const at = [event.offsetX / canvas.clientWidth * layer.size[0], event.offsetY / canvas.clientHeight * layer.size[1]];
      update({ hover: toColour(layer, state.slot, at) });
    });
    canvas.addEventListener("pointerleave", () => update({ hover: null }));
    return panel;
  });
  const count = panels.length;
  host.style.setProperty("--columns", count <= 4 ? Math.max(count, 1) : 3);
  host.classList.toggle("solo", count === 1);
  if (!count) host.append(make("p", { class: "card" }, "This view has no raster layers."));
}

function fillLegend(panel) {
  const { layer, legend } = panel;
  if (layer.name === "z_depth") legend.append(depthBar(panel));
  else if (layer.name.startsWith("flow_")) legend.append(flowWheel(), `white is still, full colour is ${shortNumber(layer.longest_px, 3)} px or more`);
  else if (layer.name === "normals_world" || layer.name === "object_coords") {
    ["#e5484d", "#30a46c", "#3e63dd"].forEach((colour, axis) => {
      const swatch = make("span", { class: "swatch" });
      swatch.style.background = colour;
      legend.append(make("span", {}, swatch, "XYZ"[axis]));
    });
    legend.append("hatched is unknown");
  } else if (layer.name === "instances") legend.append("dark is the background, hatched is unknown");
  else if (panel.hasTracks) legend.append(`${view().tracks.state.length} tracks of pixels sampled in ${new Set(view().tracks.source_slot).size} frame(s)`);
}

function depthFraction(layer, z) {
  return layer.is_log ? Math.log(z / layer.lo) / Math.log(layer.hi / layer.lo) : (z - layer.lo) / (layer.hi - layer.lo);
}
function depthAt(layer, fraction) {
  return layer.is_log ? layer.lo * Math.pow(layer.hi / layer.lo, fraction) : layer.lo + fraction * (layer.hi - layer.lo);
}

function depthBar(panel) {
  const { layer } = panel;
  const strip = make("canvas", { width: depthColours.length, height: 1, "aria-hidden": "true" });
  const context = strip.getContext("2d");
  depthColours.forEach((colour, level) => { context.fillStyle = colour; context.fillRect(level, 0, 1, 1); });
  panel.needle = make("span", { class: "needle" });
  const bar = make("div", { class: "bar" }, strip, panel.needle);
  for (const value of niceTicks(layer)) {
    const tick = make("span", { class: "tick" }, shortNumber(value, 3));
    tick.style.left = `${(depthFraction(layer, value) * 100).toFixed(2)}%`;
    bar.append(tick);
  }
  const holder = make("span", {});
  holder.append(`${layer.unit}, ${layer.kind}`);
  const both = document.createDocumentFragment();
  both.append(bar, holder);
  return both;
}

/** Round depths inside the bar, apart enough for their labels. */
function niceTicks(layer) {
  const candidates = [];
  if (layer.is_log) {
    for (let power = Math.floor(Math.log10(layer.lo)); power <= Math.log10(layer.hi); power += 1)
      for (const lead of [1, 2, 5]) candidates.push(lead * Math.pow(10, power));
  } else {
    const rough = (layer.hi - layer.lo) / 4, power = Math.pow(10, Math.floor(Math.log10(rough)));
    const step = [1, 2, 5, 10].map((lead) => lead * power).find((value) => value >= rough);
    for (let k = Math.ceil(layer.lo / step); k * step <= layer.hi; k += 1) candidates.push(Number((k * step).toPrecision(6)));
  }
  const kept = [];
  for (const value of candidates) {
    const at = depthFraction(layer, value);
    if (at >= 0.03 && at <= 0.97 && (!kept.length || at - depthFraction(layer, kept[kept.length - 1]) > 0.13)) kept.push(value);
  }
  return kept;
}

const depthColours = Array.from({ length: payload.depth_palette.length / 6 }, (_, level) => "#" + payload.depth_palette.slice(6 * level, 6 * level + 6));
const depthLevel = new Map(depthColours.map((colour, level) => [colour, level]));

function flowWheel() {
  const size = 52, wheel = make("canvas", { class: "wheel", width: size, height: size, role: "img", "aria-label": "Flow colour wheel: hue is the direction" });
  const context = wheel.getContext("2d"), pixels = context.createImageData(size, size);
  for (let y = 0; y < size; y += 1) for (let x = 0; x < size; x += 1) {
    const dx = (x - size / 2 + 0.5) / (size / 2), dy = (y - size / 2 + 0.5) / (size / 2), length = Math.hypot(dx, dy);
    if (length > 1) continue;
    const hue = (Math.atan2(dy, dx) * 180 / Math.PI + 360) % 360;
    pixels.data.set([...[5, 3, 1].map((n) => {
      const k = (n + hue / 60) % 6;
      return 255 * (1 - length * Math.max(0, Math.min(k, 4 - k, 1)));
    }), 255], 4 * (y * size + x));
  }
  context.putImageData(pixels, 0, 0);
  return wheel;
}

function drawPanels() {
  for (const panel of panels) {
    const [context, width, height, ratio] = fitCanvas(panel.canvas);
    const image = picture(state.view, state.slot, panel.layer.name);
    if (image === null) { context.clearRect(0, 0, width, height); continue; }
    if (!isReady(image)) continue; // the last picture stays until the next one is decoded
    // Enlarged pixels stay pixels; codes are never mixed.
    const isCode = panel.layer.name === "z_depth" || panel.layer.name === "instances";
    context.imageSmoothingEnabled = !isCode && width < 1.5 * image.naturalWidth;
    context.drawImage(image, 0, 0, width, height);
    if (panel.hasTracks) drawTracks(context, width / view().size[0], height / view().size[1], ratio);
    if (state.hover) drawCross(context, panel, width, height, ratio);
  }
}

function drawCross(context, panel, width, height, ratio) {
  const [u, v] = toLayer(panel.layer, state.slot, state.hover);
  const x = u / panel.layer.size[0] * width, y = v / panel.layer.size[1] * height;
  for (const [colour, line] of [["#000000b0", 3], ["#ffffff", 1]]) {
    context.strokeStyle = colour;
    context.lineWidth = line * ratio;
    context.beginPath();
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      context.moveTo(x + 4 * dx * ratio, y + 4 * dy * ratio);
      context.lineTo(x + 12 * dx * ratio, y + 12 * dy * ratio);
    }
    context.stroke();
  }
}

function isTrackShown(tracks, index) { return !state.hiddenInstances.has(tracks.instance[index]); }

function drawTracks(context, scaleX, scaleY, ratio) {
  const { tracks, size } = view(), slot = state.slot, first = Math.max(0, slot - state.trail);
  context.lineCap = "round";
  for (let index = 0; index < tracks.state.length; index += 1) {
    if (!isTrackShown(tracks, index) || !state.states.has(tracks.state[index][slot])) continue;
    for (let k = first; k < slot; k += 1) {
      const a = tracks.uv_px[index][k], b = tracks.uv_px[index][k + 1];
      if (!a || !b) continue;
      const isSeen = tracks.state[index][k + 1] === VISIBLE;
      context.setLineDash(isSeen ? [] : [2 * ratio, 3 * ratio]);
      context.strokeStyle = trackColour(tracks, index, 0.15 + 0.75 * (k + 1 - first) / (slot - first));
      context.lineWidth = (isSeen ? 1.6 : 1) * ratio;
      context.beginPath();
      context.moveTo(a[0] * scaleX, a[1] * scaleY);
      context.lineTo(b[0] * scaleX, b[1] * scaleY);
      context.stroke();
    }
    context.setLineDash([]);
    const uv = tracks.uv_px[index][slot];
    if (uv) drawMarker(context, tracks.state[index][slot], uv, size, scaleX, scaleY, ratio, trackColour(tracks, index));
  }
}

/** Filled disc: visible. Ring: occluded. Triangle at the border: outside. Cross: unknown. */
function drawMarker(context, kind, uv, size, scaleX, scaleY, ratio, colour) {
  const inside = [Math.min(Math.max(uv[0], 0), size[0]), Math.min(Math.max(uv[1], 0), size[1])];
  const x = inside[0] * scaleX, y = inside[1] * scaleY, r = 3.2 * ratio;
  const outline = (path, width) => {
    context.strokeStyle = "#000000c0"; context.lineWidth = width + 1.8 * ratio; path(); context.stroke();
    context.strokeStyle = colour; context.lineWidth = width; path(); context.stroke();
  };
  if (kind === VISIBLE) {
    context.beginPath(); context.arc(x, y, r, 0, 2 * Math.PI);
    context.fillStyle = colour; context.fill();
    context.strokeStyle = "#000000c0"; context.lineWidth = ratio; context.stroke();
  } else if (kind === OCCLUDED) {
    outline(() => { context.beginPath(); context.arc(x, y, r, 0, 2 * Math.PI); }, 1.3 * ratio);
  } else if (kind === OUTSIDE) {
    const angle = Math.atan2((uv[1] - inside[1]) * scaleY, (uv[0] - inside[0]) * scaleX);
    context.save();
    context.translate(x, y); context.rotate(angle);
    context.beginPath(); context.moveTo(0, 0); context.lineTo(-7 * ratio, -3.5 * ratio); context.lineTo(-7 * ratio, 3.5 * ratio); context.closePath();
    context.fillStyle = colour; context.fill();
    context.strokeStyle = "#000000c0"; context.lineWidth = ratio; context.stroke();
    context.restore();
  } else {
    outline(() => {
      const q = 2.6 * ratio;
      context.beginPath(); context.moveTo(x - q, y - q); context.lineTo(x + q, y + q); context.moveTo(x - q, y + q); context.lineTo(x + q, y - q);
    }, 1.2 * ratio);
  }
}

const onePixel = make("canvas", { width: 1, height: 1 });
const onePixelContext = onePixel.getContext("2d", { willReadFrequently: true });

/** The colour of a layer's shown pixel under a colour-grid pixel as "#rrggbb"; null off the layer. */
function colourUnder(layer, uv) {
  const image = picture(state.view, state.slot, layer.name);
  if (!isReady(image)) return null;
  const [u, v] = toLayer(layer, state.slot, uv);
  const x = Math.floor(u / layer.size[0] * image.naturalWidth), y = Math.floor(v / layer.size[1] * image.naturalHeight);
  if (x < 0 || y < 0 || x >= image.naturalWidth || y >= image.naturalHeight) return null;
  onePixelContext.drawImage(image, x, y, 1, 1, 0, 0, 1, 1);
  const [r, g, b] = onePixelContext.getImageData(0, 0, 1, 1).data;
  return "#" + [r, g, b].map((value) => value.toString(16).padStart(2, "0")).join("");
}

/** What the layers say under the pointer; depth is as exact as its colour, 1 part in 253 of the bar. */
function readProbe() {
  if (!state.hover) return null;
  const found = { uv: state.hover, z: null, instance: null, world: null };
  for (const layer of view().layers) {
    const colour = layer.name === "z_depth" || layer.name === "instances" ? colourUnder(layer, state.hover) : null;
    if (colour === null) continue;
    if (layer.name === "instances") found.instance = payload.instances.find((instance) => instance.colour === colour) || null;
    else if (depthLevel.has(colour)) found.z = depthAt(layer, depthLevel.get(colour) / (depthColours.length - 1));
  }
  const pose = view().world_from_cam[state.slot];
  if (found.z !== null && pose && view().camera_model === "pinhole") {
    const ray = times3(inverse3(view().intrinsics[state.slot]), [...found.uv, 1]).map((value) => value * found.z);
    found.world = [0, 4, 8].map((k) => pose[k] * ray[0] + pose[k + 1] * ray[1] + pose[k + 2] * ray[2] + pose[k + 3]);
  }
  return found;
}

function showProbe() {
  const found = readProbe(), host = byId("probe");
  for (const panel of panels) if (panel.needle) {
    panel.needle.style.display = found && found.z !== null ? "block" : "none";
    if (found && found.z !== null) panel.needle.style.left = `${depthFraction(panel.layer, found.z) * 100}%`;
  }
  if (!found) { host.replaceChildren("Point at a picture to read all layers there."); return; }
  const parts = [`pixel `, make("b", {}, found.uv.map((value) => value.toFixed(1)).join(", "))];
  if (view().layers.some((layer) => layer.name === "z_depth"))
    parts.push(`  z about `, make("b", {}, found.z === null ? "unknown" : `${shortNumber(found.z, 3)} ${payload.tags.unit}`));
  if (found.instance) parts.push(`  instance `, make("b", {}, `${found.instance.id} ${found.instance.name}`), ` (${found.instance.motion})`);
  if (found.world) parts.push(`  world about `, make("b", {}, found.world.map((value) => shortNumber(value, 3)).join(", ")));
  host.replaceChildren(...parts);
}

function buildStates() {
  const host = byId("states");
  host.replaceChildren(...STATES.map(([code, name]) => {
    const icon = make("canvas", { width: 28, height: 28, "aria-hidden": "true" });
    const colour = themeColour("--accent");
    const at = code === OUTSIDE ? [40, 14] : [14, 14];
    drawMarker(icon.getContext("2d"), code, at, code === OUTSIDE ? [22, 28] : [28, 28], 1, 1, 2, colour);
    const button = make("button", {
      type: "button", "data-state": code, "aria-pressed": String(state.states.has(code)), title: `Show or hide ${name} points`,
      onclick: () => {
        const states = new Set(state.states);
        if (!states.delete(code)) states.add(code);
        button.setAttribute("aria-pressed", String(states.has(code)));
        update({ states });
      },
    }, icon, name, make("b", {}, "0"));
    return button;
  }));
}

function countStates() {
  const { tracks } = view();
  for (const button of byId("states").children) {
    const code = button.dataset.state;
    let count = 0;
    for (let index = 0; index < tracks.state.length; index += 1) if (isTrackShown(tracks, index) && tracks.state[index][state.slot] === code) count += 1;
    button.lastChild.textContent = String(count);
  }
}

function buildChips() {
  const counts = new Map();
  for (const id of view().tracks.instance) counts.set(id, (counts.get(id) || 0) + 1);
  byId("instances").replaceChildren(...payload.instances.filter((instance) => counts.has(instance.id)).map((instance) => {
    const dot = make("span", { class: "dot" });
    dot.style.background = instance.colour;
    const chip = make("button", {
      type: "button", "aria-pressed": String(!state.hiddenInstances.has(instance.id)), title: `Show or hide the tracks of ${instance.name}`,
      onclick: () => {
        const hidden = new Set(state.hiddenInstances);
        if (!hidden.delete(instance.id)) hidden.add(instance.id);
        chip.setAttribute("aria-pressed", String(!hidden.has(instance.id)));
        update({ hiddenInstances: hidden });
      },
    }, dot, make("span", { class: "name" }, `${instance.id} ${instance.name}`), make("small", {}, `${instance.motion}, ${counts.get(instance.id)}`));
    return chip;
  }));
}

function showClock() {
  const { slots, times, frame_names: names, num_frames: total } = view(), slot = state.slot;
  const when = isSet ? "photo set" : `${times[slot].toFixed(3)} s`;
  byId("clock").replaceChildren(make("b", {}, `${slots[slot] + 1} / ${total}`), `  ${when}  ${names[slot]}`);
  const slider = byId("slider");
  slider.value = String(slot);
  slider.setAttribute("aria-valuetext", `frame ${slots[slot] + 1} of ${total}`);
  byId("play").textContent = state.isPlaying ? "Pause" : "Play";
}

let timer = null;
function schedule() {
  clearTimeout(timer);
  if (!state.isPlaying || view().slots.length < 2) return;
  const { times } = view(), next = state.slot + 1;
  const pause = isSet ? 0.6 : next < times.length ? times[next] - times[state.slot] : 0.5;
  timer = setTimeout(() => goTo((state.slot + 1) % view().slots.length), Math.min(Math.max(pause / state.speed, 0.03), 1.5) * 1000);
}

function goTo(slot) { update({ slot: Math.min(Math.max(slot, 0), view().slots.length - 1) }); }

/** Shows another view at the frame nearest in time. */
function chooseView(index) {
  if (index === state.view || index < 0 || index >= payload.views.length) return;
  update({ view: index, slot: nearestSlot(payload.views[index], view().times[state.slot]), hover: null });
}

function nearestSlot(other, time) {
  let best = 0;
  other.times.forEach((value, slot) => { if (Math.abs(value - time) < Math.abs(other.times[best] - time)) best = slot; });
  return best;
}
