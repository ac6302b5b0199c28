//! The form of the messages of a tick, and the forms to which a receiver that does not know it is written instead.

use super::options::{ProtobufMessage, RemoteWriteOptions};
use crate::exposition::remote_write::MessageForm;

/// The form of the messages of a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TickForm {
    /// The version.
    pub protobuf_message: ProtobufMessage,
    /// Whether native histograms are written as such.
    pub has_natives: bool,
}

/// The reasons for another form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fallback {
    /// 415 to a message 2.0.
    MediaType,
    /// Success, but nothing of a message 2.0 is written.
    NotWritten,
    /// Native histograms are disabled at the receiver.
    NativeHistograms,
}

impl Fallback {
    /// The value of the label `reason`.
    pub fn name(self) -> &'static str {
        match self {
            Self::MediaType => "media_type",
            Self::NotWritten => "not_written",
            Self::NativeHistograms => "native_histograms",
        }
    }
}

impl TickForm {
    /// The form that is configured.
    pub fn of(options: &RemoteWriteOptions) -> Self {
        Self { protobuf_message: options.protobuf_message, has_natives: options.send_native_histograms }
    }

    /// The form of messages.
    pub fn message(self, has_metadata: bool) -> MessageForm {
        match self.protobuf_message {
            ProtobufMessage::V1 => MessageForm::V1,
            ProtobufMessage::V2 => MessageForm::V2 { has_metadata },
        }
    }

    /// The headers of messages. The type has no blank: Prometheus 3.5 takes the message for one of 1.0 otherwise.
    pub fn headers(self) -> [(&'static str, &'static str); 3] {
        let (content_type, version) = match self.protobuf_message {
            ProtobufMessage::V1 => ("application/x-protobuf", "0.1.0"),
            ProtobufMessage::V2 => ("application/x-protobuf;proto=io.prometheus.write.v2.Request", "2.0.0"),
        };
        [("content-type", content_type), ("content-encoding", "snappy"), ("x-prometheus-remote-write-version", version)]
    }

    /// The form for a receiver that does not know this one.
    pub fn after(self, fallback: Fallback) -> Self {
        match fallback {
            Fallback::MediaType | Fallback::NotWritten => Self { protobuf_message: ProtobufMessage::V1, ..self },
            Fallback::NativeHistograms => Self { has_natives: false, ..self },
        }
    }
}
