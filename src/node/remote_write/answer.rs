//! The meaning of a receiver's answer, without I/O.

use std::time::Duration;

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
    /// The message goes to another URL.
    Moved(String),
}

/// The consequence of an answer to a message.
pub(super) fn consequence(answer: &PostAnswer) -> Consequence {
    match answer.status {
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

    #[test]
    fn each_status_has_its_consequence() {
        let of = |status, location: Option<&str>| {
            let location = location.map(str::to_owned);
            consequence(&PostAnswer {
                status,
                location,
                retry_after: Some(Duration::from_secs(3)),
                ..Default::default()
            })
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
