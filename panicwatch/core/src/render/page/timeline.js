// The timeline: a canvas with one row per track, zoomed and moved with wheel, buttons and keys, and its states as a
// table.
"use strict";

PW.STATES = ["running", "runnable", "waiting", "syscall", "stopped", "not_running", "other", "marking", "idle", "ended", "unknown"];

PW.timeline = (timeline) => {
  const { from_ns: begin, to_ns: finish, raise_ns: raise } = timeline;
  const whole = Math.max(1, finish - begin);
  const LABEL = 132, AXIS = 24, ROW = 26, BAR = 14, SLICE = 6;
  const tracks = timeline.tracks.map((track) => ({ track, depth: Math.min(4, 1 + Math.max(-1, ...(track.slices || []).map((s) => s.depth))) }));
  let top = AXIS;
  for (const line of tracks) { line.top = top; line.height = ROW + line.depth * SLICE; top += line.height; }
  let from = begin, to = finish, current = 0, cursor = null, width = 800;

  const canvas = PW.el("canvas", { tabindex: 0, role: "application", "aria-roledescription": "timeline", "aria-describedby": "tl-help tl-detail",
    "aria-label": `Timeline of ${tracks.length} tracks around the raise; the table below has the same data` });
  const detail = PW.el("p", { id: "tl-detail", class: "detail", "aria-live": "polite" }, "Point at the timeline, or focus it and use the arrow keys.");
  const range = PW.el("output", { class: "range", "aria-label": "Visible range" });
  const label = ({ kind, id, name }) => `${kind === "cpu" ? "CPU" : kind === "gc" ? "GC" : kind}${kind === "gc" ? "" : " " + id}${name ? " " + name : ""}`;
  const relative = (ns) => (ns === raise ? "raise" : `${ns > raise ? "+" : "−"}${PW.ns(Math.abs(ns - raise))}`);
  const x = (ns) => LABEL + ((ns - from) / (to - from)) * (width - LABEL);
  const ns = (px) => from + ((px - LABEL) / (width - LABEL)) * (to - from);

  const css = (name) => getComputedStyle(canvas).getPropertyValue(name).trim();
  function draw() {
    const scale = window.devicePixelRatio || 1;
    width = Math.max(240, canvas.parentElement ? canvas.parentElement.clientWidth : 800);
    canvas.width = width * scale; canvas.height = (top + 6) * scale;
    const c = canvas.getContext("2d");
    c.scale(scale, scale);
    c.clearRect(0, 0, width, top + 6);
    c.font = "12px system-ui, sans-serif"; c.textBaseline = "middle";
    const colors = Object.fromEntries(PW.STATES.map((s) => [s, css(`--s-${s}`)]));
    const ink = css("--ink"), faint = css("--line"), soft = css("--soft"), red = css("--bad"), card = css("--card");
    axis(c, soft, faint);
    tracks.forEach((line, i) => {
      const { track } = line, y = line.top + 4;
      if (i === current && document.activeElement === canvas) { c.fillStyle = css("--hover"); c.fillRect(0, line.top, width, line.height); }
      c.fillStyle = ink;
      c.save(); c.beginPath(); c.rect(0, line.top, LABEL - 8, line.height); c.clip();
      c.fillText(PW.plain(label(track), 60), 4, y + BAR / 2 + 1); c.restore();
      c.save(); c.beginPath(); c.rect(LABEL, line.top, width - LABEL, line.height); c.clip();
      for (const s of track.states) {
        if (s.to_ns < from || s.from_ns > to) continue;
        const a = x(s.from_ns), w = Math.max(1, x(s.to_ns) - a);
        const thin = s.state === "waiting" || s.state === "idle" || s.state === "not_running" || (s.state === "syscall" && s.cpu === undefined);
        c.globalAlpha = s.inferred ? 0.6 : 1;
        c.fillStyle = colors[s.state] || colors.unknown;
        if (s.state === "ended") c.fillRect(a, y + BAR / 2, w, 1);
        else c.fillRect(a, thin ? y + BAR / 3 : y, w, thin ? BAR / 3 : BAR);
        if (s.detail && w > 46 && !thin) { c.globalAlpha = 1; c.fillStyle = PW.inkOn(PW.blend(c.fillStyle, card, s.inferred ? 0.6 : 1)); c.save(); c.beginPath(); c.rect(a, y, w - 3, BAR); c.clip(); c.fillText(PW.plain(s.detail, 60), a + 4, y + BAR / 2 + 1); c.restore(); }
      }
      c.globalAlpha = 1;
      for (const s of track.slices || []) {
        const a = x(s.from_ns), b = x(s.to_ns ?? finish);
        c.fillStyle = s.kind === "panic" ? red : css(`--k-${s.kind}`) || ink;
        c.fillRect(a, y + BAR + 2 + Math.min(s.depth, 3) * SLICE, Math.max(1.5, b - a), SLICE - 1.5);
      }
      c.fillStyle = ink;
      for (const s of track.samples || []) { const p = x(s.time_ns); c.beginPath(); c.moveTo(p, y - 3); c.lineTo(p + 3, y - 7); c.lineTo(p - 3, y - 7); c.fill(); }
      c.restore();
    });
    const r = x(raise);
    if (r >= LABEL && r <= width) { c.strokeStyle = red; c.lineWidth = 1.5; c.setLineDash([4, 3]); c.beginPath(); c.moveTo(r, 14); c.lineTo(r, top); c.stroke(); c.setLineDash([]); }
    if (cursor !== null && x(cursor) >= LABEL) { c.strokeStyle = ink; c.lineWidth = 1; c.beginPath(); c.moveTo(x(cursor), AXIS); c.lineTo(x(cursor), top); c.stroke(); }
    range.textContent = `${relative(from)} … ${relative(to)} (${PW.ns(to - from)})`;
    range.dataset.from = String(Math.round(from - begin)); range.dataset.to = String(Math.round(to - begin));
  }
  function axis(c, soft, faint) {
    const rough = (to - from) / Math.max(2, (width - LABEL) / 110);
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((n) => n * power >= rough);
    c.textAlign = "center";
    for (let k = Math.ceil((from - raise) / step); raise + k * step <= to; k++) {
      const at = x(raise + k * step);
      c.fillStyle = faint; c.fillRect(at, AXIS - 4, 1, top - AXIS + 4);
      c.fillStyle = soft;
      if (at > LABEL + 24 && at < width - 24) c.fillText(k === 0 ? "raise" : `${k > 0 ? "+" : "−"}${PW.ns(Math.abs(k * step))}`, at, 10);
    }
    c.textAlign = "left";
  }
  function at(track, time) {
    const slices = (track.slices || []).filter((s) => s.from_ns <= time && (s.to_ns ?? finish) >= time);
    return { state: track.states.find((s) => s.from_ns <= time && s.to_ns > time), slices };
  }
  function describe(track, time) {
    const { state, slices } = at(track, time);
    const parts = [PW.plain(label(track), 80), relative(Math.round(time))];
    if (state) {
      const where = [state.thread !== undefined && `thread ${state.thread}`, state.cpu !== undefined && `CPU ${state.cpu}`, state.goroutine !== undefined && `goroutine ${state.goroutine}`].filter(Boolean);
      parts.push(`${PW.state(state.state, state.inferred)}${state.detail ? ": " + PW.plain(state.detail, 200) : ""} for ${PW.ns(state.to_ns - state.from_ns)}${where.length ? " on " + where.join(", ") : ""}`);
    }
    for (const s of slices) parts.push(`${PW.words(s.kind)} ${PW.plain(s.name, 200)}`);
    detail.textContent = parts.join(" · ");
  }
  function zoom(factor, around) {
    const span = Math.min(whole, Math.max(1000, (to - from) * factor));
    const share = (around - from) / (to - from);
    show(around - share * span, span);
  }
  function show(start, span) {
    from = Math.max(begin, Math.min(finish - span, start)); to = from + span; draw();
  }
  const middle = () => (cursor !== null && cursor >= from && cursor <= to ? cursor : (from + to) / 2);
  function jump(direction) {
    const { track } = tracks[current];
    const edges = track.states.map((s) => s.from_ns);
    const now = cursor ?? raise;
    const next = direction > 0 ? edges.find((e) => e > now) : edges.findLast((e) => e < now);
    if (next === undefined) return;
    cursor = next;
    if (cursor < from || cursor > to) show(cursor - (to - from) / 2, to - from);
  }
  const KEYS = {
    "+": () => zoom(0.5, middle()), "=": () => zoom(0.5, middle()), "-": () => zoom(2, middle()), "0": () => show(begin, whole),
    ArrowLeft: (e) => (e.shiftKey ? show(from - (to - from) / 4, to - from) : jump(-1)),
    ArrowRight: (e) => (e.shiftKey ? show(from + (to - from) / 4, to - from) : jump(1)),
    ArrowDown: () => { current = Math.min(tracks.length - 1, current + 1); },
    ArrowUp: () => { current = Math.max(0, current - 1); },
    Home: () => { cursor = begin; show(begin, to - from); }, End: () => { cursor = raise; show(raise - (to - from) / 2, to - from); },
  };
  canvas.addEventListener("keydown", (event) => {
    const act = KEYS[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey || !tracks.length) return;
    event.preventDefault();
    act(event); cursor = cursor ?? raise; draw(); describe(tracks[current].track, cursor);
  });
  canvas.addEventListener("focus", draw); canvas.addEventListener("blur", draw);
  // Over the tracks the vertical wheel zooms, and so does a pinch, which browsers report as a wheel event; the
  // horizontal wheel moves. Over the labels the page scrolls.
  canvas.addEventListener("wheel", (event) => {
    const px = event.offsetX;
    if (px < LABEL) return;
    if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) { event.preventDefault(); show(from + (event.deltaX / (width - LABEL)) * (to - from), to - from); return; }
    event.preventDefault(); zoom(2 ** (event.deltaY / 240), ns(px));
  }, { passive: false });
  let drag = null;
  canvas.addEventListener("pointerdown", (event) => { if (event.offsetX >= LABEL) { drag = { x: event.offsetX, from }; canvas.setPointerCapture(event.pointerId); } });
  canvas.addEventListener("pointerup", () => { drag = null; });
  canvas.addEventListener("pointermove", (event) => {
    if (drag) { show(drag.from - ((event.offsetX - drag.x) / (width - LABEL)) * (to - from), to - from); return; }
    const line = tracks.findIndex((l) => event.offsetY >= l.top && event.offsetY < l.top + l.height);
    if (line < 0 || event.offsetX < LABEL) return;
    current = line; cursor = ns(event.offsetX); draw(); describe(tracks[line].track, cursor);
  });
  const button = (text, label, act) => PW.el("button", { type: "button", "aria-label": label, onclick: act }, text);
  const used = new Set(tracks.flatMap(({ track }) => track.states.map((s) => s.state)));
  const legend = PW.el("ul", { class: "legend", "aria-label": "Legend" }, PW.STATES.filter((s) => used.has(s)).map((s) => PW.el("li", {}, PW.el("i", { class: `s-${s}` }), PW.state(s))));
  const box = PW.el("div", { class: "canvas" }, canvas);
  new ResizeObserver(draw).observe(box);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  const rows = () => tracks.flatMap(({ track }) => track.states.map((s) =>
    PW.row(PW.told(label(track), 80), relative(s.from_ns), PW.ns(s.to_ns - s.from_ns), PW.state(s.state, s.inferred), PW.told(s.detail, 200), s.thread ?? "", s.cpu ?? "")));
  const table = PW.el("details", { class: "alternative", ontoggle: (event) => {
    // A long table is built only when it is opened.
    if (event.target.open && event.target.children.length === 1) event.target.append(PW.table("States of all tracks", ["Track", ["From", "tight"], ["For", "tight"], "State", "Detail", "Thread", "CPU"], rows()));
  } }, PW.el("summary", {}, "Show as a table"));
  return PW.el("div", { class: "timeline" },
    PW.el("div", { class: "tools" }, button("+", "Zoom in", () => zoom(0.5, middle())), button("−", "Zoom out", () => zoom(2, middle())),
      button("◀", "Earlier", () => show(from - (to - from) / 4, to - from)), button("▶", "Later", () => show(from + (to - from) / 4, to - from)), button("All", "Show all", () => show(begin, whole)), range),
    box, detail, legend,
    PW.el("p", { id: "tl-help", class: "note" }, "Keys: + − zoom, ← → previous and next state, Shift + ← → scroll, ↑ ↓ track, 0 all. The wheel zooms, dragging scrolls."), table);
};
