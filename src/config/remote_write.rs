//! `[[remote_write]]`: the receivers, with the names that Prometheus's configuration has for the same.

use std::time::Duration;

use super::proxy;
use super::reader::{ConfigReader, Section};
use super::value::ConfigValue;
use crate::exposition::Escaping;
use crate::model::LabelSet;
use crate::model::label::{INSTANCE, JOB};
use crate::net::http::sender::{ReceiverLogin, ReceiverUrl, SenderOptions, check_header};
use crate::net::tls::ReceiverTlsFiles;
use crate::node::options::{ProtobufMessage, QueueOptions, RemoteWriteOptions, WebOptions, WriteMode};
use crate::selector::Selectors;

/// Receivers of one node, at most: each takes a part of one thread.
const RECEIVERS_MAX: usize = 16;

/// Reads all receivers.
pub(super) fn remote_writes(reader: &mut ConfigReader<'_>, web: &WebOptions) -> Vec<RemoteWriteOptions> {
    let mut receivers: Vec<RemoteWriteOptions> = Vec::new();
    let sections = reader.sections(reader.root(), "remote_write");
    if let Some(section) = sections.get(RECEIVERS_MAX) {
        reader.mistake_at(*section, format!("there may be {RECEIVERS_MAX} receivers at most"));
    }
    for section in sections {
        let Some(receiver) = remote_write(reader, section, web) else { continue };
        if receivers.iter().any(|other| other.name == receiver.name) {
            let text = format!("a receiver is named {:?} already: give each section a name = …", receiver.name);
            reader.mistake(section, "name", text);
        }
        let is_twin = |other: &RemoteWriteOptions| {
            other.url == receiver.url
                && other.headers == receiver.headers
                && other.target_labels == receiver.target_labels
                && other.external_labels == receiver.external_labels
        };
        if let Some(twin) = receivers.iter().find(|other| is_twin(other)) {
            let text = format!(
                "{:?} and this section write the node's own metrics under the same labels to the same receiver: set \
                 another job, or external_labels",
                twin.name
            );
            reader.mistake(section, "url", text);
        }
        receivers.push(receiver);
    }
    receivers
}

fn remote_write<'a>(
    reader: &mut ConfigReader<'a>,
    section: Section<'a>,
    web: &WebOptions,
) -> Option<RemoteWriteOptions> {
    let url: Option<ReceiverUrl> = reader.required(section, "url");
    let name = reader.maybe_text(section, "name");
    let interval: Duration = reader.value(section, "interval", RemoteWriteOptions::INTERVAL);
    if !(RemoteWriteOptions::INTERVAL_MIN..=RemoteWriteOptions::INTERVAL_MAX).contains(&interval) {
        let text = format!(
            "the interval must be from {} to {}: a receiver shows a sample for five minutes",
            RemoteWriteOptions::INTERVAL_MIN.to_text(),
            RemoteWriteOptions::INTERVAL_MAX.to_text()
        );
        reader.mistake(section, "interval", text);
    }
    let mode = reader.value(section, "mode", WriteMode::default());
    let refresh: Duration = reader.value(section, "refresh", RemoteWriteOptions::REFRESH);
    if !(interval..=RemoteWriteOptions::INTERVAL_MAX).contains(&refresh) && mode == WriteMode::OnChange {
        let text = format!(
            "refresh must be from the interval ({}) to {}: a receiver shows a sample for five minutes",
            interval.to_text(),
            RemoteWriteOptions::INTERVAL_MAX.to_text()
        );
        reader.mistake(section, "refresh", text);
    }
    let remote_timeout = reader.value(section, "remote_timeout", RemoteWriteOptions::REMOTE_TIMEOUT);
    let selectors = selectors(reader, section);
    let headers = reader.table(section, "headers", true);
    for (name, value) in &headers {
        if let Err(text) = check_header(name, value) {
            reader.mistake(section, "headers", text);
        }
    }
    let pairs = reader.table(section, "external_labels", false);
    // Mimir's `__replica__` is reserved, and yet an external label.
    if let Some((name, _)) = pairs.iter().find(|(name, _)| name.is_empty() || name == "__name__") {
        reader.mistake(section, "external_labels", format!("{name:?} cannot be the name of a label"));
    }
    let job = reader.value(section, "job", RemoteWriteOptions::JOB.to_owned());
    let instance = reader.maybe_text(section, "instance").unwrap_or_else(|| instance(web));
    let escaping = reader.value(section, "escaping", Escaping::AllowUtf8);
    let protobuf_message = reader.value(section, "protobuf_message", ProtobufMessage::default());
    let send_native_histograms = reader.value(section, "send_native_histograms", false);
    let metadata = reader.section(section, "remote_write.metadata_config");
    let is_metadata_sent = reader.value(metadata, "send", true);
    let metadata_interval = reader.value(metadata, "send_interval", RemoteWriteOptions::METADATA_INTERVAL);
    let queue = queue(reader, section);
    let login = login(reader, section);
    let tls = tls(reader, section, url.as_ref());
    let proxy = proxy::proxy(reader, section);
    let url = url?;
    let sender = SenderOptions { login, tls, proxy };
    reader.note_receiver(section, &sender);
    Some(RemoteWriteOptions {
        name: name.unwrap_or_else(|| url.target().to_string()),
        url,
        interval,
        refresh: (mode == WriteMode::OnChange).then_some(refresh),
        remote_timeout,
        selectors,
        headers,
        external_labels: LabelSet::new(pairs),
        target_labels: LabelSet::new([(JOB, job), (INSTANCE, instance)]),
        escaping,
        protobuf_message,
        send_native_histograms,
        metadata_interval: is_metadata_sent.then_some(metadata_interval),
        sender,
        queue,
    })
}

fn selectors<'a>(reader: &mut ConfigReader<'a>, section: Section<'a>) -> Option<Selectors> {
    let texts: Vec<String> = reader.list(section, "match", Vec::new());
    if texts.is_empty() {
        return None;
    }
    Selectors::parse(&texts).map_err(|error| reader.mistake(section, "match", error.to_string())).ok()
}

/// This host and the gateway's port, as a scrape configuration names the node.
fn instance(web: &WebOptions) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = Some(host.trim()).filter(|host| !host.is_empty()).unwrap_or("localhost").to_owned();
    match web.listen_addresses.first().map(|address| address.port()).filter(|port| *port != 0) {
        Some(port) => format!("{host}:{port}"),
        None => host,
    }
}

fn queue<'a>(reader: &mut ConfigReader<'a>, section: Section<'a>) -> QueueOptions {
    let section = reader.section(section, "remote_write.queue_config");
    let default = QueueOptions::default();
    let queue = QueueOptions {
        max_samples_per_send: reader.value(section, "max_samples_per_send", default.max_samples_per_send),
        max_shards: reader.value(section, "max_shards", default.max_shards),
        min_backoff: reader.value(section, "min_backoff", default.min_backoff),
        max_backoff: reader.value(section, "max_backoff", default.max_backoff),
    };
    for (name, value, max) in [
        ("max_samples_per_send", queue.max_samples_per_send, QueueOptions::SAMPLES_MAX),
        ("max_shards", queue.max_shards, QueueOptions::SHARDS_MAX),
    ] {
        if value > max {
            reader.mistake(section, name, format!("{name} must be {max} or less"));
        }
    }
    if queue.min_backoff > queue.max_backoff {
        let text = format!("min_backoff must not be longer than max_backoff ({})", queue.max_backoff.to_text());
        reader.mistake(section, "min_backoff", text);
    }
    queue
}

fn login<'a>(reader: &mut ConfigReader<'a>, parent: Section<'a>) -> Option<ReceiverLogin> {
    let basic_auth = reader.section(parent, "remote_write.basic_auth");
    let username = reader.maybe_text(basic_auth, "username");
    let password_file = reader.maybe_file(basic_auth, "password_file");
    let authorization = reader.section(parent, "remote_write.authorization");
    let scheme = reader.value(authorization, "type", "Bearer".to_owned());
    let credentials_file = reader.maybe_file(authorization, "credentials_file");
    if username.is_some() && credentials_file.is_some() {
        let text = "there is basic_auth already: a receiver has one login";
        reader.mistake_at(authorization, text.into());
    }
    let is_token = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
    if scheme.is_empty() || !scheme.chars().all(is_token) {
        reader.mistake(authorization, "type", format!("{scheme:?} is no authentication scheme: write it like Bearer"));
    }
    match (username, password_file) {
        (Some(username), Some(_)) if username.contains(':') || username.contains(char::is_control) => {
            reader.mistake(basic_auth, "username", "a user's name has no colon and no control characters".into());
            None
        }
        (Some(username), Some(password_file)) => Some(ReceiverLogin::Basic { username, password_file }),
        (None, None) => {
            credentials_file.map(|credentials_file| ReceiverLogin::Credentials { scheme, credentials_file })
        }
        _ => {
            let text = "basic_auth needs username = … and password_file = …, a file that contains the password alone";
            reader.mistake_at(basic_auth, text.into());
            None
        }
    }
}

fn tls<'a>(reader: &mut ConfigReader<'a>, parent: Section<'a>, url: Option<&ReceiverUrl>) -> Option<ReceiverTlsFiles> {
    let section = reader.section(parent, "remote_write.tls_config");
    let ca_file = reader.maybe_file(section, "ca_file");
    let cert_file = reader.maybe_file(section, "cert_file");
    let key_file = reader.maybe_file(section, "key_file");
    let server_name = reader.maybe_text(section, "server_name");
    let identity = match (cert_file, key_file) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        _ => {
            reader.mistake_at(section, "cert_file and key_file belong together: give both or none".into());
            None
        }
    };
    match (url.is_some_and(ReceiverUrl::is_tls), ca_file) {
        (_, Some(ca_file)) => Some(ReceiverTlsFiles { ca_file, identity, server_name }),
        (true, None) => {
            let text = "an https receiver needs tls_config.ca_file, the authorities of its certificate, such as \
                        /etc/ssl/certs/ca-certificates.crt";
            reader.mistake(parent, "url", text.into());
            None
        }
        (false, None) if identity.is_some() || server_name.is_some() => {
            reader.mistake_at(section, "tls_config has no use without ca_file".into());
            None
        }
        (false, None) => None,
    }
}
