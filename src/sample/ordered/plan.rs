//! How many tokens each step unmasks: a function of the masked tokens of the row's blocks.

use std::f64::consts::FRAC_PI_2;

use crate::manifest::UnmaskingSchedule;

/// What a step unmasks of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The block.
    pub block: usize,
    /// Tokens of it.
    pub tokens: u32,
    /// Which of the block's steps it is, from 0.
    pub index: u32,
    /// Of how many.
    pub count: u32,
}

/// The share of step `step` of `steps`, for blocks with so many masked tokens at the start; nothing past the last token.
///
/// Blocks follow each other. Each one with masked tokens has one step at least, and no more than masked tokens; what is left
/// of the steps is shared in proportion to the tokens beyond the first. Every step unmasks one token at least.
#[must_use]
pub fn share(masked: &[u32], step: u32, steps: u32, schedule: UnmaskingSchedule) -> Option<Share> {
    let blocks = masked.iter().filter(|&&n| n > 0).count() as u64;
    let total: u64 = masked.iter().map(|&n| u64::from(n)).sum();
    let (steps, beyond) = (u64::from(steps).clamp(blocks, total.max(blocks)), total - blocks);
    let spare = steps - blocks;
    let (mut first, mut before) = (0, 0);
    for (block, &n) in masked.iter().enumerate().filter(|(_, n)| **n > 0) {
        let after = before + u64::from(n - 1);
        let part = |sum: u64| (spare * sum).checked_div(beyond).unwrap_or(0);
        let count = (1 + part(after) - part(before)) as u32;
        if step < first + count {
            let index = step - first;
            return Some(Share {
                block,
                tokens: left(n, index, count, schedule) - left(n, index + 1, count, schedule),
                index,
                count,
            });
        }
        (first, before) = (first + count, after);
    }
    None
}

/// Of `n` masked tokens those that are masked still after `done` of `count` steps, count ≤ n: so few that every step so far
/// has unmasked one, and so many that every later one can.
fn left(n: u32, done: u32, count: u32, schedule: UnmaskingSchedule) -> u32 {
    let ahead = count - done;
    match schedule {
        // n / count each, the first n mod count one more.
        UnmaskingSchedule::Linear => n - done * (n / count) - done.min(n % count),
        UnmaskingSchedule::Cosine if ahead == 0 => 0,
        UnmaskingSchedule::Cosine => {
            let share = (FRAC_PI_2 * f64::from(done) / f64::from(count)).cos();
            ((f64::from(n) * share) as u32).clamp(ahead, n - done)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tokens(masked: &[u32], steps: u32, schedule: UnmaskingSchedule) -> Vec<(usize, u32)> {
        (0..steps)
            .map_while(|step| share(masked, step, steps, schedule))
            .map(|share| (share.block, share.tokens))
            .collect()
    }

    #[test]
    fn steps_share_tokens_evenly_with_the_remainder_first() {
        let linear = UnmaskingSchedule::Linear;
        // LLaDA's get_num_transfer_tokens of 10 tokens in 4 steps.
        assert_eq!(tokens(&[10], 4, linear), [(0, 3), (0, 3), (0, 2), (0, 2)]);
        assert_eq!(tokens(&[4, 4], 4, linear), [(0, 2), (0, 2), (1, 2), (1, 2)]);
        assert_eq!(tokens(&[0, 2, 0, 1], 9, linear), [(1, 1), (1, 1), (3, 1)]);
        assert_eq!(tokens(&[3, 3], 2, linear), [(0, 3), (1, 3)]);
        assert_eq!(tokens(&[0, 0], 2, linear), []);
    }

    #[test]
    fn cosine_schedule_unmasks_few_tokens_at_first() {
        // 16 cos(π r / 2) at r = 1/4, 2/4, 3/4: 14.8, 11.3, 6.1.
        let found = tokens(&[16], 4, UnmaskingSchedule::Cosine);
        assert_eq!(found, [(0, 2), (0, 3), (0, 5), (0, 6)]);
        assert_eq!(tokens(&[4], 4, UnmaskingSchedule::Cosine), [(0, 1); 4]);
    }

    proptest! {
        #[test]
        fn plan_unmasks_a_token_in_every_step_and_all_in_all_steps(
            masked in prop::collection::vec(0_u32..20, 1..8), steps in 1_u32..200, is_cosine: bool,
        ) {
            let blocks = masked.iter().filter(|&&n| n > 0).count() as u32;
            let steps = steps.max(blocks);
            let schedule = if is_cosine { UnmaskingSchedule::Cosine } else { UnmaskingSchedule::Linear };
            let found = tokens(&masked, steps, schedule);
            prop_assert!(found.iter().all(|&(_, n)| n > 0));
            prop_assert!(found.is_sorted_by_key(|&(block, _)| block));
            for (block, &n) in masked.iter().enumerate() {
                let of_block = found.iter().filter(|(own, _)| *own == block).map(|(_, n)| n);
                prop_assert_eq!(of_block.sum::<u32>(), n);
            }
            let total: u32 = masked.iter().sum();
            prop_assert_eq!(found.len() as u32, steps.min(total));
        }
    }
}
