//! `pushrelay exec`, `push` and `delete` as cron, timers and scripts run them.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use pushrelay_testkit::node::Role;
use pushrelay_testkit::process::bash;
use pushrelay_testkit::{Folder, Line, Node, eventually};

/// A command after its end may wait for the node for a second; starting processes on a busy machine takes time too.
const DELAY_MAX: Duration = Duration::from_millis(1_900);

/// A gateway without a hub, and a line to it.
struct Gateway {
    folder: Folder,
    node: Node,
    line: Line,
}

impl Gateway {
    fn start() -> Gateway {
        let folder = Folder::new();
        let config = "[web]\nlisten_address = [\"127.0.0.1:0\"]\n[storage]\npath = \"\"\n";
        let mut node = Node::new(Role::Edge, folder.path(), "gateway", config);
        node.start();
        let line = Line::new();
        line.lead_to(node.web());
        Gateway { folder, node, line }
    }

    /// Starts `pushrelay` with these arguments and standard input.
    fn spawn(&self, arguments: &[&str], input: &str) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pushrelay"));
        command.args(arguments).env("PUSHRELAY_NODE", format!("http://{}", self.line.address()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A command may not read it.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child
    }

    fn run(&self, arguments: &[&str], input: &str) -> Output {
        self.spawn(arguments, input).wait_with_output().unwrap()
    }

    /// Starts a job whose command is a script.
    fn job(&self, options: &[&str], script: &str, input: &str) -> Child {
        let spool = self.folder.path().join("spool").display().to_string();
        let fixed = ["exec", "--job", "j", "--spool", &spool];
        self.spawn(&[&fixed, options, &["--", "bash", "-c", script]].concat(), input)
    }

    fn ended_job(&self, options: &[&str], script: &str, input: &str) -> Output {
        self.job(options, script, input).wait_with_output().unwrap()
    }

    fn value(&self, name: &str) -> Vec<f64> {
        self.node.page().values(name, &[("job", "j")])
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_job_runs_as_without_exec_and_its_outcome_is_pushed() {
    let gateway = Gateway::start();
    let script = "cat; echo err >&2; printf '# TYPE rows gauge\\nrows 5\\n' >&3; exit 7";
    let output = gateway.ended_job(&["--label", "instance=a", "--metrics-fd", "3"], script, "in\u{0}put");
    assert_eq!(
        (output.status.code(), &*text(&output.stdout), &*text(&output.stderr)),
        (Some(7), "in\u{0}put", "err\n")
    );
    gateway.node.shows("job_last_exit_status", &[("job", "j"), ("instance", "a")], 7.0);
    gateway.node.shows("rows", &[("instance", "a")], 5.0);
    assert!(gateway.value("job_last_success_timestamp_seconds").is_empty());
    assert!(gateway.value("job_last_memory_peak_bytes")[0] > 1e6 && gateway.value("job_last_cpu_seconds").len() == 2);

    assert_eq!(gateway.ended_job(&[], "true", "").status.code(), Some(0));
    let success = gateway.node.page().values("job_last_success_timestamp_seconds", &[("instance", "")]);
    let crashed = gateway.ended_job(&[], "kill -SEGV $$", "");
    assert_eq!(crashed.status.signal(), Some(11), "{}", text(&crashed.stderr));
    let of_job = |name: &str| gateway.node.page().values(name, &[("instance", "")]);
    assert_eq!((of_job("job_last_exit_signal"), of_job("job_last_exit_status")), (vec![11.0], vec![139.0]));
    assert_eq!(of_job("job_last_success_timestamp_seconds"), success, "a failed run leaves it");

    let mut running = gateway.job(
        &["--label", "instance=b"],
        "trap 'echo USR1; exit 3' USR1; echo up; while :; do sleep 0.02; done",
        "",
    );
    of_start(&gateway, "b");
    let mut printed = running.stdout.take().unwrap();
    let mut up = [0; 3];
    std::io::Read::read_exact(&mut printed, &mut up).unwrap();
    bash(&format!("kill -USR1 {}", running.id()));
    assert_eq!(running.wait().unwrap().code(), Some(3));
    let running = gateway.job(&["--label", "instance=c"], "exec sleep 60", "");
    of_start(&gateway, "c");
    bash(&format!("kill -TERM {}", running.id()));
    assert_eq!(running.wait_with_output().unwrap().status.signal(), Some(15));

    let output = gateway.run(&["exec", "--job", "j", "--", "/no/such/command"], "");
    assert_eq!(output.status.code(), Some(127));
    assert!(text(&output.stderr).contains("/no/such/command"), "{}", text(&output.stderr));
    let output = gateway.ended_job(&["--metrics-fd", "3"], "echo 'rows x' >&3", "");
    assert_eq!(output.status.code(), Some(0), "a mistake in the metrics is none of the job");
    assert!(text(&output.stderr).contains(":1:6: expected float as value"), "{}", text(&output.stderr));
}

/// Waits for the start of a running job, and returns it.
fn of_start(gateway: &Gateway, instance: &str) -> f64 {
    eventually("the start of the job", || {
        gateway.node.page().values("job_last_start_timestamp_seconds", &[("instance", instance)]).first().copied()
    })
}

#[test]
fn a_node_that_is_away_delays_no_job_and_gets_the_metrics_with_the_next_run() {
    let gateway = Gateway::start();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = silent.local_addr().unwrap();
    gateway.line.lead_to(address);
    let began = Instant::now();
    let output = gateway.ended_job(&["--metrics-fd", "3"], "echo 'rows 5' >&3", "");
    assert!(began.elapsed() < DELAY_MAX, "{:?}", began.elapsed());
    assert_eq!((output.status.code(), &*text(&output.stderr)), (Some(0), ""));
    gateway.line.cut();
    assert_eq!(gateway.ended_job(&[], "exit 2", "").status.code(), Some(2));
    assert!(gateway.value("rows").is_empty());
    let waiting = || std::fs::read_dir(gateway.folder.path().join("spool")).unwrap().count();
    assert_eq!(waiting(), 1);

    gateway.line.lead_to(gateway.node.web());
    let other = gateway.ended_job(&["--label", "instance=other"], "sleep 0.3", "");
    assert_eq!(other.status.code(), Some(0), "{}", text(&other.stderr));
    let of_job = |name: &str| gateway.node.page().values(name, &[("instance", "")]);
    assert_eq!((of_job("rows"), of_job("job_last_exit_status")), (vec![5.0], vec![2.0]), "the newest of each");
    assert!(of_job("job_last_success_timestamp_seconds")[0] > 1e9, "of the run before");
    assert_eq!(waiting(), 0);
}

#[test]
fn text_is_checked_before_it_is_pushed() {
    let gateway = Gateway::start();
    let wrong = gateway.run(&["push", "--job", "j"], "a 1\nb{x=\"1} 2\n");
    assert_eq!((wrong.status.code(), gateway.value("a")), (Some(1), vec![]));
    assert!(text(&wrong.stderr).starts_with("pushrelay: standard input:2:"), "{}", text(&wrong.stderr));
    let file = gateway.folder.path().join("metrics.prom");
    std::fs::write(&file, "a 1\nb 2\n").unwrap();
    assert_eq!(gateway.run(&["push", "--job", "j", file.to_str().unwrap()], "").status.code(), Some(0));
    assert_eq!(gateway.run(&["push", "--job", "j"], "a 3\n").status.code(), Some(0));
    assert_eq!((gateway.value("a"), gateway.value("b")), (vec![3.0], vec![2.0]));
    assert_eq!(gateway.run(&["push", "--job", "j", "--replace"], "a 4\n").status.code(), Some(0));
    assert_eq!((gateway.value("a"), gateway.value("b")), (vec![4.0], vec![]));
    let conflict = gateway.run(&["push", "--job", "k", "--label", "x=/"], "# TYPE a counter\na 4\n");
    assert_eq!(conflict.status.code(), Some(1));
    assert!(text(&conflict.stderr).contains(" answers 400: "), "{}", text(&conflict.stderr));
    assert_eq!(gateway.run(&["delete", "--job", "j"], "").status.code(), Some(0));
    assert!(gateway.value("a").is_empty());
}
