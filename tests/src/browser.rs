//! Chromium without a window, driven by the DevTools protocol through two pipes: opens a page from disk, clicks, types
//! and reads.
//!
//! It runs in a network namespace that has no interface, and notes each request of the page and each complaint of the
//! browser.

use std::cell::{Cell, RefCell};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The program, and where to get it.
const PROGRAM: &str = "chromium";
const MISSING: &str =
    "chromium is not found: `cargo xtask setup` installs it (package chromium of Debian)";

/// How long an answer may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// Between two looks at the page.
const POLL: Duration = Duration::from_millis(20);

/// The browser reads commands from descriptor 3 and writes to descriptor 4.
const PIPES: &str = r#"exec "$@" 3<&0 4>&1 0</dev/null 1>&2"#;

/// A browser with one page; killed when dropped.
pub struct Browser {
    child: Child,
    commands: RefCell<ChildStdin>,
    messages: Receiver<Value>,
    next: Cell<u64>,
    session: String,
    requests: RefCell<Vec<String>>,
    complaints: RefCell<Vec<String>>,
    _profile: TempDir,
}

/// What the user's system prefers, or what the page is shown on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// A light screen.
    Light,
    /// A dark screen.
    Dark,
    /// Paper.
    Print,
}

impl Browser {
    /// Starts it.
    ///
    /// # Errors
    /// There is none: tests without it fail rather than pass for nothing.
    pub fn start() -> Result<Self> {
        let profile = tempfile::tempdir()?;
        let mut command = Command::new("unshare");
        command
            .args(["--net", "sh", "-c", PIPES, "sh", PROGRAM])
            .args(["--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu"])
            .args(["--no-first-run", "--disable-dev-shm-usage", "--disable-component-update"])
            .args(["--disable-background-networking", "--hide-scrollbars", "--lang=en-US"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .env("HOME", profile.path())
            .env("TZ", "UTC")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().context("cannot start unshare, of util-linux")?;
        let commands = child.stdin.take().context("standard input is not piped")?;
        let output = child.stdout.take().context("standard output is not piped")?;
        let (sender, messages) = mpsc::channel();
        thread::spawn(move || {
            for message in BufReader::new(output).split(0).map_while(Result::ok) {
                let Ok(message) = serde_json::from_slice(&message) else { continue };
                if sender.send(message).is_err() {
                    break;
                }
            }
        });
        let mut browser = Self {
            child,
            commands: RefCell::new(commands),
            messages,
            next: Cell::new(1),
            session: String::new(),
            requests: RefCell::default(),
            complaints: RefCell::default(),
            _profile: profile,
        };
        let page =
            browser.call("Target.createTarget", &json!({"url": "about:blank"})).context(MISSING)?;
        let target = json!({"targetId": page["targetId"], "flatten": true});
        let session = browser.call("Target.attachToTarget", &target)?;
        session["sessionId"].as_str().context("no session")?.clone_into(&mut browser.session);
        for domain in ["Page", "Runtime", "Network", "Log", "DOM"] {
            browser.call(&format!("{domain}.enable"), &json!({}))?;
        }
        browser.size(1440, 1000)?;
        Ok(browser)
    }

    /// Sends a command and waits for its answer.
    fn call(&self, method: &str, params: &Value) -> Result<Value> {
        let id = self.next.replace(self.next.get() + 1);
        let mut command = json!({"id": id, "method": method, "params": params});
        if !self.session.is_empty() {
            command["sessionId"] = self.session.clone().into();
        }
        let mut bytes = serde_json::to_vec(&command)?;
        bytes.push(0);
        self.commands.borrow_mut().write_all(&bytes).context("the browser has ended")?;
        let start = Instant::now();
        loop {
            let rest = PATIENCE.saturating_sub(start.elapsed());
            let message = self
                .messages
                .recv_timeout(rest)
                .with_context(|| format!("no answer to {method}"))?;
            if message["id"] == id {
                if let Some(error) = message.get("error") {
                    bail!("{method}: {error}");
                }
                return Ok(message["result"].clone());
            }
            self.note(&message);
        }
    }

    /// Remembers what the browser says on its own.
    fn note(&self, message: &Value) {
        let params = &message["params"];
        let complaint = match message["method"].as_str().unwrap_or_default() {
            "Network.requestWillBeSent" => {
                let url = params["request"]["url"].as_str().unwrap_or_default();
                self.requests.borrow_mut().push(url.to_owned());
                return;
            }
            "Runtime.exceptionThrown" => &params["exceptionDetails"],
            "Log.entryAdded" => &params["entry"],
            "Runtime.consoleAPICalled" | "Page.javascriptDialogOpening" => params,
            _ => return,
        };
        self.complaints.borrow_mut().push(complaint.to_string());
    }

    /// Opens a file, and waits until an expression is true.
    pub fn open(&self, file: &Path, ready: &str) -> Result<()> {
        let file = file.canonicalize()?;
        let answer =
            self.call("Page.navigate", &json!({"url": format!("file://{}", file.display())}))?;
        ensure!(answer.get("errorText").is_none(), "{}: {answer}", file.display());
        self.wait(ready)
    }

    /// Waits until an expression is true.
    pub fn wait(&self, ready: &str) -> Result<()> {
        let start = Instant::now();
        while self.eval(&format!("Boolean({ready})"))? != Value::Bool(true) {
            let complaints = self.complaints.borrow();
            ensure!(start.elapsed() < PATIENCE, "never: {ready}; the browser says {complaints:#?}");
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// The value of an expression, as JSON.
    pub fn eval(&self, expression: &str) -> Result<Value> {
        let params = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.call("Runtime.evaluate", &params)?;
        if let Some(error) = answer.get("exceptionDetails") {
            bail!("{expression}: {error}");
        }
        Ok(answer["result"]["value"].clone())
    }

    /// The value of an expression as text.
    pub fn text(&self, expression: &str) -> Result<String> {
        let value = self.eval(expression)?;
        value.as_str().map(str::to_owned).with_context(|| format!("{expression} is {value}"))
    }

    /// Clicks in the middle of the element that an expression gives, as a user does with a mouse.
    pub fn click(&self, element: &str) -> Result<()> {
        let middle = format!(
            "(() => {{ const element = {element}; element.scrollIntoView({{block: 'center', inline: 'center'}}); \
             const box = element.getBoundingClientRect(); \
             return [box.x + box.width / 2, box.y + box.height / 2]; }})()"
        );
        let at = self.eval(&middle)?;
        let (x, y) = (at[0].as_f64().unwrap_or_default(), at[1].as_f64().unwrap_or_default());
        for kind in ["mouseMoved", "mousePressed", "mouseReleased"] {
            let button = if kind == "mouseMoved" { "none" } else { "left" };
            let event = json!({"type": kind, "x": x, "y": y, "button": button, "clickCount": 1});
            self.call("Input.dispatchMouseEvent", &event)?;
        }
        self.settle()
    }

    /// Types a text where the focus is.
    pub fn write(&self, text: &str) -> Result<()> {
        self.call("Input.insertText", &json!({"text": text}))?;
        self.settle()
    }

    /// Presses a key by its name in `KeyboardEvent.key`.
    pub fn press(&self, key: &str) -> Result<()> {
        let code = match key {
            "Enter" => 13,
            "Escape" => 27,
            "End" => 35,
            "Home" => 36,
            "ArrowUp" => 38,
            "ArrowDown" => 40,
            "/" => 191,
            other => bail!("no code for the key {other}"),
        };
        let text = match key {
            "Enter" => "\r",
            key if key.chars().count() == 1 => key,
            _ => "",
        };
        for kind in ["keyDown", "keyUp"] {
            let event =
                json!({"type": kind, "key": key, "windowsVirtualKeyCode": code, "text": text});
            self.call("Input.dispatchKeyEvent", &event)?;
        }
        self.settle()
    }

    /// Waits until the page has shown what it was told.
    fn settle(&self) -> Result<()> {
        // What follows a resize is drawn in the next frame but one.
        let frames = "(async () => { for (let n = 0; n < 3; n++) await new Promise(requestAnimationFrame); })()";
        self.eval(frames).map(drop)
    }

    /// Size of the window.
    pub fn size(&self, width: u32, height: u32) -> Result<()> {
        let metrics =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", &metrics)?;
        self.settle()
    }

    /// What the page is shown on.
    pub fn medium(&self, medium: Medium) -> Result<()> {
        let scheme = if medium == Medium::Dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        let media = if medium == Medium::Print { "print" } else { "screen" };
        self.call("Emulation.setEmulatedMedia", &json!({"media": media, "features": features}))?;
        self.settle()
    }

    /// The page as PDF.
    pub fn print(&self) -> Result<Vec<u8>> {
        let answer = self.call("Page.printToPDF", &json!({"preferCSSPageSize": true}))?;
        decode(&answer)
    }

    /// What the window shows, as PNG.
    pub fn screenshot(&self) -> Result<Vec<u8>> {
        let answer = self.call("Page.captureScreenshot", &json!({"format": "png"}))?;
        decode(&answer)
    }

    /// Addresses of all requests so far, that of the page itself first.
    pub fn requests(&self) -> Result<Vec<String>> {
        self.settle()?;
        Ok(self.requests.borrow().clone())
    }

    /// Messages of the console, errors of scripts, and what the policy of a page forbade.
    pub fn complaints(&self) -> Result<Vec<String>> {
        self.settle()?;
        Ok(self.complaints.borrow().clone())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It ends its other processes, and then itself.
        let _ = self.call("Browser.close", &json!({}));
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(5) {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(POLL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The file of an answer.
fn decode(answer: &Value) -> Result<Vec<u8>> {
    Ok(STANDARD.decode(answer["data"].as_str().context("no file")?)?)
}
