//! Corpus inputs that only the program itself can encode. After a change of a format, `cargo test --test corpora --
//! --ignored` writes them again.

use std::sync::Arc;

use pushrelay::exposition::{Escaping, NameValidation, RawFamily, protobuf, text};
use pushrelay::model::{Epoch, Family, Group, GroupId, LabelSet, NodeId, PushTime, Revision, StoreId, WriteTimestamp};
use pushrelay::storage::{Disk, DiskOptions, recover};
use pushrelay::store::{Identity, Rules, Store, WriteOp, WriteTime};
use pushrelay::wire::{
    Ack, ClockSample, Close, CloseReason, Delta, Encoder, EpochStart, Health, Heartbeat, Hello, Message, PeerInfo,
    Update, Welcome,
};
use pushrelay_testkit::SimulatedDisk;

use super::{corpus, folder};

#[test]
#[ignore = "writes into fuzz/corpus"]
fn write_seeds() {
    protobuf_bodies();
    conversations();
    store_files();
}

fn write(target: &str, name: &str, bytes: &[u8]) {
    std::fs::create_dir_all(folder(target)).unwrap();
    std::fs::write(folder(target).join(name), bytes).unwrap();
}

fn families(body: &[u8]) -> Option<Vec<Family>> {
    let raw = text::parse(body, NameValidation::Utf8, &Default::default()).ok()?;
    let families: Vec<Family> =
        raw.iter().filter_map(|f: &RawFamily<'_>| f.family(&LabelSet::default()).ok()).collect();
    (!families.is_empty()).then_some(families)
}

/// The valid inputs of the text corpus, as protobuf.
fn bodies() -> Vec<(String, Vec<Family>)> {
    let name = |path: &str| path.rsplit('/').next().unwrap().to_owned();
    corpus("text").into_iter().filter_map(|(path, input)| Some((name(&path), families(&input[1..])?))).collect()
}

fn protobuf_bodies() {
    for (name, families) in bodies() {
        let (mut renderer, none) = (protobuf::ProtobufRenderer::delimited(Escaping::AllowUtf8), LabelSet::default());
        let mut body = vec![1];
        families.iter().for_each(|f| renderer.block(f.schema(), [(&none, f)], &mut body));
        write("protobuf", &name, &body);
    }
}

fn block(bytes: &[u8], into: &mut Vec<u8>) {
    into.extend_from_slice(&u16::try_from(bytes.len()).unwrap().to_le_bytes());
    into.extend_from_slice(bytes);
}

fn moment(time_ns: u64) -> PushTime {
    PushTime { stamp: WriteTimestamp { time_ns, node: NodeId(3) }, wall_ns: time_ns + 5 }
}

fn key(job: &str) -> GroupId {
    GroupId::local(LabelSet::new([("job", job)]))
}

fn conversations() {
    let info = || PeerInfo {
        node: "edge-1".into(),
        software: "pushrelay".into(),
        store: StoreId(7),
        epochs: vec![EpochStart { epoch: Epoch(1), revision: Revision(0) }],
        head: Revision(9),
        gc_watermark: Revision(2),
        cursors: Vec::new(),
        identity: String::new(),
    };
    let clock = ClockSample { sent_ns: 5, echo: None };
    let labels = || LabelSet::new([("IDC", "SYQ")]);
    let hello = Hello { version: 1, info: info(), labels: labels(), message_bytes_max: 1 << 20, clock };
    let welcome = Welcome {
        version: 1,
        info: info(),
        site: labels(),
        resync: true,
        upstream_stores: Vec::new(),
        takes_early: false,
        heartbeat_ms: 5_000,
        message_bytes_max: 1 << 20,
        clock,
    };
    let health = Health { pushes: Some(7), store_failure: Some("no space".into()), ..Health::default() };
    let close = Close { reason: CloseReason::Shutdown, text: "bye".into(), retry_after_ms: Some(7) };
    let plain = [
        Message::Hello(hello),
        Message::Welcome(welcome),
        Message::Ack(Ack { updates: 3, revision: Revision(9), held_back: Vec::new() }),
        Message::Heartbeat(Heartbeat { clock, head: Revision(9), lag_ns: 4, health: Some(Box::new(health)) }),
        Message::Close(close),
    ];
    for message in &plain {
        conversation(message.name(), std::slice::from_ref(message));
    }
    conversation("plain", &plain);
    for (name, families) in bodies().into_iter().take(20) {
        let update = |at: u64, group: Group| {
            let deltas = vec![Delta { id: key(&format!("j{}", at % 2)), group }];
            Message::Update(Update { upto: Revision(at), deltas, ..Update::default() })
        };
        let messages = [
            update(1, Group::put(moment(1), families.clone())),
            update(2, Group::post(moment(2), families.clone())),
            update(3, Group::post(moment(3), families.clone())),
            update(5, Group::delete(moment(4).stamp)),
            update(5, Group::refused(moment(5))),
        ];
        conversation(&name, &messages);
    }
}

fn conversation(name: &str, messages: &[Message]) {
    let (mut encoder, mut input) = (Encoder::new(), Vec::new());
    for message in messages {
        let mut bytes = Vec::new();
        encoder.encode(message, &mut bytes);
        block(&bytes, &mut input);
    }
    write("wire", name, &input);
}

/// Real logs and checkpoints, split into the frames that the target joins again.
fn store_files() {
    for (number, (name, families)) in bodies().into_iter().enumerate().take(16) {
        let disk = SimulatedDisk::new(1);
        let identity = Identity { store: StoreId(7), node: NodeId(9) };
        let mut store = Store::new(Rules { has_hubs: true, ..Rules::default() }, &[]);
        let options = DiskOptions { reserve_bytes: 0, ..DiskOptions::default() };
        let recovered = recover(Arc::new(disk.clone()), options, &mut |record| store.restore(record)).unwrap();
        let mut log = recovered.start(identity).unwrap();
        store.open(identity, Epoch(4));
        let actions =
            [WriteOp::Put(families.clone()), WriteOp::Post(families.clone()), WriteOp::Refuse, WriteOp::Delete];
        for (at, action) in actions.into_iter().take(1 + number % 4).enumerate() {
            let ns = at as u64 + 10;
            let now = WriteTime { wall_ns: ns, stamp_ns: ns, monotonic_ns: ns };
            let _ = store.write(key("a"), action, now);
            let _ = store.write(key("b"), WriteOp::Post(families.clone()), now);
            log.commit(store.records()).unwrap();
            store.commit();
        }
        if number % 3 == 0 {
            let mut writer = log.rotate().unwrap();
            store.checkpoint().for_each(|record| writer.write(&record).unwrap());
            writer.finish().unwrap();
        }
        log.close().unwrap();
        let mut input = Vec::new();
        let mut files = disk.list().unwrap();
        files.sort();
        files.iter().for_each(|file| take_apart(&disk, file, &mut input));
        write("store", &name, &input);
    }
}

fn take_apart(disk: &SimulatedDisk, name: &str, input: &mut Vec<u8>) {
    let Some((kind, number)) = name.split_once('-') else { return };
    let number: u8 = number.parse().unwrap();
    let file = disk.open(name).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_at(0, &mut bytes).unwrap();
    let (mut rest, mut frames) = (&bytes[..], Vec::new());
    while rest.len() > 32 {
        let length = u32::from_le_bytes(*rest[4..].first_chunk().unwrap()) as usize;
        frames.push(&rest[32..32 + length]);
        rest = &rest[32 + length..];
    }
    input.extend_from_slice(&[u8::from(kind == "checkpoint"), number - 1, number - 1]);
    input.push(u8::try_from(frames.len() - 1).unwrap());
    frames[1..].iter().for_each(|frame| block(frame, input));
}
