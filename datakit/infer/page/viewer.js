"use strict";
// Points splatted with a depth buffer into an image, lines drawn over it on a plain 2D canvas: no WebGL, so it works in
// every browser and without a GPU. Text of the payload only ever becomes text nodes.
const payload = JSON.parse(document.getElementById("payload").textContent);
const byId = (id) => document.getElementById(id);
const numSlots = payload.times.length;

const state = { slot: 0, isPlaying: false, speed: 1, trail: Math.min(12, numSlots - 1), pointSize: 2 };
const shown = { points: true, all: true, tracks: true, hidden: false, cameras: true, through: false };

// ---- what the payload packs ------------------------------------------------------------------------------------------
const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
/** 16-bit numbers, little-endian whatever the machine. */
function wordsOf(text) {
  const bytes = bytesOf(text), words = new Uint16Array(bytes.length / 2);
  for (let k = 0; k < words.length; k += 1) words[k] = bytes[2 * k] | bytes[2 * k + 1] << 8;
  return words;
}
const UNKNOWN = 65535;
/** Positions from steps of the box; the last code of all means unknown. */
function placesOf(text) {
  const words = wordsOf(text), places = new Float32Array(words.length), { low, step } = payload.box;
  for (let k = 0; k < words.length; k += 1) places[k] = words[k] === UNKNOWN ? NaN : low[k % 3] + words[k] * step[k % 3];
  return places;
}
const cloud = { xyz: placesOf(payload.cloud.xyz), slot: wordsOf(payload.cloud.slot), moving: bytesOf(payload.cloud.moving) };
cloud.words = (() => {
  const bytes = bytesOf(payload.cloud.rgb), words = new Uint32Array(bytes.length / 3), parts = new Uint8ClampedArray(words.buffer);
  for (let k = 0; k < words.length; k += 1) parts.set([bytes[3 * k], bytes[3 * k + 1], bytes[3 * k + 2], 255], 4 * k);
  return words;
})();
cloud.width = (() => {
  const { low, ratio, codes } = payload.cloud.spacing, widths = Array.from({ length: 256 }, (_, k) => low * Math.pow(ratio, k / 255));
  return Float32Array.from(bytesOf(codes), (code) => widths[code]);
})();
const tracks = { count: payload.tracks.count, xyz: placesOf(payload.tracks.xyz), seen: bytesOf(payload.tracks.seen), uv: wordsOf(payload.tracks.uv) };
tracks.colours = Array.from({ length: tracks.count }, (_, k) => `hsl(${Math.round(payload.tracks.hue[k])} 90% 60%)`);

// ---- small vectors ---------------------------------------------------------------------------------------------------
const sub = (a, b) => [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
const add = (a, b, s = 1) => [a[0] + s * b[0], a[1] + s * b[1], a[2] + s * b[2]];
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const unit = (a) => { const n = Math.hypot(...a); return n > 0 ? a.map((value) => value / n) : [0, 0, 1]; };
function quantile(values, share) {
  if (!values.length) return 0;
  const sorted = Float64Array.from(values).sort();
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.round(share * (sorted.length - 1))))];
}

// ---- cameras: a pose is the 12 numbers of the upper rows of world_from_cam -------------------------------------------
const poses = payload.poses, known = poses.filter((pose) => pose !== null);
const centreOf = (pose) => [pose[3], pose[7], pose[11]];
const up = unit(payload.world_up || known.reduce((sum, pose) => add(sum, [-pose[1], -pose[5], -pose[9]]), [0, 0, 0]));
const east = unit(cross(up, Math.abs(up[0]) < 0.9 ? [1, 0, 0] : [0, 1, 0]));
const north = cross(up, east);
const orbit = { yaw: 0, pitch: 0.3, radius: 1, target: [0, 0, 0], size: 1 };

/** Frames the bulk of the points, seen from a little behind and above the first camera. */
function resetView() {
  const sample = [], step = 3 * Math.max(1, Math.floor(cloud.xyz.length / 3 / 6000));
  for (let k = 0; k < cloud.xyz.length; k += step) sample.push([cloud.xyz[k], cloud.xyz[k + 1], cloud.xyz[k + 2]]);
  const eyes = known.map(centreOf), all = sample.length ? sample : eyes.length ? eyes : [[0, 0, 0]];
  const middle = [0, 1, 2].map((axis) => quantile(all.map((point) => point[axis]), 0.5));
  const reach = quantile(all.map((point) => Math.hypot(...sub(point, middle))), 0.8);
  orbit.size = Math.max(reach, 1e-6 * (1 + Math.hypot(...middle)));
  orbit.target = middle;
  const side = eyes.length ? sub(eyes[0], middle) : east, level = Math.hypot(dot(side, east), dot(side, north));
  orbit.yaw = Math.atan2(dot(side, north), dot(side, east)) + 0.45;
  orbit.pitch = Math.min(Math.max(Math.atan2(dot(side, up), level) + 0.25, -1.2), 1.2);
  orbit.radius = Math.max(1.5 * orbit.size, Math.min(1.2 * Math.hypot(...side), 4 * orbit.size));
}

function orbitCamera(width, height) {
  const { yaw, pitch, radius, target } = orbit;
  const level = [0, 1, 2].map((k) => Math.cos(yaw) * east[k] + Math.sin(yaw) * north[k]);
  const out = [0, 1, 2].map((k) => Math.cos(pitch) * level[k] + Math.sin(pitch) * up[k]);
  const forward = out.map((value) => -value), right = unit(cross(forward, up)), down = cross(forward, right);
  const focal = 1.1 * Math.min(width, height);
  return { eye: add(target, out, radius), right, down, forward, fx: focal, fy: focal, cx: width / 2, cy: height / 2, near: radius * 1e-3 };
}

/** The video's own camera at a slot, its picture fitted into the canvas; null where its pose is unknown. */
function videoCamera(slot, width, height) {
  const pose = poses[slot], k = payload.intrinsics[slot], [w, h] = payload.size;
  if (!pose) return null;
  const scale = Math.min(width / w, height / h), left = (width - scale * w) / 2, top = (height - scale * h) / 2;
  return {
    eye: centreOf(pose), right: [pose[0], pose[4], pose[8]], down: [pose[1], pose[5], pose[9]], forward: [pose[2], pose[6], pose[10]],
    fx: k[0] * scale, fy: k[1] * scale, cx: k[2] * scale + left, cy: k[3] * scale + top, near: orbit.size * 1e-4,
    frame: [left, top, scale * w, scale * h],
  };
}

function projectTo(camera, point) {
  const d = sub(point, camera.eye), z = dot(d, camera.forward);
  if (!(z > camera.near)) return null;
  return [camera.fx * dot(d, camera.right) / z + camera.cx, camera.fy * dot(d, camera.down) / z + camera.cy, z];
}

// ---- drawing ---------------------------------------------------------------------------------------------------------
function fitCanvas(canvas, mostRatio) {
  const ratio = Math.min(window.devicePixelRatio || 1, mostRatio);
  const width = Math.max(1, Math.round(canvas.clientWidth * ratio)), height = Math.max(1, Math.round(canvas.clientHeight * ratio));
  if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
  return [canvas.getContext("2d"), width, height, ratio];
}
const themeColour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

let buffers = null;
function splat(width, height, camera, size) {
  if (!buffers || buffers.width !== width || buffers.height !== height) {
    const canvas = document.createElement("canvas");
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext("2d"), image = context.createImageData(width, height);
    buffers = { width, height, canvas, context, image, words: new Uint32Array(image.data.buffer), depth: new Float32Array(width * height) };
  }
  const { words, depth } = buffers, { xyz, slot, moving, width: widths, words: colours } = cloud, now = state.slot, all = shown.all, most = 24 * Math.max(1, size);
  const [ex, ey, ez] = camera.eye, [rx, ry, rz] = camera.right, [dx, dy, dz] = camera.down, [fx, fy, fz] = camera.forward;
  words.fill(0);
  depth.fill(Infinity);
  for (let k = 0, at = 0; k < colours.length; k += 1, at += 3) {
    if (slot[k] !== now && (moving[k] || !all)) continue;
    const px = xyz[at] - ex, py = xyz[at + 1] - ey, pz = xyz[at + 2] - ez, z = px * fx + py * fy + pz * fz;
    if (!(z > camera.near)) continue;
    const u = camera.fx * (px * rx + py * ry + pz * rz) / z + camera.cx, v = camera.fy * (px * dx + py * dy + pz * dz) / z + camera.cy;
    // A point is as wide as its cell, so that surfaces stay closed near and far.
    const side = Math.max(1, Math.min(Math.round(size * widths[k] * camera.fx / z), most));
    const left = Math.round(u - side / 2), top = Math.round(v - side / 2);
    if (left + side <= 0 || top + side <= 0 || left >= width || top >= height) continue;
    const right = Math.min(left + side, width), bottom = Math.min(top + side, height);
    for (let row = Math.max(top, 0); row < bottom; row += 1)
      for (let cell = row * width + Math.max(left, 0); cell < row * width + right; cell += 1)
        if (z < depth[cell]) { depth[cell] = z; words[cell] = colours[k]; }
  }
  buffers.context.putImageData(buffers.image, 0, 0);
  return buffers.canvas;
}

function segment(context, camera, a, b) {
  let p = projectTo(camera, a), q = projectTo(camera, b);
  if (!p && !q) return;
  if (!p || !q) {
    // Cut where it leaves the space in front of the camera.
    const za = dot(sub(a, camera.eye), camera.forward), zb = dot(sub(b, camera.eye), camera.forward);
    const cut = projectTo(camera, add(a, sub(b, a), (camera.near * 1.01 - za) / (zb - za)));
    if (!cut) return;
    if (!p) p = cut; else q = cut;
  }
  context.moveTo(p[0], p[1]);
  context.lineTo(q[0], q[1]);
}

function stroke(context, colour, width, draw) {
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.beginPath();
  draw();
  context.stroke();
}

function frustum(slot, distance) {
  const pose = poses[slot], [fx, fy, cx, cy] = payload.intrinsics[slot], [w, h] = payload.size;
  const corners = [[0, 0], [w, 0], [w, h], [0, h]].map(([u, v]) => {
    const ray = [(u - cx) / fx * distance, (v - cy) / fy * distance, distance];
    return [0, 4, 8].map((k) => pose[k] * ray[0] + pose[k + 1] * ray[1] + pose[k + 2] * ray[2] + pose[k + 3]);
  });
  return [centreOf(pose), corners];
}

function drawCameras(context, camera, ratio) {
  const accent = themeColour("--accent"), soft = themeColour("--soft"), distance = Math.min(orbit.radius, 2 * orbit.size) * 0.09;
  const draw = (slot, size) => {
    const [eye, corners] = frustum(slot, size);
    corners.forEach((corner, k) => { segment(context, camera, eye, corner); segment(context, camera, corner, corners[(k + 1) % 4]); });
  };
  stroke(context, soft, 1.3 * ratio, () => {
    for (let k = 0; k + 1 < payload.path.length; k += 1) if (payload.path[k] && payload.path[k + 1]) segment(context, camera, payload.path[k], payload.path[k + 1]);
  });
  stroke(context, soft + "80", ratio, () => {
    for (let k = 0; k < numSlots; k += Math.ceil(numSlots / 10)) if (poses[k] && k !== state.slot) draw(k, distance * 0.6);
  });
  if (poses[state.slot]) stroke(context, accent, 2 * ratio, () => draw(state.slot, distance));
}

const isSeen = (track, slot) => tracks.seen[track * numSlots + slot] === 1;
const placeOf = (track, slot) => {
  const at = 3 * (track * numSlots + slot);
  return Number.isNaN(tracks.xyz[at]) ? null : [tracks.xyz[at], tracks.xyz[at + 1], tracks.xyz[at + 2]];
};

function drawTracks(context, camera, ratio) {
  const first = Math.max(0, state.slot - state.trail);
  for (let track = 0; track < tracks.count; track += 1) {
    if (!shown.hidden && !isSeen(track, state.slot)) continue;
    const here = placeOf(track, state.slot), at = here && projectTo(camera, here);
    if (!here) continue;
    context.globalAlpha = 0.8;
    stroke(context, tracks.colours[track], 1.5 * ratio, () => {
      for (let k = first; k < state.slot; k += 1) {
        const a = placeOf(track, k), b = placeOf(track, k + 1);
        if (a && b) segment(context, camera, a, b);
      }
    });
    context.globalAlpha = 1;
    if (at) drawDot(context, at[0], at[1], isSeen(track, state.slot), tracks.colours[track], 2.4 * ratio);
  }
}

/** Filled where the point is visible, a ring where it is not. */
function drawDot(context, x, y, seen, colour, radius) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  if (seen) { context.fillStyle = colour; context.fill(); }
  context.strokeStyle = seen ? "#000000a0" : colour;
  context.lineWidth = Math.max(1, radius * 0.4);
  context.stroke();
}

function drawTriad(context, camera, height, ratio) {
  const origin = [40 * ratio, height - 40 * ratio], length = 24 * ratio;
  for (const [name, axis, colour] of [["X", [1, 0, 0], "#e5484d"], ["Y", [0, 1, 0], "#2fa86a"], ["Z", [0, 0, 1], "#4a78f0"]]) {
    const x = dot(axis, camera.right) * length, y = dot(axis, camera.down) * length;
    stroke(context, colour, 2.2 * ratio, () => { context.moveTo(...origin); context.lineTo(origin[0] + x, origin[1] + y); });
    context.fillStyle = colour;
    context.font = `600 ${11 * ratio}px system-ui, sans-serif`;
    context.fillText(name, origin[0] + 1.3 * x - 4 * ratio, origin[1] + 1.3 * y + 4 * ratio);
  }
}

const pictures = payload.pictures.map((source) => {
  if (!source) return null;
  const image = new Image();
  image.addEventListener("load", repaint);
  image.src = source;
  return image;
});
const isReady = (image) => image && image.complete && image.naturalWidth > 0;

function drawPicture() {
  const canvas = byId("picture");
  canvas.style.aspectRatio = `${payload.size[0]} / ${payload.size[1]}`;
  const [context, width, height, ratio] = fitCanvas(canvas, 2), image = pictures[state.slot];
  context.clearRect(0, 0, width, height);
  if (isReady(image)) context.drawImage(image, 0, 0, width, height);
  if (!shown.tracks) return;
  for (let track = 0; track < tracks.count; track += 1) {
    const at = 2 * (track * numSlots + state.slot);
    if (tracks.uv[at] === UNKNOWN || !isSeen(track, state.slot)) continue;
    drawDot(context, tracks.uv[at] / 65534 * width, tracks.uv[at + 1] / 65534 * height, true, tracks.colours[track], 1.8 * ratio);
  }
}

function draw() {
  const [context, width, height, ratio] = fitCanvas(byId("space"), 1.5);
  const own = shown.through ? videoCamera(state.slot, width, height) : null, camera = own || orbitCamera(width, height);
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.fillStyle = themeColour("--stage");
  context.fillRect(0, 0, width, height);
  if (own && isReady(pictures[state.slot])) {
    context.globalAlpha = 0.35;
    context.drawImage(pictures[state.slot], ...own.frame);
    context.globalAlpha = 1;
  }
  if (shown.points) context.drawImage(splat(width, height, camera, state.pointSize * 0.65), 0, 0);
  if (shown.cameras && !own) drawCameras(context, camera, ratio);
  if (shown.tracks) drawTracks(context, camera, ratio);
  if (own) stroke(context, themeColour("--accent"), 1.5 * ratio, () => context.rect(...own.frame));
  drawTriad(context, camera, height, ratio);
  drawPicture();
  const missing = poses[state.slot] ? "" : ", pose of this frame unknown";
  byId("note").textContent = `${payload.cloud.count.toLocaleString("en")} points, ${tracks.count} tracks${missing}`;
  byId("slider").value = String(state.slot);
  byId("clock").textContent = `frame ${payload.numbers[state.slot]}, ${payload.times[state.slot].toFixed(3)} s`;
}

let isPending = false;
function repaint() {
  if (isPending) return;
  isPending = true;
  requestAnimationFrame(() => { isPending = false; draw(); });
}

// ---- controls --------------------------------------------------------------------------------------------------------
function show(slot) { state.slot = Math.min(Math.max(slot, 0), numSlots - 1); repaint(); }

let last = 0;
function play(now) {
  if (!state.isPlaying) return;
  const wait = state.slot + 1 < numSlots ? payload.times[state.slot + 1] - payload.times[state.slot] : 0.6;
  if (now - last >= Math.min(wait, 1) * 1000 / state.speed) { last = now; show((state.slot + 1) % numSlots); }
  requestAnimationFrame(play);
}
function setPlaying(isPlaying) {
  state.isPlaying = isPlaying && numSlots > 1;
  byId("play").textContent = state.isPlaying ? "Pause" : "Play";
  last = performance.now();
  if (state.isPlaying) requestAnimationFrame(play);
}

function toggle(name) {
  shown[name] = !shown[name];
  byId("bar").querySelector(`[data-toggle="${name}"]`).setAttribute("aria-pressed", String(shown[name]));
  repaint();
}

function wireOrbit() {
  const canvas = byId("space"), held = new Map();
  const turn = (dx, dy) => { orbit.yaw -= dx; orbit.pitch = Math.min(Math.max(orbit.pitch + dy, -1.55), 1.55); repaint(); };
  const zoom = (factor) => { orbit.radius = Math.min(Math.max(orbit.radius * factor, orbit.size * 1e-3), orbit.size * 1e3); repaint(); };
  const pan = (dx, dy) => {
    const camera = orbitCamera(canvas.clientWidth, canvas.clientHeight), scale = orbit.radius / camera.fx;
    orbit.target = add(add(orbit.target, camera.right, -dx * scale), camera.down, -dy * scale);
    repaint();
  };
  const reset = () => { resetView(); if (shown.through) toggle("through"); repaint(); };
  canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); held.set(event.pointerId, event); });
  for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, (event) => held.delete(event.pointerId));
  canvas.addEventListener("pointermove", (event) => {
    const before = held.get(event.pointerId);
    if (!before || shown.through) return;
    const dx = event.clientX - before.clientX, dy = event.clientY - before.clientY;
    if (held.size === 2) {
      const other = [...held].find(([id]) => id !== event.pointerId)[1];
      const gap = (one) => Math.max(Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY), 1);
      zoom(gap(before) / gap(event));
      pan(dx / 2, dy / 2);
    } else if (event.shiftKey || event.buttons & 2) pan(dx, dy);
    else turn(dx * 0.008, dy * 0.008);
    held.set(event.pointerId, event);
  });
  canvas.addEventListener("wheel", (event) => { event.preventDefault(); zoom(Math.exp(event.deltaY * 0.0012)); }, { passive: false });
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("dblclick", reset);
  byId("reset").addEventListener("click", reset);
  canvas.addEventListener("keydown", (event) => {
    const actions = { ArrowUp: () => turn(0, 0.1), ArrowDown: () => turn(0, -0.1), "+": () => zoom(0.85), "=": () => zoom(0.85), "-": () => zoom(1.18), 0: reset };
    if (actions[event.key]) { actions[event.key](); event.preventDefault(); event.stopPropagation(); }
  });
}

function wireControls() {
  byId("slider").max = String(numSlots - 1);
  byId("slider").addEventListener("input", (event) => { setPlaying(false); show(Number(event.target.value)); });
  byId("play").addEventListener("click", () => setPlaying(!state.isPlaying));
  byId("back").addEventListener("click", () => show(state.slot - 1));
  byId("forth").addEventListener("click", () => show(state.slot + 1));
  byId("speed").addEventListener("change", (event) => { state.speed = Number(event.target.value); });
  byId("point-size").addEventListener("input", (event) => { state.pointSize = Number(event.target.value); repaint(); });
  const trail = byId("trail"), setTrail = () => { state.trail = Number(trail.value); byId("trail-length").textContent = trail.value; repaint(); };
  trail.max = String(Math.max(numSlots - 1, 0));
  trail.value = String(state.trail);
  trail.addEventListener("input", setTrail);
  setTrail();
  for (const button of byId("bar").querySelectorAll("[data-toggle]")) button.addEventListener("click", () => toggle(button.dataset.toggle));
  byId("theme").addEventListener("click", () => {
    const root = document.documentElement, isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = isDark ? "light" : "dark";
    repaint();
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|BUTTON)$/.test(event.target.tagName)) return;
    const keys = { p: "points", a: "all", t: "tracks", h: "hidden", c: "cameras", v: "through" };
    const actions = { " ": () => setPlaying(!state.isPlaying), ArrowLeft: () => show(state.slot - 1), ArrowRight: () => show(state.slot + 1) };
    if (keys[event.key]) toggle(keys[event.key]);
    else if (actions[event.key]) { actions[event.key](); event.preventDefault(); }
  });
  window.addEventListener("resize", repaint);
}

function fillFacts() {
  for (const [name, value] of payload.facts) {
    const row = document.createElement("div"), term = document.createElement("dt"), text = document.createElement("dd");
    term.textContent = name;
    text.textContent = value;
    row.append(term, text);
    byId("facts").append(row);
  }
  for (const [text, isBad] of payload.notes) {
    const item = document.createElement("li");
    item.textContent = text;
    if (isBad) item.className = "bad";
    byId("notes").append(item);
  }
}

fillFacts();
resetView();
wireOrbit();
wireControls();
// A link may name the frame and the view: #slot=7,through
for (const part of decodeURIComponent(location.hash.slice(1)).split(",")) {
  if (/^slot=\d+$/.test(part)) state.slot = Math.min(Number(part.slice(5)), numSlots - 1);
  else if (part in shown) toggle(part);
}
repaint();
