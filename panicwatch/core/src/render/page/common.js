// Helpers of every view: elements that contain text only, visible escapes for hostile characters, times and numbers in
// words.
"use strict";
const PW = {};

// Creates an element from name, attributes and text; markup is never parsed.
PW.el = (name, attributes, ...children) => {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return element;
};

// Characters that escape.rs escapes: control, bidirectional and invisible format characters.
PW.UNSAFE = /[\u0000-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200c\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\u{1bca0}-\u{1bca3}\u{1d173}-\u{1d17a}\u{e0000}-\u{e0fff}]/gu;
PW.MAX_CHARS = 16384;

PW.escaped = (c) => {
  const named = { "\n": "\\n", "\r": "\\r", "\t": "\\t" }[c];
  const code = c.codePointAt(0);
  return named || (code < 0x100 ? "\\x" + code.toString(16).padStart(2, "0") : "\\u{" + code.toString(16) + "}");
};

// Returns text of the watched program in a safe form: on one line, with hostile characters escaped and marked, and of
// limited length.
PW.told = (text, max = PW.MAX_CHARS) => {
  const fragment = document.createDocumentFragment();
  if (text === null || text === undefined) return fragment;
  const whole = String(text);
  const shown = whole.slice(0, max);
  let at = 0;
  for (const match of shown.matchAll(PW.UNSAFE)) {
    fragment.append(shown.slice(at, match.index), PW.el("span", { class: "esc" }, PW.escaped(match[0])));
    at = match.index + match[0].length;
  }
  fragment.append(shown.slice(at));
  if (whole.length > max) fragment.append(PW.el("span", { class: "note" }, ` … (${whole.length - max} more characters)`));
  return fragment;
};

// Does the same for plain text, in titles and canvases.
PW.plain = (text, max = 300) => {
  const whole = String(text ?? "");
  return whole.slice(0, max).replace(PW.UNSAFE, PW.escaped) + (whole.length > max ? "…" : "");
};

PW.ns = (ns) => {
  const size = Math.abs(ns);
  const [value, unit] = size >= 1e9 ? [ns / 1e9, "s"] : size >= 1e6 ? [ns / 1e6, "ms"] : size >= 1e3 ? [ns / 1e3, "µs"] : [ns, "ns"];
  return `${unit === "ns" ? Math.round(value) : value.toPrecision(3)} ${unit}`;
};

PW.number = (n) => Number(n).toLocaleString("en").replaceAll(",", "\u202f");
PW.base = (path) => String(path ?? "").split("/").pop();
PW.words = (name) => String(name ?? "").replaceAll("_", " ");
// A state of a track, as reports name it.
PW.state = (name, inferred) => (name === "marking" ? "GC mark" : PW.words(name)) + (inferred ? " (inferred)" : "");
PW.badge = (kind, text) => PW.el("span", { class: `badge ${/^[a-z_]+$/.test(kind) ? kind : "unknown"}` }, PW.words(text ?? kind));

// Returns an element such as "12 s ago" with the exact time as its title.
PW.time = (text, now = Date.now()) => {
  const at = Date.parse(text);
  if (Number.isNaN(at)) return PW.el("span", {}, PW.told(text, 60));
  const s = Math.max(0, Math.round((now - at) / 1000));
  const words = s < 60 ? `${s} s` : s < 3600 ? `${Math.floor(s / 60)} min` : s < 172800 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86400)} d`;
  return PW.el("time", { datetime: text, title: text }, `${words} ago`);
};

// Builds a table whose columns are named by `heads`; ["Count", "tight"] is a name and the class of its column. On a
// narrow screen each row becomes a block in which the cells are labelled with the column names. Roles are explicit
// because `display: block` removes a table's implicit roles.
PW.table = (label, heads, rows, kind = "") => {
  const columns = heads.map((h) => (Array.isArray(h) ? { name: h[0], kind: h[1] } : { name: h, kind: null }));
  for (const row of rows) columns.forEach(({ name, kind: of }, i) => {
    const cell = row.children[i];
    if (!cell) return;
    if (i > 0 && name) cell.dataset.label = name;
    if (of) cell.classList.add(of);
  });
  return PW.el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label },
    PW.el("table", { role: "table", class: kind },
      PW.el("caption", { class: "hidden" }, label),
      PW.el("thead", { role: "rowgroup" }, PW.el("tr", { role: "row" }, columns.map(({ name }) => PW.el("th", { scope: "col", role: "columnheader" }, name)))),
      PW.el("tbody", { role: "rowgroup" }, rows)));
};

PW.row = (...cells) => PW.el("tr", { role: "row" }, cells.map((c) => PW.el("td", { role: "cell" }, c)));

// Returns text of several lines: line breaks are kept, everything else is escaped as in PW.told.
PW.lines = (text, max = PW.MAX_CHARS) => {
  const whole = String(text), fragment = document.createDocumentFragment();
  whole.slice(0, max).split("\n").forEach((line, i) => fragment.append(i ? "\n" : "", PW.told(line)));
  if (whole.length > max) fragment.append(PW.el("span", { class: "note" }, ` … (${whole.length - max} more characters)`));
  return fragment;
};

// Computes the relative luminance of "#rrggbb": https://www.w3.org/TR/WCAG21/#dfn-relative-luminance
PW.luminance = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16) / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
// Returns black or white, whichever has more contrast on this color: at least 4.5 to 1 on any.
PW.inkOn = (hex) => (PW.luminance(hex) > 0.179 ? "#000000" : "#ffffff");
// Blends a color of the given opacity with a background.
PW.blend = (hex, on, alpha) => "#" + [1, 3, 5].map((i) => Math.round(parseInt(hex.slice(i, i + 2), 16) * alpha + parseInt(on.slice(i, i + 2), 16) * (1 - alpha)).toString(16).padStart(2, "0")).join("");
