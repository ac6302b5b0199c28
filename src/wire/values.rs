//! Values relative to the values that the peer has: small for short decimals that change a little, as metrics do, and
//! exact to the bit for all others.
//!
//! Each value has a *base*: the value last sent at its position, or none. A value is written as one of:
//!
//! | kind | the value | written |
//! |---|---|---|
//! | 0 same | has the bits of its base (of +0.0 if none) | nothing |
//! | 1 decimal | `m / 10^s` at the scale `s` of its base | `m` less the base's mantissa, in `deltas` |
//! | 2 scaled | `m / 10^s` at the scale `s` given | `m` less the base's mantissa at `s`, in `deltas` |
//! | 3 raw | any | its bits XOR those of its base, 8 bytes, big endian, in `raws` |
//!
//! Consecutive values of one kind are one entry of `runs`, across families: a number `(length - 1) * 4 + kind`,
//! followed by a byte `s` for scaled values. Deltas are signed numbers: `n` as `2n`, `-n` as `2n - 1`.
//!
//! The decimal of a double `v` (see [`Decimal::of`]) is the mantissa `m` and the smallest scale `s` with `m / 10^s ==
//! v` to the bit. `s` is at most 9; `|m|` is at most 2^53 for `s = 0`, and otherwise at most 2^50 before trailing
//! zeros are cut off. IEEE 754 rounds the division of a whole number up to 2^53 by a power of ten up to 10^9
//! correctly, so both ends compute the same double. A base without a decimal, or a missing base, counts as mantissa 0
//! at the scale of the decimal or scaled value written before it in this update (0 at the beginning).

use crate::model::bytes::{ByteReader, Malformed, put_number};

/// The largest scale; the smallest is 0.
const SCALE_MAX: u8 = 9;
/// The largest whole number below which all whole numbers are doubles.
const MANTISSA_MAX: i64 = 1 << 53;
/// Up to here the error of multiplying a double by a power of ten is less than a half.
const PRODUCT_MAX: f64 = (1u64 << 50) as f64;

const SAME: u8 = 0;
const DECIMAL: u8 = 1;
const SCALED: u8 = 2;
const RAW: u8 = 3;

/// `mantissa / 10^scale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decimal {
    /// A whole number of at most 2^53 either way.
    pub mantissa: i64,
    /// Number of decimals: 0 to 9.
    pub scale: u8,
}

impl Decimal {
    /// The shortest decimal that equals this double, if there is one.
    pub fn of(value: f64) -> Option<Decimal> {
        let whole = value as i64;
        if whole.abs_diff(0) <= MANTISSA_MAX as u64 && (whole as f64).to_bits() == value.to_bits() {
            return Some(Decimal { mantissa: whole, scale: 0 });
        }
        let scale = (1..=SCALE_MAX).rev().find(|scale| value.abs() * power(*scale) as f64 <= PRODUCT_MAX)?;
        let product = value * power(scale) as f64;
        let widest = Decimal { mantissa: (product + 0.5f64.copysign(product)) as i64, scale };
        (widest.value().to_bits() == value.to_bits()).then(|| widest.shortened())
    }

    /// The double nearest to it.
    pub fn value(self) -> f64 {
        self.mantissa as f64 / power(self.scale) as f64
    }

    fn shortened(self) -> Decimal {
        self.without::<8>().without::<4>().without::<2>().without::<1>()
    }

    /// The decimal without that many trailing zeros, if it has them. The compiler turns division by a constant into
    /// multiplication.
    fn without<const ZEROS: u8>(self) -> Decimal {
        let power = const { POWERS[ZEROS as usize] };
        if self.scale < ZEROS || self.mantissa % power != 0 {
            return self;
        }
        Decimal { mantissa: self.mantissa / power, scale: self.scale - ZEROS }
    }

    /// The mantissa at a scale that is not smaller, if it is not too large.
    fn mantissa_at(self, scale: u8) -> Option<i64> {
        let mantissa = self.mantissa.checked_mul(power(scale.checked_sub(self.scale)?))?;
        (mantissa.abs() <= MANTISSA_MAX).then_some(mantissa)
    }
}

/// Powers of ten by scale.
const POWERS: [i64; SCALE_MAX as usize + 1] =
    [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000];

fn power(scale: u8) -> i64 {
    POWERS[usize::from(scale.min(SCALE_MAX))]
}

/// The three columns of values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ValueColumns {
    /// Kinds of values, and how many follow each other.
    pub runs: Vec<u8>,
    /// Differences between decimals.
    pub deltas: Vec<u8>,
    /// All other doubles, in full.
    pub raws: Vec<u8>,
}

/// Writes the values of one update.
#[derive(Debug, Default)]
pub struct ValueWriter {
    columns: ValueColumns,
    kind: (u8, u8),
    length: u64,
    scale: u8,
}

impl ValueWriter {
    /// Appends `values` relative to `base`, if both have the same length.
    pub fn write(&mut self, base: Option<&[f64]>, values: &[f64]) {
        match base.filter(|base| base.len() == values.len()) {
            Some(base) => base.iter().zip(values).for_each(|(base, value)| self.write_one(Some(*base), *value)),
            None => values.iter().for_each(|value| self.write_one(None, *value)),
        }
    }

    fn write_one(&mut self, base: Option<f64>, value: f64) {
        let base_bits = base.unwrap_or(0.0).to_bits();
        if base_bits == value.to_bits() {
            return self.count(SAME, 0);
        }
        let from = base.and_then(Decimal::of).unwrap_or(Decimal { mantissa: 0, scale: self.scale });
        let ends = Decimal::of(value).and_then(|to| {
            let scale = from.scale.max(to.scale);
            Some((scale, from.mantissa_at(scale)?, to.mantissa_at(scale)?))
        });
        let Some((scale, from_mantissa, to_mantissa)) = ends else {
            self.columns.raws.extend_from_slice(&(base_bits ^ value.to_bits()).to_be_bytes());
            return self.count(RAW, 0);
        };
        put_signed(to_mantissa - from_mantissa, &mut self.columns.deltas);
        self.scale = scale;
        if scale == from.scale { self.count(DECIMAL, 0) } else { self.count(SCALED, scale) }
    }

    fn count(&mut self, kind: u8, scale: u8) {
        if self.kind != (kind, scale) {
            self.end_run();
            self.kind = (kind, scale);
        }
        self.length += 1;
    }

    fn end_run(&mut self) {
        if self.length == 0 {
            return;
        }
        put_number((self.length - 1) << 2 | u64::from(self.kind.0), &mut self.columns.runs);
        if self.kind.0 == SCALED {
            self.columns.runs.push(self.kind.1);
        }
        self.length = 0;
    }

    /// Returns the columns.
    pub fn finish(mut self) -> ValueColumns {
        self.end_run();
        self.columns
    }
}

/// Reads the values of one update.
#[derive(Debug)]
pub struct ValueReader<'a> {
    runs: ByteReader<'a>,
    deltas: ByteReader<'a>,
    raws: ByteReader<'a>,
    kind: (u8, u8),
    length: u64,
    scale: u8,
}

const RUNS: &str = "the runs of values";
const DELTAS: &str = "the differences of values";
const RAWS: &str = "the raw values";

impl<'a> ValueReader<'a> {
    /// A reader of these columns.
    pub fn new(runs: &'a [u8], deltas: &'a [u8], raws: &'a [u8]) -> Self {
        let (runs, deltas, raws) = (ByteReader::new(runs), ByteReader::new(deltas), ByteReader::new(raws));
        Self { runs, deltas, raws, kind: (SAME, 0), length: 0, scale: 0 }
    }

    /// Reads the next values in place: `values` are their bases if `based` is set, and must be zeros otherwise.
    ///
    /// # Errors
    /// If the columns are malformed or end too early.
    pub fn read(&mut self, based: bool, values: &mut [f64]) -> Result<(), Malformed> {
        debug_assert!(based || values.iter().all(|value| value.to_bits() == 0));
        for value in values {
            *value = self.read_one(*value, based)?;
        }
        Ok(())
    }

    /// Skips `len` values if all of them equal their bases; returns whether they do.
    ///
    /// # Errors
    /// If the column of runs is malformed or ends too early.
    pub fn skip_same(&mut self, len: usize) -> Result<bool, Malformed> {
        if self.length == 0 && len > 0 {
            self.begin_run()?;
        }
        let same = len == 0 || (self.kind.0 == SAME && self.length >= len as u64);
        if same {
            self.length -= len as u64;
        }
        Ok(same)
    }

    fn read_one(&mut self, base: f64, based: bool) -> Result<f64, Malformed> {
        if self.length == 0 {
            self.begin_run()?;
        }
        self.length -= 1;
        let scale = match self.kind {
            (SAME, _) => return Ok(base),
            (RAW, _) => {
                let raw = self.raws.take(8, RAWS)?.iter().fold(0, |raw, byte| raw << 8 | u64::from(*byte));
                return Ok(f64::from_bits(base.to_bits() ^ raw));
            }
            (SCALED, scale) => Some(scale),
            _ => None,
        };
        let decimal = if based { Decimal::of(base) } else { None };
        let from = decimal.unwrap_or(Decimal { mantissa: 0, scale: self.scale });
        let scale = scale.unwrap_or(from.scale);
        let mantissa = from.mantissa_at(scale).and_then(|mantissa| {
            let delta = read_signed(&mut self.deltas, DELTAS).ok()?;
            mantissa.checked_add(delta).filter(|mantissa| mantissa.abs_diff(0) <= MANTISSA_MAX as u64)
        });
        self.scale = scale;
        let mantissa = mantissa.ok_or(Malformed::Invalid(DELTAS))?;
        Ok(Decimal { mantissa, scale }.value())
    }

    fn begin_run(&mut self) -> Result<(), Malformed> {
        let run = self.runs.number(RUNS)?;
        self.kind = ((run & 3) as u8, 0);
        self.length = (run >> 2) + 1;
        if self.kind.0 == SCALED {
            self.kind.1 = self.runs.byte(RUNS)?;
            if self.kind.1 > SCALE_MAX {
                return Err(Malformed::Invalid(RUNS));
            }
        }
        Ok(())
    }

    /// Checks that the columns end here.
    ///
    /// # Errors
    /// If they do not.
    pub fn finish(self) -> Result<(), Malformed> {
        if self.length > 0 || self.runs.remaining() > 0 {
            return Err(Malformed::Invalid(RUNS));
        }
        if self.deltas.remaining() > 0 {
            return Err(Malformed::Invalid(DELTAS));
        }
        if self.raws.remaining() > 0 { Err(Malformed::Invalid(RAWS)) } else { Ok(()) }
    }
}

/// Appends a signed number.
pub(super) fn put_signed(number: i64, into: &mut Vec<u8>) {
    put_number((number << 1 ^ number >> 63) as u64, into);
}

/// Reads a signed number.
pub(super) fn read_signed(reader: &mut ByteReader<'_>, what: &'static str) -> Result<i64, Malformed> {
    let number = reader.number(what)?;
    Ok((number >> 1) as i64 ^ -((number & 1) as i64))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(pairs: &[(Option<f64>, f64)]) -> ValueColumns {
        let mut writer = ValueWriter::default();
        for (base, value) in pairs {
            writer.write(base.as_ref().map(std::slice::from_ref), &[*value]);
        }
        writer.finish()
    }

    fn read_back(columns: &ValueColumns, bases: &[Option<f64>]) -> Result<Vec<u64>, Malformed> {
        let mut reader = ValueReader::new(&columns.runs, &columns.deltas, &columns.raws);
        let mut bits = Vec::new();
        for base in bases {
            let mut value = base.unwrap_or(0.0);
            reader.read(base.is_some(), std::slice::from_mut(&mut value))?;
            bits.push(value.to_bits());
        }
        reader.finish()?;
        Ok(bits)
    }

    fn round_trips(pairs: &[(Option<f64>, f64)]) -> bool {
        let bases: Vec<_> = pairs.iter().map(|(base, _)| *base).collect();
        let bits: Vec<_> = pairs.iter().map(|(_, value)| value.to_bits()).collect();
        read_back(&written(pairs), &bases) == Ok(bits)
    }

    /// All bit patterns, and typical values of metrics.
    fn value() -> impl Strategy<Value = f64> {
        let special = [0.0, -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN_POSITIVE, 0.1 + 0.2]
            .into_iter()
            .chain([53, 54, 50, 63, 64].map(|n| 2f64.powi(n)))
            .chain([53, 50, 63].map(|n| -(2f64.powi(n)) + 1.0))
            .chain([f64::from_bits(0x7ff8_0000_dead_beef), f64::from_bits(0xfff0_0000_0000_0001), 5e-324])
            .collect::<Vec<_>>();
        prop_oneof![
            any::<u64>().prop_map(f64::from_bits),
            proptest::sample::select(special),
            (any::<i64>(), 0..64u32, 0..12i32).prop_map(|(m, shift, scale)| (m >> shift) as f64 / 10f64.powi(scale)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3_000))]

        #[test]
        fn every_value_comes_back_to_the_bit(pairs in proptest::collection::vec(
            (proptest::option::of(value()), value()), 0..40,
        )) {
            prop_assert!(round_trips(&pairs), "{:?}", pairs);
        }

        #[test]
        fn a_decimal_is_its_double_and_the_shortest(value in value()) {
            if let Some(decimal) = Decimal::of(value) {
                prop_assert_eq!(decimal.value().to_bits(), value.to_bits());
                prop_assert!(decimal.scale == 0 || decimal.mantissa % 10 != 0);
            }
        }

        #[test]
        fn any_bytes_are_safe_to_read(
            runs in proptest::collection::vec(any::<u8>(), 0..20),
            deltas in proptest::collection::vec(any::<u8>(), 0..20),
            raws in proptest::collection::vec(any::<u8>(), 0..20),
            bases in proptest::collection::vec(proptest::option::of(value()), 0..20),
        ) {
            let _ = read_back(&ValueColumns { runs, deltas, raws }, &bases);
        }

        #[test]
        fn a_cut_column_is_noticed(pairs in proptest::collection::vec(
            (proptest::option::of(value()), value()), 1..20,
        )) {
            let bases: Vec<_> = pairs.iter().map(|(base, _)| *base).collect();
            let whole = written(&pairs);
            for cut in 0..whole.runs.len() {
                let columns = ValueColumns { runs: whole.runs[..cut].to_vec(), ..whole.clone() };
                prop_assert!(read_back(&columns, &bases).is_err());
            }
            for cut in 0..whole.deltas.len() {
                let columns = ValueColumns { deltas: whole.deltas[..cut].to_vec(), ..whole.clone() };
                prop_assert!(read_back(&columns, &bases).is_err());
            }
            for cut in 0..whole.raws.len() {
                let columns = ValueColumns { raws: whole.raws[..cut].to_vec(), ..whole.clone() };
                prop_assert!(read_back(&columns, &bases).is_err());
            }
        }
    }

    #[test]
    fn decimals_have_the_least_scale() {
        let decimal = |mantissa, scale| Some(Decimal { mantissa, scale });
        assert_eq!(Decimal::of(12.5), decimal(125, 1));
        assert_eq!(Decimal::of(-0.003), decimal(-3, 3));
        assert_eq!(Decimal::of(1e15), decimal(1_000_000_000_000_000, 0));
        assert_eq!(Decimal::of(1_700_000_000.125), decimal(1_700_000_000_125, 3));
        for none in [-0.0, f64::NAN, f64::INFINITY, 1e300, 0.1 + 0.2, 1e-10] {
            assert_eq!(Decimal::of(none), None, "{none}");
        }
    }

    #[test]
    fn typical_changes_of_metrics_are_small() {
        let counters: Vec<_> = (0..100).map(|i| (Some(f64::from(i * 1_000)), f64::from(i * 1_000 + 17))).collect();
        let columns = written(&counters);
        assert_eq!((columns.runs.len(), columns.deltas.len(), columns.raws.len()), (2, 100, 0));
        let unchanged: Vec<_> = (0..100).map(|i| (Some(f64::from(i)), f64::from(i))).collect();
        assert_eq!(written(&unchanged), ValueColumns { runs: vec![0x8c, 0x03], ..ValueColumns::default() });
    }
}
