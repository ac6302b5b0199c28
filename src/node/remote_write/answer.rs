//! The meaning of a receiver's answer, without I/O.

use std::time::Duration;

use super::form::{Fallback, TickForm};
use super::options::ProtobufMessage;
use crate::net::http::sender::PostAnswer;

/// The reasons for which samples are not stored though the receiver answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RefusalReason {
    /// 400: the samples are not valid, too old, or out of order.
    BadRequest,
    /// 401 and 403.
    Unauthorized,
    /// 404.
    NotFound,
    /// 413.
    TooLarge,
    /// 415.
    MediaType,
    /// A redirection that is not followed.
    Redirected,
    /// Another status.
    Other,
}

impl RefusalReason {
    /// The value of the label `reason`.
    pub fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Unauthorized => "unauthorized",
            Self::NotFound => "not_found",
            Self::TooLarge => "too_large",
            Self::MediaType => "media_type",
            Self::Redirected => "redirected",
            Self::Other => "other",
        }
    }
}

/// What follows from an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Consequence {
    /// The samples are stored.
    Stored,
    /// The same message is sent again, after the time that the receiver asks for. `is_rate` says that it may be too large
    /// for a limit on the rate.
    Again { after: Option<Duration>, is_rate: bool },
    /// The message is divided: a part of it is refused.
    Divide(RefusalReason),
    /// These samples are refused.
    Refused(RefusalReason),
    /// The receiver refuses everything, until someone mends a setting: the tick ends.
    Barred(RefusalReason),
    /// The receiver does not know this form of messages: the tick begins again in another one.
    FallBack(Fallback),
    /// The message goes to another URL.
    Moved(String),
}

/// The words of Prometheus without the feature `native-histograms`. It answers with 500, though no repetition helps.
const NATIVE_HISTOGRAMS_DISABLED: &str = "native histograms are disabled";

/// The consequence of an answer to a message with samples.
pub(super) fn consequence(answer: &PostAnswer, form: TickForm) -> Consequence {
    let is_v2 = form.protobuf_message == ProtobufMessage::V2;
    match answer.status {
        // A receiver that takes a message 2.0 for one of 1.0 finds nothing in it. (202 is the answer of Mimir to the samples
        // of a replica that is not elected.)
        200 | 204 if is_v2 && answer.written.unwrap_or(0) == 0 => Consequence::FallBack(Fallback::NotWritten),
        415 if is_v2 => Consequence::FallBack(Fallback::MediaType),
        500.. if form.has_natives && answer.text.contains(NATIVE_HISTOGRAMS_DISABLED) => {
            Consequence::FallBack(Fallback::NativeHistograms)
        }
        200..=299 => Consequence::Stored,
        307 | 308 => match &answer.location {
            Some(location) => Consequence::Moved(location.clone()),
            None => Consequence::Barred(RefusalReason::Redirected),
        },
        // Others turn the request into a GET.
        300..=399 => Consequence::Barred(RefusalReason::Redirected),
        // The request is rolled back for one bad sample.
        400 => Consequence::Divide(RefusalReason::BadRequest),
        401 | 403 => Consequence::Barred(RefusalReason::Unauthorized),
        404 => Consequence::Barred(RefusalReason::NotFound),
        413 => Consequence::Divide(RefusalReason::TooLarge),
        415 => Consequence::Barred(RefusalReason::MediaType),
        408 | 425 => Consequence::Again { after: answer.retry_after, is_rate: false },
        429 => Consequence::Again { after: answer.retry_after, is_rate: true },
        500.. => Consequence::Again { after: answer.retry_after, is_rate: false },
        _ => Consequence::Refused(RefusalReason::Other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: TickForm = TickForm { protobuf_message: ProtobufMessage::V1, has_natives: false };

    #[test]
    fn a_receiver_that_does_not_know_a_form_gets_another() {
        let v2 = TickForm { protobuf_message: ProtobufMessage::V2, ..V1 };
        let natives = TickForm { has_natives: true, ..V1 };
        let of = |status, written, text: &str, form| {
            let answer = PostAnswer { status, written, text: text.into(), ..PostAnswer::default() };
            consequence(&answer, form)
        };
        let again = Consequence::Again { after: None, is_rate: false };
        for (status, written, form, expected) in [
            (204, Some(1), v2, Consequence::Stored),
            (204, Some(0), v2, Consequence::FallBack(Fallback::NotWritten)),
            (200, None, v2, Consequence::FallBack(Fallback::NotWritten)),
            (202, None, v2, Consequence::Stored),
            (204, None, V1, Consequence::Stored),
            (415, None, v2, Consequence::FallBack(Fallback::MediaType)),
            (415, None, V1, Consequence::Barred(RefusalReason::MediaType)),
            (500, None, natives, Consequence::FallBack(Fallback::NativeHistograms)),
            (500, None, v2, again),
        ] {
            assert_eq!(
                of(status, written, NATIVE_HISTOGRAMS_DISABLED, form),
                expected,
                "{status} {written:?} {form:?}"
            );
        }
    }

    #[test]
    fn each_status_has_its_consequence() {
        let of = |status, location: Option<&str>| {
            let location = location.map(str::to_owned);
            let retry_after = Some(Duration::from_secs(3));
            consequence(&PostAnswer { status, location, retry_after, ..PostAnswer::default() }, V1)
        };
        let again = |is_rate| Consequence::Again { after: Some(Duration::from_secs(3)), is_rate };
        for (status, expected) in [
            (200, Consequence::Stored),
            (204, Consequence::Stored),
            (301, Consequence::Barred(RefusalReason::Redirected)),
            (302, Consequence::Barred(RefusalReason::Redirected)),
            (307, Consequence::Moved("/x".into())),
            (308, Consequence::Moved("/x".into())),
            (400, Consequence::Divide(RefusalReason::BadRequest)),
            (401, Consequence::Barred(RefusalReason::Unauthorized)),
            (403, Consequence::Barred(RefusalReason::Unauthorized)),
            (404, Consequence::Barred(RefusalReason::NotFound)),
            (408, again(false)),
            (413, Consequence::Divide(RefusalReason::TooLarge)),
            (415, Consequence::Barred(RefusalReason::MediaType)),
            (422, Consequence::Refused(RefusalReason::Other)),
            (425, again(false)),
            (429, again(true)),
            (500, again(false)),
            (503, again(false)),
        ] {
            assert_eq!(of(status, Some("/x")), expected, "{status}");
        }
        assert_eq!(of(307, None), Consequence::Barred(RefusalReason::Redirected));
    }
}
