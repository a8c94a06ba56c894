//! Categorical draws on a device: a chain of tokens stays there, and a sampler's step changes it.
//!
//! Row i of logits + bias, over the alphabet, at a temperature τ and for u uniform on [0, 1): the first token v with
//! `Σ_{w ≤ v} exp((l_w − max) / τ) > u · Σ_w exp((l_w − max) / τ)`, in f64, as `sample::draw` on the CPU. A draw has no
//! gradient. It is held against a search in f64 by the tests below.

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use dfdx::shapes::Const;

    use crate::kernels::cuda::driver::Element;
    use crate::kernels::cuda::{Chain, Cuda, emulated::Emulated};
    use crate::kernels::testing::{noise, weight};
    use crate::kernels::{Alphabet, Backend as _};
    use crate::rng::{Random, Stream};

    const V: usize = 131;
    const D: usize = 16;
    const LENGTH: usize = 4;

    /// The token by its definition, from the logits in f64.
    fn expected(logits: &[f64], alphabet: Alphabet, temperature: f64, u: f64) -> u32 {
        let allowed = |v: &usize| *v < alphabet.size as usize && *v != alphabet.mask as usize;
        let top = (0..V).filter(allowed).map(|v| logits[v]).fold(f64::MIN, f64::max);
        let shares = |v: usize| {
            if allowed(&v) {
                ((logits[v] - top) / temperature).exp()
            } else {
                0.0
            }
        };
        let total: f64 = (0..V).map(shares).sum();
        let mut sum = 0.0;
        (0..V)
            .find(|&v| {
                sum += shares(v);
                sum > u * total
            })
            .unwrap() as u32
    }

    #[test]
    fn tokens_are_those_that_a_search_in_f64_finds() {
        for (alphabet, temperature) in [
            (Alphabet::without_mask(129, 130), 1.0),
            (Alphabet::without_mask(0, 60), 0.3),
        ] {
            let cuda = Cuda::new(Box::new(Emulated::default()), Element::F32);
            let w = weight::<_, (Const<V>, Const<D>)>(&cuda, 2.0, 1).unwrap();
            let b = weight::<_, (Const<V>,)>(&cuda, 1.0, 2).unwrap();
            let count = 40;
            let h = noise(count * D, 3);
            let random = Random::new(4, Stream::Sample);
            let uniforms: Vec<f64> = (0..count).map(|i| random.uniform(0, 0, i as u32)).collect();
            // Every third position is asked about, and not drawn.
            let into: Vec<u32> = (0..count as u32)
                .map(|i| if i % 3 == 2 { u32::MAX } else { i })
                .collect();
            let chain = Chain::new(&cuda, &[7; 40]);
            let hidden = cuda.input((count, Const::<D>), &h).unwrap();
            chain
                .draw(&cuda, &hidden, &w, &b, alphabet, temperature, &uniforms, &into)
                .unwrap();
            let (mut weights, mut bias) = (vec![0.0; V * D], vec![0.0; V]);
            cuda.read(&w, &mut weights).unwrap();
            cuda.read(&b, &mut bias).unwrap();
            let drawn = chain.tokens(&cuda).unwrap();
            let mut distinct = std::collections::BTreeSet::new();
            for i in 0..count {
                let logits: Vec<f64> = (0..V)
                    .map(|v| {
                        let products =
                            (0..D).map(|d| f64::from(h[i * D + d]) * f64::from(weights[v * D + d]));
                        products.sum::<f64>() + f64::from(bias[v])
                    })
                    .collect();
                let right = if i % 3 == 2 {
                    7
                } else {
                    expected(&logits, alphabet, temperature, uniforms[i])
                };
                assert_eq!(drawn[i], right, "position {i}");
                distinct.insert(right);
            }
            assert!(distinct.len() > 5, "{distinct:?}");
        }
    }

    #[test]
    fn rows_are_picked_and_logits_that_are_not_finite_are_told() {
        let cuda = Cuda::new(Box::new(Emulated::default()), Element::Bf16);
        let tokens: Vec<u32> = (0..12).collect();
        let chain = Chain::new(&cuda, &tokens);
        let picked = chain.rows(&cuda, &[2, 0, 2], LENGTH).unwrap();
        let table: Vec<f32> = (0..16).map(|v| v as f32).collect();
        let table = cuda.param::<(Const<16>, Const<1>)>(&table).unwrap();
        let found = cuda.values(&cuda.embed(&table, &picked).unwrap()).unwrap();
        assert_eq!(found, [8., 9., 10., 11., 0., 1., 2., 3., 8., 9., 10., 11.]);

        let w = weight::<_, (Const<V>, Const<D>)>(&cuda, 2.0, 1).unwrap();
        let b = weight::<_, (Const<V>,)>(&cuda, 1.0, 2).unwrap();
        let mut h = noise(2 * D, 3);
        h[D] = f32::NAN;
        let hidden = cuda.input((2, Const::<D>), &h).unwrap();
        let alphabet = Alphabet::without_mask(129, 130);
        chain
            .draw(&cuda, &hidden, &w, &b, alphabet, 1.0, &[0.5, 0.5], &[0, 1])
            .unwrap();
        let error = chain.tokens(&cuda).unwrap_err();
        assert!(error.to_string().contains("not finite"), "{error}");
    }
}
