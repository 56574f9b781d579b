"use strict";
// The world: points splatted with a depth buffer into an image, lines drawn over it on a plain 2D canvas.
// No WebGL, so it works in every browser and without a GPU.
const space = { yaw: 0, pitch: 0.5, radius: 1, target: [0, 0, 0], size: 1, ground: 0 };

const sub = (a, b) => [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
const add = (a, b, s = 1) => [a[0] + s * b[0], a[1] + s * b[1], a[2] + s * b[2]];
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const unit = (a) => { const n = Math.hypot(...a); return n > 0 ? a.map((value) => value / n) : [0, 0, 1]; };

function bytesOf(text) { return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)); }
/** Float32 numbers, little-endian whatever the machine. */
function floatsOf(text) {
  const bytes = bytesOf(text), values = new Float32Array(bytes.length / 4), data = new DataView(bytes.buffer);
  for (let k = 0; k < values.length; k += 1) values[k] = data.getFloat32(4 * k, true);
  return values;
}
/** Colours as the 32-bit words of canvas pixels. */
function wordsOf(text) {
  const bytes = bytesOf(text), words = new Uint32Array(bytes.length / 3), parts = new Uint8ClampedArray(words.buffer);
  for (let k = 0; k < words.length; k += 1) parts.set([bytes[3 * k], bytes[3 * k + 1], bytes[3 * k + 2], 255], 4 * k);
  return words;
}

const clouds = payload.clouds.map((cloud) => ({
  fixed: floatsOf(cloud.fixed), fixedRgb: wordsOf(cloud.fixed_rgb), moving: floatsOf(cloud.moving), movingRgb: wordsOf(cloud.moving_rgb),
  momentary: floatsOf(cloud.momentary), momentaryRgb: wordsOf(cloud.momentary_rgb), momentarySlot: cloud.momentary_slot,
}));

const poses = payload.views.flatMap((one) => one.world_from_cam.filter((pose) => pose !== null));
const centreOf = (pose) => [pose[3], pose[7], pose[11]];
// Up is known, or else the mean of the cameras' own up, which is -y of each.
const up = unit(payload.tags.world_up || poses.reduce((sum, pose) => add(sum, [-pose[1], -pose[5], -pose[9]]), [0, 0, 0]));
const east = unit(cross(up, Math.abs(up[0]) < 0.9 ? [1, 0, 0] : [0, 1, 0]));
const north = cross(up, east);

function quantile(values, share) {
  if (!values.length) return 0;
  const sorted = Float64Array.from(values).sort();
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.round(share * (sorted.length - 1))))];
}

/** Frames what matters: the bulk of the points, and every camera. */
function resetSpace() {
  const samples = [];
  for (const cloud of clouds) for (const list of [cloud.fixed, cloud.moving, cloud.momentary]) {
    const step = 3 * Math.max(1, Math.floor(list.length / 3 / 4000));
    for (let k = 0; k < list.length; k += step) if (Number.isFinite(list[k])) samples.push([list[k], list[k + 1], list[k + 2]]);
  }
  const eyes = poses.map(centreOf), all = samples.length ? samples : eyes.length ? eyes : [[0, 0, 0]];
  const middle = [0, 1, 2].map((axis) => quantile(all.map((point) => point[axis]), 0.5));
  const reach = quantile(all.map((point) => Math.hypot(...sub(point, middle))), 0.85);
  const eyeReach = eyes.length ? quantile(eyes.map((eye) => Math.hypot(...sub(eye, middle))), 1) : 0;
  space.size = Math.max(Math.min(reach, eyeReach > 0 ? 3 * eyeReach : reach), 1e-6 * (1 + Math.hypot(...middle)));
  space.ground = quantile(all.map((point) => dot(point, up)), 0.02);
  space.target = middle;
  space.radius = 1.35 * Math.max(space.size, eyeReach);
  // Look from the cameras' side, turned a little so that their path is not seen end on.
  const mean = eyes.length ? eyes.reduce((sum, eye) => add(sum, eye, 1 / eyes.length), [0, 0, 0]) : add(middle, east);
  const side = sub(mean, middle);
  space.yaw = Math.atan2(dot(side, north), dot(side, east)) + 0.6;
  space.pitch = 0.5;
}

function orbitCamera(width, height) {
  const { yaw, pitch, radius, target } = space;
  const level = [0, 1, 2].map((k) => Math.cos(yaw) * east[k] + Math.sin(yaw) * north[k]);
  const out = [0, 1, 2].map((k) => Math.cos(pitch) * level[k] + Math.sin(pitch) * up[k]);
  const forward = out.map((value) => -value), right = unit(cross(forward, up)), down = cross(forward, right);
  const focal = 1.15 * Math.min(width, height);
  return { eye: add(target, out, radius), right, down, forward, fx: focal, fy: focal, skew: 0, cx: width / 2, cy: height / 2, near: radius * 1e-3 };
}

/** The scene's own camera, its image fitted into the canvas; null where its pose is unknown. */
function sceneCamera(width, height) {
  const one = view(), pose = one.world_from_cam[state.slot], k = one.intrinsics[state.slot];
  if (!pose) return null;
  const scale = Math.min(width / one.size[0], height / one.size[1]);
  const left = (width - scale * one.size[0]) / 2, top = (height - scale * one.size[1]) / 2;
  return {
    eye: centreOf(pose), right: [pose[0], pose[4], pose[8]], down: [pose[1], pose[5], pose[9]], forward: [pose[2], pose[6], pose[10]],
    fx: k[0] * scale, skew: k[1] * scale, fy: k[4] * scale, cx: k[2] * scale + left, cy: k[5] * scale + top, near: space.size * 1e-4,
    frame: [left, top, scale * one.size[0], scale * one.size[1]],
  };
}

function projectTo(camera, point) {
  const d = sub(point, camera.eye), z = dot(d, camera.forward);
  if (!(z > camera.near)) return null;
  const x = dot(d, camera.right) / z, y = dot(d, camera.down) / z;
  return [camera.fx * x + camera.skew * y + camera.cx, camera.fy * y + camera.cy, z];
}

let buffers = null;
function splatCloud(width, height, camera, splat) {
  if (!buffers || buffers.width !== width || buffers.height !== height) {
    const canvas = make("canvas", { width, height }), context = canvas.getContext("2d"), image = context.createImageData(width, height);
    buffers = { width, height, canvas, context, image, words: new Uint32Array(image.data.buffer), depth: new Float32Array(width * height) };
  }
  const { words, depth } = buffers, [ex, ey, ez] = camera.eye, [rx, ry, rz] = camera.right, [dx, dy, dz] = camera.down, [fx, fy, fz] = camera.forward;
  words.fill(0);
  depth.fill(Infinity);
  const usual = camera.frame ? space.size : space.radius;
  const put = (points, at, word) => {
    const px = points[at] - ex, py = points[at + 1] - ey, pz = points[at + 2] - ez, z = px * fx + py * fy + pz * fz;
    if (!(z > camera.near)) return; // also drops NaN
    const x = (px * rx + py * ry + pz * rz) / z, y = (px * dx + py * dy + pz * dz) / z;
    // Near points are larger, so that near surfaces stay closed.
    const side = Math.max(1, Math.round(splat * Math.min(Math.max(usual / z, 1), 5)));
    const left = Math.round(camera.fx * x + camera.skew * y + camera.cx - side / 2), top = Math.round(camera.fy * y + camera.cy - side / 2);
    if (left + side <= 0 || top + side <= 0 || left >= width || top >= height) return;
    for (let row = Math.max(top, 0); row < Math.min(top + side, height); row += 1)
      for (let col = Math.max(left, 0); col < Math.min(left + side, width); col += 1) {
        const cell = row * width + col;
        if (z < depth[cell]) { depth[cell] = z; words[cell] = word; }
      }
  };
  clouds.forEach((cloud, index) => {
    const one = payload.views[index], slot = index === state.view ? state.slot : nearestSlot(one, view().times[state.slot]), shown = one.slots.length;
    for (let k = 0; k < cloud.fixedRgb.length; k += 1) put(cloud.fixed, 3 * k, cloud.fixedRgb[k]);
    for (let k = 0; k < cloud.movingRgb.length; k += 1) put(cloud.moving, 3 * (k * shown + slot), cloud.movingRgb[k]);
    // Points without known motion belong to the frame they were seen in; the latest such frame is shown.
    const latest = cloud.momentarySlot.reduce((best, value) => (value <= slot && value > best ? value : best), -1);
    for (let k = 0; k < cloud.momentaryRgb.length; k += 1) if (cloud.momentarySlot[k] === latest) put(cloud.momentary, 3 * k, cloud.momentaryRgb[k]);
  });
  buffers.context.putImageData(buffers.image, 0, 0);
  return buffers.canvas;
}

function line(context, camera, a, b) {
  let p = projectTo(camera, a), q = projectTo(camera, b);
  if (!p && !q) return;
  if (!p || !q) {
    // Cut the segment where it leaves the space in front of the camera.
    const za = dot(sub(a, camera.eye), camera.forward), zb = dot(sub(b, camera.eye), camera.forward);
    const cut = add(a, sub(b, a), (camera.near * 1.01 - za) / (zb - za));
    if (!p) p = projectTo(camera, cut); else q = projectTo(camera, cut);
    if (!p || !q) return;
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

function gridStep() {
  const rough = space.size / 4, power = Math.pow(10, Math.floor(Math.log10(rough)));
  return [1, 2, 5, 10].map((lead) => lead * power).find((value) => value >= rough);
}

function drawGrid(context, camera, ratio) {
  const step = gridStep(), count = 8;
  const middle = [dot(space.target, east), dot(space.target, north)].map((value) => Math.round(value / step) * step);
  const at = (a, b) => add(add(add([0, 0, 0], east, middle[0] + a * step), north, middle[1] + b * step), up, space.ground);
  stroke(context, themeColour("--line"), ratio, () => {
    for (let k = -count; k <= count; k += 1) for (let j = -count; j < count; j += 1) {
      line(context, camera, at(k, j), at(k, j + 1));
      line(context, camera, at(j, k), at(j + 1, k));
    }
  });
}

/** The eye and the four corners of a frame's image at a distance. */
function frustum(one, slot, distance) {
  const pose = one.world_from_cam[slot], inverse = inverse3(one.intrinsics[slot]), [width, height] = one.size;
  const corners = [[0, 0], [width, 0], [width, height], [0, height]].map(([u, v]) => {
    const ray = times3(inverse, [u, v, 1]).map((value) => value * distance);
    return [0, 4, 8].map((k) => pose[k] * ray[0] + pose[k + 1] * ray[1] + pose[k + 2] * ray[2] + pose[k + 3]);
  });
  return [centreOf(pose), corners];
}

function drawFrustum(context, camera, one, slot, distance) {
  const [eye, corners] = frustum(one, slot, distance);
  corners.forEach((corner, k) => { line(context, camera, eye, corner); line(context, camera, corner, corners[(k + 1) % 4]); });
}

function drawCameras(context, camera, ratio) {
  const accent = themeColour("--accent"), soft = themeColour("--soft"), distance = space.radius * 0.06;
  payload.views.forEach((one, index) => {
    const isCurrent = index === state.view, slot = isCurrent ? state.slot : nearestSlot(one, view().times[state.slot]);
    // From inside a camera its own path and neighbours would only hide the picture.
    if (state.through && isCurrent) return;
    if (!isSet) stroke(context, isCurrent ? accent : soft, (isCurrent ? 1.6 : 1) * ratio, () => {
      for (let k = 0; k + 1 < one.path.length; k += 1) if (one.path[k] && one.path[k + 1]) line(context, camera, one.path[k], one.path[k + 1]);
    });
    const every = Math.max(1, Math.ceil(one.slots.length / (isSet ? 60 : 12)));
    stroke(context, soft + "90", ratio, () => {
      for (let k = 0; k < one.slots.length; k += every) if (one.world_from_cam[k] && k !== slot) drawFrustum(context, camera, one, k, distance * 0.6);
    });
    if (!one.world_from_cam[slot]) return;
    stroke(context, isCurrent ? accent : soft, 2 * ratio, () => drawFrustum(context, camera, one, slot, distance));
    const [, corners] = frustum(one, slot, distance), top = corners.slice(0, 2).map((corner) => projectTo(camera, corner));
    if (payload.views.length > 1 && top[0] && top[1]) {
      context.fillStyle = isCurrent ? accent : soft;
      context.font = `${12 * ratio}px system-ui, sans-serif`;
      context.fillText(one.name, (top[0][0] + top[1][0]) / 2, (top[0][1] + top[1][1]) / 2 - 4 * ratio);
    }
  });
}

function drawTracks3d(context, camera, ratio) {
  const { tracks } = view(), slot = state.slot, first = Math.max(0, slot - Math.max(state.trail, 1));
  for (let index = 0; index < tracks.state.length; index += 1) {
    const kind = tracks.state[index][slot];
    if (!isTrackShown(tracks, index) || !state.states.has(kind)) continue;
    const points = tracks.points_world[index];
    stroke(context, trackColour(tracks, index, 0.85), 1.6 * ratio, () => {
      for (let k = first; k < slot; k += 1) if (points[k] && points[k + 1]) line(context, camera, points[k], points[k + 1]);
    });
    const at = points[slot] && projectTo(camera, points[slot]);
    if (!at) continue;
    context.beginPath();
    context.arc(at[0], at[1], 2.6 * ratio, 0, 2 * Math.PI);
    context.strokeStyle = kind === VISIBLE ? "#000000b0" : trackColour(tracks, index);
    context.lineWidth = ratio;
    if (kind === VISIBLE) { context.fillStyle = trackColour(tracks, index); context.fill(); }
    context.stroke();
  }
}

function drawTriad(context, camera, height, ratio) {
  const origin = [46 * ratio, height - 46 * ratio], length = 28 * ratio;
  const axes = [["X", [1, 0, 0], "#e5484d"], ["Y", [0, 1, 0], "#2fa86a"], ["Z", [0, 0, 1], "#4a78f0"]]
    .map(([name, axis, colour]) => [name, colour, dot(axis, camera.right), dot(axis, camera.down), dot(axis, camera.forward)])
    .sort((a, b) => b[4] - a[4]); // far ones first
  context.font = `600 ${11 * ratio}px system-ui, sans-serif`;
  for (const [name, colour, x, y] of axes) {
    stroke(context, colour, 2.4 * ratio, () => { context.moveTo(...origin); context.lineTo(origin[0] + length * x, origin[1] + length * y); });
    context.fillStyle = colour;
    context.fillText(name, origin[0] + length * 1.28 * x - 4 * ratio, origin[1] + length * 1.28 * y + 4 * ratio);
  }
}

function drawHover(context, camera, ratio) {
  const found = readProbe(), at = found && found.world && projectTo(camera, found.world);
  if (!at) return;
  for (const [colour, width] of [["#000000c0", 5], ["#ffffff", 2.4]])
    stroke(context, colour, width * ratio, () => context.arc(at[0], at[1], 8 * ratio, 0, 2 * Math.PI));
}

function drawSpace() {
  const [context, width, height, ratio] = fitCanvas(byId("space"), 1.5);
  const through = byId("space-bar").querySelector('[data-toggle="through"]'), isPinhole = view().camera_model === "pinhole";
  through.disabled = !isPinhole || !view().world_from_cam[state.slot];
  through.title = isPinhole ? "See the points from the current camera, over its image" : "Only for pinhole views";
  const own = state.through && !through.disabled ? sceneCamera(width, height) : null, camera = own || orbitCamera(width, height);
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.fillStyle = themeColour("--stage");
  context.fillRect(0, 0, width, height);
  if (own && view().layers.length) {
    const image = picture(state.view, state.slot, view().layers[0].name);
    context.globalAlpha = 0.45;
    if (isReady(image)) context.drawImage(image, ...own.frame);
    context.globalAlpha = 1;
  }
  if (state.grid && !own) drawGrid(context, camera, ratio);
  if (state.cloud) context.drawImage(splatCloud(width, height, camera, state.pointSize * ratio), 0, 0);
  if (state.cameras) drawCameras(context, camera, ratio);
  if (state.tracks3d) drawTracks3d(context, camera, ratio);
  drawHover(context, camera, ratio);
  if (own) stroke(context, themeColour("--accent"), 1.5 * ratio, () => context.rect(...own.frame));
  drawTriad(context, camera, height, ratio);
  byId("space-note").textContent = spaceNote(own);
}

function spaceNote(own) {
  if (!poses.length) return "No camera pose is known, so nothing can be placed in the world.";
  const where = payload.tags.world_up ? "world up is up" : "world up unknown: the cameras' mean up is up";
  const missing = view().world_from_cam[state.slot] ? "" : ". The pose of this frame is unknown.";
  const grid = state.grid && !own ? `, grid ${shortNumber(gridStep())} ${payload.tags.unit}` : "";
  return own ? `Through ${view().name}, frame ${view().slots[state.slot] + 1}: points over its image` : where + grid + missing;
}

function wireSpace() {
  const canvas = byId("space"), held = new Map();
  const moved = () => update({ space: 0 });
  const orbit = (dx, dy) => { space.yaw -= dx; space.pitch = Math.min(Math.max(space.pitch + dy, -1.55), 1.55); moved(); };
  const zoom = (factor) => { space.radius = Math.min(Math.max(space.radius * factor, space.size * 1e-3), space.size * 1e3); moved(); };
  const pan = (dx, dy) => {
    const camera = orbitCamera(canvas.clientWidth, canvas.clientHeight), scale = space.radius / camera.fx;
    space.target = add(add(space.target, camera.right, -dx * scale), camera.down, -dy * scale);
    moved();
  };
  const reset = () => { resetSpace(); update({ through: false }); };
  canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); held.set(event.pointerId, event); });
  for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, (event) => held.delete(event.pointerId));
  canvas.addEventListener("pointermove", (event) => {
    const before = held.get(event.pointerId);
    if (!before || state.through) return;
    const dx = event.clientX - before.clientX, dy = event.clientY - before.clientY;
    if (held.size === 2) {
      const other = [...held].find(([id]) => id !== event.pointerId)[1];
      const gap = (one) => Math.max(Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY), 1);
      zoom(gap(before) / gap(event));
      pan(dx / 2, dy / 2);
    } else if (event.shiftKey || event.buttons & 2) pan(dx, dy);
    else orbit(dx * 0.008, dy * 0.008);
    held.set(event.pointerId, event);
  });
  canvas.addEventListener("wheel", (event) => { event.preventDefault(); zoom(Math.exp(event.deltaY * 0.0012)); }, { passive: false });
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("dblclick", reset);
  byId("reset").addEventListener("click", reset);
  canvas.addEventListener("keydown", (event) => {
    const actions = {
      ArrowLeft: () => orbit(0.1, 0), ArrowRight: () => orbit(-0.1, 0), ArrowUp: () => orbit(0, 0.1), ArrowDown: () => orbit(0, -0.1),
      "+": () => zoom(0.85), "=": () => zoom(0.85), "-": () => zoom(1.18), 0: reset,
    };
    if (actions[event.key]) { actions[event.key](); event.preventDefault(); event.stopPropagation(); }
  });
}
resetSpace();
wireSpace();
