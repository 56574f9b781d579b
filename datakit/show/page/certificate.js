"use strict";
// The certificate as a table. It was read from a file, so any field may be missing or of another type.
const VERDICT_TEXT = { pass: "pass", warn: "warn", fail: "fail", not_testable: "not testable" };

function verdictBadge(verdict) {
  const text = VERDICT_TEXT[verdict] || String(verdict === undefined ? "no verdict" : verdict);
  return make("span", { class: `badge verdict ${["pass", "warn", "fail"].includes(verdict) ? verdict : "none"}` }, text);
}

/** Lists of named things: takes a list of objects with `name`, or an object by name. */
function named(value) {
  if (Array.isArray(value)) return value.filter((item) => item && typeof item === "object");
  if (value && typeof value === "object")
    return Object.entries(value).map(([name, item]) => (item && typeof item === "object" ? { name, ...item } : { name, value: item }));
  return [];
}

function limitsText(measure) {
  const isFloor = typeof measure.warn === "number" && typeof measure.fail === "number" && measure.warn > measure.fail;
  const sign = isFloor ? "<" : ">";
  return ["warn", "fail"].filter((name) => typeof measure[name] === "number").map((name) => `${name} ${sign} ${shortNumber(measure[name])}`).join(", ");
}

/** How much of its fail limit a measure uses up, as a bar. */
function gauge(measure) {
  const limit = typeof measure.fail === "number" ? measure.fail : measure.warn;
  if (typeof measure.value !== "number" || typeof limit !== "number" || measure.verdict === "not_testable") return null;
  const isFloor = typeof measure.warn === "number" && typeof measure.fail === "number" && measure.warn > measure.fail;
  const share = isFloor ? limit / Math.max(measure.value, 1e-12) : limit ? Math.abs(measure.value) / limit : Number(measure.value !== 0);
  const fill = make("i", { class: ["pass", "warn", "fail"].includes(measure.verdict) ? measure.verdict : "none" });
  fill.style.width = `${Math.min(share, 1) * 100}%`;
  return make("div", { class: "gauge", role: "img", "aria-label": `${shortNumber(share * 100, 3)} percent of the limit`, title: `${shortNumber(share * 100, 3)} % of the limit` }, fill);
}

function quantilesText(quantiles) {
  if (!quantiles || typeof quantiles !== "object") return "";
  return Object.entries(quantiles).map(([name, value]) => `${name} ${shortNumber(value, 3)}`).join("  ");
}

function listText(value) { return Array.isArray(value) ? value.join(", ") : ""; }

/** The measures of a check as rows; older or other certificates may have one value in the check itself. */
function measureRows(check) {
  const rows = named(check.measures).map((measure) => {
    const spread = typeof measure.standard_error === "number" ? ` ± ${shortNumber(measure.standard_error, 2)}` : "";
    const unit = measure.unit && measure.unit !== "1" ? ` ${measure.unit}` : "";
    const value = typeof measure.value === "number" ? shortNumber(measure.value) + spread + unit : "-";
    return make("tr", {}, make("td", { class: "measure" }, measure.name), make("td", {}, verdictBadge(measure.verdict)),
      make("td", { class: "number" }, value), make("td", {}, gauge(measure), make("span", { class: "limits" }, limitsText(measure))),
      make("td", {}, quantilesText(measure.quantiles)), make("td", { class: "number" }, measure.count),
      make("td", { class: "reason" }, measure.reason === check.reason ? "" : measure.reason || ""));
  });
  if (!rows.length && typeof check.value === "number")
    rows.push(make("tr", {}, make("td", { class: "measure" }, "value"), make("td", {}), make("td", { class: "number" }, shortNumber(check.value)),
      make("td", {}, gauge(check), make("span", { class: "limits" }, limitsText(check))), make("td", {}, quantilesText(check.quantiles)),
      make("td", { class: "number" }, check.count), make("td", {})));
  for (const [field, title] of [["can_see", "would show"], ["cannot_see", "cannot show here"]])
    if (listText(check[field])) rows.push(make("tr", {}, make("td", { class: "measure" }, title), make("td", { colspan: 6, class: "reason" }, listText(check[field]))));
  return rows;
}

/** A check's heading row and its measures, folded away where there is nothing to worry about. */
function checkRows(check) {
  const rows = measureRows(check), isOpen = check.verdict === "warn" || check.verdict === "fail";
  const fold = make("button", { type: "button", class: "fold", "aria-expanded": String(isOpen) }, check.name);
  const set = (open) => {
    fold.setAttribute("aria-expanded", String(open));
    for (const row of rows) row.hidden = !open;
  };
  fold.addEventListener("click", () => set(fold.getAttribute("aria-expanded") !== "true"));
  set(isOpen);
  const measures = named(check.measures), tested = measures.filter((measure) => measure.verdict !== "not_testable").length;
  const count = measures.length ? `${tested} of ${measures.length} measures testable` : "";
  const head = make("tr", { class: "check" }, make("td", {}, rows.length ? fold : String(check.name)), make("td", {}, verdictBadge(check.verdict)),
    make("td", { class: "reason", colspan: 5 }, check.reason || count));
  return { rows: [head, ...rows], set };
}

function buildCertificate() {
  const host = byId("certificate"), { certificate } = payload;
  if (!certificate) {
    host.append(make("p", { class: "card" }, "No certificate was given: the geometry of this scene has not been measured for this report."));
    return;
  }
  const checks = named(certificate.checks).map(checkRows);
  if (checks.length) {
    const titles = ["Check", "Verdict", "Value", "Limit", "Quantiles", "Samples", "Reason"];
    const head = make("tr", {}, ...titles.map((title) => make("th", { scope: "col", class: ["Value", "Samples"].includes(title) ? "number" : null }, title)));
    let isOpen = false;
    const all = make("button", { type: "button", class: "quiet", onclick: () => {
      isOpen = !isOpen;
      checks.forEach((check) => check.set(isOpen));
      all.textContent = isOpen ? "Fold all" : "Show all measures";
    } }, "Show all measures");
    host.append(make("div", { class: "verdict-row" }, verdictBadge(certificate.verdict), all),
      make("div", { class: "scroll" }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...checks.flatMap((check) => check.rows)))));
  }
  const known = new Set(["checks", "verdict", "scene", "scene_id", "dataset"]);
  const rest = Object.fromEntries(Object.entries(certificate).filter(([name]) => !known.has(name)));
  host.append(make("details", {}, make("summary", {}, "How it was measured"), make("pre", {}, JSON.stringify(rest, null, 2))));
}
