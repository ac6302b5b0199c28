//! A native histogram as a client library pushes it, encoded by hand.

/// `latency_native`: 2 observations within ±0.001, 1 in (0.5, 1], 4 in (1, 2], 3 in (4, 8], and an exemplar.
pub fn histogram() -> Vec<u8> {
    let span = |offset: u8, length: u8| [vec![0x08, offset << 1, 0x10, length]].concat();
    let deltas: Vec<u8> =
        [1_i8, 3, -1].iter().flat_map(|delta| vec![0x68, ((delta << 1) ^ (delta >> 7)) as u8]).collect();
    let label = [text(1, "trace_id"), text(2, "<b>4711</b>")].concat();
    let exemplar = [bytes(1, &label), double(2, 1.5)].concat();
    let histogram = [
        vec![0x08, 10],
        double(2, 27.5),
        vec![0x28, 0],
        double(6, 0.001),
        vec![0x38, 2],
        bytes(12, &span(0, 2)),
        bytes(12, &span(1, 1)),
        deltas,
        bytes(16, &exemplar),
    ];
    let family = [
        text(1, "latency_native"),
        text(2, "Seconds a job took."),
        vec![0x18, 4],
        bytes(4, &bytes(7, &histogram.concat())),
    ];
    let family = family.concat();
    [varint(family.len()), family].concat()
}

fn varint(mut value: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn bytes(field: usize, content: &[u8]) -> Vec<u8> {
    [varint(field << 3 | 2), varint(content.len()), content.to_vec()].concat()
}

fn text(field: usize, content: &str) -> Vec<u8> {
    bytes(field, content.as_bytes())
}

fn double(field: usize, value: f64) -> Vec<u8> {
    [varint(field << 3 | 1), value.to_le_bytes().to_vec()].concat()
}
