//! A receiver of remote write on a real socket. A script says how it answers each request.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use pushrelay_testkit::remote_write::{DecodedMessage, decode_message, decode_v2};

/// A sample as it arrived.
#[derive(Clone, Debug)]
pub struct ReceivedSample {
    pub labels: Vec<(String, String)>,
    pub bits: u64,
    pub time_ms: i64,
}

impl ReceivedSample {
    pub fn has(&self, name: &str, value: &str) -> bool {
        self.labels.iter().any(|label| label.0 == name && label.1 == value)
    }

    pub fn name(&self) -> String {
        self.labels.iter().find(|label| label.0 == "__name__").map(|label| label.1.clone()).unwrap_or_default()
    }
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    pub path: String,
    headers: Vec<(String, String)>,
    pub samples: Vec<ReceivedSample>,
    /// All of the message.
    pub message: DecodedMessage,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|header| header.0 == name).map(|header| &*header.1)
    }
}

/// The answer to a request.
#[derive(Clone, Debug)]
pub struct Answer {
    status: u16,
    headers: String,
    text: &'static str,
    delay: Duration,
    hangs_up: bool,
}

impl Answer {
    pub fn status(status: u16) -> Self {
        Self { status, headers: String::new(), text: "", delay: Duration::ZERO, hangs_up: false }
    }

    /// Closes the connection instead.
    pub fn hang_up() -> Self {
        Self { hangs_up: true, ..Self::status(0) }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers += &format!("{name}: {value}\r\n");
        self
    }

    pub fn text(self, text: &'static str) -> Self {
        Self { text, ..self }
    }

    pub fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }
}

type Script = Box<dyn Fn(&Request) -> Answer + Send>;

#[derive(Default)]
struct State {
    script: Option<Script>,
    requests: Vec<Request>,
    accepted: Vec<ReceivedSample>,
}

/// The receiver. It accepts everything until a script says otherwise.
pub struct ScriptedReceiver {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl ScriptedReceiver {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, state) = (listener.local_addr().unwrap(), Arc::<Mutex<State>>::default());
        let shared = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = shared.clone();
                thread::spawn(move || serve(&stream.unwrap(), &shared));
            }
        });
        Self { address, state }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers so from now on.
    pub fn script(&self, script: impl Fn(&Request) -> Answer + Send + 'static) {
        self.state.lock().unwrap().script = Some(Box::new(script));
    }

    /// All requests, in their order.
    pub fn requests(&self) -> Vec<Request> {
        self.state.lock().unwrap().requests.clone()
    }

    /// The samples of requests that were answered 2xx, in their order.
    pub fn accepted(&self) -> Vec<ReceivedSample> {
        self.state.lock().unwrap().accepted.clone()
    }
}

fn serve(stream: &TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader) {
        let answer = {
            let mut state = state.lock().unwrap();
            let answer = state.script.as_ref().map_or(Answer::status(204), |script| script(&request));
            state.requests.push(request.clone());
            if (200..300).contains(&answer.status) {
                state.accepted.extend(request.samples);
            }
            answer
        };
        thread::sleep(answer.delay);
        if answer.hangs_up {
            return;
        }
        let Answer { status, headers, text, .. } = answer;
        let length = text.len();
        let head = format!("HTTP/1.1 {status} Scripted\r\nContent-Length: {length}\r\n{headers}\r\n{text}");
        let mut writer = stream;
        if writer.write_all(head.as_bytes()).is_err() {
            return;
        }
    }
}

/// The next request; `None` if the client is gone.
fn read(reader: &mut BufReader<&TcpStream>) -> Option<Request> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let path = lines[0].split(' ').nth(1).unwrap().to_owned();
    assert!(lines[0].starts_with("POST "), "{}", lines[0]);
    let header = |line: &String| {
        let (name, value) = line.split_once(':').unwrap();
        (name.to_lowercase(), value.trim().to_owned())
    };
    let headers: Vec<_> = lines[1..].iter().map(header).collect();
    let length = headers.iter().find(|header| header.0 == "content-length").unwrap().1.parse().unwrap();
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let message = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
    let is_v2 = headers.iter().any(|header| header.0 == "content-type" && header.1.contains("write.v2"));
    let message = if is_v2 { decode_v2(&message) } else { decode_message(&message) };
    let samples = message.samples.iter().cloned();
    let samples = samples.map(|(labels, bits, time_ms)| ReceivedSample { labels, bits, time_ms }).collect();
    Some(Request { path, headers, samples, message })
}
