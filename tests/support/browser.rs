//! A real browser, driven by WebDriver: Chromium without a window.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::eventually;
use super::tool::{Tool, axe};

/// What the standard calls the member that holds an element's id.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

pub(crate) struct Browser {
    driver: Child,
    session: String,
    agent: ureq::Agent,
    _profile: TempDir,
}

impl Browser {
    pub(crate) fn start() -> Self {
        // The port that it chooses on IPv4 may be in use on IPv6. Then it exits without a port.
        let started = (0..5).find_map(|_| {
            let mut driver = Tool::Chromedriver.command().arg("--port=0").stdout(Stdio::piped()).spawn().unwrap();
            let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines().map_while(Result::ok);
            let port = lines.find_map(|line| {
                let (_, rest) = line.split_once("started successfully on port ")?;
                rest.trim_end_matches('.').parse::<u16>().ok()
            });
            if port.is_none() {
                driver.wait().unwrap();
            }
            port.map(|port| (driver, port))
        });
        let (driver, port) = started.expect("chromedriver prints its port");
        let agent = ureq::Agent::config_builder().timeout_global(Some(Duration::from_mins(1))).build().into();
        let profile = TempDir::with_prefix("roster-browser-").unwrap();
        let folder = format!("--user-data-dir={}", profile.path().display());
        let session = format!("http://127.0.0.1:{port}/session");
        let mut browser = Self { driver, session, agent, _profile: profile };
        // The sandbox wants rights that a container has not, and nothing foreign is loaded here.
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            &folder,
        ];
        let opened = browser.post(
            "",
            &json!({"capabilities": {"alwaysMatch": {
                "goog:chromeOptions": {"args": arguments},
                "goog:loggingPrefs": {"browser": "ALL"},
                "timeouts": {"script": 30_000},
            }}}),
        );
        browser.session = format!("{}/{}", browser.session, opened["sessionId"].as_str().unwrap());
        browser
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let answer = self.agent.post(format!("{}{path}", self.session)).content_type("application/json");
        let mut answer = answer.send(body.to_string()).unwrap_or_else(|error| panic!("{path}: {error}"));
        let answer: Value = serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
        answer["value"].clone()
    }

    /// A command of Chromium's own, for what WebDriver has no word for.
    fn chromium(&self, command: &str, parameters: &Value) -> Value {
        self.post("/goog/cdp/execute", &json!({"cmd": command, "params": parameters}))
    }

    /// Makes the window so wide, and the person in front of it prefer this scheme of colours.
    pub(crate) fn view(&self, width: u32, scheme: &str) {
        let size = json!({"width": width, "height": 720, "deviceScaleFactor": 1, "mobile": false});
        self.chromium("Emulation.setDeviceMetricsOverride", &size);
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.chromium("Emulation.setEmulatedMedia", &features);
    }

    /// Shows the page as on paper.
    pub(crate) fn print(&self) {
        self.chromium("Emulation.setEmulatedMedia", &json!({"media": "print"}));
    }

    /// The computed ARIA role of the first element that matches.
    pub(crate) fn role(&self, css: &str) -> String {
        let answer = self.agent.get(format!("{}/element/{}/computedrole", self.session, self.element(css))).call();
        let answer: Value = serde_json::from_str(&answer.unwrap().body_mut().read_to_string().unwrap()).unwrap();
        answer["value"].as_str().unwrap().to_owned()
    }

    pub(crate) fn open(&self, url: &str) {
        self.post("/url", &json!({"url": url}));
    }

    fn element(&self, css: &str) -> String {
        let found = self.post("/element", &json!({"using": "css selector", "value": css}));
        found[ELEMENT].as_str().unwrap().to_owned()
    }

    /// Clicks what leads to another page, and waits for that.
    pub(crate) fn follow(&self, css: &str) {
        self.evaluate("document.body.id = 'left'");
        self.post(&format!("/element/{}/click", self.element(css)), &json!({}));
        eventually("the page changes", || self.evaluate("document.readyState + document.body.id") == "complete");
    }

    /// Types into an element; the keys of WebDriver's private range included.
    pub(crate) fn type_into(&self, css: &str, text: &str) {
        self.post(&format!("/element/{}/value", self.element(css)), &json!({"text": text}));
    }

    /// Presses a key where the focus is.
    pub(crate) fn press(&self, key: char) {
        let actions = json!([{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]);
        self.post("/actions", &json!({"actions": [{"type": "key", "id": "keyboard", "actions": actions}]}));
    }

    /// What an expression of JavaScript comes to on this page.
    pub(crate) fn evaluate(&self, expression: &str) -> Value {
        self.post("/execute/sync", &json!({"script": format!("return {expression}"), "args": []}))
    }

    /// The text of each element, in order.
    pub(crate) fn texts(&self, css: &str) -> Vec<String> {
        let found = self.evaluate(&format!("Array.from(document.querySelectorAll({css:?}), e => e.innerText.trim())"));
        serde_json::from_value(found).unwrap()
    }

    /// What axe-core finds wrong with this page, by all of its rules.
    pub(crate) fn violations(&self) -> Vec<Value> {
        let axe = std::fs::read_to_string(axe()).unwrap();
        self.post("/execute/sync", &json!({"script": axe, "args": []}));
        let run = "const done = arguments[arguments.length - 1];
            axe.run(document).then(done, error => done({violations: [String(error)], passes: []}));";
        let found = self.post("/execute/async", &json!({"script": run, "args": []}));
        assert!(found["passes"].as_array().unwrap().len() > 10, "it looked: {found}");
        found["violations"].as_array().unwrap().clone()
    }

    /// A picture of the window, as PNG in base64.
    pub(crate) fn picture(&self) -> String {
        let answer = self.agent.get(format!("{}/screenshot", self.session)).call();
        let answer: Value = serde_json::from_str(&answer.unwrap().body_mut().read_to_string().unwrap()).unwrap();
        answer["value"].as_str().unwrap().to_owned()
    }

    /// How far two pictures are from each other, on average and in hundredths: 0 for the same, 100 for black and
    /// white. They are looked at from afar, so that the fonts of a machine matter little.
    pub(crate) fn difference(&self, pictures: [&str; 2]) -> f64 {
        self.open("about:blank");
        let compare = "
            const [pictures, done] = arguments;
            const pixels = async picture => {
                const image = new Image();
                image.src = 'data:image/png;base64,' + picture;
                await image.decode();
                const canvas = Object.assign(document.createElement('canvas'), {width: 32, height: 32});
                const context = canvas.getContext('2d');
                context.imageSmoothingQuality = 'high';
                context.drawImage(image, 0, 0, 32, 32);
                return [image.width, context.getImageData(0, 0, 32, 32).data];
            };
            Promise.all(pictures.map(pixels)).then(([[width, one], [other_width, other]]) => {
                const sum = one.reduce((sum, value, at) => sum + Math.abs(value - other[at]), 0);
                done(width == other_width ? sum / one.length / 2.55 : 100);
            });";
        self.post("/execute/async", &json!({"script": compare, "args": [pictures]})).as_f64().unwrap()
    }

    /// What the console complained about: what a policy forbids, what does not load, what fails.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let entries = self.post("/se/log", &json!({"type": "browser"}));
        entries.as_array().unwrap().iter().map(|entry| entry["message"].to_string()).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.agent.delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
