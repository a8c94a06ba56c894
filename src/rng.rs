//! Counter-based random streams: every number is a function of (seed, stream, step, row, position).
//!
//! The generator is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
//! It has no state, so a number never depends on the thread, the device batch or a restart that led to it,
//! and the same few integer operations run on any device.
//!
//! Layout of the 128-bit counter: word 0 is the position's block, word 1 the low half of the row, word 2
//! the low half of the step, word 3 their high halves (16 bits each). The 64-bit key is the seed mixed with
//! the stream. Hence positions reach 2^34 draws of 32 bits, rows and steps 2^48.

/// What a stream of random numbers is for. Streams never share a key, so adding one changes no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Stream {
    /// Initial weights: (0, parameter, element).
    Init = 1,
    /// Order of the rows in an epoch: (epoch, half, round) of the Feistel network.
    Permutation = 2,
    /// Diffusion times: (step, row, 0).
    Time = 3,
    /// Which tokens are masked: (step, row, position).
    Mask = 4,
    /// Dropout: (step, row, site and element).
    Dropout = 5,
    /// Records of a synthetic source: (0, record, draw).
    Synthetic = 6,
    /// Which split a record belongs to: (0, low 48 bits of the text's hash, high 16 bits).
    Split = 7,
    /// Times and masks of an evaluation: (draw, row, position).
    Evaluate = 8,
    /// Draws of a sampler: (step, row, position).
    Sample = 9,
    /// Times and masks of the validation during training: (draw, row, position).
    Validation = 10,
    /// Which records a source keeps: (0, record, 0).
    Selection = 11,
    /// Masks of a measurement of the training loss's variance: (draw, row, position).
    Variance = 12,
    /// Fresh records that samples are compared with: (0, record, draw); rows drawn again: (1 + draw, place, 0); where fresh
    /// text begins: (0, 2^47 + text, 0).
    Judge = 16,
}

/// A keyed family of random numbers: cheap to copy, without state.
#[derive(Clone, Copy, Debug)]
pub struct Random {
    key: [u32; 2],
}

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57]; // Salmon et al. 2011, table 2
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85]; // golden ratio and sqrt(3) - 1

/// One block of Philox4x32-10: four independent 32-bit words.
#[inline(always)]
#[must_use]
pub fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let a = u64::from(MULTIPLIERS[0]) * u64::from(counter[0]);
        let b = u64::from(MULTIPLIERS[1]) * u64::from(counter[2]);
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

impl Random {
    /// The numbers of `stream` under `seed`.
    #[must_use]
    pub fn new(seed: u64, stream: Stream) -> Self {
        // The stream goes through the generator itself: keys of different streams are unrelated.
        let mixed = philox([stream as u32, 0, 0, 0], [seed as u32, (seed >> 32) as u32]);
        Self {
            key: [mixed[0], mixed[1]],
        }
    }

    /// The key, for kernels that run the generator themselves.
    #[must_use]
    pub fn key(self) -> [u32; 2] {
        self.key
    }

    /// The counter of a block, as [`Random::block`] lays it out.
    #[inline(always)]
    #[must_use]
    pub fn counter(step: u64, row: u64, block: u32) -> [u32; 4] {
        debug_assert!(step < 1 << 48 && row < 1 << 48);
        let high = (((step >> 32) as u32) << 16) | ((row >> 32) as u32 & 0xFFFF);
        [block, row as u32, step as u32, high]
    }

    /// Four independent 32-bit words.
    #[inline]
    #[must_use]
    pub fn block(self, step: u64, row: u64, block: u32) -> [u32; 4] {
        philox(Self::counter(step, row, block), self.key)
    }

    /// 64 random bits for a position.
    #[inline]
    #[must_use]
    pub fn bits(self, step: u64, row: u64, position: u32) -> u64 {
        let words = self.block(step, row, position / 2);
        let pair = if position.is_multiple_of(2) {
            [words[0], words[1]]
        } else {
            [words[2], words[3]]
        };
        u64::from(pair[0]) | u64::from(pair[1]) << 32
    }

    /// Uniform on [0, 1) with 53 random bits, for a position.
    #[inline]
    #[must_use]
    pub fn uniform(self, step: u64, row: u64, position: u32) -> f64 {
        unit(self.bits(step, row, position))
    }

    /// Uniform on 0..n without bias worth the name (2^-64 n), for a position.
    #[inline]
    #[must_use]
    pub fn below(self, n: u64, step: u64, row: u64, position: u32) -> u64 {
        ((u128::from(self.bits(step, row, position)) * u128::from(n)) >> 64) as u64
    }
}

/// 64 random bits as a number on [0, 1), multiples of 2^-53.
#[inline]
#[must_use]
pub fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Known answers of the Random123 distribution (kat_vectors, philox 4x32 10).
    #[test]
    fn philox_matches_the_published_vectors() {
        assert_eq!(
            philox([0; 4], [0; 2]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox(
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0]
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn uniforms_fill_the_interval_evenly() {
        let random = Random::new(7, Stream::Mask);
        let mut bins = [0u32; 16];
        for row in 0..64 {
            for position in 0..1024 {
                bins[(random.uniform(3, row, position) * 16.0) as usize] += 1;
            }
        }
        // 65,536 draws over 16 bins: chi-square with 15 degrees of freedom, 1e-4 quantile 44.3.
        let chi: f64 = bins
            .iter()
            .map(|&n| (f64::from(n) - 4096.0).powi(2) / 4096.0)
            .sum();
        assert!(chi < 44.3, "chi-square {chi}, bins {bins:?}");
    }

    proptest! {
        #[test]
        fn random_bits_change_with_every_coordinate(
            seed: u64, step in 0u64..1 << 48, row in 0u64..1 << 48, position in 0u32..u32::MAX
        ) {
            let random = Random::new(seed, Stream::Time);
            let here = random.bits(step, row, position);
            prop_assert_ne!(here, random.bits(step ^ 1, row, position));
            prop_assert_ne!(here, random.bits(step ^ (1 << 40), row, position));
            prop_assert_ne!(here, random.bits(step, row ^ 1, position));
            prop_assert_ne!(here, random.bits(step, row ^ (1 << 40), position));
            prop_assert_ne!(here, random.bits(step, row, position + 1));
            prop_assert_ne!(here, Random::new(seed, Stream::Mask).bits(step, row, position));
            prop_assert_ne!(here, Random::new(seed ^ 1, Stream::Time).bits(step, row, position));
        }

        #[test]
        fn below_stays_below(n in 1u64.., position: u32) {
            prop_assert!(Random::new(1, Stream::Split).below(n, 0, 0, position) < n);
        }
    }
}
