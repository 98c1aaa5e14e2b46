//! Trace and span ids: random, non-zero, one nanosecond each.
//!
//! The generator is not cryptographic; 128 bits of state, seeded from the system for every thread and every fork
//! generation, keep two processes from ever walking the same sequence.

/// A W3C trace id, sixteen bytes, never all zero in a valid context.
pub type TraceId = [u8; 16];
/// A W3C span id, eight bytes, never all zero in a valid context.
pub type SpanId = [u8; 8];

/// xoroshiro128++ (Blackman and Vigna): two words of state.
#[derive(Clone, Copy, Debug)]
pub struct IdGenerator {
    state: [u64; 2],
}

impl IdGenerator {
    /// To be replaced by [`Self::seeded`] before the first draw, which would never end.
    pub(crate) const UNSEEDED: Self = Self { state: [0, 0] };

    /// Seeds from the operating system; where that fails, from time and addresses.
    pub fn seeded() -> Self {
        let mut bytes = [0; 16];
        if getrandom::fill(&mut bytes).is_err() {
            let here = &raw const bytes as u64;
            let now = crate::clock::Anchor::take();
            bytes[..8].copy_from_slice(&(now.unix_nanos ^ here.rotate_left(32)).to_le_bytes());
            bytes[8..].copy_from_slice(&now.ticks.0.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        }
        let word = |half: &[u8]| u64::from_le_bytes(half.try_into().unwrap_or([1; 8]));
        // All zero is the one state that it never leaves.
        Self { state: [word(&bytes[..8]) | 1, word(&bytes[8..])] }
    }

    #[inline]
    fn next(&mut self) -> u64 {
        let [a, mut b] = self.state;
        let result = a.wrapping_add(b).rotate_left(17).wrapping_add(a);
        b ^= a;
        self.state = [a.rotate_left(49) ^ b ^ (b << 21), b.rotate_left(28)];
        result
    }

    /// A new span id.
    #[inline]
    pub fn span_id(&mut self) -> SpanId {
        loop {
            let id = self.next();
            if id != 0 {
                return id.to_ne_bytes();
            }
        }
    }

    /// A new trace id. Its last eight bytes are uniformly random, as the W3C flag [`RANDOM`](crate::span::RANDOM)
    /// promises of the last seven.
    #[inline]
    pub fn trace_id(&mut self) -> TraceId {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.span_id());
        id[8..].copy_from_slice(&self.next().to_ne_bytes());
        id
    }

    /// Sixteen random bytes, for a version 4 UUID.
    pub fn bytes(&mut self) -> [u8; 16] {
        self.trace_id()
    }
}

/// Lower-case hexadecimal, as W3C and OTLP/JSON write ids. `out` has twice the bytes.
pub fn write_hex(bytes: &[u8], out: &mut [u8]) {
    for (four, eight) in bytes.chunks(4).zip(out.chunks_mut(8)) {
        let mut all = [0; 4];
        all[..four.len()].copy_from_slice(four);
        eight.copy_from_slice(&hex(all)[..eight.len()]);
    }
}

/// Four bytes at once, without a table: each nibble gets a byte of its own, and is added to `0` or to what is ten
/// before `a`.
#[inline]
fn hex(bytes: [u8; 4]) -> [u8; 8] {
    let all = u64::from(u32::from_be_bytes(bytes));
    let all = (all | all << 16) & 0x0000_ffff_0000_ffff;
    let all = all & 0x0000_00ff_0000_00ff | (all & 0x0000_ff00_0000_ff00) << 8;
    let all = all & 0x000f_000f_000f_000f | (all & 0x00f0_00f0_00f0_00f0) << 4;
    let letters = (all + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
    (all + 0x3030_3030_3030_3030 + letters * 0x27).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_do_not_repeat() {
        let mut ids = IdGenerator::seeded();
        let drawn: HashSet<SpanId> = (0..100_000).map(|_| ids.span_id()).collect();
        assert_eq!(drawn.len(), 100_000);
    }

    #[test]
    fn two_seeds_differ() {
        assert_ne!(IdGenerator::seeded().trace_id(), IdGenerator::seeded().trace_id());
    }

    #[test]
    fn hex_is_lower_case() {
        let mut out = [0; 4];
        write_hex(&[0xab, 0x0f], &mut out);
        assert_eq!(&out, b"ab0f");
        let all: Vec<u8> = (0..=255).collect();
        for bytes in all.chunks(11) {
            let mut out = [0; 22];
            write_hex(bytes, &mut out[..2 * bytes.len()]);
            let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(&out[..text.len()], text.as_bytes());
        }
    }
}
