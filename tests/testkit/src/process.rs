//! The binary as a child process whose output is read line by line. It never outlives its test.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::eventually;
use super::folder::binary;

/// The outcome of a finished command.
pub struct Outcome {
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output and standard error.
    pub output: String,
}

/// Runs `pushrelay` with these arguments to its end, in `folder`.
pub fn run(folder: &Path, arguments: &[&str]) -> Outcome {
    let mut process = Process::spawn(Command::new(binary()).args(arguments).current_dir(folder));
    let code = process.wait().code();
    Outcome { code, output: process.output() }
}

/// Runs a bash script, which must succeed; returns its standard output.
pub fn bash(script: &str) -> String {
    let output = Command::new("bash").args(["-c", script]).stdin(Stdio::null()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "bash failed: {}\n{script}\n{out}\n{err}", output.status);
    out.into_owned()
}

/// Waits until a node exits at start with an exit code and a message that names the error.
pub fn gives_up(process: &mut Process, wrong: &str) {
    let code = process.wait().code();
    let output = process.output();
    assert!(code.is_some_and(|code| code != 0), "ended with {code:?}: {output}");
    assert!(output.contains(wrong), "{wrong} is not named: {output}");
    assert!(!output.contains("panicked"), "{output}");
}

/// A running child process. Killed on drop; its output is shown if the test fails.
pub struct Process {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts the command with an empty standard input.
    pub fn spawn(command: &mut Command) -> Process {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let lines = Arc::default();
        let out = collect(child.stdout.take().unwrap(), &lines);
        let err = collect(child.stderr.take().unwrap(), &lines);
        Process { child, lines, readers: vec![out, err] }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All lines of output so far, of standard output and standard error.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// All lines of output so far, as one text.
    pub fn output(&self) -> String {
        self.lines().join("\n")
    }

    /// Waits for a line for which `pick` returns a value; fails if the process ends before.
    pub fn line<T>(&mut self, what: &str, pick: impl Fn(&str) -> Option<T>) -> T {
        eventually(what, || {
            let found = self.lines().iter().find_map(|line| pick(line));
            if found.is_none()
                && let Some(status) = self.child.try_wait().unwrap()
            {
                panic!("ended with {status} before this came: {what}\n{}", self.output());
            }
            found
        })
    }

    /// Whether it is still running.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends a signal by name: `INT`, `TERM`, `HUP`.
    pub fn signal(&self, name: &str) {
        bash(&format!("kill -{name} {}", self.id()));
    }

    /// Kills the process with `kill -9`, and waits for its end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for the end of the process and of its output.
    pub fn wait(&mut self) -> ExitStatus {
        let status = eventually("the process ends", || self.child.try_wait().unwrap());
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        status
    }

    /// The largest resident memory of the process, in bytes.
    pub fn memory_bytes_max(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- process {} printed:\n{}\n---", self.id(), self.output());
        }
    }
}

/// Reads lines on a thread that ends with the pipe. Invalid UTF-8 is replaced: a test may look for it.
fn collect(pipe: impl Read + Send + 'static, lines: &Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    let lines = lines.clone();
    std::thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|len| len > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            lines.lock().unwrap().push(text);
            line.clear();
        }
    })
}

/// The fields of a logfmt line.
pub fn logfmt(line: &str) -> Vec<(String, String)> {
    let (mut fields, mut rest) = (Vec::new(), line.trim());
    while let Some((key, after)) = rest.split_once('=') {
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted_value(quoted),
            None => {
                let (value, next) = after.split_once(' ').unwrap_or((after, ""));
                (value.to_owned(), next)
            }
        };
        fields.push((key.trim().to_owned(), value));
        rest = next.trim_start();
    }
    fields
}

fn quoted_value(text: &str) -> (String, &str) {
    let (mut value, mut escaped) = (String::new(), false);
    for (at, c) in text.char_indices() {
        match c {
            '"' if !escaped => return (value, &text[at + 1..]),
            '\\' if !escaped => escaped = true,
            _ => {
                value.push(c);
                escaped = false;
            }
        }
    }
    (value, "")
}
