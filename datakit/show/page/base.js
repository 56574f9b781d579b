"use strict";
// What the other parts share: the payload, the state, and how the page is built. Text from the scene only ever
// becomes text nodes; nothing here parses markup.
const payload = JSON.parse(document.getElementById("payload").textContent);
const VISIBLE = "1", OCCLUDED = "2", OUTSIDE = "3", UNKNOWN = "0";
const STATES = [[VISIBLE, "visible"], [OCCLUDED, "occluded"], [OUTSIDE, "outside"], [UNKNOWN, "unknown"]];
const isSet = payload.tags.time_kind === "set";
const instanceById = new Map(payload.instances.map((instance) => [instance.id, instance]));

const state = {
  view: 0, slot: 0, isPlaying: false, speed: 1, trail: 0, colourBy: "instance",
  states: new Set([VISIBLE, OCCLUDED, OUTSIDE, UNKNOWN]), hiddenInstances: new Set(), hover: null,
  cloud: true, tracks3d: true, cameras: true, grid: true, through: false, pointSize: 2,
};
const listeners = [];

/** Calls `listener(changed)` with the names of the changed fields, at most once per painted frame. */
function onChange(listener) { listeners.push(listener); }

let pending = null;
function update(changes) {
  Object.assign(state, changes);
  if (pending === null) {
    pending = new Set();
    requestAnimationFrame(() => {
      const changed = pending;
      pending = null;
      for (const listener of listeners) listener(changed);
    });
  }
  for (const name of Object.keys(changes)) pending.add(name);
}

const byId = (id) => document.getElementById(id);
const view = () => payload.views[state.view];

/** Makes an element; children are nodes or text. */
function make(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (name === "class") element.className = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined).map((child) =>
    child instanceof Node ? child : String(child)));
  return element;
}

/** A number with enough digits to compare and no more. */
function shortNumber(value, digits = 4) {
  if (typeof value !== "number" || !Number.isFinite(value)) return "unknown";
  if (value === 0 || Number.isInteger(value) && Math.abs(value) < 1e6) return String(value);
  const size = Math.abs(value);
  return size >= 1e6 || size < 1e-4 ? value.toExponential(2) : String(Number(value.toPrecision(digits)));
}

function bytesText(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let power = 0;
  for (; count >= 1000 && power < units.length - 1; power += 1) count /= 1000;
  return `${shortNumber(count, 3)} ${units[power]}`;
}

function themeColour(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }

function trackColour(tracks, index, alpha = 1) {
  const id = tracks.instance[index];
  if (state.colourBy === "track") {
    const hue = (index * 137.508) % 360;
    return `hsl(${hue.toFixed(0)} 90% 62% / ${alpha})`;
  }
  const colour = id === 0 ? "#f4f6fa" : (instanceById.get(id) || { colour: "#f4f6fa" }).colour;
  return colour + Math.round(alpha * 255).toString(16).padStart(2, "0");
}

/** Sharpens a canvas to the screen's pixels; returns [context, width, height, ratio] in screen pixels. */
function fitCanvas(canvas, mostRatio = 2) {
  const ratio = Math.min(window.devicePixelRatio || 1, mostRatio);
  const width = Math.max(1, Math.round(canvas.clientWidth * ratio));
  const height = Math.max(1, Math.round(canvas.clientHeight * ratio));
  if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
  return [canvas.getContext("2d"), width, height, ratio];
}

// 3x3 matrices are nine numbers by rows.
function inverse3(m) {
  const [a, b, c, d, e, f, g, h, i] = m;
  const p = e * i - f * h, q = f * g - d * i, r = d * h - e * g, det = a * p + b * q + c * r;
  return [p, c * h - b * i, b * f - c * e, q, a * i - c * g, c * d - a * f, r, b * g - a * h, a * e - b * d]
    .map((value) => value / det);
}
function times3(m, v) { return [0, 3, 6].map((k) => m[k] * v[0] + m[k + 1] * v[1] + m[k + 2] * v[2]); }
