//! The plain transformer with keys and values kept: bit for bit what it computes from whole rows.

use super::*;
use crate::event::Cancel;
use crate::kernels::HostBackend;
use crate::model::causal_chain::CausalChain;
use crate::model::chain::HostChain;
use crate::model::dit::{Arch, Tiny};
use crate::sample::autoregressive::{Autoregressive, Ending};
use crate::sample::{DrawnRows, Sampling};

fn transformer<A: Arch>(precision: Precision) -> CpuNetwork<A, Fused> {
    let weights = weights_of(A::SHAPE, Backbone::Transformer);
    CpuNetwork::new(Fused::with_precision(precision), Backbone::Transformer, &weights).unwrap()
}

/// A chain that caches the first `rows` of its rows.
fn with_room<'a, A: Arch, B: HostBackend>(
    network: &'a CpuNetwork<A, B>,
    tokens: &[u32],
    rows: usize,
) -> CausalChain<'a, A, B> {
    CausalChain::with_room(network, (&network.backend, &network.dit), tokens, rows).unwrap()
}

/// A request that owns its parts.
struct Asked {
    rows: Vec<u32>,
    positions: Vec<u32>,
    actions: Vec<Action>,
    uniforms: Vec<f64>,
    pattern: Pattern,
}

impl Asked {
    /// About these positions of rows; draws are reported.
    fn at(length: usize, rows: &[(u32, &[u32])]) -> Self {
        let flat = |(i, (_, positions)): (usize, &(u32, &[u32]))| {
            positions
                .iter()
                .map(move |l| (i * length) as u32 + l)
                .collect::<Vec<_>>()
        };
        let positions: Vec<u32> = rows.iter().enumerate().flat_map(flat).collect();
        Self {
            rows: rows.iter().map(|(row, _)| *row).collect(),
            actions: vec![Action::Report; positions.len()],
            uniforms: vec![0.5; positions.len()],
            positions,
            pattern: Pattern::Causal,
        }
    }

    /// Some rows of `count`, some of their positions or all up to one, under a causal pattern most often.
    fn random(dice: &mut Dice, count: usize, length: usize) -> Self {
        let (mut rows, mut positions) = (Vec::new(), Vec::new());
        for row in 0..count as u32 {
            // The last one is left out only where another is asked about.
            if dice.below(3) == 0 && (row + 1 < count as u32 || !rows.is_empty()) {
                continue;
            }
            let first = (rows.len() * length) as u32;
            rows.push(row);
            let last = dice.below(length as u64) as u32;
            match dice.below(5) {
                // A row without questions.
                0 => {}
                1 => positions.extend((0..=last).map(|l| first + l)),
                2 => positions.extend((0..=last).filter(|_| dice.below(4) == 0).map(|l| first + l)),
                _ => positions.push(first + last),
            }
        }
        let action = |draw| [Action::Evaluate, Action::Commit, Action::Report][draw as usize];
        Self {
            actions: positions.iter().map(|_| action(dice.below(3))).collect(),
            uniforms: positions
                .iter()
                .map(|_| dice.below(1000) as f64 / 1000.0)
                .collect(),
            rows,
            positions,
            pattern: match dice.below(8) {
                0 => Pattern::Full,
                1 => Pattern::BlockCausal { block: 8 },
                2 => Pattern::BlockCausal { block: 1 },
                _ => Pattern::Causal,
            },
        }
    }

    fn request(&self) -> Request<'_> {
        Request {
            rows: &self.rows,
            positions: &self.positions,
            actions: &self.actions,
            uniforms: &self.uniforms,
            confidence: true,
            sigma: 0.0,
            pattern: self.pattern,
            temperature: 0.9,
            support: ALPHABET,
            edits: crate::model::LogitEdits::NONE,
        }
    }
}

/// Numbers of a stream, one after the other.
struct Dice(Random, u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.1 += 1;
        self.0.below(n, self.1, 0, 0)
    }
}

/// Random requests and writes: logits, draws and tokens of both chains, `room` of the rows being cached.
fn compare_chains<A: Arch>(
    network: &CpuNetwork<A, Fused>,
    (count, room): (usize, usize),
    events: usize,
    seed: u64,
) {
    let length = A::SHAPE.length;
    let mut dice = Dice(Random::new(seed, Stream::Synthetic), 0);
    let tokens = Text::random(count, length, ALPHABET.mask).tokens;
    let mut cached = with_room(network, &tokens, room);
    let mut whole = HostChain::new(network, &tokens);
    for event in 0..events {
        match dice.below(4) {
            0 => {
                let some = dice.below(4) as usize;
                let places = (0..some).map(|_| dice.below((count * length) as u64) as usize);
                let places: Vec<usize> = places.collect();
                // Every other write changes nothing.
                let now = whole.tokens().unwrap();
                let token = |&place: &usize| {
                    if dice.below(2) == 0 {
                        now[place]
                    } else {
                        dice.below(500) as u32
                    }
                };
                let tokens: Vec<u32> = places.iter().map(token).collect();
                cached.write(&places, &tokens).unwrap();
                whole.write(&places, &tokens).unwrap();
            }
            1 => {
                let asked = Asked::random(&mut dice, count, length);
                let found = cached.logits(&asked.request()).unwrap();
                let expected = whole.logits(&asked.request()).unwrap();
                assert!(bits(&found) == bits(&expected), "logits of event {event}");
            }
            _ => {
                let asked = Asked::random(&mut dice, count, length);
                let found = cached.draw(&asked.request()).unwrap();
                assert_eq!(
                    found,
                    whole.draw(&asked.request()).unwrap(),
                    "draws of event {event}"
                );
            }
        }
        assert_eq!(cached.tokens().unwrap(), whole.tokens().unwrap());
    }
}

#[test]
fn cached_rows_answer_with_the_bits_of_whole_rows_whatever_is_asked_and_written() {
    let network = transformer::<Nano>(Precision::F32);
    for (seed, room) in [(1, 4), (2, 2), (3, 0)] {
        compare_chains(&network, (4, room), 40, seed);
    }
    compare_chains(&transformer::<Nano>(Precision::Bf16), (4, 2), 20, 5);
    // Rows of several blocks of queries.
    compare_chains(&transformer::<Tiny>(Precision::F32), (2, 2), 8, 4);
}

/// Where keys and values are asked for one after the other, each is computed once; a change makes those behind it new.
#[test]
fn cached_rows_compute_new_positions_alone() {
    let network = transformer::<Nano>(Precision::F32);
    let length = nano().length;
    let tokens = Text::random(2, length, ALPHABET.mask).tokens;
    let mut chain = with_room(&network, &tokens, 2);
    let draw = |chain: &mut CausalChain<'_, _, _>, rows: &[(u32, &[u32])]| {
        chain.draw(&Asked::at(length, rows).request()).unwrap();
        chain.cached().to_vec()
    };
    // A given beginning at once, then one position after the other.
    assert_eq!(draw(&mut chain, &[(0, &[4]), (1, &[9])]), [5, 10]);
    assert_eq!(draw(&mut chain, &[(0, &[5])]), [6, 10]);
    // Earlier positions do not shorten a row; later ones bring those before them along.
    assert_eq!(draw(&mut chain, &[(0, &[0, 3]), (1, &[2, 12])]), [6, 13]);
    // What is written behind the end or is there already changes nothing.
    chain.write(&[6, 2], &[7, tokens[2]]).unwrap();
    assert_eq!(chain.cached(), [6, 13]);
    chain
        .write(&[3, length], &[tokens[3] + 1, tokens[length] + 1])
        .unwrap();
    assert_eq!(chain.cached(), [3, 0]);
    // A committed token takes the place that was just read.
    let mut asked = Asked::at(length, &[(0, &[7]), (1, &[1, 6])]);
    asked.actions[1] = Action::Commit;
    chain.draw(&asked.request()).unwrap();
    assert_eq!(chain.cached(), [8, 1]);
    // Another pattern reads whole rows.
    asked.pattern = Pattern::Full;
    asked.actions[1] = Action::Report;
    chain.draw(&asked.request()).unwrap();
    assert_eq!(chain.cached(), [8, 1]);
}

/// The composite network in f64, too, answers as it does from whole rows.
#[test]
fn cached_rows_of_the_composite_agree_with_whole_rows() {
    let case = Case::next_token(nano(), ALPHABET, 2, false);
    let network = case.exact();
    let length = nano().length;
    let mut cached = with_room(&network, &case.tokens, 2);
    let whole = HostChain::new(&network, &case.tokens);
    for asked in [
        Asked::at(length, &[(0, &[3]), (1, &[0, 10])]),
        Asked::at(length, &[(0, &[4]), (1, &[5, 11])]),
        Asked::at(length, &[(0, &[0, 31])]),
    ] {
        let found = cached.logits(&asked.request()).unwrap();
        // Rounded from f64, sums of dfdx being in another order where there are fewer rows.
        assert_close(&found, &whole.logits(&asked.request()).unwrap(), 1e-6);
    }
}

/// Texts of the public loop: for any micro-batch, with rows that end early, and with given ends.
#[test]
fn cached_rows_give_the_texts_of_recomputed_ones() {
    let support = VocabSupport::without_mask(500, 12);
    let base = Sampling {
        temperature: 0.8,
        micro_batch: 6,
        ..Sampling::new(6, 1, support, 3)
    };
    let run = |task: Sampling<'_>, ending, network: &dyn Network| -> DrawnRows {
        let mut sampler = Autoregressive {
            bos: 3,
            mask: 500,
            ending,
        };
        task.run(&mut sampler, network, &Cancel::default(), &mut |_| ())
            .unwrap()
    };
    let network = transformer::<Nano>(Precision::F32);
    let recomputing = Recomputing(Box::new(transformer::<Nano>(Precision::F32)));
    let early = Some(Ending { eos: 5, pad: 6 });
    for (ending, ends) in [(None, [None; 2]), (early, [None; 2]), (None, [Some(7), Some(8)])] {
        let task = Sampling { ends, ..base };
        let expected = run(task, ending, &recomputing);
        for micro_batch in [1, 4, 6] {
            let drawn = run(Sampling { micro_batch, ..task }, ending, &network);
            assert_eq!(drawn, expected, "micro-batches of {micro_batch}");
        }
        let calls = &expected.network_calls;
        assert_eq!(
            calls.iter().any(|&calls| calls < 20),
            ending.is_some(),
            "{calls:?}"
        );
    }
}

#[test]
fn cached_rows_refuse_a_time_input_rows_out_of_order_and_places_beyond_the_chain() {
    let network = transformer::<Nano>(Precision::F32);
    let length = nano().length;
    let tokens = Text::random(2, length, ALPHABET.mask).tokens;
    let mut chain = network.chain(&tokens).unwrap();
    for asked in [
        Asked::at(length, &[(1, &[3]), (0, &[3])]),
        Asked::at(length, &[(0, &[3]), (2, &[3])]),
        Asked::at(length, &[(0, &[4, 3])]),
        Asked::at(length, &[(0, &[3]), (1, &[length as u32])]),
    ] {
        assert!(chain.draw(&asked.request()).is_err(), "{:?}", asked.positions);
    }
    assert!(chain.write(&[2 * length], &[1]).is_err());
    chain.write(&[5], &[512]).unwrap();
    let asked = Asked::at(length, &[(0, &[6])]);
    assert!(chain.draw(&asked.request()).is_err());
    chain.write(&[5], &[1]).unwrap();
    chain.draw(&asked.request()).unwrap();

    let error = step_of_dit(&Fused::default()).unwrap_err();
    assert!(error.to_string().contains("time input"), "{error}");
}

fn step_of_dit<B: HostBackend>(backend: &B) -> Result<()> {
    let dit = Dit::<Nano, B>::new(backend, Backbone::Dit, &weights())?;
    let mut cache = dit.cache(backend, 1)?;
    let tokens = backend.tokens(&[1])?;
    dit.step(backend, &tokens, &[0], &[0], &mut cache).map(drop)
}
