//! The CUDA backend, its kernels emulated: against the CPU's.

use dfdx::shapes::Const;

use super::*;
use crate::kernels::adamw::{AdamW, Update};
use crate::kernels::cuda::Cuda;
use crate::kernels::cuda::device::Device;
use crate::kernels::cuda::driver::{DType, Driver};
use crate::kernels::cuda::emulated::Emulated;
use crate::model::LogitEdits;
use crate::model::dit::Arch;

/// Heads 64 wide, a vocabulary and a row that no tile divides.
struct Odd;

impl Arch for Odd {
    type V = Const<131>;
    type L = Const<72>;
    type D = Const<128>;
    type D2 = Const<256>;
    type D3 = Const<384>;
    type D6 = Const<768>;
    type F = Const<512>;
    type C = Const<32>;
    const HEADS: usize = 2;
    const BLOCKS: usize = 2;
    const SHAPE: &'static Shape = &Shape {
        name: "odd",
        vocabulary: 131,
        length: 72,
        width: 128,
        heads: 2,
        blocks: 2,
        conditioning: 32,
    };
}

fn emulated<A: Arch>(element: DType) -> CudaLearner<A> {
    emulated_of(Backbone::Dit, element, &weights_of(A::SHAPE, Backbone::Dit))
}

fn emulated_of<A: Arch>(backbone: Backbone, element: DType, weights: &[f32]) -> CudaLearner<A> {
    let cuda = Cuda::new(Box::new(Emulated::default()), element);
    CudaLearner::new(cuda, backbone, weights).unwrap()
}

fn host<A: Arch>() -> HostLearner<CpuNetwork<A, Fused>> {
    host_of(Backbone::Dit)
}

fn host_of<A: Arch>(backbone: Backbone) -> HostLearner<CpuNetwork<A, Fused>> {
    let weights = weights_of(A::SHAPE, backbone);
    let network = CpuNetwork::new(Fused::default(), backbone, &weights).unwrap();
    HostLearner::new(network).unwrap()
}

/// A batch of the network: of the DiT with some tokens masked and one time, of the plain transformer with next tokens.
fn case_of(shape: &Shape, backbone: Backbone, support: VocabSupport, rows: usize) -> Case {
    match backbone {
        Backbone::Dit => Case::of(shape, support, rows, false, true),
        Backbone::Transformer => Case::next_token(shape, support, rows, true),
    }
}

/// Gradient and loss accumulated so far.
fn accumulated(learner: &mut dyn Learner) -> (Vec<f32>, f64) {
    let mut found = (Vec::new(), 0.0);
    learner
        .reduce(&mut |gradient, loss| {
            found = (gradient.to_vec(), *loss);
            Ok(())
        })
        .unwrap();
    found
}

fn norm(values: impl Iterator<Item = f32>) -> f64 {
    values.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt()
}

/// Loss, logits and every gradient, against the fused backend: `loss` off at most, and each parameter's gradient
/// `slope` of its norm.
fn agree<A: Arch>(support: VocabSupport, element: DType, loss: f32, slope: f64) {
    agree_on::<A>(&|| Box::new(Emulated::default()), support, element, loss, slope);
}

fn agree_on<A: Arch>(
    device: &dyn Fn() -> Box<dyn Driver>,
    support: VocabSupport,
    element: DType,
    loss: f32,
    slope: f64,
) {
    for case in [
        Case::of(A::SHAPE, support, 3, false, false),
        Case::of(A::SHAPE, support, 3, true, true),
        Case::next_token(A::SHAPE, support, 3, true),
    ] {
        let cuda = Cuda::new(device(), element);
        let weights = weights_of(A::SHAPE, case.backbone);
        let mut cuda = CudaLearner::<A>::new(cuda, case.backbone, &weights).unwrap();
        let mut fused = host_of::<A>(case.backbone);
        for learner in [&mut cuda as &mut dyn Learner, &mut fused] {
            learner.accumulate(&case.batch(), support).unwrap();
        }
        let nll = fused.network().nll(&case.batch(), support).unwrap();
        assert_close(&cuda.network().nll(&case.batch(), support).unwrap(), &nll, loss);
        let ((found, found_loss), (expected, expected_loss)) =
            (accumulated(&mut cuda), accumulated(&mut fused));
        let scale: f64 = case.weights.iter().map(|&weight| f64::from(weight)).sum();
        assert!(
            (found_loss - expected_loss).abs() <= f64::from(loss) * (scale + expected_loss),
            "{found_loss}, {expected_loss}"
        );
        for parameter in parameters(A::SHAPE, case.backbone) {
            let own = parameter.range();
            let off = norm(
                found[own.clone()]
                    .iter()
                    .zip(&expected[own.clone()])
                    .map(|(a, b)| a - b),
            );
            let whole = norm(expected[own].iter().copied());
            assert!(
                off <= slope * whole,
                "{} in {element:?}: off by {} of its norm",
                parameter.name,
                off / whole
            );
        }
        let logits = |network: &dyn Network| case.logits(network, &case.everywhere());
        assert_close(&logits(cuda.network()), &logits(fused.network()), loss);
    }
}

const ODD: VocabSupport = VocabSupport::without_mask(129, 130);

/// Every loss, each with another pattern; the device fills positions up, and those weigh nothing.
#[test]
fn losses_and_patterns_agree_with_the_cpu() {
    let blocks = Pattern::BlockCausal { block: 20 };
    let with_mask = VocabSupport::with_mask(129, 130);
    for (loss, support, pattern, own) in [
        (Loss::CrossEntropy, ODD, Pattern::Causal, None),
        (Loss::AbsorbingKl, with_mask, blocks, Some([0.1, 3.0, 2.0])),
        (Loss::AbsorbingKl, ODD, Pattern::Full, Some([0.3, 2.0, 1.0])),
        (Loss::ScoreEntropy, ODD, Pattern::Full, Some([0.7, 5.0, 0.0])),
        (Loss::ScoreEntropy, ODD, Pattern::Causal, Some([0.7, 5.0, 1.0])),
    ] {
        let case = Case::of(Odd::SHAPE, support, 3, false, false);
        let constants: Vec<Constants> = case.positions.iter().filter_map(|_| own).collect();
        let batch = Batch {
            loss,
            constants: &constants,
            pattern,
            ..case.batch()
        };
        let mut cuda = emulated::<Odd>(DType::F32);
        let mut fused = host::<Odd>();
        let losses = fused.network().nll(&batch, support).unwrap();
        // 1e-4 as below.
        assert_close(&cuda.network().nll(&batch, support).unwrap(), &losses, 1e-4);
        for learner in [&mut cuda as &mut dyn Learner, &mut fused] {
            learner.accumulate(&batch, support).unwrap();
        }
        let ((found, found_loss), (expected, expected_loss)) =
            (accumulated(&mut cuda), accumulated(&mut fused));
        let off = norm(found.iter().zip(&expected).map(|(a, b)| a - b));
        assert!(off <= 1e-4 * norm(expected.iter().copied()), "{loss:?}: {off}");
        let weighted = losses.iter().zip(&case.weights);
        let total: f64 = weighted.map(|(&l, &w)| f64::from(l) * f64::from(w)).sum();
        for found in [found_loss, expected_loss] {
            assert!(
                (found - total).abs() <= 1e-4 * (1.0 + total.abs()),
                "{loss:?}: {found}, {total}"
            );
        }
        // Another pattern, other losses.
        let full = Batch {
            pattern: if pattern == Pattern::Full {
                Pattern::Causal
            } else {
                Pattern::Full
            },
            ..batch
        };
        assert_ne!(fused.network().nll(&full, support).unwrap(), losses);
    }
}

/// 1e-4: sums in another order, and exponentials of another library, through two blocks in f32.
#[test]
fn f32_emulated_network_agrees_with_the_cpu() {
    agree::<Nano>(ALPHABET, DType::F32, 1e-4, 1e-4);
    agree::<Odd>(ODD, DType::F32, 1e-4, 1e-4);
    // Products may know no epilogue.
    let plain: &dyn Fn() -> Box<dyn Driver> = &|| Box::new(Emulated::without_epilogues());
    agree_on::<Odd>(plain, ODD, DType::F32, 1e-4, 1e-4);
}

/// 2^-9 a rounding, through two blocks, on losses of order one to ten.
#[test]
fn bf16_emulated_network_is_near_the_cpu() {
    agree::<Nano>(ALPHABET, DType::Bf16, 0.05, 0.05);
    agree::<Odd>(ODD, DType::Bf16, 0.05, 0.05);
}

/// The same on a real device, where there is one.
#[test]
fn device_network_agrees_with_the_cpu() {
    let Some(device) = crate::require::require("gpu", Device::open(0)) else {
        return;
    };
    println!("on {}", device.name());
    drop(device);
    let device: &dyn Fn() -> Box<dyn Driver> = &|| Box::new(Device::open(0).unwrap());
    for (element, tolerance) in [(DType::F32, 1e-4), (DType::Bf16, 0.05)] {
        agree_on::<Nano>(device, ALPHABET, element, tolerance, f64::from(tolerance));
        agree_on::<Odd>(device, ODD, element, tolerance, f64::from(tolerance));
    }
}

/// Steps of AdamW on changing batches; the weights and moments after them.
fn train(
    learner: &mut dyn Learner,
    support: VocabSupport,
    steps: std::ops::Range<u64>,
) -> (Vec<f32>, Moments) {
    let shape = learner.network().shape();
    let adam = AdamW {
        weight_decay: 0.01,
        ..AdamW::default()
    };
    for step in steps {
        let mut case = case_of(shape, learner.network().backbone(), support, 2);
        case.dropout = case.dropout.map(|dropout| Dropout { step, ..dropout });
        learner.accumulate(&case.batch(), support).unwrap();
        let update = Update {
            number: step + 1,
            learning_rate: 1e-3,
            ema_decay: 0.9,
        };
        learner.update(adam, update, 1.0).unwrap();
        assert!(!learner.outcome().unwrap().unwrap().halted);
    }
    let moments = learner.moments().unwrap();
    let mut weights = vec![0.0; moments.ema.len()];
    learner.network().read(&mut weights).unwrap();
    (weights, moments)
}

fn ten_steps<A: Arch>(backbone: Backbone, support: VocabSupport) {
    let start = weights_of(A::SHAPE, backbone);
    let device = |element| emulated_of::<A>(backbone, element, &start);
    let (expected, _) = train(&mut host_of::<A>(backbone), support, 0..10);
    // AdamW moves every weight by about the learning rate whatever its gradient: of small gradients rounding shows.
    for (element, tolerance) in [(DType::F32, 2e-3), (DType::Bf16, 0.2)] {
        let (whole, whole_moments) = train(&mut device(element), support, 0..10);
        let moved = norm(expected.iter().zip(&start).map(|(a, b)| a - b));
        let off = norm(expected.iter().zip(&whole).map(|(a, b)| a - b));
        assert!(
            off <= tolerance * moved,
            "{element:?}: off by {} of the way",
            off / moved
        );

        let (half, moments) = train(&mut device(element), support, 0..5);
        let mut resumed = device(element);
        resumed.load(&half, moments).unwrap();
        let (end, moments) = train(&mut resumed, support, 5..10);
        assert!(
            bits(&end) == bits(&whole) && moments == whole_moments,
            "{element:?}: other bits after a resumption"
        );
    }
}

/// Two learners, each with some rows of a batch, sum gradients and losses: each makes the update of the whole batch.
fn halves<'a>(whole: &'a mut dyn Learner, ranks: [&'a mut dyn Learner; 2], tolerance: f64) {
    let case = Case::of(nano(), ALPHABET, 4, false, true);
    whole.accumulate(&case.batch(), ALPHABET).unwrap();
    let (gradient, loss) = accumulated(whole);
    let [first, second] = ranks;
    first.accumulate(&case.part(0..1).batch(), ALPHABET).unwrap();
    second.accumulate(&case.part(1..4).batch(), ALPHABET).unwrap();
    let parts = [accumulated(first), accumulated(second)];
    for rank in [&mut *first, &mut *second] {
        rank.reduce(&mut |gradient, loss| {
            for (i, sum) in gradient.iter_mut().enumerate() {
                *sum = parts[0].0[i] + parts[1].0[i];
            }
            *loss = parts[0].1 + parts[1].1;
            Ok(())
        })
        .unwrap();
        let (summed, summed_loss) = accumulated(rank);
        let off = norm(summed.iter().zip(&gradient).map(|(a, b)| a - b));
        assert!(off <= tolerance * norm(gradient.iter().copied()), "off by {off}");
        assert!((summed_loss - loss).abs() <= tolerance * loss);
    }
    let update = Update {
        number: 1,
        learning_rate: 1e-3,
        ema_decay: 0.5,
    };
    let adam = AdamW {
        weight_decay: 0.01,
        ..AdamW::default()
    };
    let ends = [first, second].map(|rank| {
        rank.update(adam, update, 1.0).unwrap();
        let outcome = rank.outcome().unwrap().unwrap();
        assert!((outcome.loss - loss).abs() <= tolerance * loss);
        let mut weights = vec![0.0; gradient.len()];
        rank.network().read(&mut weights).unwrap();
        (outcome.norm.total, weights, rank.moments().unwrap())
    });
    assert!(ends[0] == ends[1], "the ranks go different ways");
}

#[test]
fn all_reduce_over_parts_of_a_batch_equals_the_whole_on_any_device() {
    // 1e-5: the parts are summed in another order.
    halves(
        &mut host::<Nano>(),
        [&mut host::<Nano>(), &mut host::<Nano>()],
        1e-5,
    );
    let device = || emulated::<Nano>(DType::F32);
    halves(&mut device(), [&mut device(), &mut device()], 1e-5);
    // A rank without a masked token has no gradient of its own, and takes the others'.
    let mut idle = device();
    assert_eq!(accumulated(&mut idle).0, vec![0.0; weights().len()]);
    idle.reduce(&mut |gradient, _| {
        gradient.fill(0.25);
        Ok(())
    })
    .unwrap();
    assert_eq!(accumulated(&mut idle).0, vec![0.25; weights().len()]);
}

#[test]
fn resume_of_ten_steps_equals_a_whole_run_and_that_of_the_cpu() {
    ten_steps::<Nano>(Backbone::Dit, ALPHABET);
    ten_steps::<Nano>(Backbone::Transformer, ALPHABET);
    ten_steps::<Odd>(Backbone::Dit, ODD);
}

#[test]
fn transformer_on_a_device_equals_the_dit_without_time() {
    let case = Case::next_token(nano(), ALPHABET, 3, true);
    let plain = case.network_weights();
    for element in [DType::F32, DType::Bf16] {
        let of = |backbone, weights: &[f32]| {
            let mut learner = emulated_of::<Nano>(backbone, element, weights);
            learner.accumulate(&case.batch(), ALPHABET).unwrap();
            accumulated(&mut learner)
        };
        let (found, loss) = of(Backbone::Transformer, &plain);
        let (expected, expected_loss) = of(Backbone::Dit, &timeless(nano(), &plain));
        assert_eq!(loss.to_bits(), expected_loss.to_bits(), "{element:?}");
        assert!(
            bits(&found) == bits(&without_time(nano(), &expected)),
            "{element:?}: another gradient"
        );
    }
}

/// Rows continued token by token, in a chain on a device: the tokens, and the numbers reported, are the CPU's.
#[test]
fn causal_chain_on_a_device_draws_what_the_cpu_draws() {
    let case = Case::next_token(nano(), ALPHABET, 2, false);
    let cpu = case.fused();
    let device = emulated_of::<Nano>(case.backbone, DType::F32, &case.network_weights());
    let length = nano().length;
    let run = |network: &dyn Network, pattern: Pattern| {
        let mut chain = network.chain(&case.tokens).unwrap();
        let mut entropies = Vec::new();
        for step in 0..6 {
            let at = 9 + step;
            let random = Random::new(step as u64, Stream::Sample);
            let request = Request {
                rows: &[0, 1],
                positions: &[at as u32, (length + at) as u32],
                actions: &[Action::Report; 2],
                uniforms: &[random.uniform(0, 0, 0), random.uniform(0, 1, 0)],
                confidence: true,
                sigma: 0.0,
                pattern,
                temperature: 1.0,
                edits: LogitEdits::NONE,
                support: ALPHABET,
            };
            let draws = chain.draw(&request).unwrap();
            assert_eq!(draws.len(), 2);
            entropies.extend(draws.iter().map(|draw| draw.confidence.unwrap().entropy));
            let tokens: Vec<u32> = draws.iter().map(|draw| draw.token).collect();
            chain.write(&[at + 1, length + at + 1], &tokens).unwrap();
        }
        (chain.tokens().unwrap(), entropies)
    };
    let (expected, entropies) = run(&cpu, Pattern::Causal);
    assert_ne!(expected, case.tokens);
    let (found, found_entropies) = run(device.network(), Pattern::Causal);
    assert_eq!(found, expected);
    // 1e-3: of some nats, from logits that are sums in another order.
    for (found, expected) in found_entropies.iter().zip(&entropies) {
        assert!((found - expected).abs() < 1e-3, "{found}, {expected}");
    }
    let (_, full) = run(device.network(), Pattern::Full);
    assert!(
        full.iter()
            .zip(&entropies)
            .any(|(full, causal)| (full - causal).abs() > 1e-3)
    );
}

/// What lies on one device is not a tensor of another.
#[test]
fn tensors_of_another_device_are_refused() {
    let of = || Cuda::new(Box::new(Emulated::default()), DType::F32);
    let (one, other) = (of(), of());
    let table = one.param::<(Const<3>, Const<16>)>(&[1.0; 48]).unwrap();
    let x = one.embed(&table, &one.tokens(&[0, 2]).unwrap()).unwrap();
    assert!(one.gather(&x, &[1]).is_ok());
    for error in [
        other.gather(&x, &[1]).err().unwrap(),
        other.embed(&table, &other.tokens(&[0]).unwrap()).err().unwrap(),
    ] {
        assert!(error.to_string().contains("of another device"), "{error}");
    }
}
