//! A headless Chromium, driven over its DevTools protocol.
//! Independent of the page under test.

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
/// Timeout of every wait; generous, because the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with one tab.
pub(crate) struct Chromium {
    process: Child,
    socket: WebSocket<TcpStream>,
    session: Value,
    next: u64,
    /// Protocol events: errors and warnings in the page, and its network requests.
    events: Vec<Value>,
    _profile: tempfile::TempDir,
}

impl Chromium {
    /// Starts a browser; returns `None` if none is installed on this machine.
    pub(crate) fn start() -> Option<Chromium> {
        let profile = tempfile::tempdir().expect("a folder");
        let mut process = NAMES.iter().find_map(|name| spawn(name, profile.path()))?;
        let stderr = BufReader::new(process.stderr.take().expect("a pipe"));
        let mut lines = stderr.lines().map_while(Result::ok);
        let url = lines.find_map(|line| line.strip_prefix("DevTools listening on ").map(str::to_owned));
        let url = url.expect("Chromium says where it listens");
        // Drains standard error so that the browser never blocks on it.
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

    /// Sends a command of the protocol and returns its result.
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

    /// Opens an address and waits until it is loaded.
    pub(crate) fn open(&mut self, url: &str) {
        // Navigating to another fragment of the same page would not load it again.
        self.call("Page.navigate", json!({ "url": "about:blank" }));
        let result = self.call("Page.navigate", json!({ "url": url }));
        assert!(result["errorText"].is_null(), "{url}: {result}");
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'");
    }

    /// Delays the page's requests to `path`: each is sent `before` ms late, and its response is passed on
    /// `after` ms late. `window.answered` counts the responses that have arrived. Applies to pages opened
    /// from now on.
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

    /// Evaluates an expression and returns its value.
    pub(crate) fn eval(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let result = self.call("Runtime.evaluate", params);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {}", result["exceptionDetails"]);
        result["result"]["value"].clone()
    }

    /// Evaluates an expression and returns its value as text; empty if it is not a string.
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

    /// Presses a key, given by its name or as a character.
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

    /// Types a text into the focused element.
    pub(crate) fn write(&mut self, text: &str) {
        self.call("Input.insertText", json!({ "text": text }));
    }

    /// Returns errors and warnings since the last call: exceptions, console messages, failed loads, policy
    /// violations, and requests to any address other than `base`.
    pub(crate) fn problems(&mut self, base: &str) -> Vec<String> {
        // Events sent before the response to this command have arrived when it returns.
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

    /// Emulates a color scheme: light or dark.
    pub(crate) fn colours(&mut self, scheme: &str) {
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.call("Emulation.setEmulatedMedia", json!({ "features": [feature] }));
    }

    /// Sets the size of the window, in pixels.
    pub(crate) fn size(&mut self, width: u32, height: u32) {
        let narrow = width < 600;
        self.call(
            "Emulation.setDeviceMetricsOverride",
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": narrow }),
        );
    }

    /// Saves a screenshot of the whole page in the directory `PANICWATCH_SCREENSHOTS`, for manual review;
    /// does nothing if it is unset.
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
        // The command may be a script that does not exec the browser: the whole process group is killed. It
        // may have ended already.
        let group = format!("-{}", self.process.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.process.wait();
    }
}

fn spawn(name: &str, profile: &Path) -> Option<Child> {
    Command::new(name)
        .args(["--headless", "--remote-debugging-port=0", "--disable-gpu", "--disable-dev-shm-usage"])
        // Chromium's sandbox refuses to run as root; the pages shown here are panicwatch's own.
        .args(["--no-sandbox", "--no-first-run", "--window-size=1280,900"])
        // No name resolves, so that nothing outside this machine is reached.
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
