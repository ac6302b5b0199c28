//! The answer of a receiver.

use std::time::Duration;

use hyper::body::Body as _;
use hyper::header::{LOCATION, RETRY_AFTER};

/// Bytes of an answer's text that are kept, at most.
pub(super) const TEXT_BYTES_MAX: usize = 1_024;
/// Bytes of an answer that are read, at most; after that the connection is closed.
const ANSWER_BYTES_MAX: usize = 256 << 10;
/// The headers with the numbers of samples and histograms that a receiver of messages 2.0 has written.
const WRITTEN: [&str; 2] =
    ["x-prometheus-remote-write-samples-written", "x-prometheus-remote-write-histograms-written"];

/// An answer of the receiver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PostAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The seconds that `Retry-After` gives.
    pub retry_after: Option<Duration>,
    /// The samples and histograms that the receiver says it has written; `None` if it does not say.
    pub written: Option<u64>,
    /// The URL of a redirection.
    pub location: Option<String>,
    /// The beginning of the answer, in one line.
    pub text: String,
}

/// Reads an answer, and whether its connection can be used again.
pub(super) async fn read_answer(response: hyper::Response<hyper::body::Incoming>) -> hyper::Result<(PostAnswer, bool)> {
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let seconds = header(RETRY_AFTER.as_str()).and_then(|text| text.trim().parse().ok());
    let written = WRITTEN.iter().filter_map(|name| header(name)?.trim().parse::<u64>().ok());
    let mut answer = PostAnswer {
        status: response.status().as_u16(),
        retry_after: seconds.map(Duration::from_secs),
        written: written.reduce(u64::saturating_add),
        location: header(LOCATION.as_str()),
        text: String::new(),
    };
    let mut body = response.into_body();
    let (mut text, mut bytes) = (Vec::new(), 0);
    let mut is_reusable = true;
    while let Some(frame) = std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame?;
        let data: &[u8] = frame.data_ref().map_or(&[], |data| data);
        text.extend_from_slice(&data[..data.len().min(TEXT_BYTES_MAX - text.len())]);
        bytes += data.len();
        if bytes > ANSWER_BYTES_MAX {
            is_reusable = false;
            break;
        }
    }
    let words: Vec<String> = String::from_utf8_lossy(&text).split_whitespace().map(str::to_owned).collect();
    answer.text = words.join(" ").chars().filter(|c| !c.is_control()).collect();
    Ok((answer, is_reusable))
}
