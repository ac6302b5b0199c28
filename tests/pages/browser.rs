//! Chromium, driven over WebDriver by `chromedriver`, with the actions of a person with mouse and keyboard.
//!
//! One browser at a time, even if tests run in parallel: each takes hundreds of megabytes.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use pushrelay_testkit::{Folder, Process, eventually, http, skip};

static TURN: Mutex<()> = Mutex::new(());

/// WebDriver's codes of keys that are not characters.
pub mod key {
    pub const TAB: &str = "\u{e004}";
    pub const ENTER: &str = "\u{e007}";
    pub const ESCAPE: &str = "\u{e00c}";
    pub const DOWN: &str = "\u{e015}";
}

/// A browser with one window.
pub struct Browser {
    driver: Process,
    address: SocketAddr,
    session: String,
    _profile: Folder,
    _turn: MutexGuard<'static, ()>,
}

impl Browser {
    /// Starts a browser. Without Chromium it prints that the test is skipped, and returns `None`.
    pub fn start() -> Option<Browser> {
        let missing = |tool: &&&str| !Path::new("/usr/bin").join(tool).exists();
        if let Some(tool) = ["chromium", "chromedriver"].iter().find(missing) {
            skip(&format!("the pages are not tried in a browser: no {tool} here"));
            return None;
        }
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let profile = Folder::new();
        let (driver, port) = eventually("chromedriver starts", driver);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut browser = Browser { driver, address, session: String::new(), _profile: profile, _turn: turn };
        let folder = browser._profile.path().display();
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--window-size=1280,900",
            "--no-proxy-server",
            "--disable-background-networking",
            &format!("--user-data-dir={folder}"),
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "unhandledPromptBehavior": "ignore",
            "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {"binary": "/usr/bin/chromium", "args": arguments},
        }}});
        let session = browser.send("POST", "/session", &wanted).unwrap_or_else(|error| panic!("no session: {error}"));
        browser.session = session["sessionId"].as_str().unwrap().to_owned();
        Some(browser)
    }

    fn send(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let (is_success, reply) = exchange(self.address, method, path, &body).map_err(|error| error.to_string())?;
        let reply: Value = serde_json::from_slice(&reply).map_err(|error| error.to_string())?;
        let value = reply["value"].clone();
        if is_success { Ok(value) } else { Err(value.to_string()) }
    }

    /// A command of the session, which must succeed.
    pub fn command(&self, path: &str, body: Value) -> Value {
        let result = self.send("POST", &format!("/session/{}/{path}", self.session), &body);
        result.unwrap_or_else(|error| panic!("{path} {body}: {error}"))
    }

    /// A command of Chromium's own protocol.
    pub fn chromium(&self, method: &str, parameters: Value) -> Value {
        self.command("goog/cdp/execute", json!({"cmd": method, "params": parameters}))
    }

    /// Opens a page and waits until it is loaded.
    pub fn open(&self, web: SocketAddr, path: &str) {
        self.command("url", json!({"url": format!("http://{web}{path}")}));
    }

    /// The result of a script.
    pub fn ask(&self, script: &str) -> Value {
        self.command("execute/sync", json!({"script": format!("return ({script})"), "args": []}))
    }

    /// Waits until the script returns something that is true.
    pub fn wait(&self, script: &str) {
        eventually(script, || {
            let value = self.ask(script);
            (!matches!(value, Value::Null | Value::Bool(false)) && value != "" && value != 0).then_some(())
        });
    }

    /// The visible text of the first element that the selector finds.
    pub fn text(&self, selector: &str) -> String {
        let text = self.ask(&format!("document.querySelector({})?.innerText", json!(selector)));
        text.as_str().unwrap_or_else(|| panic!("there is no {selector}")).to_owned()
    }

    /// How many elements the selector finds.
    pub fn count(&self, selector: &str) -> u64 {
        self.ask(&format!("document.querySelectorAll({}).length", json!(selector))).as_u64().unwrap()
    }

    /// Clicks the first element that the selector finds, with the mouse.
    pub fn click(&self, selector: &str) {
        let found = self.command("element", json!({"using": "css selector", "value": selector}));
        let id = found.as_object().unwrap().values().next().unwrap().as_str().unwrap().to_owned();
        self.command(&format!("element/{id}/click"), json!({}));
    }

    /// Presses and releases a key for each character.
    pub fn press(&self, keys: &str) {
        let strokes = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|stroke| json!({"type": stroke, "value": key.to_string()})));
        let actions = json!({"type": "key", "id": "keyboard", "actions": strokes.collect::<Vec<_>>()});
        self.command("actions", json!({"actions": [actions]}));
    }

    /// Selects the preferred colour scheme: `light` or `dark`.
    pub fn prefer(&self, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.chromium("Emulation.setEmulatedMedia", json!({"features": features}));
    }

    /// Asserts that the pages so far caused no message in the console (a blocked script, for example), no dialog of a
    /// script, and no request to another origin.
    pub fn nothing_happened(&self) {
        let dialog = self.send("GET", &format!("/session/{}/alert/text", self.session), &Value::Null);
        assert!(dialog.as_ref().is_err_and(|error| error.contains("no such alert")), "{dialog:?}");
        let messages = self.command("se/log", json!({"type": "browser"}));
        assert_eq!(messages, json!([]));
        let foreign = "performance.getEntriesByType('resource').map((e) => e.name).filter((name) => \
                       !name.startsWith(location.origin + '/') && !name.startsWith('data:'))";
        assert_eq!(self.ask(foreign), json!([]));
    }

    /// Saves a screenshot as `target/tmp/pages/NAME.png`, for work on the pages.
    pub fn photograph(&self, name: &str) {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pages");
        std::fs::create_dir_all(&folder).unwrap();
        let picture = self.chromium("Page.captureScreenshot", json!({"format": "png"}));
        let bytes = decoded(picture["data"].as_str().unwrap());
        std::fs::write(folder.join(name).with_extension("png"), bytes).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Chromium ends with its session; the driver is killed after that.
        let _ = self.send("DELETE", &format!("/session/{}", self.session), &Value::Null);
        self.driver.kill();
    }
}

/// A driver and its port. `None` if the port is free for one IP version but used for the other.
fn driver() -> Option<(Process, u16)> {
    let mut driver = Process::spawn(Command::new("/usr/bin/chromedriver").arg("--port=0"));
    let port = eventually("chromedriver says its port, or ends", || {
        let said = driver
            .lines()
            .iter()
            .find_map(|line| line.split_once("started successfully on port ")?.1.trim_end_matches('.').parse().ok());
        if said.is_some() || !driver.is_alive() { Some(said) } else { None }
    });
    Some((driver, port?))
}

/// A request and the body of its answer. The driver always keeps connections open, so the answer's end is known by its
/// length.
fn exchange(driver: SocketAddr, method: &str, path: &str, body: &str) -> io::Result<(bool, Vec<u8>)> {
    let mut stream = http::connect(driver)?;
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: {driver}\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all((head + body).as_bytes())?;
    let mut reader = BufReader::new(stream);
    let (mut line, mut status, mut length) = (String::new(), String::new(), 0);
    while reader.read_line(&mut line)? > 2 {
        if let Some((name, value)) =
            line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        {
            length = value.trim().parse().map_err(|_| io::Error::other(format!("no {name}: {value}")))?;
        }
        if status.is_empty() {
            status.clone_from(&line);
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok((status.contains(" 200 "), body))
}

/// Decodes base64.
fn decoded(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => u32::from(byte - b'A'),
        b'a'..=b'z' => u32::from(byte - b'a') + 26,
        b'0'..=b'9' => u32::from(byte - b'0') + 52,
        b'+' => 62,
        _ => 63,
    };
    let text = text.trim_end_matches('=').as_bytes();
    let bytes = text.chunks(4).flat_map(|chunk| {
        let bits = chunk.iter().fold(0, |bits, &byte| bits << 6 | digit(byte)) << (6 * (4 - chunk.len()));
        bits.to_be_bytes()[1..chunk.len()].to_vec()
    });
    bytes.collect()
}
