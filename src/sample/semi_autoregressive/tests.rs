use super::*;
use crate::diffusion::EVERY_SCHEDULE;
use crate::manifest::Grid;
use crate::model::toy::{self, Distribution};
use crate::sample::cached::Cached;
use crate::sample::tests::{posterior, task};

#[expect(clippy::unnecessary_wraps, reason = "as windows make their samplers")]
fn cached() -> Result<Box<dyn Sampler>> {
    Ok(Box::new(Cached {
        grid: Grid::Exact,
        posterior: posterior(EVERY_SCHEDULE[0], 3),
    }))
}

fn run(windows: SemiAutoregressive, sampling: &Sampling<'_>, network: &toy::Posterior) -> LongRows {
    let mut emitted = vec![Vec::new(); sampling.count as usize];
    let drawn = windows
        .run(
            sampling,
            &cached,
            network,
            &Cancel::default(),
            &mut |_, _| (),
            &mut |window| {
                emitted[window.row].extend_from_slice(window.tokens);
                Ok(())
            },
        )
        .unwrap();
    assert_eq!(emitted, drawn.tokens, "what comes is what is kept");
    drawn
}

const PLAIN: SemiAutoregressive = SemiAutoregressive {
    stride: 2,
    length: 7,
    end: None,
    window_steps: 1000,
};

#[test]
fn later_windows_are_draws_given_their_carried_tokens() {
    let truth = Distribution::random(3, 3, 4);
    let network = toy::Posterior::new(truth.clone());
    let sampling = Sampling {
        count: 10_000,
        steps: 1000,
        ..task(&truth)
    };
    let drawn = run(PLAIN, &sampling, &network);
    assert_eq!(drawn.windows, 3);
    assert!(
        drawn
            .tokens
            .iter()
            .all(|text| text.len() == 7 && text.iter().all(|&token| token < 3))
    );
    let probability = |row: &[u32]| truth.probabilities[truth.index(row)];
    for window in 0..3 {
        // The window's three tokens, given its first one if that is carried over.
        let mut counts = vec![0.0; 27];
        for text in &drawn.tokens {
            counts[truth.index(&text[2 * window..][..3])] += 1.0;
        }
        let chi: f64 = (0..27)
            .map(|index| {
                let row = truth.row(index);
                let of = |row: &[u32]| window == 0 || row[0] == truth.row(index)[0];
                let same = (0..27)
                    .map(|other| (other, truth.row(other)))
                    .filter(|(_, other)| of(other));
                let (mut count, mut total) = (0.0, 0.0);
                for (other, row) in same {
                    count += counts[other];
                    total += probability(&row);
                }
                let expected = count * probability(&row) / total;
                (counts[index] - expected).powi(2) / expected
            })
            .sum();
        // 26 degrees of freedom, 24 given the first token; 1e-4 quantile 61.7.
        assert!(chi < 61.7, "window {window}: chi-square {chi}");
    }
    // A window later than the first asks about two tokens at most.
    assert!(drawn.network_calls.iter().all(|&calls| calls <= 3 + 2 + 2));
}

#[test]
fn windows_use_random_numbers_of_their_own() {
    // Every window begins with the same carried token: without numbers of their own they would all be the same.
    let truth = Distribution {
        length: 3,
        letters: 3,
        probabilities: vec![1.0 / 27.0; 27],
    };
    let network = toy::Posterior::new(truth.clone());
    let long = SemiAutoregressive {
        length: 401,
        window_steps: 4,
        ..PLAIN
    };
    let sampling = Sampling {
        count: 1,
        steps: 4,
        ..task(&truth)
    };
    let drawn = run(long, &sampling, &network);
    let pairs: std::collections::BTreeSet<&[u32]> = drawn.tokens[0][1..].chunks(2).collect();
    assert_eq!(pairs.len(), 9);
    assert_eq!(
        run(long, &sampling, &network),
        drawn,
        "the same seed, the same text"
    );
}

#[test]
fn text_ends_at_its_first_end_after_the_beginning() {
    let truth = Distribution::random(3, 3, 4);
    let network = toy::Posterior::new(truth.clone());
    let windows = SemiAutoregressive {
        length: 40,
        end: Some(1),
        ..PLAIN
    };
    let sampling = Sampling {
        ends: [Some(1), None],
        count: 300,
        steps: 4,
        ..task(&truth)
    };
    let drawn = run(windows, &sampling, &network);
    let lengths: std::collections::BTreeSet<usize> = drawn.tokens.iter().map(Vec::len).collect();
    assert!(lengths.len() > 3, "{lengths:?}");
    for (text, &calls) in drawn.tokens.iter().zip(&drawn.network_calls) {
        assert_eq!(text[0], 1);
        let end = text[1..].iter().position(|&token| token == 1);
        assert!(text.len() <= 40);
        if text.len() < 40 {
            assert_eq!(end, Some(text.len() - 2), "{text:?}");
        }
        // A text that has ended is not asked about again.
        let windows = 1 + text.len().saturating_sub(3).div_ceil(2) as u32;
        assert!(calls <= 2 + 2 * windows, "{calls} for {text:?}");
    }
}

#[test]
fn texts_of_a_row_or_less_take_one_window() {
    let truth = Distribution::random(3, 3, 4);
    let network = toy::Posterior::new(truth.clone());
    for length in [2, 3] {
        let windows = SemiAutoregressive { length, ..PLAIN };
        let drawn = run(windows, &task(&truth), &network);
        assert_eq!(drawn.windows, 1);
        assert!(drawn.tokens.iter().all(|text| text.len() == length));
    }
    for stride in [0, 3] {
        let windows = SemiAutoregressive { stride, ..PLAIN };
        let found = windows.run(
            &task(&truth),
            &cached,
            &network,
            &Cancel::default(),
            &mut |_, _| (),
            &mut |_| Ok(()),
        );
        assert_eq!(found.unwrap_err().kind(), crate::error::Kind::Internal);
    }
}
