//! Initial weights: functions of (seed, parameter, element), whatever the thread.

use rayon::prelude::*;

use super::dit::parameters;
use crate::rng::{Random, Stream};
use crate::shapes::{Backbone, Shape};

/// How a parameter starts.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Initialization {
    Zeros,
    Ones,
    /// Uniform on [−bound, bound).
    Uniform(f32),
}

/// The distribution of a parameter of the authors' release (see [`initial`]).
fn start(name: &str, fan_in: usize) -> Initialization {
    // Modulations and the output layer start at zero: every block starts as the identity, the output as uniform.
    if name.contains("adaLN_modulation.") || name.starts_with("output_layer.linear.") {
        Initialization::Zeros
    } else if name.contains("norm") {
        Initialization::Ones
    } else {
        Initialization::Uniform(1.0 / (fan_in as f32).sqrt())
    }
}

/// The initial weights of a shape's backbone in the flat order: embedding kaiming-uniform with a = √5 and linear weights and
/// biases as PyTorch's `nn.Linear`, which all come to `U(±1/√fan_in)`; modulations and the output layer zero; norms
/// one (arXiv 2406.07524's release).
#[must_use]
pub fn initial(shape: &Shape, backbone: Backbone, seed: u64) -> Vec<f32> {
    const CHUNK: usize = 1 << 14;
    let random = Random::new(seed, Stream::Init);
    let parameters = parameters(shape, backbone);
    let mut values = vec![0.0f32; parameters.last().map_or(0, |last| last.offset + last.len())];
    let mut fan_in = 1;
    for (index, parameter) in parameters.iter().enumerate() {
        // A bias has no inputs of its own: it follows its weight, whose columns they are.
        if let [_, columns] = parameter.dims[..] {
            fan_in = columns;
        }
        let values = &mut values[parameter.range()];
        match start(&parameter.name, fan_in) {
            Initialization::Zeros => {}
            Initialization::Ones => values.fill(1.0),
            Initialization::Uniform(bound) => {
                values
                    .par_chunks_mut(CHUNK)
                    .enumerate()
                    .for_each(|(chunk, values)| {
                        for (at, values) in values.chunks_mut(4).enumerate() {
                            let block = (chunk * CHUNK / 4 + at) as u32;
                            let words = random.block(0, index as u64, block);
                            for (value, word) in values.iter_mut().zip(words) {
                                // 24 bits: every draw is an f32 exactly.
                                let unit = (word >> 8) as f32 / (1u32 << 24) as f32;
                                *value = bound * (2.0 * unit - 1.0);
                            }
                        }
                    });
            }
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shapes::SHAPES;

    #[test]
    fn initial_weights_have_the_authors_distribution_and_depend_on_the_seed_alone() {
        let shape = SHAPES.find("nano").unwrap();
        for backbone in Backbone::ALL {
            have_the_authors_distribution(shape, backbone);
        }
    }

    fn have_the_authors_distribution(shape: &Shape, backbone: Backbone) {
        let values = initial(shape, backbone, 7);
        for parameter in parameters(shape, backbone) {
            let own = &values[parameter.range()];
            let name = parameter.name.as_str();
            let bound = match name {
                "vocab_embed.embedding" | "blocks.1.attn_qkv.weight" | "blocks.0.mlp.0.bias" => 0.125, // 1/√64
                // 1/√256
                "blocks.0.mlp.2.weight" | "blocks.0.mlp.2.bias" | "sigma_map.mlp.0.weight" => 0.0625,
                _ if name.contains("norm") => {
                    assert!(
                        own.iter().all(|value| value.to_bits() == 1.0f32.to_bits()),
                        "{name}"
                    );
                    continue;
                }
                _ if name.contains("adaLN") || name.contains("output_layer") => {
                    assert!(own.iter().all(|&value| value == 0.0), "{name}");
                    continue;
                }
                _ => continue,
            };
            let largest = own.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
            assert!(
                largest <= bound && largest > 0.8 * bound,
                "{name}: {largest}, bound {bound}"
            );
            let variance = own.iter().map(|value| value * value).sum::<f32>() / own.len() as f32;
            // A uniform's variance is bound²/3; 64 draws or more stay within a third of it.
            assert!(
                (variance * 3.0 / (bound * bound) - 1.0).abs() < 0.35,
                "{name}: variance {variance}"
            );
        }
        assert_eq!(initial(shape, backbone, 7), values);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(pool.install(|| initial(shape, backbone, 7)), values);
        assert_ne!(initial(shape, backbone, 8), values);
    }
}
