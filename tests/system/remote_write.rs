//! Remote write to a receiver that answers as a script says.

mod real;
mod receiver;

use std::time::{Duration, Instant};

use pushrelay_testkit::node::Role;
use pushrelay_testkit::process::run;
use pushrelay_testkit::{Folder, Node, eventually, protobuf};
use receiver::{Answer, ReceivedSample, Request, ScriptedReceiver};

use crate::prometheus_forms::{family, native};

const STALE: u64 = 0x7ff0_0000_0000_0002;

fn node(folder: &Folder, receiver: &ScriptedReceiver, more: &str) -> Node {
    node_every("100ms", folder, receiver, more)
}

fn node_every(interval: &str, folder: &Folder, receiver: &ScriptedReceiver, more: &str) -> Node {
    let config = format!(
        "[web]\nlisten_address = '127.0.0.1:0'\n[storage]\npath = 'node'\n[[remote_write]]\n\
         url = 'http://{}/write'\nname = 'r'\ninterval = '{interval}'\njob = 'node'\ninstance = 'i'\n{more}",
        receiver.address()
    );
    Node::new(Role::Edge, folder.path(), "node", &config)
}

/// The last accepted sample of the series with that name and job.
fn last(receiver: &ScriptedReceiver, name: &str, job: &str) -> Option<ReceivedSample> {
    receiver.accepted().into_iter().rev().find(|sample| sample.has("__name__", name) && sample.has("job", job))
}

fn wait_for(receiver: &ScriptedReceiver, what: &str, name: &str, value: f64) -> ReceivedSample {
    eventually(what, || last(receiver, name, "a").filter(|sample| sample.bits == value.to_bits()))
}

#[test]
fn a_receiver_gets_what_a_scrape_shows_and_markers_of_what_is_gone() {
    let (folder, receiver) = (Folder::new(), ScriptedReceiver::start());
    let mut node =
        node(&folder, &receiver, "headers = { X-Scope-OrgID = 'team' }\nexternal_labels = { z = '1', job = 'x' }\n");
    node.start();
    node.put(
        "job/a",
        "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_sum 2\nh_count 3\n# TYPE m gauge\nm{l=\"\"} 4\nn 5\n",
    );
    let sample = wait_for(&receiver, "a value arrives", "m", 4.0);
    let labels = [("__name__", "m"), ("job", "a"), ("z", "1")];
    assert_eq!(sample.labels, labels.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let request = receiver.requests().into_iter().last().unwrap();
    for (name, value) in [
        ("content-type", "application/x-protobuf"),
        ("content-encoding", "snappy"),
        ("x-prometheus-remote-write-version", "0.1.0"),
        ("x-scope-orgid", "team"),
    ] {
        assert_eq!(request.header(name), Some(value), "{name}");
    }
    let names: Vec<_> =
        receiver.accepted().iter().filter(|sample| sample.has("job", "a")).map(ReceivedSample::name).collect();
    for name in ["h_bucket", "h_sum", "h_count", "m", "n", "push_time_seconds", "push_failure_time_seconds"] {
        assert!(names.iter().any(|other| other == name), "{name} is not among {names:?}");
    }
    assert!(receiver.accepted().iter().any(|sample| sample.has("le", "1.0")));
    eventually("types and help texts arrive", || {
        let requests = receiver.requests();
        let mut metadata = requests.iter().flat_map(|request| &request.message.metadata);
        metadata.find(|metadata| metadata.1 == "h" && metadata.0 == 3).map(drop)
    });
    assert_eq!(last(&receiver, "up", "node").unwrap().bits, 1_f64.to_bits());
    assert!(last(&receiver, "pushgateway_build_info", "node").unwrap().has("instance", "i"));

    // A PUT without a series, and a delete.
    node.put("job/a", "m{l=\"\"} 6\n");
    let marker = wait_for(&receiver, "the series of a replaced group ends", "n", f64::from_bits(STALE));
    let value = wait_for(&receiver, "the other one goes on", "m", 6.0);
    assert!(marker.time_ms <= value.time_ms);
    node.delete("job/a");
    let marker = wait_for(&receiver, "the series of a deleted group ends", "m", f64::from_bits(STALE));
    // Pushed again while the receiver is away, and deleted before the node stops.
    node.put("job/a", "m{l=\"\"} 7\n");
    let value = wait_for(&receiver, "the series begins again", "m", 7.0);
    assert!(marker.time_ms < value.time_ms);
    node.delete("job/a");
    let (code, log) = node.stop();
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(last(&receiver, "m", "a").unwrap().bits, STALE, "a stop writes a last tick:\n{log}");

    // Times of a series only grow, also after a restart, and a marker is written once.
    node.start();
    node.put("job/a", "m{l=\"\"} 8\n");
    wait_for(&receiver, "ticks go on after a restart", "m", 8.0);
    node.kill();
    let of_m: Vec<_> = receiver.accepted().into_iter().filter(|sample| sample.has("__name__", "m")).collect();
    assert!(of_m.is_sorted_by(|a, b| a.time_ms < b.time_ms), "{of_m:?}");
    assert_eq!(of_m.iter().filter(|sample| sample.bits == STALE).count(), 2, "{of_m:?}");
}

#[test]
fn faults_of_a_receiver_cost_no_more_than_they_must() {
    let (folder, receiver) = (Folder::new(), ScriptedReceiver::start());
    let mut node =
        node(&folder, &receiver, "[remote_write.queue_config]\nmax_samples_per_send = 40\nmin_backoff = '1ms'\n");
    node.start();
    let mut value = 0.0;
    let mut next = |node: &Node, what: &str| {
        value += 1.0;
        node.put("job/a", &format!("m {value}\nbad 1\n"));
        wait_for(&receiver, what, "m", value);
    };
    next(&node, "a value arrives");

    // One bad sample rolls the whole message back.
    receiver.script(|request| match request.samples.iter().any(|sample| sample.has("__name__", "bad")) {
        true => Answer::status(400).text("out of order sample"),
        false => Answer::status(204),
    });
    next(&node, "the others of a message with a bad sample arrive");
    let labels = [("receiver", "r"), ("reason", "bad_request")];
    let refused = |node: &Node| node.page().values("pushrelay_remote_write_failed_samples_total", &labels);
    eventually("the bad sample is counted", || refused(&node).first().filter(|count| **count > 0.0).map(drop));

    // Limits on the samples of a request, by status, by a rate, and by broken connections.
    for status in [413, 429] {
        receiver.script(move |request| Answer::status(if request.samples.len() > 7 { status } else { 200 }));
        next(&node, &format!("messages are divided after {status}"));
    }

    // The receiver is away in each of these ways, and then back.
    for answer in [
        Answer::status(503),
        Answer::status(500).text("native histograms are disabled"),
        Answer::status(429).header("Retry-After", "3600"),
        Answer::status(401).text("no password"),
        Answer::status(404),
        Answer::status(415),
        Answer::status(302).header("Location", "/elsewhere"),
        Answer::hang_up(),
    ] {
        let before = receiver.requests().len();
        let scripted = answer.clone();
        receiver.script(move |_| scripted.clone());
        eventually("more requests arrive", || (receiver.requests().len() > before + 2).then_some(()));
        receiver.script(|_| Answer::status(204));
        next(&node, &format!("a value arrives after {answer:?}"));
    }

    // The doctor sends a message without samples, and the status has the reason.
    let doctor = || {
        let outcome = run(folder.path(), &["doctor", "--config.file", "node.toml"]);
        (outcome.code, outcome.output)
    };
    let health = |node: &Node| node.get("/api/v1/status").json()["data"]["health"].take();
    eventually("the status has no error", || (health(&node)["receivers"][0]["last_error"] == "").then_some(()));
    receiver.script(|_| Answer::status(401).text("no password"));
    let (code, output) = doctor();
    assert!(code == Some(1) && output.contains("status 401 no password"), "{output}");
    let troubles = eventually("the status says it", || {
        let health = health(&node);
        (health["receivers"][0]["last_error"] == "status 401: no password").then(|| health["troubles"].to_string())
    });
    assert!(troubles.contains("the receiver r takes no samples: status 401"), "{troubles}");
    receiver.script(|_| Answer::status(204));
    let (code, output) = doctor();
    assert!(code == Some(0) && output.contains("OK: the receiver would accept samples"), "{output}");

    // A redirection that keeps the method.
    receiver.script(|request| match &*request.path {
        "/write" => Answer::status(307).header("Location", "/elsewhere"),
        _ => Answer::status(204),
    });
    next(&node, "a redirection is followed");
    assert!(receiver.requests().iter().any(|request| request.path == "/elsewhere"));

    // A slow receiver: ticks are left out, and pushes do not wait.
    receiver.script(|_| Answer::status(204).after(Duration::from_millis(400)));
    next(&node, "a value arrives slowly");
    let push = |_| {
        let begun = Instant::now();
        node.push("job/b", "other 1\n");
        begun.elapsed()
    };
    let mut pushes: Vec<Duration> = (0..21).map(push).collect();
    pushes.sort();
    assert!(pushes[10] < Duration::from_millis(200), "half of the pushes take longer than {:?}", pushes[10]);
    eventually("ticks are left out", || {
        let skipped = node.page().values("pushrelay_remote_write_skipped_ticks_total", &[("receiver", "r")]);
        (skipped[0] > 0.0).then_some(())
    });
    receiver.script(|_| Answer::status(204));
    let page = node.page();
    let count =
        |name: &str| page.values(&format!("pushrelay_remote_write_{name}"), &[("receiver", "r")]).iter().sum::<f64>();
    for name in ["samples_total", "bytes_total", "failed_samples_total", "retried_total", "dropped_total"] {
        assert!(count(name) > 0.0, "{name}");
    }
    assert!(count("last_success_timestamp_seconds") > 1.7e9);
}

#[test]
fn a_push_is_written_at_once_on_change() {
    let (folder, receiver) = (Folder::new(), ScriptedReceiver::start());
    let more = "mode = 'on-change'\nrefresh = '1m'\n[remote_write.queue_config]\nmax_backoff = '200ms'\n";
    let mut node = node_every("20s", &folder, &receiver, more);
    node.start();
    let of =
        |name: &str| receiver.accepted().into_iter().filter(|sample| sample.has("__name__", name)).collect::<Vec<_>>();
    eventually("everything is written at the start", || (!of("up").is_empty()).then_some(()));
    node.put("job/a", "m 1\nother 5\n");
    let begun = Instant::now();
    wait_for(&receiver, "a push arrives", "m", 1.0);
    // The goal is a second, and the machine of this test does other work. The next tick of everything is far later.
    assert!(begun.elapsed() < Duration::from_secs(15), "a push took {:?}", begun.elapsed());
    let before = receiver.accepted().len();
    node.put("job/a", "m 2\nother 5\n");
    wait_for(&receiver, "another value arrives", "m", 2.0);
    let new: Vec<String> = receiver.accepted()[before..].iter().map(ReceivedSample::name).collect();
    assert!(!new.iter().any(|name| name == "other" || name == "up"), "what did not change is written: {new:?}");
    node.delete("job/a");
    wait_for(&receiver, "a deleted series ends", "m", f64::from_bits(STALE));
    wait_for(&receiver, "the other one too", "other", f64::from_bits(STALE));

    // A delete while the receiver is away.
    receiver.script(|_| Answer::status(503));
    node.put("job/a", "m 3\n");
    node.put("job/b", "gone 1\n");
    eventually("the receiver refuses", || {
        let is_there = |request: &Request| request.samples.iter().any(|sample| sample.has("__name__", "gone"));
        receiver.requests().iter().any(is_there).then_some(())
    });
    node.delete("job/b");
    receiver.script(|_| Answer::status(204));
    wait_for(&receiver, "the last value arrives", "m", 3.0);
    eventually("what was deleted meanwhile ends", || of("gone").last().filter(|last| last.bits == STALE).map(drop));
    let (code, log) = node.stop();
    assert_eq!(code, Some(0), "{log}");
    assert!(of("m").is_sorted_by(|a, b| a.time_ms < b.time_ms));
}

#[test]
fn a_receiver_gets_messages_in_a_form_that_it_knows() {
    let (folder, receiver) = (Folder::new(), ScriptedReceiver::start());
    let more = "protobuf_message = 'io.prometheus.write.v2.Request'\nsend_native_histograms = true\n";
    let mut node = node(&folder, &receiver, more);
    let is_v2 =
        |request: &Request| request.header("content-type").unwrap().ends_with(";proto=io.prometheus.write.v2.Request");
    receiver.script(|request| {
        let histograms = request.message.histograms.len();
        match request.header("x-prometheus-remote-write-version") {
            Some("2.0.0") => Answer::status(204)
                .header("X-Prometheus-Remote-Write-Samples-Written", &request.samples.len().to_string())
                .header("X-Prometheus-Remote-Write-Histograms-Written", &histograms.to_string()),
            _ => Answer::status(400),
        }
    });
    node.start();
    node.put("job/a", "# HELP m Help.\n# TYPE m gauge\nm 1\n");
    let body = family("native", native());
    let reply = node.request("PUT", "/metrics/job/b", &[("Content-Type", protobuf::MEDIA_TYPE)], &body);
    assert_eq!(reply.status, 200, "{}", reply.text());
    wait_for(&receiver, "a value arrives", "m", 1.0);
    let request = eventually("a native histogram arrives", || {
        receiver.requests().into_iter().rev().find(|request| !request.message.histograms.is_empty())
    });
    assert!(is_v2(&request) && request.message.metadata.contains(&(2, "m".into(), "Help.".into(), String::new())));

    // A receiver that takes the message for one of 1.0, and finds nothing in it; and has no native histograms.
    receiver.script(|request| match request.message.histograms.is_empty() {
        _ if request.header("x-prometheus-remote-write-version") == Some("2.0.0") => Answer::status(204),
        true => Answer::status(204),
        false => Answer::status(500).text("native histograms are disabled"),
    });
    node.put("job/a", "m 2\n");
    eventually("samples and classic buckets arrive", || {
        let requests = receiver.requests();
        let good = requests.iter().rev().find(|request| !is_v2(request) && request.message.histograms.is_empty())?;
        let has = |name: &str| good.samples.iter().any(|sample| sample.has("__name__", name));
        (has("m") && has("native_bucket")).then_some(())
    });
    let page = node.page();
    for reason in ["not_written", "native_histograms"] {
        let labels = [("receiver", "r"), ("reason", reason)];
        assert_eq!(page.values("pushrelay_remote_write_fallbacks_total", &labels), [1.0], "{reason}");
    }
    let dropped = page.values("pushrelay_remote_write_dropped_total", &[("receiver", "r")]);
    assert!(dropped.is_empty(), "{dropped:?}");
}
