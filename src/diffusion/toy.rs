//! A distribution small enough to know everything about, for the tests of what objectives compute and of what is built on a
//! network.

use crate::kernels::VocabSupport;
use crate::rng::{Random, Stream};

/// A distribution over all rows of `length` letters 0..letters; the mask is the id `letters`.
#[derive(Clone, Debug)]
pub struct Distribution {
    /// L: letters a row.
    pub length: usize,
    /// How many letters there are.
    pub letters: usize,
    /// Probability of each row; the first letter is the most significant digit.
    pub probabilities: Vec<f64>,
}

impl Distribution {
    /// A bumpy distribution with full support.
    #[must_use]
    pub fn random(length: usize, letters: usize, seed: u64) -> Self {
        let random = Random::new(seed, Stream::Synthetic);
        let count = letters.pow(length as u32);
        // Cubes of uniforms: probabilities spread over some orders of magnitude.
        let raw: Vec<f64> = (0..count)
            .map(|i| random.uniform(0, 0, i as u32).powi(3) + 1e-3)
            .collect();
        let total: f64 = raw.iter().sum();
        Self {
            length,
            letters,
            probabilities: raw.iter().map(|p| p / total).collect(),
        }
    }

    /// Id of the mask.
    #[must_use]
    pub fn mask(&self) -> u32 {
        self.letters as u32
    }

    /// The letters.
    #[must_use]
    pub fn support(&self) -> VocabSupport {
        VocabSupport::without_mask(self.mask(), self.letters as u32 + 1)
    }

    /// The row with that index.
    #[must_use]
    pub fn row(&self, mut index: usize) -> Vec<u32> {
        let mut row = vec![0; self.length];
        for l in (0..self.length).rev() {
            row[l] = (index % self.letters) as u32;
            index /= self.letters;
        }
        row
    }

    /// The index of a row.
    #[must_use]
    pub fn index(&self, row: &[u32]) -> usize {
        row.iter()
            .fold(0, |index, &token| index * self.letters + token as usize)
    }

    /// In nats.
    #[must_use]
    pub fn entropy(&self) -> f64 {
        -self.probabilities.iter().map(|p| p * p.ln()).sum::<f64>()
    }

    /// p(`x_l` = · | the unmasked tokens of z).
    #[must_use]
    pub fn posterior(&self, z: &[u32], l: usize) -> Vec<f64> {
        let mut sums = vec![0.0; self.letters];
        let power = |l: usize| self.letters.pow((self.length - 1 - l) as u32);
        let visible: Vec<_> = (0..self.length)
            .filter(|&l| z[l] != self.mask())
            .map(|l| (power(l), z[l] as usize))
            .collect();
        let own = power(l);
        for (index, p) in self.probabilities.iter().enumerate() {
            if visible
                .iter()
                .all(|&(power, x)| index / power % self.letters == x)
            {
                sums[index / own % self.letters] += p;
            }
        }
        let total: f64 = sums.iter().sum();
        sums.iter().map(|s| s / total).collect()
    }
}
