//! Bytes of heartbeats on the wire.

use crate::model::Revision;
use crate::session::{DEFLATE_LEVEL, FrameEncoder};
use crate::wire::{ClockSample, Echo, Encoder, Health, Heartbeat, Message};

/// Bytes of a heartbeat on the wire, at most, when nothing changed.
const HEARTBEAT_BYTES_MAX: usize = 60;
/// Bytes around each frame: the header of the WebSocket with the mask of a client, and the record of TLS 1.3.
const AROUND_BYTES: usize = (2 + 4) + (5 + 1 + 16);

#[test]
fn a_heartbeat_without_news_takes_sixty_bytes_on_the_wire() {
    let mut encoder = FrameEncoder::new(Encoder::new(), DEFLATE_LEVEL);
    let health = Health { pushes: Some(7), series: Some(1_000), disk_free_bytes: Some(1 << 33), ..Health::default() };
    let (mut now_ns, mut noise) = (1_795_343_653_281_320_029u64, 7u64);
    let mut longest = 0;
    for number in 0..2_000 {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let echo = Echo { sent_ns: now_ns + (noise >> 32), received_ns: now_ns + (noise >> 31) };
        now_ns += 5_000_000_000 + (noise >> 40);
        let clock = ClockSample { sent_ns: now_ns, echo: Some(echo) };
        let health = (number == 0).then(|| Box::new(health.clone()));
        let heartbeat = Heartbeat { clock, head: Revision(123_456_789), lag_ns: 0, health };
        let (frame, _) = encoder.encode(&Message::Heartbeat(heartbeat));
        if number > 0 {
            longest = longest.max(frame.len() + AROUND_BYTES);
        }
    }
    assert!(longest <= HEARTBEAT_BYTES_MAX, "{longest} bytes");
}
