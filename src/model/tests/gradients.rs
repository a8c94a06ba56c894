//! Gradients: against finite differences, and in parts of a batch.

use super::*;

/// The gradient of the loss in f64 against central differences, at two entries of every parameter.
#[test]
fn gradients_of_the_whole_network_match_finite_differences() {
    for case in Case::of_both(2) {
        match_finite_differences(&case, ALPHABET);
    }
}

/// The same of every loss with constants, for a noise level of the row and without.
#[test]
fn gradients_of_every_loss_match_finite_differences() {
    for (loss, support) in LOSSES {
        let conditioned = loss == Loss::ScoreEntropy;
        let case = Case::new(1, conditioned, !conditioned).with_loss(loss);
        match_finite_differences(&case, support);
    }
}

fn match_finite_differences(case: &Case, support: VocabSupport) {
    let (backbone, weights) = (case.backbone, case.network_weights());
    let loss = |weights: &[f32]| {
        let backend = Exact::new(Cpu::default());
        let dit = Dit::<Nano, Exact>::new(&backend, backbone, weights).unwrap();
        let (loss, _) = dit.nll(&backend, &case.batch(), support).unwrap();
        backend.wide_values(&loss)[0]
    };
    let backend = Exact::new(Cpu::default());
    let dit = Dit::<Nano, Exact>::new(&backend, backbone, &weights).unwrap();
    backend.record(Accumulated::default());
    let (total, _) = dit.nll(&backend, &case.batch(), support).unwrap();
    let gradient = backend.backward(total).unwrap().wide();
    for (index, parameter) in parameters(nano(), backbone).iter().enumerate() {
        let own = &gradient[parameter.offset..][..parameter.len()];
        assert!(own.iter().any(|&g| g != 0.0), "{}: no gradient", parameter.name);
        let any =
            Random::new(1, Stream::Permutation).below(parameter.len() as u64, 0, index as u64, 0) as usize;
        // The steepest entry, and any.
        let steepest = (0..own.len())
            .max_by(|&a, &b| own[a].abs().total_cmp(&own[b].abs()))
            .unwrap();
        for entry in [steepest, any] {
            let at = |step: f32| {
                let mut moved = weights.clone();
                moved[parameter.offset + entry] += step;
                (f64::from(moved[parameter.offset + entry]), loss(&moved))
            };
            let slope = |step: f32| {
                let ((from, below), (to, above)) = (at(-step), at(step));
                (above - below) / (to - from)
            };
            // Richardson: the h² term of the central difference cancels.
            let found = (4.0 * slope(1.0 / 1024.0) - slope(1.0 / 512.0)) / 3.0;
            let error = (found - own[entry]).abs();
            // 1e-8: what is left is of order h⁴ ~ 1e-12 times a fifth derivative; rounding adds 1e-16 / h.
            assert!(
                error < 1e-8 + 1e-6 * own[entry].abs(),
                "{}[{entry}]: {} by the tape, {found} by differences",
                parameter.name,
                own[entry]
            );
        }
    }
}

/// The promise on which resuming rests: the same bits for any micro-batch and any number of threads.
#[test]
fn gradients_have_the_same_bits_for_any_micro_batch_and_threads() {
    let [dit, transformer] = Case::of_both(6);
    let with = |loss| Case::new(6, true, true).with_loss(loss);
    let cases = [
        (Case::new(6, false, true), Precision::F32, ALPHABET),
        (dit, Precision::F32, ALPHABET),
        (Case::new(6, false, true), Precision::Bf16, ALPHABET),
        (transformer, Precision::F32, ALPHABET),
        (with(Loss::AbsorbingKl), Precision::F32, WITH_MASK),
        (with(Loss::ScoreEntropy), Precision::F32, ALPHABET),
    ];
    for (case, precision, support) in cases {
        let bits = |micro: usize, threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| {
                let backend = Fused::with_precision(precision);
                let weights = case.network_weights();
                let mut network = CpuNetwork::<Nano, _>::new(backend, case.backbone, &weights).unwrap();
                let mut nll = Vec::new();
                for first in (0..6).step_by(micro) {
                    let part = case.part(first..(first + micro).min(6));
                    nll.extend(network.accumulate(&part.batch(), support).unwrap());
                }
                let all = nll.into_iter().chain(gradient(&mut network));
                all.map(f32::to_bits).collect::<Vec<_>>()
            })
        };
        let whole = bits(6, 1);
        for (micro, threads) in [(6, 2), (3, 1), (2, 3), (1, 1), (4, 2)] {
            assert!(
                bits(micro, threads) == whole,
                "micro-batches of {micro} on {threads} threads"
            );
        }
    }
}

#[test]
fn micro_batches_accumulate_to_the_gradient_of_the_batch() {
    let [dit, transformer] = Case::of_both(3);
    for case in [Case::new(3, false, true), dit, transformer] {
        let (mut whole, mut parts) = (case.exact(), case.exact());
        let nll = whole.accumulate(&case.batch(), ALPHABET).unwrap();
        let mut nll_parts = parts.accumulate(&case.part(0..1).batch(), ALPHABET).unwrap();
        nll_parts.extend(parts.accumulate(&case.part(1..3).batch(), ALPHABET).unwrap());
        // 1e-6: f64 inside, handed out as f32.
        assert_close(&nll_parts, &nll, 1e-6);
        assert_close(&gradient(&mut parts), &gradient(&mut whole), 1e-6);
    }
}
