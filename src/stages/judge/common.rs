//! The longest n-gram that sampled texts have in common with a training text of any size.
//!
//! The samples are held in a suffix automaton (Blumer et al. 1985, "The smallest automaton recognizing the subwords of a
//! text"), here of several texts: each of its states stands for n-grams that occur at the same places of the samples. The
//! training text passes through it once, token by token, and leaves at each state the length of its longest n-gram there.
//! Memory is proportional to the samples, at most two states a sampled token, whatever the size of the training text.

/// The state of the empty n-gram, and what it links to.
const ROOT: u32 = 0;
const NONE: u32 = u32::MAX;

struct State {
    /// Length of its longest n-gram.
    length: u32,
    /// The state of the longest suffix of its n-grams that occurs at more places.
    link: u32,
    /// Where a token leads, in order of the tokens.
    next: Vec<(u32, u32)>,
}

/// The n-grams of some texts, and the longest of each state that a training text has.
pub struct CommonNgrams {
    states: Vec<State>,
    /// By state: length of the longest of its n-grams that the training text has.
    common: Vec<u32>,
}

impl CommonNgrams {
    /// The automaton of texts.
    #[must_use]
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a [u32]>) -> Self {
        let root = State {
            length: 0,
            link: NONE,
            next: Vec::new(),
        };
        let mut made = Self {
            states: vec![root],
            common: Vec::new(),
        };
        for text in texts {
            let mut last = ROOT;
            for &token in text {
                last = made.extend(last, token);
            }
        }
        made.common = vec![0; made.states.len()];
        made
    }

    fn next(&self, state: u32, token: u32) -> Option<u32> {
        let next = &self.states[state as usize].next;
        let at = next.binary_search_by_key(&token, |&(token, _)| token).ok()?;
        Some(next[at].1)
    }

    fn lead(&mut self, state: u32, token: u32, to: u32) {
        let next = &mut self.states[state as usize].next;
        match next.binary_search_by_key(&token, |&(token, _)| token) {
            Ok(at) => next[at].1 = to,
            Err(at) => next.insert(at, (token, to)),
        }
    }

    fn add(&mut self, length: u32, next: Vec<(u32, u32)>) -> u32 {
        self.states.push(State {
            length,
            link: ROOT,
            next,
        });
        self.states.len() as u32 - 1
    }

    /// Appends a token to the text that ends in the state `last`; returns the state of the longer text.
    fn extend(&mut self, last: u32, token: u32) -> u32 {
        let longer = self.states[last as usize].length + 1;
        if let Some(known) = self.next(last, token) {
            if self.states[known as usize].length == longer {
                return known;
            }
            return self.split(last, token, known);
        }
        let made = self.add(longer, Vec::new());
        let mut state = last;
        loop {
            if let Some(known) = self.next(state, token) {
                let link = if self.states[known as usize].length == self.states[state as usize].length + 1 {
                    known
                } else {
                    self.split(state, token, known)
                };
                self.states[made as usize].link = link;
                return made;
            }
            self.lead(state, token, made);
            state = self.states[state as usize].link;
            if state == NONE {
                return made;
            }
        }
    }

    /// Splits the n-grams of `known` that are not longer than those of `state` and a token off; returns their state.
    fn split(&mut self, state: u32, token: u32, known: u32) -> u32 {
        let length = self.states[state as usize].length + 1;
        let next = self.states[known as usize].next.clone();
        let part = self.add(length, next);
        self.states[part as usize].link = self.states[known as usize].link;
        self.states[known as usize].link = part;
        let mut state = state;
        while state != NONE && self.next(state, token) == Some(known) {
            self.lead(state, token, part);
            state = self.states[state as usize].link;
        }
        part
    }

    /// Passes a piece of the training text through the automaton.
    pub fn read(&mut self, piece: &[u32]) {
        let (mut state, mut length) = (ROOT, 0);
        for &token in piece {
            loop {
                if let Some(next) = self.next(state, token) {
                    (state, length) = (next, length + 1);
                    break;
                }
                let link = self.states[state as usize].link;
                if link == NONE {
                    length = 0;
                    break;
                }
                (state, length) = (link, self.states[link as usize].length);
            }
            let common = &mut self.common[state as usize];
            *common = length.max(*common);
        }
    }

    /// The lengths, by state, of the longest suffix of the state's n-grams that the training text has, after all of it.
    #[must_use]
    pub fn finish(mut self) -> FoundNgrams {
        let mut order: Vec<u32> = (1..self.states.len() as u32).collect();
        order.sort_unstable_by_key(|&state| self.states[state as usize].length);
        // The training text has all suffixes of an n-gram that it has.
        for &state in order.iter().rev() {
            let State { link, .. } = self.states[state as usize];
            if self.common[state as usize] > 0 && link != NONE {
                self.common[link as usize] = self.states[link as usize].length;
            }
        }
        // A state without a common n-gram has the longest of its suffixes.
        for &state in &order {
            let State { link, .. } = self.states[state as usize];
            if link != NONE {
                self.common[state as usize] = self.common[state as usize].max(self.common[link as usize]);
            }
        }
        FoundNgrams(self)
    }
}

/// The n-grams that a training text has.
pub struct FoundNgrams(CommonNgrams);

impl FoundNgrams {
    /// Length of the longest n-gram of one of the texts that the training text has.
    #[must_use]
    pub fn longest(&self, text: &[u32]) -> u32 {
        let (mut state, mut longest) = (ROOT, 0);
        for &token in text {
            // Every prefix of a text of the automaton has a state.
            let Some(next) = self.0.next(state, token) else {
                break;
            };
            state = next;
            longest = longest.max(self.0.common[state as usize]);
        }
        longest
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn longest(texts: &[Vec<u32>], training: &[Vec<u32>]) -> Vec<u32> {
        let mut automaton = CommonNgrams::new(texts.iter().map(Vec::as_slice));
        for piece in training {
            automaton.read(piece);
        }
        let found = automaton.finish();
        texts.iter().map(|text| found.longest(text)).collect()
    }

    /// Length of the longest n-gram of a text that occurs in a piece of the training text, n-gram by n-gram.
    fn compared(text: &[u32], training: &[Vec<u32>]) -> u32 {
        let occurs = |ngram: &[u32]| {
            let mut windows = training.iter().flat_map(|piece| piece.windows(ngram.len()));
            windows.any(|window| window == ngram)
        };
        let lengths = (1..=text.len()).rev();
        let mut found = lengths.filter(|&length| text.windows(length).any(occurs));
        found.next().unwrap_or(0) as u32
    }

    #[test]
    fn common_ngrams_do_not_cross_the_pieces_of_either_side() {
        let training = vec![vec![5, 6, 7], vec![8, 9, 10, 11]];
        let texts = vec![vec![5, 6, 7, 8, 9], vec![9, 10, 11, 12], vec![1, 2], vec![]];
        assert_eq!(longest(&texts, &training), [3, 3, 0, 0]);
        assert_eq!(longest(&texts, &[]), [0; 4]);
    }

    proptest! {
        #[test]
        fn common_ngrams_equal_those_of_a_search_through_all(
            texts in proptest::collection::vec(proptest::collection::vec(0u32..3, 0..14), 1..6),
            training in proptest::collection::vec(proptest::collection::vec(0u32..3, 0..14), 0..6),
        ) {
            let expected: Vec<u32> = texts.iter().map(|text| compared(text, &training)).collect();
            prop_assert_eq!(longest(&texts, &training), expected);
        }

        #[test]
        fn common_ngrams_need_at_most_two_states_a_token(
            texts in proptest::collection::vec(proptest::collection::vec(0u32..3, 1..20), 1..6),
        ) {
            let tokens: usize = texts.iter().map(Vec::len).sum();
            let automaton = CommonNgrams::new(texts.iter().map(Vec::as_slice));
            prop_assert!(automaton.states.len() <= 2 * tokens + 1);
        }
    }
}
