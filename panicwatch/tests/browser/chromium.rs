//! A headless Chromium, driven over its DevTools protocol.
//! Knows nothing of the page.

use std::{
    io::{BufRead as _, BufReader},
    net::TcpStream,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

const NAMES: [&str; 3] = ["chromium-headless-shell", "chromium", "google-chrome"];
/// Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with one tab.
pub(crate) struct Chromium {
    process: Child,
    socket: WebSocket<TcpStream>,
    session: Value,
    next: u64,
    /// What went wrong in the page, and where it asked for something.
    events: Vec<Value>,
    _profile: tempfile::TempDir,
}

impl Chromium {
    /// Starts it; `None` when there is none on this machine.
    pub(crate) fn start() -> Option<Chromium> {
        let profile = tempfile::tempdir().expect("a folder");
        let mut process = NAMES.iter().find_map(|name| spawn(name, profile.path()))?;
        let stderr = BufReader::new(process.stderr.take().expect("a pipe"));
        let mut lines = stderr.lines().map_while(Result::ok);
        let url = lines.find_map(|line| line.strip_prefix("DevTools listening on ").map(str::to_owned));
        let url = url.expect("Chromium says where it listens");
        // It must not wait for a reader of its chatter.
        thread::spawn(move || lines.for_each(drop));
        let host = url.trim_start_matches("ws://").split('/').next().expect("a host");
        let stream = TcpStream::connect(host).expect("its port");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let (socket, _) = tungstenite::client(url.as_str(), stream).expect("a WebSocket");
        let mut browser = Chromium {
            process,
            socket,
            session: Value::Null,
            next: 1,
            events: Vec::new(),
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let to = json!({ "targetId": target["targetId"], "flatten": true });
        browser.session = browser.call("Target.attachToTarget", to)["sessionId"].clone();
        for domain in ["Page", "Runtime", "Network", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    /// A command of the protocol, and its result.
    pub(crate) fn call(&mut self, method: &str, params: Value) -> Value {
        let id = self.next;
        self.next += 1;
        let mut command = json!({ "id": id, "method": method, "params": params });
        if !self.session.is_null() {
            command["sessionId"] = self.session.clone();
        }
        self.socket.send(Message::text(command.to_string())).expect("Chromium listens");
        loop {
            let Message::Text(text) = self.socket.read().expect("Chromium answers") else { continue };
            let mut message: Value = serde_json::from_str(&text).expect("JSON");
            if message["id"] == id {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].take();
            }
            if message.get("method").is_some() {
                self.events.push(message);
            }
        }
    }

    /// Opens an address, and waits until it is loaded.
    pub(crate) fn open(&mut self, url: &str) {
        // Another fragment of the same page is no new page.
        self.call("Page.navigate", json!({ "url": "about:blank" }));
        let result = self.call("Page.navigate", json!({ "url": url }));
        assert!(result["errorText"].is_null(), "{url}: {result}");
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'");
    }

    /// Delays the page's requests to `path`: each is sent `before` ms late, and its answer handed over `after` ms late.
    /// `window.answered` counts the answers that have arrived. Holds for pages opened from now on.
    pub(crate) fn delay(&mut self, path: &str, before: u32, after: u32) {
        let source = format!(
            "(() => {{ const send = window.fetch, wait = (ms) => new Promise((done) => setTimeout(done, ms)); \
             window.answered = 0; \
             window.fetch = async (url, options) => {{ \
               if (!String(url).startsWith('{path}')) return send(url, options); \
               await wait({before}); const answer = await send(url, options); window.answered += 1; \
               await wait({after}); return answer; }}; }})()"
        );
        self.call("Page.addScriptToEvaluateOnNewDocument", json!({ "source": source }));
    }

    /// The value of an expression.
    pub(crate) fn eval(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let result = self.call("Runtime.evaluate", params);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {}", result["exceptionDetails"]);
        result["result"]["value"].clone()
    }

    /// A text.
    pub(crate) fn text(&mut self, expression: &str) -> String {
        self.eval(expression).as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the expression is true.
    pub(crate) fn until(&mut self, expression: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.eval(expression) != true {
            if Instant::now() > deadline {
                let page = self.text("document.body.innerText.slice(0, 3000)");
                panic!("never true: {expression}; the page has:\n{page}\nproblems: {:?}", self.events);
            }
            thread::sleep(Duration::from_millis(30));
        }
    }

    /// Presses a key: its name, or a character.
    pub(crate) fn key(&mut self, key: &str) {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            "ArrowLeft" => 37,
            "ArrowUp" => 38,
            "ArrowRight" => 39,
            "ArrowDown" => 40,
            key => key.chars().next().map_or(0, u32::from),
        };
        let text = match key {
            "Enter" => Some("\r"),
            key if key.chars().count() == 1 => Some(key),
            _ => None,
        };
        let mut params = json!({ "type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": code });
        if let Some(text) = text {
            params["text"] = text.into();
        }
        self.call("Input.dispatchKeyEvent", params.clone());
        params["type"] = "keyUp".into();
        self.call("Input.dispatchKeyEvent", params);
    }

    /// Types a text where the focus is.
    pub(crate) fn write(&mut self, text: &str) {
        self.call("Input.insertText", json!({ "text": text }));
    }

    /// Errors and warnings since the last time: exceptions, the console's, refused loads, violations of the policy;
    /// and requests to anywhere but `base`.
    pub(crate) fn problems(&mut self, base: &str) -> Vec<String> {
        // Whatever was on its way before is there before the answer.
        self.eval("1");
        let own = |url: &str| {
            ["data:", "blob:", "about:"].iter().any(|scheme| url.starts_with(scheme)) || url.starts_with(base)
        };
        let problem = |event: &Value| {
            let params = &event["params"];
            match event["method"].as_str()? {
                "Runtime.exceptionThrown" => Some(params["exceptionDetails"].to_string()),
                "Runtime.consoleAPICalled" if params["type"] != "log" => Some(params.to_string()),
                "Log.entryAdded"
                    if params["entry"]["level"] != "verbose" && params["entry"]["level"] != "info" =>
                {
                    Some(params["entry"].to_string())
                }
                "Network.requestWillBeSent" => {
                    let url = params["request"]["url"].as_str().unwrap_or_default();
                    (!own(url)).then(|| format!("asked for {url}"))
                }
                _ => None,
            }
        };
        let problems = self.events.iter().filter_map(problem).collect();
        self.events.clear();
        problems
    }

    /// Light or dark.
    pub(crate) fn colours(&mut self, scheme: &str) {
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.call("Emulation.setEmulatedMedia", json!({ "features": [feature] }));
    }

    /// The size of the window, in pixels.
    pub(crate) fn size(&mut self, width: u32, height: u32) {
        let narrow = width < 600;
        self.call(
            "Emulation.setDeviceMetricsOverride",
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": narrow }),
        );
    }

    /// A picture of the whole page in the folder of `PANICWATCH_SCREENSHOTS`, for people to look at; without it none.
    pub(crate) fn picture(&mut self, name: &str) {
        let folder = std::env::var_os("PANICWATCH_SCREENSHOTS").filter(|folder| !folder.is_empty());
        let Some(folder) = folder else { return };
        let result =
            self.call("Page.captureScreenshot", json!({ "format": "png", "captureBeyondViewport": true }));
        let bytes = BASE64_STANDARD.decode(result["data"].as_str().expect("a picture")).expect("base64");
        std::fs::write(Path::new(&folder).join(format!("{name}.png")), bytes).expect("writes");
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // The command may be a script that does not become the browser: the whole group is killed. It may have ended before.
        let group = format!("-{}", self.process.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.process.wait();
    }
}

fn spawn(name: &str, profile: &Path) -> Option<Child> {
    Command::new(name)
        .args(["--headless", "--remote-debugging-port=0", "--disable-gpu", "--disable-dev-shm-usage"])
        // Its sandbox refuses root; what it is shown here is ours.
        .args(["--no-sandbox", "--no-first-run", "--window-size=1280,900"])
        // No name means anything: nothing outside is reached, whoever asks.
        .arg("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg("about:blank")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .ok()
}
