//! The daemon's page in a real browser: what it shows, also by keyboard; no hostile text is executed, no
//! request leaves the daemon, and its own policy blocks nothing. `PANICWATCH_SCREENSHOTS=DIR` saves
//! screenshots for manual review.

#![expect(clippy::print_stdout, reason = "a test that does not run says so")]

mod checks;
mod chromium;
mod layout;
mod site;

use std::sync::{Mutex, MutexGuard, PoisonError};

use checks::{FAINT, TOO_WIDE, UNLABELLED};
use chromium::Chromium;
use panicwatch::{
    incident::{Incident, Kind, Outcome},
    render::{Format, render, text::Style},
};
use site::{Served, numbered, sample};

/// Allows one browser at a time: they need much memory.
static ONE: Mutex<()> = Mutex::new(());

fn browser() -> Option<(Chromium, MutexGuard<'static, ()>)> {
    let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    match Chromium::start() {
        Some(browser) => Some((browser, one)),
        None => {
            println!(
                "SKIPPED: there is no Chromium here; cargo xtask setup installs chromium-headless-shell"
            );
            None
        }
    }
}

fn some() -> Vec<Incident> {
    let names =
        ["recovered", "deadlock", "stack_overflow", "exited_in_init", "repanicked_chain", "slow_read"];
    let of = |(number, name): (usize, &&str)| Incident {
        fingerprint: format!("print-{name}"),
        ..numbered(&sample(name), number)
    };
    names.iter().enumerate().map(of).collect()
}

fn nothing_wrong(browser: &mut Chromium, base: &str) {
    let problems = browser.problems(base);
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn groups_incidents_and_an_incident_by_keyboard() {
    let Some((mut browser, _one)) = browser() else { return };
    let served = Served::start(some());
    browser.open(&served.base);
    browser.until("document.querySelectorAll('main tbody tr').length === 6");
    assert!(
        browser.text("document.querySelector('main table').innerText").contains("nil pointer dereference")
    );
    assert_eq!(browser.text("document.querySelector('nav [aria-current]').textContent"), "Groups");
    browser.until("document.getElementById('live')?.textContent === 'live'");
    browser.picture("groups");

    browser.eval("document.querySelector('input[type=search]').focus()");
    browser.write("deadlock");
    browser.until("document.querySelectorAll('main tbody tr').length === 1");
    let focus = "document.activeElement.textContent";
    for _ in 0..10 {
        browser.key("Tab");
        if browser.text("document.activeElement.getAttribute('href')").contains("fingerprint") {
            break;
        }
    }
    assert!(browser.text(focus).contains("deadlock"), "Tab reaches the group: {}", browser.text(focus));
    browser.key("Enter");
    browser.until("location.hash.startsWith('#/incidents?fingerprint=') && document.querySelectorAll('.sheet .r').length === 1");
    browser.picture("incidents");
    for _ in 0..20 {
        browser.key("Tab");
        if browser.text("document.activeElement.getAttribute('href')").starts_with("#/incidents/") {
            break;
        }
    }
    browser.key("Enter");
    browser.until("document.querySelector('h1')?.textContent.includes('all goroutines are asleep')");
    nothing_wrong(&mut browser, &served.base);
}

#[test]
fn filters_of_incidents() {
    let Some((mut browser, _one)) = browser() else { return };
    let served = Served::start(some());
    browser.open(&format!("{}/#/incidents", served.base));
    browser.until("document.querySelectorAll('.sheet .r').length === 6");
    let choose = |label: &str, value: &str| {
        format!(
            "(() => {{ const s = document.querySelector('select[aria-label=\"{label}\"]'); s.value = '{value}'; s.dispatchEvent(new Event('change')); }})()"
        )
    };
    browser.eval(&choose("Any outcome", "recovered"));
    browser.until("document.querySelectorAll('.sheet .r').length === 1");
    assert!(browser.text("document.querySelector('.sheet').innerText").contains("recovered"));
    assert!(browser.text("location.hash").contains("outcome=recovered"));
    browser.eval("history.back()");
    browser.until("document.querySelectorAll('.sheet .r').length === 6");
    nothing_wrong(&mut browser, &served.base);
}

#[test]
fn the_timeline_is_zoomed_and_told() {
    let Some((mut browser, _one)) = browser() else { return };
    let served = Served::start(some());
    browser.open(&format!("{}/#/incidents/{}", served.base, numbered(&sample("slow_read"), 5).id));
    browser.until("Number(document.querySelector('.range')?.dataset.to) > 0");
    browser.picture("incident");
    let span = |browser: &mut Chromium| {
        let range =
            "(() => { const { from, to } = document.querySelector('.range').dataset; return to - from; })()";
        browser.eval(range).as_f64().expect("a number")
    };
    let whole = span(&mut browser);
    let recorded = sample("slow_read").timeline.map(|t| t.to_ns - t.from_ns).expect("a timeline");
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of nanoseconds")]
    let recorded = recorded as f64;
    assert!((whole - recorded).abs() < 2.0, "all of it at first: {whole} of {recorded}");

    browser.eval("document.querySelector('.timeline canvas').focus()");
    browser.key("+");
    let half = span(&mut browser);
    assert!((half - whole / 2.0).abs() < 2.0, "{half} is half of {whole}");
    browser.key("-");
    browser.eval("document.querySelector('button[aria-label=\"Zoom in\"]').click()");
    assert!((span(&mut browser) - whole / 2.0).abs() < 2.0);
    browser.eval("document.querySelector('.timeline canvas').focus()");
    browser.key("0");
    assert!((span(&mut browser) - whole).abs() < 2.0);
    browser.key("ArrowLeft");
    let told = browser.text("document.querySelector('.detail').textContent");
    assert!(told.contains("goroutine 7"), "what is under the cursor is said: {told}");
    browser.key("ArrowDown");
    assert_ne!(browser.text("document.querySelector('.detail').textContent"), told, "another track");
    wheel(&mut browser);
    assert!(span(&mut browser) < whole, "the wheel zooms");

    browser.eval("document.querySelector('details.alternative summary').click()");
    browser.until("document.querySelectorAll('details.alternative tbody tr').length > 0");
    let states: usize =
        sample("slow_read").timeline.expect("one").tracks.iter().map(|t| t.states.len()).sum();
    let rows = browser.eval("document.querySelectorAll('details.alternative tbody tr').length");
    assert_eq!(rows, states, "every state that is drawn is in the table");
    let drawn = "(() => { const c = document.querySelector('.timeline canvas'); const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; const s = new Set(); for (let i = 0; i < d.length; i += 4) s.add(d[i] << 16 | d[i + 1] << 8 | d[i + 2]); return s.size; })()";
    assert!(browser.eval(drawn).as_u64() > Some(6), "something is drawn, in colours");
    nothing_wrong(&mut browser, &served.base);
}

fn wheel(browser: &mut Chromium) {
    let at = browser.eval(
        "(() => { const c = document.querySelector('.timeline canvas'); c.scrollIntoView({ block: 'center' }); const r = c.getBoundingClientRect(); return [r.x + r.width / 2, r.y + 30]; })()",
    );
    let event =
        serde_json::json!({ "type": "mouseWheel", "x": at[0], "y": at[1], "deltaX": 0, "deltaY": -240 });
    browser.call("Input.dispatchMouseEvent", event);
}

#[test]
fn an_incident_is_told_whole() {
    let Some((mut browser, _one)) = browser() else { return };
    let served = Served::start(some());
    browser.open(&format!("{}/#/incidents/{}", served.base, numbered(&sample("repanicked_chain"), 4).id));
    browser.until("document.querySelectorAll('article.panic').length > 1");
    let incident = sample("repanicked_chain");
    let page = browser.text("document.querySelector('main').innerText");
    for frame in incident.stack.iter().chain(incident.panics.iter().filter_map(|panic| panic.site.as_ref())) {
        assert!(page.contains(&frame.function), "{} is not in\n{page}", frame.function);
    }
    assert_eq!(browser.eval("document.querySelectorAll('article.panic').length"), incident.panics.len());
    assert!(
        browser.eval("document.querySelectorAll('li.f-user').length").as_u64() > Some(0),
        "the user's code stands out"
    );
    let raised: usize = incident.panics.iter().flat_map(|p| &p.instructions).filter(|i| i.raised).count();
    assert_eq!(browser.eval("document.querySelectorAll('tr.raised').length"), raised);
    browser.picture("chain");
    nothing_wrong(&mut browser, &served.base);
}

/// Returns an incident with texts that a program under attack could produce.
fn hostile() -> Incident {
    let bad = "</script><script>window.pwned = 1</script><img src=x onerror=\"window.pwned = 1\"><a href=\"javascript:window.pwned=1\">x</a>\u{202e}gpj.exe\u{1b}[31m";
    let mut incident = Incident { fingerprint: "hostile".into(), ..numbered(&sample("hostile"), 9) };
    incident.message = Some(format!("{bad}{}", "A".repeat(1 << 20)));
    incident.process.exe = Some(format!("/tmp/{bad}"));
    incident.process.args = Some(vec![bad.to_owned()]);
    for frame in &mut incident.stack {
        frame.function = format!("main.{bad}");
        frame.file = Some(bad.to_owned());
    }
    for panic in &mut incident.panics {
        panic.value.type_name = Some(bad.to_owned());
        panic.value.printed = Some(format!("{bad}{}", "B".repeat(1 << 20)));
    }
    incident.timeline = sample("slow_read").timeline;
    if let Some(timeline) = &mut incident.timeline {
        for track in &mut timeline.tracks {
            track.name = Some(bad.to_owned());
            track.states.iter_mut().for_each(|state| state.detail = Some(bad.to_owned()));
            track.slices.iter_mut().for_each(|slice| bad.clone_into(&mut slice.name));
        }
        timeline.events.iter_mut().for_each(|event| bad.clone_into(&mut event.words));
    }
    incident
}

fn nothing_ran(browser: &mut Chromium) {
    browser.until("document.querySelectorAll('main .esc').length > 0");
    assert_eq!(
        browser.eval("document.querySelector('main').innerText.length < 400000"),
        true,
        "a megabyte is not laid out unless it is asked for"
    );
    browser.eval("document.querySelectorAll('details').forEach((d) => { d.open = true; })");
    browser.until("[...document.querySelectorAll('main .esc')].some((e) => e.textContent === '\\\\u{202e}')");
    assert!(browser.eval("window.pwned === undefined && !document.title.includes('\\u202e')") == true);
    assert_eq!(browser.eval("document.querySelectorAll('main script, main img, main iframe, main a[href^=\"javascript\"]').length"), 0);
    let raw = r"/[\u202a-\u202e\u2066-\u2069\u001b\u0000]/.test(document.body.innerText)";
    assert_eq!(browser.eval(raw), false, "no character that steers is left");
}

#[test]
fn hostile_text_is_shown_and_does_nothing() {
    let Some((mut browser, _one)) = browser() else { return };
    let served = Served::start(vec![hostile()]);
    for view in ["groups", "incidents", &format!("incidents/{}", hostile().id)] {
        browser.open(&format!("{}/#/{view}", served.base));
        nothing_ran(&mut browser);
        browser.picture(&format!("hostile-{}", view.split('/').count()));
        nothing_wrong(&mut browser, &served.base);
    }
}

#[test]
fn one_file_needs_nothing_else() {
    let Some((mut browser, _one)) = browser() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let html = |incident: &Incident| render(Format::Html, incident, None, &Style::default()).expect("a page");
    for (name, incident) in [("slow_read", sample("slow_read")), ("hostile", hostile())] {
        let path = folder.path().join(format!("{name}.html"));
        let bytes = html(&incident);
        assert!(bytes == html(&incident), "the same bytes each time");
        std::fs::write(&path, bytes).expect("writes");
        let url = format!("file://{}", path.display());
        browser.open(&url);
        browser.until("Number(document.querySelector('.range')?.dataset.to) > 0");
        browser.until("document.querySelectorAll('.stack li').length > 0");
        browser.picture(&format!("file-{name}"));
        if name == "hostile" {
            nothing_ran(&mut browser);
        }
        nothing_wrong(&mut browser, &url);
    }
}

#[test]
fn ten_thousand_incidents_scroll() {
    let Some((mut browser, _one)) = browser() else { return };
    let one = Incident { timeline: None, ..sample("recovered") };
    let served = Served::start((0..10_000).map(|number| numbered(&one, number)).collect());
    browser.open(&format!("{}/#/incidents", served.base));
    browser.until("document.querySelectorAll('.sheet .r').length > 10");
    let oldest = numbered(&one, 0).id;
    browser.until(&format!(
        "(() => {{ const v = document.querySelector('.viewport'); v.scrollTop = v.scrollHeight; return !!document.querySelector('a[href=\"#/incidents/{oldest}\"]'); }})()"
    ));
    assert!(
        browser.eval("document.querySelectorAll('.sheet .r').length").as_u64() < Some(100),
        "only what is in sight"
    );
    let row =
        browser.eval("Number(document.querySelector('.sheet .r:last-child').getAttribute('aria-rowindex'))");
    assert_eq!(row, 10_001, "the head is the first row");
    nothing_wrong(&mut browser, &served.base);
}

#[test]
fn news_come_by_themselves() {
    let Some((mut browser, _one)) = browser() else { return };
    let served = Served::start(vec![numbered(&sample("recovered"), 1)]);
    let mut fresh = Incident { fingerprint: "fresh".into(), ..numbered(&sample("slow_read"), 2) };
    browser.open(&served.base);
    browser.until("document.getElementById('live')?.textContent === 'live'");
    served.happens(fresh.clone());
    browser.until("document.querySelectorAll('main tbody tr').length === 2");
    browser.open(&format!("{}/#/incidents", served.base));
    browser.until("document.querySelectorAll('.sheet .r').length === 2 && document.getElementById('live')?.textContent === 'live'");
    fresh.id = numbered(&fresh, 3).id;
    fresh.message = Some("the newest of all".into());
    served.happens(fresh);
    browser.until("document.querySelector('.sheet .r').innerText.includes('the newest of all')");
    nothing_wrong(&mut browser, &served.base);
}

/// Opens `view` with the requests to `path` delayed, adds an incident once `when` is true, and waits until it
/// is shown.
fn arrives(path: &str, (before, after): (u32, u32), view: &str, when: &str, rows: &str) {
    let Some((mut browser, _one)) = browser() else { return };
    let served = Served::start(vec![numbered(&sample("recovered"), 1)]);
    browser.delay(path, before, after);
    browser.open(&format!("{}/#/{view}", served.base));
    browser.until(when);
    served.happens(Incident { fingerprint: "fresh".into(), ..numbered(&sample("slow_read"), 2) });
    browser.until(&format!("document.querySelectorAll('{rows}').length === 2"));
    nothing_wrong(&mut browser, &served.base);
}

const LIVE: &str = "document.getElementById('live')?.textContent === 'live'";

#[test]
fn an_incident_during_the_first_request_is_shown() {
    let when = format!("window.answered > 0 && {LIVE}");
    arrives("/api/v1/groups", (0, 2000), "groups", &when, "main tbody tr");
    arrives("/api/v1/incidents", (0, 2000), "incidents", &when, ".sheet .r");
}

#[test]
fn an_incident_before_the_stream_is_connected_is_shown() {
    let when = |rows: &str| format!("document.querySelectorAll('{rows}').length === 1");
    arrives("/api/v1/stream", (2000, 0), "groups", &when("main tbody tr"), "main tbody tr");
    arrives("/api/v1/stream", (2000, 0), "incidents", &when(".sheet .r"), ".sheet .r");
}

#[test]
fn a_token_is_asked_for_and_kept() {
    let Some((mut browser, _one)) = browser() else { return };
    let served = Served::start(some());
    served.site.set_token(Some("right".into()));
    browser.open(&served.base);
    for token in ["wrong", "right"] {
        browser.until("document.activeElement?.type === 'password' && document.activeElement.value === ''");
        let rejected = browser.eval("document.querySelector('main [role=alert]')?.textContent ?? null");
        let want =
            if token == "wrong" { serde_json::Value::Null } else { "The daemon rejects this token.".into() };
        assert_eq!(rejected, want, "before {token}");
        browser.write(token);
        browser.key("Enter");
    }
    browser.until("document.querySelectorAll('main tbody tr').length === 6");
    browser.eval("window.before = true; location.reload()");
    browser.until("window.before === undefined && document.querySelectorAll('main tbody tr').length === 6");
    browser.until("document.getElementById('live')?.textContent === 'live'");
    // Chromium itself logs rejected requests.
    let problems: Vec<_> =
        browser.problems(&served.base).into_iter().filter(|p| !p.contains("status of 401")).collect();
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn every_view_in_the_dark_and_on_a_telephone() {
    let Some((mut browser, _one)) = browser() else { return };
    let mut incidents = some();
    incidents.push(hostile());
    let served = Served::start(incidents);
    let id = numbered(&sample("slow_read"), 5).id;
    let views = [
        ("groups", "groups"),
        ("incidents", "incidents"),
        (&format!("incidents/{id}"), "incident"),
        ("processes", "processes"),
    ];
    for (scheme, width) in [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)] {
        browser.colours(scheme);
        browser.size(width, 900);
        for (view, name) in views {
            browser.open(&format!("{}/#/{view}", served.base));
            browser.until("!!document.querySelector('h1')");
            browser.until("document.querySelectorAll('main tbody tr, main .sheet .r').length > 0");
            browser.picture(&format!("{name}-{scheme}-{width}"));
            let wide = browser.eval(TOO_WIDE);
            assert!(wide.as_i64() <= Some(0), "{name} at {width} is {wide} pixels too wide");
            let dark = browser.eval("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).every((n) => n < 64)");
            assert_eq!(dark, scheme == "dark", "{name} {scheme}");
            assert_eq!(browser.eval(UNLABELLED), serde_json::json!([]), "{name}: everything has a name");
            assert_eq!(browser.eval(FAINT), serde_json::json!([]), "{name} {scheme}: everything can be read");
        }
    }
    nothing_wrong(&mut browser, &served.base);
}

#[test]
fn processes_and_probes() {
    let Some((mut browser, _one)) = browser() else { return };
    let served = Served::start(some());
    browser.open(&format!("{}/#/processes", served.base));
    browser.until("document.querySelectorAll('main tbody tr').length >= 2");
    let text = browser.text("document.querySelector('main').textContent");
    for part in [
        "4711",
        "go1.24.11",
        "<b>other",
        "it is not selected",
        "runtime.gopanic",
        "it was inlined everywhere",
        "0.31",
        "the daemon did not run",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    nothing_wrong(&mut browser, &served.base);
}

#[test]
fn samples_are_what_the_tests_think() {
    // The other tests would check less if the samples changed.
    assert!(sample("slow_read").timeline.is_some());
    assert_eq!(sample("recovered").outcome, Outcome::Recovered);
    assert_eq!(sample("deadlock").kind, Kind::FatalError);
}
