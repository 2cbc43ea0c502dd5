// The daemon's page: routes, the token, the live stream, and the views that show lists.
"use strict";
(() => {
  const { el, told } = PW;
  const main = document.getElementById("main"), live = document.getElementById("live");
  let token = sessionStorage.getItem("panicwatch-token") || "";
  let onNews = () => {}, held = [], lastId = "", shown = 0, abort = null;

  // --- The API -----------------------------------------------------------------------------------------------------
  class Refused extends Error { constructor(status, text) { super(text); this.status = status; } }
  const headers = () => (token ? { Authorization: `Bearer ${token}` } : {});
  async function ask(path) {
    const answer = await fetch(path, { headers: headers(), cache: "no-cache" });
    if (!answer.ok) {
      const body = await answer.json().catch(() => ({}));
      throw new Refused(answer.status, body.error || `the daemon answered ${answer.status}`);
    }
    return answer;
  }
  const get = async (path) => (await ask(path)).json();
  async function download(id, format) {
    try {
      const blob = await (await ask(`/api/v1/incidents/${encodeURIComponent(id)}?format=${format}`)).blob();
      const ending = { json: "json", html: "html", text: "txt", perfetto: "pftrace", folded: "folded", "perf-script": "perf" }[format];
      const link = el("a", { href: URL.createObjectURL(blob), download: `panicwatch-${id}.${ending}` });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    } catch (error) { complain(error); }
  }

  // --- The stream: by fetch, because EventSource cannot send a token -----------------------------------------------
  async function listen() {
    for (;;) {
      try {
        const answer = await fetch("/api/v1/stream", { headers: { ...headers(), ...(lastId ? { "Last-Event-ID": lastId } : {}) } });
        if (!answer.ok) throw new Refused(answer.status, "");
        live.textContent = "live"; live.className = "live on";
        // The stream replays at most 1000 incidents, and none that precede the first one it sent: views fetch the rest.
        onNews("connected");
        const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
        let rest = "";
        for (;;) {
          const { value, done } = await reader.read();
          if (done) break;
          const events = (rest + value).split("\n\n");
          rest = events.pop();
          events.forEach(event);
        }
      } catch { /* The status shows the failure; the loop retries. */ }
      live.textContent = token === "" || live.className === "live on" ? "reconnecting" : "not connected"; live.className = "live";
      await new Promise((resolve) => setTimeout(resolve, 2000));
    }
  }
  function event(text) {
    const fields = {};
    for (const line of text.split("\n")) { const at = line.indexOf(": "); if (at > 0) fields[line.slice(0, at)] = line.slice(at + 2); }
    if (fields.id) lastId = fields.id;
    if (fields.event) onNews(fields.event, JSON.parse(fields.data));
  }

  // Subscribes a view to the stream. Events that arrived while the view was loading are handled first.
  function subscribe(turn, handler) {
    if (turn !== shown) return;
    onNews = handler;
    held.splice(0).forEach((news) => handler(...news));
  }

  // --- Routes --------------------------------------------------------------------------------------------------------
  const ROUTES = { groups, incidents, processes };
  async function route() {
    const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
    const [name, id] = path.split("/");
    const turn = ++shown;
    held = [];
    onNews = (...news) => held.push(news);
    if (abort) abort();
    abort = null;
    for (const link of document.querySelectorAll("nav a")) {
      const here = link.getAttribute("href") === `#/${name || "groups"}`;
      if (here) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
    }
    document.title = "panicwatch";
    try {
      if (name === "incidents" && id) await incident(decodeURIComponent(id), turn);
      else await (ROUTES[name] || groups)(new URLSearchParams(query), turn);
    } catch (error) { if (turn === shown) complain(error); }
  }
  function complain(error) {
    if (error.status === 401) return askForToken();
    main.replaceChildren(el("h1", {}, "The request failed"), el("p", { role: "alert" }, told(error.message, 500)));
  }
  function askForToken() {
    const rejected = token !== "" && el("p", { role: "alert" }, "The daemon rejects this token.");
    const input = el("input", { id: "token", type: "password", autocomplete: "current-password", required: true });
    main.replaceChildren(el("form", { class: "token", onsubmit: (e) => {
      e.preventDefault(); token = input.value.trim(); sessionStorage.setItem("panicwatch-token", token); route();
    } }, el("h1", {}, "This daemon requires a token"), el("label", { for: "token" }, "Token, as in the file that http.token_file names"), input, rejected, el("button", {}, "Show")));
    input.focus();
  }
  const search = (value, act) => { let timer; return el("input", { type: "search", "aria-label": "Filter", placeholder: "Filter", value, oninput: (e) => { clearTimeout(timer); timer = setTimeout(() => act(e.target.value), 150); } }); };

  // Redraws a part of the page and puts the focus back, on the link with the same target or the control with the same key.
  const redraw = (box, draw) => {
    const keyOf = (element) => element.getAttribute("href") ?? element.dataset.key;
    const key = box.contains(document.activeElement) ? keyOf(document.activeElement) : null;
    draw();
    if (key) [...box.querySelectorAll("a, [data-key]")].find((element) => keyOf(element) === key)?.focus({ preventScroll: true });
  };

  // --- Gaps: periods in which no process was watched ---------------------------------------------------------------
  const gapRows = (gaps) => PW.table("Gaps in which nothing was watched", [["From", "tight"], ["To", "tight"], "Why"], gaps.map((g) => PW.row(PW.time(g.from), PW.time(g.to), told(g.reason, 300))));
  const recent = (gaps) => gaps.filter((g) => Date.now() - Date.parse(g.to) < 86400000);

  // --- Groups --------------------------------------------------------------------------------------------------------
  function sparkline(hours) {
    const now = Math.floor(Date.now() / 3600000), last = 24, by = new Map(hours);
    const values = Array.from({ length: last }, (_, i) => by.get(now - last + 1 + i) || 0);
    const most = Math.max(1, ...values), sum = values.reduce((a, b) => a + b, 0), ns = "http://www.w3.org/2000/svg";
    const svg = document.createElementNS(ns, "svg");
    for (const [k, v] of Object.entries({ viewBox: `0 0 ${last * 4} 20`, class: "spark", role: "img", "aria-label": `${sum} in the last 24 hours` })) svg.setAttribute(k, v);
    values.forEach((v, i) => {
      const bar = document.createElementNS(ns, "rect"), h = v ? Math.max(2, (v / most) * 19) : 1;
      for (const [k, n] of Object.entries({ x: i * 4, y: 20 - h, width: 3, height: h, class: v ? "bar" : "none" })) bar.setAttribute(k, n);
      svg.append(bar);
    });
    return svg;
  }
  const GROUPS = 500;
  async function groups(_, turn) {
    let list = [], next = null, total = 0, filter = "", { gaps } = await get("/api/v1/gaps");
    if (turn !== shown) return;
    const missed = el("details", { class: "note" });
    const drawGaps = () => {
      const last = recent(gaps);
      missed.hidden = last.length === 0;
      redraw(missed, () => missed.replaceChildren(el("summary", { "data-key": "gaps" }, `Nothing was watched for ${PW.ns(last.reduce((sum, g) => sum + (Date.parse(g.to) - Date.parse(g.from)) * 1e6, 0))} of the last 24 hours`), last.length ? gapRows(last) : ""));
    };
    const box = el("div", {}), count = el("p", { class: "note", role: "status" });
    const row = (g) => PW.row(
      [el("a", { href: `#/incidents?fingerprint=${encodeURIComponent(g.fingerprint)}` }, told(g.title || g.fingerprint, 200)), el("div", { class: "place" }, g.kind ? PW.words(g.kind) : "", g.class ? [" · ", told(g.class, 100)] : "", g.site ? [" · ", told(g.site, 200)] : "")],
      PW.number(g.count), sparkline(g.hours), Object.entries(g.outcomes).map(([o, n]) => [PW.badge(o), ` ${PW.number(n)} `]).flat(), told(g.binaries.join(", "), 100), PW.time(g.last_seen));
    const draw = () => {
      count.textContent = list.length < total ? `${PW.number(list.length)} of ${PW.number(total)} groups` : `${PW.number(total)} ${total === 1 ? "group" : "groups"}`;
      redraw(box, () => box.replaceChildren(list.length ? PW.table("Groups", [["What", "wide"], ["Count", "tight"], ["Last 24 h", "tight"], "Outcomes", "Binaries", ["Last seen", "tight"]], list.map(row))
        : el("p", { class: "empty" }, filter ? "No group matches the filter." : "No panics yet. New groups appear here without a reload."),
      next ? el("button", { type: "button", class: "more", "data-key": "more", onclick: () => enqueue(more) }, `Load ${PW.number(Math.min(GROUPS, total - list.length))} more`) : ""));
    };
    const page = (limit, before) => get(`/api/v1/groups?${new URLSearchParams({ limit, ...(filter ? { text: filter } : {}), ...(before ? { before } : {}) })}`);
    // Fetches as many groups again as are shown: counts change, and an incident moves its group to the front.
    const again = async (least) => { const all = await page(Math.max(GROUPS, least)); return () => { ({ groups: list, next, total } = all); draw(); }; };
    const more = async () => {
      const rest = await page(GROUPS, next), known = new Set(list.map((g) => g.fingerprint)), first = list.length;
      return () => {
        list = list.concat(rest.groups.filter((g) => !known.has(g.fingerprint))); ({ next, total } = rest); draw();
        box.querySelectorAll("tbody a")[first]?.focus({ preventScroll: true });
      };
    };
    // Requests run one after the other, so that a late response cannot undo a newer one.
    let queue = Promise.resolve();
    const enqueue = (question) => (queue = queue.then(async () => { const show = turn === shown && await question(); if (show && turn === shown) show(); }).catch((error) => { if (turn === shown) complain(error); }));
    main.replaceChildren(el("h1", {}, "Groups"), el("div", { class: "tools" }, search("", (v) => { filter = v.trim(); enqueue(() => again(0)); }), count), missed, box);
    drawGaps();
    await enqueue(() => again(0));
    let waiting = false;
    subscribe(turn, (name, data) => {
      if (name === "gap") { gaps = [...gaps, data]; drawGaps(); return; }
      if (waiting) return;
      waiting = true;
      setTimeout(() => { waiting = false; enqueue(() => again(list.length)); }, 500);
    });
  }

  // --- Incidents: only the visible rows exist in the DOM -----------------------------------------------------------
  const narrow = matchMedia("(max-width: 640px)");
  // Height of a row in pixels, as in page.css.
  const height = () => (narrow.matches ? 84 : 46);
  const KINDS = ["panic", "fatal_error", "throw", "signal"], OUTCOMES = ["recovered", "fatal", "goexit", "exited", "unknown"];
  async function incidents(query, turn) {
    let all = [], next = null, loading = false;
    const grid = el("div", { class: "rows", role: "table", "aria-label": "Incidents" }), sheet = el("div", { class: "sheet", role: "rowgroup" });
    const view = el("div", { class: "viewport", tabindex: 0, "aria-label": "Incidents, newest first", role: "region" }, sheet);
    const status = el("p", { class: "note", role: "status" });
    const go = (key, value) => { if (value) query.set(key, value); else query.delete(key); location.hash = `#/incidents?${query}`; };
    const choice = (key, label, values) => el("select", { "aria-label": label, onchange: (e) => go(key, e.target.value) }, el("option", { value: "" }, label), values.map((v) => el("option", { value: v, selected: query.get(key) === v }, PW.words(v))));
    const text = search(query.get("text") || "", (v) => go("text", v));
    main.replaceChildren(el("h1", {}, "Incidents"), el("div", { class: "tools" }, text, choice("kind", "Any kind", KINDS), choice("outcome", "Any outcome", OUTCOMES),
      query.get("fingerprint") ? el("button", { type: "button", onclick: () => go("fingerprint", "") }, "Group ", told(query.get("fingerprint"), 40), " ✕") : "", status), grid);
    grid.append(el("div", { role: "rowgroup" }, el("div", { role: "row", class: "r head" }, ["What", "Outcome", "Process", "When"].map((h) => el("span", { role: "columnheader" }, h)))), view);
    const draw = () => {
      const ROW = height(), first = Math.max(0, Math.floor(view.scrollTop / ROW) - 10), last = Math.min(all.length, first + Math.ceil(view.clientHeight / ROW) + 20);
      sheet.style.height = `${all.length * ROW}px`;
      redraw(sheet, () => sheet.replaceChildren(...all.slice(first, last).map((i, n) => {
        const row = el("div", { role: "row", class: "r", "aria-rowindex": first + n + 2 },
          el("span", { role: "cell" }, el("a", { href: `#/incidents/${encodeURIComponent(i.id)}` }, told(i.title, 200)), el("div", { class: "place" }, i.panics[0]?.site ? told(i.panics[0].site.function, 120) : PW.words(i.kind))),
          el("span", { role: "cell" }, PW.badge(i.outcome)), el("span", { role: "cell" }, told(PW.base(i.process.exe), 60), el("span", { class: "note" }, ` ${i.process.pid}`)), el("span", { role: "cell" }, PW.time(i.time)));
        row.style.top = `${(first + n) * ROW}px`;
        return row;
      })));
      if (next && last > all.length - 60) more();
    };
    const more = async () => {
      if (loading) return;
      loading = true;
      const keys = new URLSearchParams(query);
      keys.set("limit", "500");
      if (next) keys.set("before", next);
      try {
        const page = await get(`/api/v1/incidents?${keys}`);
        if (turn !== shown) return;
        all = all.concat(page.incidents); next = page.next;
        status.textContent = all.length ? `${PW.number(all.length)}${next ? " and more" : ""}` : "No incident matches the filters.";
      } catch (error) { if (turn === shown) complain(error); return; } finally { loading = false; }
      draw();
    };
    let frame = 0;
    const resized = () => draw();
    narrow.addEventListener("change", resized);
    abort = () => narrow.removeEventListener("change", resized);
    view.addEventListener("scroll", () => { cancelAnimationFrame(frame); frame = requestAnimationFrame(draw); });
    view.addEventListener("keydown", (e) => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[e.key];
      if (!step) return;
      e.preventDefault();
      const links = [...sheet.querySelectorAll("a")], at = links.indexOf(document.activeElement);
      const to = links[at < 0 ? links.findIndex((a) => a.getBoundingClientRect().top >= view.getBoundingClientRect().top) : at + step];
      if (to) { to.focus({ preventScroll: true }); to.scrollIntoView({ block: "nearest" }); }
    });
    await more();
    // Adds rows that are not listed yet at the front, and keeps the scroll position of the row being read.
    const prepend = (rows) => {
      const fresh = rows.filter((row) => !all.some((i) => i.id === row.id));
      if (fresh.length === 0) return;
      all = fresh.concat(all);
      if (view.scrollTop > 0) view.scrollTop += fresh.length * height();
      status.textContent = `${PW.number(all.length)}${next ? " and more" : ""}`;
      draw();
    };
    const newest = async () => {
      const keys = new URLSearchParams(query);
      keys.set("limit", "500");
      const page = await get(`/api/v1/incidents?${keys}`);
      if (turn !== shown) return;
      // If all rows of a full page are unknown, there may be more between them and the listed ones: start over.
      if (page.next && !page.incidents.some((row) => all.some((i) => i.id === row.id))) { all = []; next = page.next; }
      prepend(page.incidents);
    };
    subscribe(turn, (name, data) => {
      if (name === "connected" || name === "lagged") return newest().catch((error) => { if (turn === shown) complain(error); });
      const plain = ["from", "to", "pid", "exe", "text", "fingerprint", "kind", "outcome"].every((k) => !query.get(k) || (k === "kind" || k === "outcome" || k === "fingerprint") && data[k] === query.get(k));
      if (name === "incident" && plain) prepend([data]);
    });
  }
  async function incident(id, turn) {
    const view = await get(`/api/v1/incidents/${encodeURIComponent(id)}?format=view`);
    if (turn !== shown) return;
    PW.showIncident(main, view, { download });
    main.focus(); scrollTo(0, 0);
  }

  // --- Processes -----------------------------------------------------------------------------------------------------
  async function processes(_, turn) {
    const percent = (n, of = "") => (n === null || n === undefined ? "not measured" : `${n.toFixed(2)} %${of}`);
    const draw = async () => {
      const [{ processes: all }, status, { binaries }, { gaps }] = await Promise.all([get("/api/v1/processes"), get("/api/v1/status"), get("/api/v1/probes"), get("/api/v1/gaps")]);
      if (turn !== shown) return;
      const by = new Map(binaries.map((b) => [b.row, b])), open = new Set([...main.querySelectorAll("details[open]")].map((d) => d.dataset.row));
      redraw(main, () => main.replaceChildren(el("h1", {}, "Processes"),
        el("p", {}, PW.badge(status.ready ? "ready" : "fatal", status.ready ? "ready" : "not ready"), ` ${status.watched} of ${status.processes} Go processes watched · recording cost: watched processes ${percent(status.own.overhead_percent, " of their CPU time")}, others ${percent(status.own.host_overhead_percent, " of the machine")} · ${PW.number(Math.round(status.own.memory_bytes / 1048576))} MiB`),
        status.problems.length ? el("ul", { role: "alert" }, status.problems.map((p) => el("li", {}, told(p, 400)))) : "",
        all.length ? PW.table("Processes", ["Process", ["Pid", "tight"], "Watched", ["Go", "tight"], ["Overhead", "tight"], ["Incidents", "tight"]], all.map((p) => { const b = by.get(p.binary); return PW.row(
          [el("strong", {}, told(PW.base(p.exe) || "?", 60)), el("div", { class: "place" }, told((p.args || []).join(" "), 200))], p.pid, p.watched ? "yes" : ["no: ", told(p.reason ?? "unknown", 200)], told(b?.go_version ?? "", 40), b ? percent(b.overhead_percent) : "", el("span", {}, PW.number(p.incidents))); })) : el("p", { class: "empty" }, "No Go process is running on this host."),
        gaps.length ? el("h2", {}, "Gaps") : "", gaps.length ? gapRows(gaps.slice(-50).reverse()) : "", el("h2", {}, "Probes"), ...binaries.map((b) => el("details", { "data-row": b.row, open: open.has(String(b.row)) }, el("summary", { "data-key": `probes ${b.row}` }, told(b.path, 300), el("span", { class: "note" }, ` ${b.probes.length} probes, ${PW.number(Math.round(b.hits_per_second))} hits/s, ${percent(b.overhead_percent)}`)),
          PW.table(`Probes of ${PW.plain(b.path, 100)}`, ["Probe", "Function", ["Address", "tight"], ["Cost", "tight"]], b.probes.map((q) => PW.row(told(q.name, 60), el("code", {}, told(q.symbol, 200)), el("code", {}, told(q.address, 30)), told(q.price, 30)))),
          b.refused.length ? PW.table("Functions without a probe", ["Function", "Why"], b.refused.map((r) => PW.row(el("code", {}, told(r.symbol, 200)), told(r.reason, 300)))) : ""))));
    };
    await draw();
    const timer = setInterval(() => draw().catch(() => {}), 5000);
    abort = () => clearInterval(timer);
  }

  addEventListener("hashchange", route);
  route();
  listen();
})();
