// Shows one incident: message, stack, timeline, chain of panics, process, goroutine, and what is missing.
"use strict";

PW.showIncident = (main, view, links) => {
  const { incident: doc, classes, site, title, values } = view;
  const el = PW.el, told = PW.told;
  const classOf = (f) => classes[`${f.function}@${f.file ?? ""}`] || "runtime";
  const place = (f) => (f.file ? [told(f.file, 400), f.line === null ? "" : `:${f.line}`] : "");
  const frame = (f) => (f ? el("span", { class: `f-${classOf(f)}` }, el("code", {}, told(f.function, 400)), " ", el("span", { class: "place" }, place(f))) : el("span", { class: "note" }, "unknown"));
  const section = (id, title, ...content) => el("section", { "aria-labelledby": id }, el("h2", { id }, title), content);
  const facts = (pairs) => el("dl", { class: "facts" }, pairs.filter(([, v]) => v !== null && v !== undefined && v !== "").map(([k, v]) => el("div", {}, el("dt", {}, k), el("dd", {}, v))));

  const p = doc.process, g = doc.goroutine;
  const ended = doc.exit && (doc.exit.signal !== null ? `signal ${doc.exit.signal}` : doc.exit.code !== null ? `status ${doc.exit.code}` : null);
  const head = el("header", { class: "incident" },
    el("p", { class: "badges" }, PW.badge(doc.outcome), PW.badge(doc.kind), el("span", { class: "note" }, "in "), el("strong", {}, told(PW.base(p.exe), 120)), el("span", { class: "note" }, ` · process ${p.pid} · `), el("time", { datetime: doc.time }, told(doc.time, 40)),
      links ? [el("a", { href: `#/incidents?fingerprint=${encodeURIComponent(doc.fingerprint)}` }, "All of this group"),
        el("button", { type: "button", onclick: () => document.getElementById("h-raw").scrollIntoView() }, "Downloads")] : ""),
    el("h1", { class: "title" }, told(title, 300)),
    doc.message !== null && doc.message !== title ? el("details", { class: "message" }, el("summary", {}, `Full message (${PW.number(doc.message.length)} characters)`), el("pre", { tabindex: 0 }, PW.lines(doc.message))) : "");
  const parts = [head];
  const stack = doc.stack.slice(0, 400).map((f, i) => el("li", { class: `f-${classOf(f)}${i === site ? " site" : ""}`, "aria-current": i === site ? "location" : null }, frame(f), f.inlined ? el("span", { class: "note" }, " inlined") : "", el("span", { class: "tag" }, classOf(f)), i === site ? el("span", { class: "tag here" }, "raised here") : ""));
  parts.push(section("h-stack", "Stack, innermost first", stack.length ? el("ol", { class: "stack" }, stack) : el("p", { class: "note" }, "none"),
    doc.stack.length > 400 ? el("p", { class: "note" }, `${doc.stack.length - 400} more frames are in the document.`) : "",
    doc.stack_elided !== 0 ? el("p", { class: "note" }, `${doc.stack_elided === null ? "An unknown number of" : PW.number(doc.stack_elided)} frames between the 50 innermost and the 50 outermost were elided.`) : ""));

  if (doc.timeline) parts.push(section("h-timeline", `Timeline, last ${PW.ns(doc.timeline.window_ns)}`, PW.timeline(doc.timeline), summary(doc.timeline)));
  else parts.push(section("h-timeline", "Timeline", el("p", { class: "note" }, "None: ", told(doc.missing.find((m) => m.what === "timeline")?.reason ?? "none was recorded"))));

  if (doc.panics.length) parts.push(section("h-chain", doc.panics.length > 1 ? `Chain of ${doc.panics.length} panics, oldest first` : "Panic", doc.panics.map(panic)));
  parts.push(section("h-process", "Process", facts([
    ["Executable", p.exe && told(p.exe, 400)], ["Command", p.args && told(p.args.join(" "), 2000)], ["Pid", p.pid], ["Started", p.start_time && told(p.start_time, 60)], ["Ended with", ended],
    ["Go", p.go_version && told(p.go_version, 60)], ["Module", p.module && [told(p.module, 200), p.module_version ? [" ", told(p.module_version, 100)] : ""]], ["Revision", p.vcs_revision && told(p.vcs_revision, 80)], ["Build id", p.build_id && told(p.build_id, 120)],
    ["Environment", p.env && Object.keys(p.env).length ? Object.entries(p.env).map(([k, v]) => el("div", {}, told(k, 100), "=", told(v, 400))) : null],
    ["Container", p.container && el("code", {}, told(JSON.stringify(p.container), 600))], ["Pod", p.kubernetes && el("code", {}, told(JSON.stringify(p.kubernetes), 600))],
    ["Initializing", doc.init && told(doc.init.package ?? doc.init.chain.join(" → "), 400)]])));
  if (g) parts.push(section("h-goroutine", `Goroutine ${g.id}`, facts([
    ["Status", g.status && told(g.status, 60)], ["Wait reason", g.wait_reason && told(g.wait_reason, 100)], ["Created by", g.created_by && frame(g.created_by)], ["Parent", g.parent_id && `goroutine ${g.parent_id}`], ["Start function", g.start && frame(g.start)],
    ["Thread", g.thread_id], ["Locked to thread", g.locked_to_thread === null ? null : g.locked_to_thread ? "yes" : "no"], ["Deferred calls pending", g.defer_depth],
    ["Labels", Object.keys(g.labels).length ? Object.entries(g.labels).map(([k, v]) => el("div", {}, told(k, 100), "=", told(v, 400))) : null]]),
    doc.ancestry.length ? el("ol", { class: "stack" }, doc.ancestry.map((a) => el("li", {}, `goroutine ${a.goroutine_id ?? "?"} at `, frame(a.created_at)))) : ""));
  if (doc.missing.length) parts.push(section("h-missing", "Missing", PW.table("Missing", ["What", "Why"], doc.missing.map((m) => PW.row(el("code", {}, told(m.what, 200)), told(m.reason, 1000))))));
  parts.push(section("h-raw", "Document", downloads(), facts([["Id", el("code", {}, told(doc.id, 60))], ["Fingerprint", el("code", {}, told(doc.fingerprint, 80))], ["Capture cost", doc.capture.cost_ns === null ? null : PW.ns(doc.capture.cost_ns)]]), raw()));
  main.replaceChildren(...parts);
  document.title = `${PW.plain(title, 80)} – panicwatch`;

  function panic(it, i) {
    const v = it.value;
    const caught = it.recover ? [frame(it.recover.by), ` ${PW.ns(it.recover.ns_after_raise)} after the raise`] : it.goexit ? null : el("span", { class: "note" }, "not recovered");
    const defers = it.defers.map((d) => el("li", {}, frame(d.function), d.registered_by ? [el("span", { class: "note" }, " deferred in "), frame(d.registered_by)] : "", " ", d.ended ? PW.badge(d.ended) : el("span", { class: "note" }, "still running"), d.end_ns === null ? "" : ` ${PW.ns(d.end_ns - d.start_ns)}`));
    return el("article", { class: "panic", "aria-label": `Panic ${i + 1}` },
      el("h3", {}, `${i + 1}. `, values[i] === null ? "value unknown" : told(values[i], 1000), " ", PW.badge(it.state)),
      facts([["Type", v.type && el("code", {}, told(v.type, 200))], ["Contents", v.detail && el("code", {}, told(v.detail, 2000))], ["Raised in", frame(it.site)], ["Check", it.check && told(it.check, 400)],
        ["Signal", it.signal && `${PW.plain(it.signal.name, 20)} code ${it.signal.code ?? "?"} at address ${it.signal.addr ?? "?"}`], ["Recovered by", caught]]),
      defers.length ? [el("h4", {}, "Deferred calls, in the order they ran"), el("ol", { class: "stack" }, defers)] : "",
      it.instructions.length ? [el("h4", {}, "Instructions"), PW.table("Instructions", ["", ["Address", "tight"], ["Bytes", "tight"], "Instruction"], it.instructions.map((n) => {
        const row = PW.row(n.raised ? el("span", { class: "here", role: "img", "aria-label": "raised here" }, "▶") : "", el("code", {}, told(n.address, 30)), el("code", {}, told(n.bytes, 40)), el("code", {}, told(n.text, 300)));
        if (n.raised) row.className = "raised";
        return row;
      }), "code")] : "",
      Object.keys(it.registers).length ? el("details", {}, el("summary", {}, "Registers"), el("dl", { class: "registers" }, Object.entries(it.registers).map(([k, r]) => el("div", {}, el("dt", {}, told(k, 20)), el("dd", {}, told(r, 40)))))) : "");
  }

  function summary(t) {
    const s = t.summary;
    const times = [["running", s.running_ns], ["runnable", s.runnable_ns], ["waiting", s.waiting_ns], ["syscall", s.syscall_ns], ["stopped", s.stopped_ns], ["not_running", s.not_running_ns], ["ended", s.ended_ns], ["unknown", s.unknown_ns]].filter(([, n]) => n > 0);
    const total = times.reduce((sum, [, n]) => sum + n, 0) || 1;
    const share = (list) => (list.length ? list.map((i) => el("div", {}, told(i.what, 100), ` ${PW.ns(i.ns)} × ${i.count}`)) : null);
    return el("div", { class: "summary" },
      s.goroutine === null ? "" : el("h3", {}, `Goroutine ${s.goroutine} before the raise`),
      times.length ? PW.table("Time of the goroutine by state", ["State", "Time", "Share"], times.map(([n, v]) => PW.row([el("i", { class: `s-${n}` }), " ", n === "ended" ? "not created yet" : PW.words(n)], PW.ns(v), `${((100 * v) / total).toFixed(1)} %`))) : "",
      facts([["Waiting", share(s.waiting)], ["Syscalls", share(s.syscalls)], ["Stopped", share(s.stopped)], ["Kernel preemptions", s.preemptions], ["CPU migrations", s.migrations], ["Page faults", s.page_faults], ["Samples", s.samples], ["Mark assists", s.gc_assists],
        ["Signals", s.signals.length ? s.signals.map((i) => `${PW.plain(i.name ?? i.number, 20)} × ${i.count}`).join(", ") : null]]),
      s.last.length ? [el("h3", {}, "Last steps before the raise"), PW.table("Last steps", ["Before the raise", "What"], s.last.map((l) => PW.row(`${PW.ns(t.raise_ns - l.time_ns)}`, told(l.words, 300))))] : "",
      t.off.length || t.gaps.length ? el("ul", { class: "note" }, t.off.map((o) => el("li", {}, "not recorded: ", told(o.source, 60), " (", told(o.reason, 300), ")")), t.gaps.map((o) => el("li", {}, o.lost ? `${o.lost} records of CPU ${o.cpu} were lost for ${PW.ns(o.to_ns - o.from_ns)}` : `CPU ${o.cpu} was not recorded`))) : "");
  }

  function downloads() {
    if (!links) return "";
    const files = [["json", "JSON"], ["html", "HTML"], ["text", "Text"]].concat(doc.timeline ? [["perfetto", "Perfetto"], ["folded", "Folded stacks"], ["perf-script", "perf script"]] : []);
    return el("p", { class: "downloads", role: "group", "aria-label": "Downloads" }, files.map(([format, name]) => el("button", { type: "button", onclick: () => links.download(doc.id, format) }, name)));
  }

  function raw() {
    return el("details", { id: "raw", ontoggle: (event) => {
      if (event.target.open && event.target.children.length === 1) {
        const text = JSON.stringify(doc, null, 1).replace(PW.UNSAFE, (c) => (c === "\n" ? c : [...Array(c.length).keys()].map((i) => "\\u" + c.charCodeAt(i).toString(16).padStart(4, "0")).join("")));
        event.target.append(el("pre", { tabindex: 0 }, text.slice(0, 2000000)));
      }
    } }, el("summary", {}, "Raw JSON"));
  }
};
