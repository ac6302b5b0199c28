//! Bodies in the protobuf format, built byte by byte.

/// The media type of these bodies.
pub const MEDIA_TYPE: &str =
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// A counter of value 7 with an exemplar, which text cannot express. `name` and `trace` are short.
pub fn counter_with_exemplar(name: &str, trace: &str) -> Vec<u8> {
    let field = |tag: u8, bytes: &[u8]| [&[tag, u8::try_from(bytes.len()).unwrap()], bytes].concat();
    let double = |tag: u8, value: f64| [&[tag], &value.to_le_bytes()[..]].concat();
    let label = [field(0x0a, b"trace"), field(0x12, trace.as_bytes())].concat();
    let exemplar = [field(0x0a, &label), double(0x11, 0.5)].concat();
    let counter = [double(0x09, 7.0), field(0x12, &exemplar)].concat();
    let metric = field(0x1a, &counter);
    let family = [field(0x0a, name.as_bytes()), vec![0x18, 0], field(0x22, &metric)].concat();
    [vec![u8::try_from(family.len()).unwrap()], family].concat()
}
