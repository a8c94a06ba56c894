//! The network on the CPU: fused against composite, logits of some positions, weights in and out, refused batches.

use super::*;

/// Loss, logits and every gradient, fused in f32 against composite in f64.
#[test]
fn fused_network_agrees_with_the_composite() {
    let [dit, transformer] = Case::of_both(3);
    let plain = [Case::new(3, false, false), dit, transformer];
    let mut cases = Vec::from(plain.map(|case| (case, ALPHABET)));
    cases.extend(LOSSES.map(|(loss, support)| (Case::new(3, true, true).with_loss(loss), support)));
    for (case, support) in cases {
        let (mut fused, mut exact) = (case.fused(), case.exact());
        let nll = fused.accumulate(&case.batch(), support).unwrap();
        // Of losses with constants, exp(lse - k) and the mask's probability have the digits of a difference of size 10.
        let factor = if case.loss == Loss::CrossEntropy { 1.0 } else { 3.0 };
        // 1e-5: f32 through two blocks; relative to losses of order one to ten.
        let expected = exact.accumulate(&case.batch(), support).unwrap();
        assert_close(&nll, &expected, factor * 1e-5);
        let (found, expected) = (gradient(&mut fused), gradient(&mut exact));
        for parameter in parameters(nano(), case.backbone) {
            let own = parameter.range();
            let largest = expected[own.clone()]
                .iter()
                .fold(0.0f32, |largest, g| largest.max(g.abs()));
            for at in own {
                let error = (found[at] - expected[at]).abs();
                // 2e-5 of the parameter's largest gradient: sums of up to 96 token rows in f32.
                assert!(
                    error <= factor * 2e-5 * largest,
                    "{:?} {}[{}]: {} fused, {} composite",
                    case.loss,
                    parameter.name,
                    at - parameter.offset,
                    found[at],
                    expected[at]
                );
            }
        }
        let everywhere = case.everywhere();
        assert_close(
            &case.logits(&fused, &everywhere),
            &case.logits(&exact, &everywhere),
            1e-5,
        );
    }
}

/// Factors of eight significant bits: close to the exact network, and not the same.
#[test]
fn bf16_products_stay_near() {
    let case = Case::new(3, false, true);
    let backend = Fused::with_precision(Precision::Bf16);
    let (mut rounded, mut exact) = (
        CpuNetwork::<Nano, _>::new(backend, Backbone::Dit, &weights()).unwrap(),
        exact(),
    );
    let found = rounded.accumulate(&case.batch(), ALPHABET).unwrap();
    let expected = exact.accumulate(&case.batch(), ALPHABET).unwrap();
    let errors = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
    let largest = errors.fold(0.0, f32::max);
    // 2^-9 a factor, through two blocks, on losses of order one to ten.
    assert!(1e-5 < largest && largest < 0.05, "off by {largest}");
    let (found, expected) = (gradient(&mut rounded), gradient(&mut exact));
    let norm =
        |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    let off =
        norm(&mut found.iter().zip(&expected).map(|(a, b)| a - b)) / norm(&mut expected.iter().copied());
    assert!(
        1e-4 < off && off < 0.02,
        "the gradient is off by {off} of its norm"
    );
}

/// What is not computed does not show: a position's logits have the same bits whichever others are asked for.
#[test]
fn logits_do_not_depend_on_the_other_positions_asked_for() {
    for case in Case::of_both(3) {
        let (network, v) = (case.fused(), nano().vocabulary);
        let full = case.logits(&network, &case.everywhere());
        for wanted in [&case.positions[..], &[0], &[31, 32, 95]] {
            let found = case.logits(&network, wanted);
            for (i, (&at, found)) in wanted.iter().zip(found.chunks(v)).enumerate() {
                assert!(
                    found == &full[at as usize * v..][..v],
                    "logits {i} of {}",
                    wanted.len()
                );
            }
        }
    }
}

/// A token changes no logits before it, and some at it and after.
#[test]
fn causal_logits_do_not_depend_on_later_tokens() {
    let case = Case::next_token(nano(), ALPHABET, 2, false);
    let (network, v) = (case.fused(), nano().vocabulary);
    let before = case.logits(&network, &case.everywhere());
    let changed = 40; // of the second row's tokens, 32 to 63
    let mut other = Case::next_token(nano(), ALPHABET, 2, false);
    other.tokens[changed] = (other.tokens[changed] + 1) % ALPHABET.mask;
    let after = other.logits(&network, &other.everywhere());
    assert_eq!(bits(&before[..changed * v]), bits(&after[..changed * v]));
    let mut rows = before[changed * v..]
        .chunks(v)
        .zip(after[changed * v..].chunks(v));
    assert!(rows.all(|(before, after)| before != after));
    // All of a row attends to all of it otherwise.
    other.pattern = Pattern::Full;
    let full = other.logits(&network, &other.everywhere());
    assert_ne!(full[32 * v..][..v], after[32 * v..][..v]);
}

#[test]
fn logits_of_masked_positions_alone_equal_the_full_computation() {
    for conditioned in [false, true] {
        let case = Case::new(2, conditioned, false);
        let (network, v) = (exact(), nano().vocabulary);
        let everywhere: Vec<u32> = (0..case.tokens.len() as u32).collect();
        let full = network
            .logits(&case.tokens, &case.sigma, &everywhere, Pattern::Full)
            .unwrap();
        let wanted: Vec<f32> = case
            .positions
            .iter()
            .flat_map(|&at| full[at as usize * v..][..v].iter().copied())
            .collect();
        assert_close(
            &network
                .logits(&case.tokens, &case.sigma, &case.positions, Pattern::Full)
                .unwrap(),
            &wanted,
            1e-6,
        );
        let second = case.part(1..2);
        assert_close(
            &network
                .logits(
                    &second.tokens,
                    &second.sigma,
                    &everywhere[..nano().length],
                    Pattern::Full,
                )
                .unwrap(),
            &full[nano().length * v..],
            1e-6,
        );
        // SUBS on the full logits: no probability for the mask, nor for what the tokenizer does not have.
        let by_hand: Vec<f32> = wanted
            .chunks(v)
            .zip(&case.targets)
            .map(|(logits, &target)| {
                let support = (0..ALPHABET.size).filter(|&token| token != ALPHABET.mask);
                let total: f64 = support.map(|token| f64::from(logits[token as usize]).exp()).sum();
                (total.ln() - f64::from(logits[target as usize])) as f32
            })
            .collect();
        // 1e-5: from f32 logits of order ten.
        assert_close(&network.nll(&case.batch(), ALPHABET).unwrap(), &by_hand, 1e-5);
    }
}

#[test]
fn weights_are_read_back_unchanged_and_lent_with_gradients() {
    let (mut network, weights) = (exact(), weights());
    let mut read = vec![0.0; weights.len()];
    network.read(&mut read).unwrap();
    assert_eq!(read, weights);
    let case = Case::new(1, false, false);
    network.accumulate(&case.batch(), ALPHABET).unwrap();
    assert!(gradient(&mut network).iter().any(|&g| g != 0.0));
    // Lent, they change for good.
    network
        .with_gradient(&mut |parameters, values, gradient| {
            assert_eq!(values, weights);
            for parameter in parameters {
                values[parameter.offset] = 7.0;
            }
            gradient.fill(0.5);
        })
        .unwrap();
    assert!(
        gradient(&mut network)
            .iter()
            .all(|&g| g.to_bits() == 0.5f32.to_bits())
    );
    network.read(&mut read).unwrap();
    for parameter in network.parameters() {
        assert_eq!(
            read[parameter.offset].to_bits(),
            7.0f32.to_bits(),
            "{}",
            parameter.name
        );
    }
    let other = network.nll(&case.batch(), ALPHABET).unwrap();
    let mut learner = HostLearner::new(network).unwrap();
    learner.load(&weights, Moments::before(weights.clone())).unwrap();
    assert_eq!(learner.gradient_norm().unwrap().total, 0.0);
    learner.network().read(&mut read).unwrap();
    assert_eq!(read, weights);
    let network = learner.network();
    assert_ne!(network.nll(&case.batch(), ALPHABET).unwrap(), other);
    assert_eq!(
        network.nll(&case.batch(), ALPHABET).unwrap(),
        exact().nll(&case.batch(), ALPHABET).unwrap()
    );
}

#[test]
fn batch_of_another_shape_is_refused() {
    let mut network = exact();
    let case = Case::new(2, false, false);
    let refused = |network: &mut CpuNetwork<Nano, Exact>, batch: Batch<'_>| {
        network.accumulate(&batch, ALPHABET).unwrap_err().to_string()
    };
    let batch = case.batch();
    let text = refused(
        &mut network,
        Batch {
            tokens: &case.tokens[1..],
            ..batch
        },
    );
    assert_eq!(text, "63 tokens where 32 belong");
    let text = refused(
        &mut network,
        Batch {
            sigma: &[0.0; 3],
            ..batch
        },
    );
    assert_eq!(text, "3 values of sigma where 2 belong");
    let targets = vec![ALPHABET.mask; case.targets.len()];
    let text = refused(
        &mut network,
        Batch {
            targets: &targets,
            ..batch
        },
    );
    assert_eq!(
        text,
        "target 500 at 0 is not in the support of 501 tokens without the mask 500"
    );
    let mut tokens = case.tokens.clone();
    tokens[9] = 512;
    let text = refused(
        &mut network,
        Batch {
            tokens: &tokens,
            ..batch
        },
    );
    assert_eq!(text, "token 512 at 9 of a vocabulary of 512");
    let positions: Vec<u32> = case.positions.iter().rev().copied().collect();
    let text = refused(
        &mut network,
        Batch {
            positions: &positions,
            ..batch
        },
    );
    assert_eq!(text, "positions must ascend within the batch");
    let nothing = Batch {
        positions: &[],
        targets: &[],
        weights: &[],
        ..batch
    };
    assert_eq!(network.accumulate(&nothing, ALPHABET).unwrap(), Vec::<f32>::new());
}
