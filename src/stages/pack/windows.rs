//! Overlapping windows of a text, in which every token is scored once.
//!
//! With P tokens of text a window and the stride S, 1 ≤ S ≤ P, window j has the tokens jS … jS + P − 1. The first scores all of
//! them, each later one its last S, which no window before has: the P − S before them are context. Where the text ends within
//! a window, r < S tokens are left that no window has scored; the last window then ends with the text, and scores these r
//! after P − r of context. A text of fewer than P tokens is one window, which is all scored.
//!
//! So the scored parts of the windows are the text, cut into pieces: none is lost and none counts twice. With S ≤ P / 2 every
//! token but the first P has at least P / 2 tokens of context.

use crate::error::Result;

/// Takes a window: its tokens, and how many of its first ones are context.
pub(super) type TakeWindow<'a> = &'a mut dyn FnMut(&[u32], usize) -> Result<()>;

/// A text that comes in pieces, cut into windows.
pub(super) struct Windows {
    /// P.
    tokens: usize,
    /// S.
    stride: usize,
    /// Whether there was a window yet.
    begun: bool,
    /// The last window, if there was one, and what is behind it.
    text: Vec<u32>,
}

impl Windows {
    /// Windows of so many tokens of text, each that much further on than the one before.
    pub(super) fn new(tokens: usize, stride: usize) -> Self {
        Self {
            tokens,
            stride,
            begun: false,
            text: Vec::new(),
        }
    }

    /// The text that waits: what is appended to it comes next.
    pub(super) fn text(&mut self) -> &mut Vec<u32> {
        &mut self.text
    }

    /// The windows that are whole.
    pub(super) fn whole(&mut self, take: TakeWindow<'_>) -> Result<()> {
        let mut start = 0;
        if !self.begun {
            let Some(first) = self.text.get(..self.tokens) else {
                return Ok(());
            };
            take(first, 0)?;
            self.begun = true;
        }
        while let Some(next) = self
            .text
            .get(start + self.stride..start + self.stride + self.tokens)
        {
            take(next, self.tokens - self.stride)?;
            start += self.stride;
        }
        self.text.drain(..start);
        Ok(())
    }

    /// The whole windows and then the last one, which ends with the text.
    pub(super) fn finish(&mut self, take: TakeWindow<'_>) -> Result<()> {
        self.whole(take)?;
        let text = std::mem::take(&mut self.text);
        let scored = if self.begun { self.tokens } else { 0 };
        if text.len() == scored {
            return Ok(());
        }
        let start = text.len().saturating_sub(self.tokens);
        take(&text[start..], scored - start.min(scored))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The windows of a text that comes in pieces: where each begins, its tokens, its context.
    fn windows(count: usize, tokens: usize, stride: usize, pieces: &[usize]) -> Vec<(Vec<u32>, usize)> {
        let mut found = Vec::new();
        let mut take = |window: &[u32], context: usize| {
            found.push((window.to_vec(), context));
            Ok(())
        };
        let mut all = Windows::new(tokens, stride);
        let (mut next, mut cuts) = (0..count as u32, pieces.iter().cycle());
        while !next.is_empty() {
            let piece = *cuts.next().unwrap();
            all.text().extend(next.by_ref().take(piece));
            all.whole(&mut take).unwrap();
        }
        all.finish(&mut take).unwrap();
        found
    }

    #[test]
    fn windows_by_hand() {
        // Ten tokens in windows of four, two further on each time.
        let starts = |found: Vec<(Vec<u32>, usize)>| -> Vec<(u32, usize, usize)> {
            let of = |(window, context): (Vec<u32>, usize)| (window[0], window.len(), context);
            found.into_iter().map(of).collect()
        };
        assert_eq!(
            starts(windows(10, 4, 2, &[100])),
            [(0, 4, 0), (2, 4, 2), (4, 4, 2), (6, 4, 2)]
        );
        // One is left: the last window ends with it, and scores it alone.
        assert_eq!(
            starts(windows(9, 4, 2, &[100])),
            [(0, 4, 0), (2, 4, 2), (4, 4, 2), (5, 4, 3)]
        );
        assert_eq!(starts(windows(3, 4, 2, &[100])), [(0, 3, 0)]);
        assert_eq!(starts(windows(4, 4, 2, &[100])), [(0, 4, 0)]);
        assert_eq!(starts(windows(0, 4, 2, &[100])), []);
        // Without overlap, but for the last.
        assert_eq!(
            starts(windows(9, 4, 4, &[100])),
            [(0, 4, 0), (4, 4, 0), (5, 4, 3)]
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn windows_score_every_token_once_after_the_tokens_before_it(
            count in 0_usize..200,
            tokens in 1_usize..20,
            stride in 1_usize..20,
            pieces in prop::collection::vec(1_usize..30, 1..5),
        ) {
            let stride = stride.min(tokens);
            let found = windows(count, tokens, stride, &pieces);
            // How the text comes in does not matter.
            prop_assert_eq!(&found, &windows(count, tokens, stride, &[1000]));
            let scored: Vec<u32> = found
                .iter()
                .flat_map(|(window, context)| window[*context..].to_vec())
                .collect();
            prop_assert_eq!(scored, (0..count as u32).collect::<Vec<_>>());
            for (index, (window, context)) in found.iter().enumerate() {
                prop_assert!(window.windows(2).all(|pair| pair[1] == pair[0] + 1));
                prop_assert!(window.len() == tokens || (found.len() == 1 && count < tokens));
                // As much context as the stride leaves: half a window where it is half of one.
                let enough = if index == 0 { *context == 0 } else { *context >= tokens - stride };
                prop_assert!(enough);
            }
        }
    }
}
