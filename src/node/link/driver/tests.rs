//! The driver against a peer that is bytes in memory.

use tokio::io::DuplexStream;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::compression::Inflater;
use crate::model::{Epoch, GroupId, LabelSet, NodeId};
use crate::net::counted::Counted;
use crate::net::websocket::{LinkPurpose, LinkTarget, WebSocket, accept, connect};
use crate::node::options::LinkOptions;
use crate::session::{EdgeConfig, HubConfig, Lag};
use crate::store::{Identity, Rules, Store};
use crate::wire::message::PLAIN_BYTES_MAX;
use crate::wire::{Ack, ClockSample, Close, ConflictReport, Decoder, EpochStart, Heartbeat, PeerInfo, Update, VERSION};

fn info(store: u64) -> PeerInfo {
    PeerInfo {
        node: String::new(),
        software: String::new(),
        store: StoreId(store),
        epochs: vec![EpochStart { epoch: Epoch(1), revision: Revision(0) }],
        head: Revision(0),
        cursors: Vec::new(),
        identity: String::new(),
        gc_watermark: Revision(0),
    }
}

/// Admits every edge.
struct AdmitAll(watch::Sender<Revision>);

impl SessionObserver for AdmitAll {
    async fn admit(&mut self, _: Hello, heads: &mut Option<watch::Receiver<Revision>>) -> Result<Admitted, Refused> {
        *heads = Some(self.0.subscribe());
        let site = LabelSet::new([("IDC", "SYQ")]);
        Ok(Admitted { info: info(2), site, upstream_stores: Vec::new(), progress: None })
    }

    fn observe(&mut self, _: &SessionEvent) {}
}

/// The close message of a hub that accepts updates of 64 KiB and receives these messages.
async fn close_of_hub(messages: Vec<Message>) -> Close {
    let context = context();
    let (near, far) = tokio::io::duplex(1 << 10);
    let address = "localhost:9443".parse().unwrap();
    let (near, far) = tokio::join!(
        connect(near, LinkTarget::of(&address), LinkPurpose::Session, PLAIN_BYTES_MAX),
        accept(far, &LinkPurpose::ALL, PLAIN_BYTES_MAX)
    );
    let link = LinkOptions { message_bytes_max: 64 << 10, ..LinkOptions::default() }.session_config();
    let hub = Connection::hub(HubConfig { link, heartbeat_ns: 5_000_000_000 }, context.now());
    let mut observer = AdmitAll(watch::channel(Revision(0)).0);
    let serve = drive(hub, far.unwrap().0, None, &mut observer, &context, CancellationToken::new(), None);
    tokio::join!(serve, last_word(near.unwrap(), messages)).1
}

fn context() -> LinkContext {
    let mut store = Store::new(Rules::default(), &[]);
    store.open(Identity { store: StoreId(2), node: NodeId(2) }, Epoch(1));
    let retention = crate::commit::Retention { uplinks: 0, hub_ns: 0 };
    let (committer, _) = Committer::start(store, None, Arc::default(), Arc::default(), retention).unwrap();
    LinkContext { committer, clock: Arc::default(), messages: Arc::default(), wire: Arc::default(), health: None }
}

async fn last_word(socket: WebSocket<DuplexStream>, messages: Vec<Message>) -> Close {
    let WebSocket { mut sender, mut receiver } = socket;
    let say = async {
        let mut encoder = FrameEncoder::new(Encoder::new(), DEFLATE_LEVEL);
        for message in &messages {
            sender.send(encoder.encode(message).0).await.unwrap();
        }
    };
    tokio::join!(say, close_message(&mut receiver)).1
}

/// Receives messages up to the close message.
async fn close_message(receiver: &mut websocket::Receiver<DuplexStream>) -> Close {
    let (mut decoder, mut inflater) = (Decoder::new(1 << 20), Inflater::new());
    loop {
        let mut bytes = Vec::new();
        let message = receiver.receive().await.unwrap().expect("a close comes before the end");
        inflater.decompress(&message, &mut bytes, 1 << 20).unwrap();
        if let Message::Close(close) = decoder.decode(&bytes).unwrap() {
            return close;
        }
    }
}

#[tokio::test]
async fn a_peer_that_breaks_the_websockets_rules_learns_the_reason() {
    let context = context();
    let (near, far) = tokio::io::duplex(1 << 10);
    let address = "localhost:9443".parse().unwrap();
    let (near, far) = tokio::join!(
        connect(near, LinkTarget::of(&address), LinkPurpose::Session, PLAIN_BYTES_MAX),
        accept(far, &LinkPurpose::ALL, PLAIN_BYTES_MAX)
    );
    let config = HubConfig { link: LinkOptions::default().session_config(), heartbeat_ns: 5_000_000_000 };
    let hub = Connection::hub(config, context.now());
    let mut observer = AdmitAll(watch::channel(Revision(0)).0);
    let serve = drive(hub, far.unwrap().0, None, &mut observer, &context, CancellationToken::new(), None);
    let WebSocket { mut sender, mut receiver } = near.unwrap();
    let edge = async {
        let say = async {
            // The hub does not read all of it.
            let _ = sender.send(vec![0; 4 * PLAIN_BYTES_MAX]).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = say => unreachable!("it waits for ever"),
            close = close_message(&mut receiver) => close,
        }
    };
    let (closed, close) = tokio::join!(serve, edge);
    assert_eq!((closed.reason, close.reason), (CloseReason::Malformed, CloseReason::Malformed));
    assert!(close.text.contains("larger than") && closed.text == close.text, "{}", close.text);
}

/// The hub closes the session and its socket without reading the rest: sending fails, its close message is there.
#[tokio::test]
async fn a_close_message_is_read_even_if_sending_fails() {
    for _ in 0..20 {
        let (near, far) = tokio::io::duplex(1 << 10);
        let address = "localhost:9443".parse().unwrap();
        let (near, far) = tokio::join!(
            connect(near, LinkTarget::of(&address), LinkPurpose::Session, PLAIN_BYTES_MAX),
            accept(far, &LinkPurpose::ALL, PLAIN_BYTES_MAX)
        );
        let mut far = far.unwrap().0;
        let text = "the disk is full".to_owned();
        let close = Close { reason: CloseReason::Storage, text, retry_after_ms: Some(5_000) };
        let frame = FrameEncoder::new(Encoder::new(), DEFLATE_LEVEL).encode(&Message::Close(close)).0;
        far.sender.send(frame).await.unwrap();
        drop(far);
        let context = context();
        let link = LinkOptions::default().session_config();
        let config = EdgeConfig { link, labels: LabelSet::default(), lag: Lag::default(), progress: None };
        let edge = Connection::edge(config, info(1), context.now());
        let mut observer = AdmitAll(watch::channel(Revision(0)).0);
        let closed = drive(edge, near.unwrap(), None, &mut observer, &context, CancellationToken::new(), None).await;
        assert_eq!((closed.reason, closed.retry_after_ms), (CloseReason::Storage, Some(5_000)), "{}", closed.text);
    }
}

/// A thread that was busy for longer than three heartbeats finds the time up and the peer's bytes in the socket.
#[tokio::test(start_paused = true)]
async fn a_peer_whose_bytes_wait_to_be_read_is_not_silent() {
    let heartbeat = Duration::from_millis(100);
    let (near, far) = tokio::io::duplex(1 << 10);
    let far = Counted::new(far);
    let context = LinkContext { wire: far.traffic().clone(), ..context() };
    let address = "localhost:9443".parse().unwrap();
    let (near, far) = tokio::join!(
        connect(near, LinkTarget::of(&address), LinkPurpose::Session, 1 << 20),
        accept(far, &LinkPurpose::ALL, 1 << 20)
    );
    let config = HubConfig { link: LinkOptions::default().session_config(), heartbeat_ns: heartbeat.as_nanos() as u64 };
    let mut observer = AdmitAll(watch::channel(Revision(0)).0);
    let hub = Connection::hub(config, context.now());
    let serve = drive(hub, far.unwrap().0, None, &mut observer, &context, CancellationToken::new(), None);
    let peer = async {
        let WebSocket { mut sender, mut receiver } = near.unwrap();
        let mut encoder = FrameEncoder::new(Encoder::new(), DEFLATE_LEVEL);
        sender.send(encoder.encode(&hello()).0).await.unwrap();
        receiver.receive().await.unwrap().expect("the hub answers with its welcome");
        // The driver polls its timer and its socket in random order.
        for _ in 0..20 {
            // The hub has read everything, and its timer fired since.
            tokio::time::sleep(2 * heartbeat).await;
            let message = Message::Heartbeat(Heartbeat::default());
            sender.send(encoder.encode(&message).0).await.unwrap();
            // The hub does not run before more than three heartbeats have passed.
            tokio::time::advance(4 * heartbeat).await;
        }
    };
    tokio::select! {
        biased;
        () = peer => {}
        closed = serve => panic!("{}", closed.text),
    }
}

#[tokio::test]
async fn a_raw_metric_that_no_gateway_accepts_is_not_shown() {
    let mut builder = crate::model::FamilyBuilder::new("m", crate::model::MetricType::Gauge);
    builder.series(&[], &crate::model::ValueLayout::Single, &[1.0], Some(b"\xff"));
    let stamp = crate::model::WriteTimestamp { time_ns: 1, node: NodeId(1) };
    let moment = crate::model::PushTime { stamp, wall_ns: 1 };
    let group = crate::model::Group::post(moment, vec![builder.finish().unwrap()]);
    let id = GroupId::local(LabelSet::new([("job", "a")]));
    let update = Update { deltas: vec![Delta { id, group }], ..Update::default() };
    let close = close_of_hub(vec![hello(), Message::Update(update)]).await;
    assert_eq!(close.reason, CloseReason::Malformed, "{}", close.text);
    assert!(close.text.contains("a raw metric"), "{}", close.text);
}

fn hello() -> Message {
    let (labels, clock) = (LabelSet::default(), ClockSample::default());
    Message::Hello(Hello { version: VERSION, info: info(1), labels, message_bytes_max: 1 << 20, clock })
}

#[tokio::test]
async fn an_update_before_the_handshake_is_not_decoded() {
    let close = close_of_hub(vec![Message::Update(Update::default())]).await;
    assert_eq!(close.reason, CloseReason::Malformed);
    assert!(close.text.contains("after the handshake"), "{}", close.text);
}

#[tokio::test]
async fn an_ack_may_be_larger_than_the_largest_update() {
    let mut state = 1u64;
    let mut letter = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'0' + (state >> 58) as u8)
    };
    let mut text = || (0..1_000).map(|_| letter()).collect::<String>();
    let mut report = || ConflictReport {
        key: Arc::new(LabelSet::new([("job", text())])),
        family: "m".into(),
        stamp: crate::model::WriteTimestamp::default(),
        text: text().into(),
    };
    let held_back = (0..64).map(|_| report()).collect();
    let ack = Message::Ack(Ack { updates: 9, revision: Revision(0), held_back });
    let close = close_of_hub(vec![hello(), ack]).await;
    assert!(close.text.contains("an ack of 9 updates"), "{}", close.text);
}
