// What every view uses: elements with text only, hostile characters made visible, times and numbers in words.
"use strict";
const PW = {};

// Elements are made of names, attributes and text; markup is never parsed.
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

// As escape.rs: control, bidirectional and invisible format characters.
PW.UNSAFE = /[\u0000-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200c\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\u{1bca0}-\u{1bca3}\u{1d173}-\u{1d17a}\u{e0000}-\u{e0fff}]/gu;
PW.MAX_CHARS = 16384;

PW.escaped = (c) => {
  const named = { "\n": "\\n", "\r": "\\r", "\t": "\\t" }[c];
  const code = c.codePointAt(0);
  return named || (code < 0x100 ? "\\x" + code.toString(16).padStart(2, "0") : "\\u{" + code.toString(16) + "}");
};

// Text of the watched program, safe to read: one line, hostile characters written out and marked, bounded.
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

// The same as plain text, for titles and canvases.
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
PW.badge = (kind, text) => PW.el("span", { class: `badge ${/^[a-z_]+$/.test(kind) ? kind : "unknown"}` }, PW.words(text ?? kind));

// "12 s ago" with the exact time as title.
PW.time = (text, now = Date.now()) => {
  const at = Date.parse(text);
  if (Number.isNaN(at)) return PW.el("span", {}, PW.told(text, 60));
  const s = Math.max(0, Math.round((now - at) / 1000));
  const words = s < 60 ? `${s} s` : s < 3600 ? `${Math.floor(s / 60)} min` : s < 172800 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86400)} d`;
  return PW.el("time", { datetime: text, title: text }, `${words} ago`);
};

PW.table = (label, heads, rows) =>
  PW.el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label },
    PW.el("table", {},
      PW.el("caption", { class: "hidden" }, label),
      PW.el("thead", {}, PW.el("tr", {}, heads.map((h) => PW.el("th", { scope: "col" }, h)))),
      PW.el("tbody", {}, rows)));

PW.row = (...cells) => PW.el("tr", {}, cells.map((c) => PW.el("td", {}, c)));
