//! Layout of the views: long texts, many groups, narrow screens, contrast, and what is visible without
//! scrolling.

use panicwatch::{
    incident::{Incident, Outcome, Value},
    render::{Format, render, text::Style},
};
use serde_json::json;

use super::{
    browser,
    checks::{FAINT, LANES, OFF_SCREEN, TOO_WIDE},
    nothing_wrong,
    site::{Served, numbered, sample},
};
use crate::chromium::Chromium;

/// Widths and heights of the screens of a laptop and of two phones.
const SCREENS: [(u32, u32); 3] = [(1280, 800), (390, 844), (360, 740)];

/// Returns an incident whose value has no text: only the program could produce it.
fn custom(number: usize) -> Incident {
    let mut incident = numbered(&sample("recovered"), number);
    incident.fingerprint = "custom".into();
    incident.message = None;
    incident.panics[0].value = Value {
        type_name: Some("*main.QuotaError".into()),
        detail: Some("&{Limit:5 Name:\"blue\"}".into()),
        ..Value::default()
    };
    incident
}

/// Returns an incident with texts without break opportunities in every field that a program controls.
fn unbroken(number: usize, outcome: Outcome) -> Incident {
    let long = "x".repeat(2000);
    let mut incident = numbered(&sample("recovered"), number);
    incident.outcome = outcome;
    incident.fingerprint = format!("long-{number}");
    incident.message = Some(long.clone());
    incident.process.exe = Some(format!("/srv/{long}"));
    incident.process.args = Some(vec![long.clone()]);
    incident.process.env = Some([("GODEBUG".to_owned(), long.clone())].into());
    incident.process.kubernetes = Some(json!({ "pod": long }));
    for frame in incident.stack.iter_mut().chain(incident.panics.iter_mut().filter_map(|p| p.site.as_mut())) {
        frame.function = format!("main.{long}");
        frame.file = Some(format!("/src/{long}.go"));
    }
    for panic in &mut incident.panics {
        panic.value.type_name = Some(format!("*main.{long}"));
        panic.value.printed = Some(long.clone());
        panic.check = Some(long.clone());
        panic.instructions.iter_mut().for_each(|instruction| instruction.text = long.clone());
    }
    if let Some(goroutine) = &mut incident.goroutine {
        goroutine.labels = [("label".to_owned(), long.clone())].into();
    }
    incident.missing.push(panicwatch::incident::Missing { what: long.clone(), reason: long });
    incident
}

fn fits(browser: &mut Chromium, what: &str) {
    let wide = browser.eval(TOO_WIDE);
    assert!(wide.as_i64() <= Some(0), "{what} is {wide} pixels too wide");
    assert_eq!(browser.eval(OFF_SCREEN), json!([]), "{what}: nothing is off the screen");
}

#[test]
fn long_unbroken_texts_push_nothing_off_the_screen() {
    let Some((mut browser, _one)) = browser() else { return };
    let all = [Outcome::Recovered, Outcome::Fatal, Outcome::Goexit, Outcome::Exited, Outcome::Unknown];
    let mut incidents: Vec<_> = (0..).zip(all).map(|(n, outcome)| unbroken(n, outcome)).collect();
    incidents[4].timeline = sample("slow_read").timeline;
    let newest = incidents[4].clone();
    let served = Served::start(incidents);
    for (width, height) in SCREENS {
        browser.size(width, height);
        for view in ["groups", "incidents", &format!("incidents/{}", newest.id), "processes"] {
            browser.open(&format!("{}/#/{view}", served.base));
            browser.until("document.querySelectorAll('main tbody tr, main .sheet .r').length > 0");
            browser.picture(&format!(
                "long-{}-{width}",
                view.replace('/', "-").chars().take(11).collect::<String>()
            ));
            fits(&mut browser, &format!("{view} at {width}"));
        }
        // All columns are visible and none has collapsed.
        browser.open(&served.base);
        browser.until("document.querySelectorAll('main tbody tr').length === 5");
        let narrowest = "Math.min(...[...document.querySelectorAll('main tbody td')].filter((e) => e.textContent).map((e) => e.getBoundingClientRect().width))";
        let narrowest = browser.eval(narrowest).as_f64().expect("a number");
        assert!(narrowest > 24.0, "a column is {narrowest} pixels wide at {width}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("long.html");
    let bytes = render(Format::Html, &newest, None, &Style::default()).expect("a page");
    std::fs::write(&path, bytes).expect("writes");
    for (width, height) in SCREENS {
        browser.size(width, height);
        browser.open(&format!("file://{}", path.display()));
        browser.until("document.querySelectorAll('.stack li').length > 0");
        fits(&mut browser, &format!("the file at {width}"));
    }
}

#[test]
fn every_one_of_1200_groups_is_reached() {
    let Some((mut browser, _one)) = browser() else { return };
    let one = Incident { timeline: None, ..sample("recovered") };
    let group = |n: usize| Incident {
        fingerprint: format!("pw1:{n:04}"),
        message: Some(format!("defect number {n} of them all")),
        // Larger numbers occurred earlier.
        time: format!("2025-07-09T{:02}:{:02}:00Z", 23 - n / 60, 59 - n % 60),
        ..numbered(&one, 2000 - n)
    };
    let served = Served::start((0..1200).rev().map(group).collect());
    browser.open(&served.base);
    let rows = |n: usize| format!("document.querySelectorAll('main tbody a').length === {n}");
    let link = "[...document.querySelectorAll('main tbody a')].some((a) => a.textContent === 'defect number 1100 of them all')";
    browser.until(&rows(500));
    assert_eq!(
        browser.text("document.querySelector('[role=status].note').textContent"),
        "500 of 1\u{202f}200 groups"
    );
    assert_eq!(browser.eval(link), false);
    browser.eval("document.querySelector('button.more').click()");
    browser.until(&rows(1000));
    let focus = browser.text("document.activeElement.textContent");
    assert_eq!(focus, "defect number 500 of them all", "the keyboard goes on where the list was");
    assert_eq!(browser.text("document.querySelector('button.more').textContent"), "Load 200 more");
    // An incident redraws the list, and the focus stays on the button.
    browser.until("document.getElementById('live').textContent === 'live'");
    browser.eval("document.querySelector('button.more').focus(); window.before = document.activeElement");
    served.happens(Incident { id: numbered(&one, 2500).id, time: "2025-07-09T23:59:30Z".into(), ..group(0) });
    browser.until("document.querySelector('button.more') !== window.before");
    assert_eq!(browser.eval("document.activeElement === document.querySelector('button.more')"), true);
    browser.key("Enter");
    browser.until(&rows(1200));
    assert_eq!(browser.eval(link), true);
    assert_eq!(browser.eval("document.querySelector('button.more')"), json!(null));
    let all = browser.eval("new Set([...document.querySelectorAll('main tbody a')].map((a) => a.href)).size");
    assert_eq!(all, 1200, "each once");

    // A new incident of one of the last groups moves it to the front, and the loaded groups stay.
    let again = Incident { id: numbered(&one, 3000).id, time: "2025-07-10T00:00:00Z".into(), ..group(1100) };
    browser.until("document.getElementById('live').textContent === 'live'");
    served.happens(again);
    browser.until("document.querySelector('main tbody a').textContent === 'defect number 1100 of them all'");
    assert_eq!(browser.eval("document.querySelectorAll('main tbody a').length"), 1200);

    // The filter searches all groups, even those that are not loaded.
    browser.eval("location.reload()");
    browser.until(&rows(500));
    browser.eval("document.querySelector('input[type=search]').focus()");
    browser.write("NUMBER 1177 of");
    browser.until(&rows(1));
    assert_eq!(
        browser.text("document.querySelector('main tbody a').textContent"),
        "defect number 1177 of them all"
    );
    browser.write("7");
    browser.until("document.querySelector('main .empty')?.textContent === 'No group matches the filter.'");
    nothing_wrong(&mut browser, &served.base);
}

#[test]
fn a_value_without_text_is_titled_by_type_and_fields() {
    let Some((mut browser, _one)) = browser() else { return };
    let unknown = {
        let mut incident = custom(2);
        incident.fingerprint = "unknown".into();
        incident.panics[0].value = Value::default();
        incident
    };
    let site = unknown.panics[0].site.as_ref().map(|site| site.function.clone()).expect("a site");
    let served = Served::start(vec![custom(1), unknown.clone()]);
    let want =
        ["*main.QuotaError{Limit:5 Name:\"blue\"}".to_owned(), format!("panic of unknown value in {site}")];
    for view in ["groups", "incidents"] {
        browser.open(&format!("{}/#/{view}", served.base));
        browser.until("document.querySelectorAll('main tbody a, main .sheet a').length === 2");
        let titles = browser.eval(
            "[...document.querySelectorAll('main tbody a, main .sheet a')].map((a) => a.textContent).sort()",
        );
        assert_eq!(titles, json!(want), "{view}");
    }
    for (incident, want) in [(custom(1), &want[0]), (unknown, &want[1])] {
        browser.open(&format!("{}/#/incidents/{}", served.base, incident.id));
        browser.until("!!document.querySelector('main h1')");
        assert_eq!(browser.text("document.querySelector('main h1').textContent"), *want);
        assert_eq!(browser.text("document.title"), format!("{want} – panicwatch"));
    }
    // An incident that arrives over the live stream.
    browser.open(&format!("{}/#/incidents", served.base));
    browser.until("document.querySelectorAll('.sheet .r').length === 2 && document.getElementById('live').textContent === 'live'");
    served.happens(custom(3));
    browser.until("document.querySelectorAll('.sheet .r').length === 3");
    assert_eq!(browser.text("document.querySelector('.sheet a').textContent"), want[0]);
    nothing_wrong(&mut browser, &served.base);
}

/// Returns the distance from the upper edge of the screen to the lower edge of an element, in pixels.
fn bottom(browser: &mut Chromium, selector: &str) -> f64 {
    let of = format!("document.querySelector('{selector}').getBoundingClientRect().bottom");
    browser.eval(&of).as_f64().expect("a number")
}

#[test]
fn the_stack_is_seen_without_scrolling() {
    let Some((mut browser, _one)) = browser() else { return };
    let long = Incident { message: Some("word ".repeat(2000)), ..numbered(&sample("slow_read"), 2) };
    let lines = Incident { message: Some("line\n".repeat(200)), ..numbered(&sample("slow_read"), 3) };
    let incidents = [numbered(&sample("repanicked_chain"), 1), long, lines];
    let served = Served::start(incidents.to_vec());
    for (width, height) in SCREENS {
        browser.size(width, height);
        for incident in &incidents {
            browser.open(&format!("{}/#/incidents/{}", served.base, incident.id));
            browser.until("document.querySelectorAll('.stack li.site').length === 1");
            browser.picture(&format!("fold-{}-{width}", &incident.id[incident.id.len() - 1..]));
            let raised = bottom(&mut browser, "#h-stack + ol li.site");
            assert!(raised <= f64::from(height), "the frame that raised ends at {raised} of {height}");
        }
        browser.until("!!document.querySelector('details.message')");
        browser.eval("document.querySelector('details.message').open = true");
        let whole = browser.text("document.querySelector('details.message pre').textContent");
        assert_eq!(Some(whole), incidents[2].message, "the whole message, lines as they are");
    }
    nothing_wrong(&mut browser, &served.base);
}

#[test]
fn everything_can_be_read_in_the_light_and_in_the_dark() {
    let Some((mut browser, _one)) = browser() else { return };
    let all = [Outcome::Recovered, Outcome::Fatal, Outcome::Goexit, Outcome::Exited, Outcome::Unknown];
    let of = |(n, outcome): (usize, &Outcome)| Incident {
        outcome: *outcome,
        fingerprint: format!("print-{n}"),
        ..numbered(&sample("slow_read"), n)
    };
    let served = Served::start(all.iter().enumerate().map(|(n, outcome)| of((n, outcome))).collect());
    let unknown = of((4, &Outcome::Unknown)).id;
    for scheme in ["light", "dark"] {
        browser.colours(scheme);
        for view in ["groups", "incidents", &format!("incidents/{unknown}"), "processes"] {
            browser.open(&format!("{}/#/{view}", served.base));
            browser.until("document.querySelectorAll('main tbody tr, main .sheet .r').length > 0");
            browser.eval("document.querySelectorAll('details').forEach((d) => { d.open = true; })");
            assert_eq!(browser.eval(FAINT), json!([]), "{view} {scheme}");
            if view != "processes" {
                let badge = "[...document.querySelectorAll('.badge.unknown')].some((e) => e.textContent === 'unknown')";
                assert_eq!(browser.eval(badge), true, "{view}: unknown is among what was measured");
            }
        }
        let lanes = browser.eval(LANES);
        assert_eq!(lanes["faint"], json!([]), "{scheme}");
        assert_eq!(lanes["states"], 22);
        assert!(lanes["unknown"].as_f64() >= Some(3.0), "{scheme}: {lanes}");
    }
    nothing_wrong(&mut browser, &served.base);
}
