//! Text → derivation, by trying every way there is.
//!
//! Items are taken from left to right with the rest of the work as a list of continuations, so that every derivation is
//! found; how many there are is what the tests count. A drawn entry is unknown until it is said: the word in the text
//! identifies it. A feature is never said by itself, so each of its values is tried.

use super::{Alternative, Grammar, Symbol, Token, UNKNOWN, cost};

/// How a record was made.
#[derive(Clone, Debug, PartialEq)]
pub struct Derivation {
    /// Natural logarithm of its probability.
    pub log_probability: f64,
    /// What was drawn, in order: alternatives and entries.
    pub draws: Vec<u32>,
}

impl Grammar {
    /// The derivations of a text, `limit` of them at most. A grammar that was accepted makes no text in two ways.
    #[must_use]
    pub fn derivations(&self, text: &str, limit: usize) -> Vec<Derivation> {
        let Some(words) = self.words(text) else {
            return Vec::new();
        };
        let mut search = Search {
            grammar: self,
            words: &words,
            limit,
            cells: Vec::new(),
            distinct: Vec::new(),
            draws: Vec::new(),
            found: Vec::new(),
        };
        search.call(self.start, &[], 0, 0.0, None);
        search.found
    }
}

struct Search<'g> {
    grammar: &'g Grammar,
    words: &'g [Token],
    limit: usize,
    /// Entries of all variables of the rules being expanded.
    cells: Vec<u32>,
    /// Pairs of cells whose entries differ.
    distinct: Vec<(usize, usize)>,
    /// What was drawn: an alternative, or the entry of a cell, which may become known later.
    draws: Vec<DrawnSymbol>,
    found: Vec<Derivation>,
}

#[derive(Clone, Copy)]
enum DrawnSymbol {
    Alternative(u32),
    Cell(usize),
}

/// Items still to be taken, and what comes after them.
#[derive(Clone, Copy)]
struct Rest<'a> {
    alternative: &'a Alternative,
    items: &'a [Symbol],
    /// Cell of each slot.
    frame: &'a [usize],
    after: Option<&'a Rest<'a>>,
}

impl Search<'_> {
    fn call(&mut self, rule: usize, given: &[usize], at: usize, log: f64, after: Option<&Rest>) {
        let grammar = self.grammar;
        let rule = &grammar.rules[rule];
        for (index, alternative) in rule.alternatives.iter().enumerate() {
            let first = self.cells.len();
            let own = alternative.slots.len() - given.len();
            self.cells.resize(first + own, UNKNOWN);
            let mut frame = given.to_vec();
            frame.extend(first..first + own);
            self.draws.push(DrawnSymbol::Alternative(index as u32));
            self.take(
                Rest {
                    alternative,
                    items: &alternative.items,
                    frame: &frame,
                    after,
                },
                at,
                log + rule.log_probability(alternative),
            );
            self.draws.pop();
            self.cells.truncate(first);
        }
    }

    fn take(&mut self, mut rest: Rest, mut at: usize, mut log: f64) {
        let grammar = self.grammar;
        if self.found.len() >= self.limit {
            return;
        }
        loop {
            let Some((item, items)) = rest.items.split_first() else {
                match rest.after {
                    Some(after) => {
                        rest = *after;
                        continue;
                    }
                    None => return self.end(at, log),
                }
            };
            rest.items = items;
            match item {
                Symbol::Text(tokens) => {
                    if !self.words[at..].starts_with(tokens) {
                        return;
                    }
                    at += tokens.len();
                }
                Symbol::Draw { slot, distinct } => {
                    let n = grammar.count(rest.alternative, *slot);
                    log -= cost(n as u64, distinct.is_some());
                    return self.draw(rest, *slot, *distinct, at, log);
                }
                Symbol::Say { slot, form } => {
                    let cell = rest.frame[*slot];
                    let class = &grammar.classes[rest.alternative.slots[*slot]];
                    let column = form.column(
                        |slot| self.cells[rest.frame[slot]],
                        |slot| grammar.count(rest.alternative, slot),
                    );
                    if self.cells[cell] == UNKNOWN {
                        let entries = self.words.get(at).and_then(|word| class.lookup[column].get(word));
                        for &entry in entries.into_iter().flatten() {
                            let said = &class.entries[entry as usize][column];
                            if self.words[at..].starts_with(said) {
                                self.cells[cell] = entry;
                                if self.differ() {
                                    self.take(rest, at + said.len(), log);
                                }
                                self.cells[cell] = UNKNOWN;
                            }
                        }
                        return;
                    }
                    let said = &class.entries[self.cells[cell] as usize][column];
                    if !self.words[at..].starts_with(said) {
                        return;
                    }
                    at += said.len();
                }
                Symbol::Call { rule, arguments } => {
                    let given: Vec<usize> = arguments.iter().map(|&slot| rest.frame[slot]).collect();
                    return self.call(*rule, &given, at, log, Some(&rest));
                }
            }
        }
    }

    fn draw(&mut self, rest: Rest, slot: usize, distinct: Option<usize>, at: usize, log: f64) {
        let class = &self.grammar.classes[rest.alternative.slots[slot]];
        let cell = rest.frame[slot];
        self.draws.push(DrawnSymbol::Cell(cell));
        if let Some(other) = distinct {
            self.distinct.push((cell, rest.frame[other]));
        }
        if class.feature {
            for value in 0..class.entries.len() {
                self.cells[cell] = value as u32;
                if self.differ() {
                    self.take(rest, at, log);
                }
            }
            self.cells[cell] = UNKNOWN;
        } else {
            self.take(rest, at, log);
        }
        if distinct.is_some() {
            self.distinct.pop();
        }
        self.draws.pop();
    }

    fn differ(&self) -> bool {
        self.distinct
            .iter()
            .all(|&(a, b)| self.cells[a] == UNKNOWN || self.cells[a] != self.cells[b])
    }

    fn end(&mut self, at: usize, log: f64) {
        if at == self.words.len() {
            let index = |&drawn: &DrawnSymbol| match drawn {
                DrawnSymbol::Alternative(index) => index,
                DrawnSymbol::Cell(cell) => self.cells[cell],
            };
            self.found.push(Derivation {
                log_probability: log,
                draws: self.draws.iter().map(index).collect(),
            });
        }
    }
}
