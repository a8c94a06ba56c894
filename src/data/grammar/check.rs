//! Refuses grammars whose texts have no probability of their own.
//!
//! Three things are checked when a grammar is read: no rule calls itself, so that there are finitely many records; every
//! drawn entry is identified by the text, by a form that no other entry shares, before another of its forms is said; and
//! no text can be made in two ways.
//!
//! For the last, the grammar is laid out as an automaton: rules are expanded in place, a feature becomes a choice
//! between its values, and saying a form becomes saying any of its column's (what was drawn before is forgotten, so the
//! automaton makes at least the grammar's texts). Two ways of making one text part at some choice, or where a form is
//! the beginning of another, and say the same words from there on. So from every such parting the two ways are followed
//! in step; if any such pair of walks meets again having said the same, the grammar is refused. Otherwise it is
//! unambiguous, by construction.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{Alternative, Form, Grammar, Symbol, Token, glued};
use crate::error::{Error, Result};

/// Nodes of the automaton and pairs of its walks, at most: a grammar for people to write has thousands.
const LIMIT: usize = 2_000_000;

/// Checks a grammar that was read from `file`.
pub fn check(grammar: &Grammar, file: &str) -> Result<()> {
    let mut path = Vec::new();
    no_recursion(grammar, grammar.start, &mut path, &mut BTreeSet::new(), file)?;
    identified(grammar, grammar.start, &[], &mut BTreeMap::new(), file)?;
    let automaton = Automaton::build(grammar, file)?;
    automaton.first_words(grammar, file)?;
    automaton.unambiguous(grammar, file)
}

fn fault(file: &str, alternative: &Alternative, message: &str) -> Error {
    let (line, column) = alternative.place;
    Error::input(format!("{file}:{line}:{column}: {message}"))
}

fn no_recursion(
    grammar: &Grammar,
    rule: usize,
    path: &mut Vec<usize>,
    done: &mut BTreeSet<usize>,
    file: &str,
) -> Result<()> {
    if done.contains(&rule) {
        return Ok(());
    }
    path.push(rule);
    for alternative in &grammar.rules[rule].alternatives {
        for item in &alternative.items {
            if let Symbol::Call { rule: next, .. } = item {
                if path.contains(next) {
                    let message = format!("rule `{}` expands to itself", grammar.rules[*next].name);
                    return Err(fault(file, alternative, &message)
                        .hint("records are finite and their probabilities exact because no rule does"));
                }
                no_recursion(grammar, *next, path, done, file)?;
            }
        }
    }
    path.pop();
    done.insert(rule);
    Ok(())
}

/// Whether the text so far identifies the entry of a variable.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Identified {
    No,
    /// In some alternatives of a rule.
    Maybe,
    Yes,
}

type IdentifiedAfter = BTreeMap<(usize, Vec<Identified>), Vec<Identified>>;

/// Follows a rule that is given variables, and returns which of them the text identifies after it.
fn identified(
    grammar: &Grammar,
    rule: usize,
    given: &[Identified],
    known: &mut IdentifiedAfter,
    file: &str,
) -> Result<Vec<Identified>> {
    if let Some(after) = known.get(&(rule, given.to_vec())) {
        return Ok(after.clone());
    }
    let mut joined: Option<Vec<Identified>> = None;
    for alternative in &grammar.rules[rule].alternatives {
        let mut slots = given.to_vec();
        slots.resize(alternative.slots.len(), Identified::No);
        for item in &alternative.items {
            match item {
                Symbol::Text(_) => {}
                Symbol::Draw { slot, .. } => {
                    // The parser tries every value of a feature: the text need not identify it.
                    let feature = grammar.classes[alternative.slots[*slot]].feature;
                    slots[*slot] = if feature { Identified::Yes } else { Identified::No };
                }
                Symbol::Say { slot, form } => {
                    if slots[*slot] != Identified::Yes {
                        check_form(grammar, alternative, *slot, form, file)?;
                        slots[*slot] = Identified::Yes;
                    }
                }
                Symbol::Call { rule, arguments } => {
                    let states: Vec<Identified> = arguments.iter().map(|&slot| slots[slot]).collect();
                    let after = identified(grammar, *rule, &states, known, file)?;
                    for (&slot, state) in arguments.iter().zip(after) {
                        slots[slot] = slots[slot].max(state);
                    }
                }
            }
        }
        if let Some(slot) = (given.len()..slots.len()).find(|&slot| slots[slot] != Identified::Yes) {
            let class = &grammar.classes[alternative.slots[slot]].name;
            let message =
                format!("an entry of `{class}` is drawn here and the text does not always identify it");
            return Err(fault(file, alternative, &message).hint("say it in a form that no other entry has"));
        }
        slots.truncate(given.len());
        joined = Some(match joined {
            None => slots,
            Some(before) => before
                .into_iter()
                .zip(slots)
                .map(|(a, b)| if a == b { a } else { Identified::Maybe })
                .collect(),
        });
    }
    let after = joined.unwrap_or_default();
    known.insert((rule, given.to_vec()), after.clone());
    Ok(after)
}

/// Fails when the form does not identify the entry.
fn check_form(
    grammar: &Grammar,
    alternative: &Alternative,
    slot: usize,
    form: &Form,
    file: &str,
) -> Result<()> {
    let class = &grammar.classes[alternative.slots[slot]];
    for &column in &form.columns {
        let mut seen = HashSet::new();
        if let Some(twin) = class.entries.iter().find(|entry| !seen.insert(&entry[column])) {
            let spelled: Vec<&str> = twin[column]
                .iter()
                .map(|&t| grammar.tokens[t as usize].as_str())
                .collect();
            let message = format!(
                "`{}` does not identify which `{}` was drawn, and nothing before it does",
                spelled.join(" "),
                class.name
            );
            return Err(fault(file, alternative, &message)
                .hint("say a form that no other entry has first, usually its first form"));
        }
    }
    Ok(())
}

enum AutomatonNode {
    End,
    /// Says one of a set of forms, then goes on.
    Say {
        set: usize,
        next: usize,
    },
    /// Goes one of several ways: node, and the line that it comes from.
    Fork(Vec<(usize, usize)>),
}

struct Automaton {
    nodes: Vec<AutomatonNode>,
    /// Distinct forms, sorted.
    sets: Vec<Vec<Vec<Token>>>,
    start: usize,
}

struct Builder<'g> {
    grammar: &'g Grammar,
    automaton: Automaton,
    columns: HashMap<(usize, usize), usize>,
}

impl Automaton {
    fn build(grammar: &Grammar, file: &str) -> Result<Self> {
        let mut builder = Builder {
            grammar,
            automaton: Self {
                nodes: vec![AutomatonNode::End],
                sets: Vec::new(),
                start: 0,
            },
            columns: HashMap::new(),
        };
        match builder.rule(grammar.start, &[], 0) {
            Some(start) => {
                builder.automaton.start = start;
                Ok(builder.automaton)
            }
            None => Err(too_large(file)),
        }
    }

    /// Fails when a record can be empty or begin with a mark.
    fn first_words(&self, grammar: &Grammar, file: &str) -> Result<()> {
        let mut open = vec![self.start];
        while let Some(node) = open.pop() {
            match &self.nodes[node] {
                AutomatonNode::End => return Err(Error::input(format!("{file}: a record can be empty"))),
                AutomatonNode::Fork(ways) => open.extend(ways.iter().map(|&(way, _)| way)),
                AutomatonNode::Say { set, .. } => {
                    for form in &self.sets[*set] {
                        let word = &grammar.tokens[form[0] as usize];
                        if glued(word) {
                            return Err(Error::input(format!("{file}: a record can begin with `{word}`")));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn unambiguous(&self, grammar: &Grammar, file: &str) -> Result<()> {
        let mut walks = Walks::default();
        for (index, node) in self.nodes.iter().enumerate() {
            match node {
                AutomatonNode::End => {}
                AutomatonNode::Fork(ways) => {
                    for (i, &(one, line)) in ways.iter().enumerate() {
                        for &(other, other_line) in &ways[i + 1..] {
                            walks.meet(one, other, &[], None, &[], (line, other_line));
                        }
                    }
                }
                AutomatonNode::Say { set, next } => {
                    for form in &self.sets[*set] {
                        for longer in longer(&self.sets[*set], form) {
                            walks.meet(*next, *next, &longer[form.len()..], None, longer, (0, 0));
                        }
                    }
                    debug_assert!(*next < index, "nodes are made from the end");
                }
            }
            while let Some(walk) = walks.open.pop() {
                self.follow(walk, &mut walks);
                if walks.seen.len() > LIMIT {
                    return Err(too_large(file));
                }
            }
            if let Some(met) = walks.met {
                return Err(walks.report(met, grammar, file));
            }
        }
        Ok(())
    }

    /// Takes the walk that is behind one step further; of two that are level, the first.
    fn follow(&self, index: usize, walks: &mut Walks) {
        let (ahead, behind, left) = walks.all[index].state.clone();
        if left.is_empty() {
            // Level: the first one goes on alone and is then ahead.
            match &self.nodes[ahead] {
                AutomatonNode::End => {}
                AutomatonNode::Fork(ways) => {
                    for &(way, _) in ways {
                        walks.meet(way, behind, &[], Some(index), &[], (0, 0));
                    }
                }
                AutomatonNode::Say { set, next } => {
                    for form in &self.sets[*set] {
                        walks.meet(*next, behind, form, Some(index), form, (0, 0));
                    }
                }
            }
            return;
        }
        match &self.nodes[behind] {
            AutomatonNode::End => {}
            AutomatonNode::Fork(ways) => {
                for &(way, _) in ways {
                    walks.meet(ahead, way, &left, Some(index), &[], (0, 0));
                }
            }
            AutomatonNode::Say { set, next } => {
                let forms = &self.sets[*set];
                for length in 1..=left.len() {
                    if forms
                        .binary_search_by(|form| form.as_slice().cmp(&left[..length]))
                        .is_ok()
                    {
                        walks.meet(ahead, *next, &left[length..], Some(index), &[], (0, 0));
                    }
                }
                for form in longer(forms, &left) {
                    let more = &form[left.len()..];
                    walks.meet(*next, ahead, more, Some(index), more, (0, 0));
                }
            }
        }
    }
}

/// The forms of a sorted set that begin with `start` and go on.
fn longer<'a>(forms: &'a [Vec<Token>], start: &'a [Token]) -> impl Iterator<Item = &'a Vec<Token>> {
    let first = forms.partition_point(|form| form.as_slice() <= start);
    forms[first..]
        .iter()
        .take_while(move |form| form.starts_with(start))
}

fn too_large(file: &str) -> Error {
    Error::input(format!(
        "{file}: the grammar is too large to show that it is unambiguous"
    ))
    .hint("fewer alternatives and features that multiply each other make it smaller")
}

/// Pairs of walks that parted and have said the same since, but for what one is ahead by.
#[derive(Default)]
struct Walks {
    all: Vec<PairStep>,
    seen: HashSet<(usize, usize, Vec<Token>)>,
    open: Vec<usize>,
    /// A pair that met again.
    met: Option<usize>,
}

struct PairStep {
    /// The node of the walk ahead, that of the one behind, and what the first has said and the second not yet.
    state: (usize, usize, Vec<Token>),
    before: Option<usize>,
    /// What the walk ahead said in this step.
    said: Vec<Token>,
    /// Lines where they parted, at the first step.
    lines: (usize, usize),
}

impl Walks {
    fn meet(
        &mut self,
        ahead: usize,
        behind: usize,
        left: &[Token],
        before: Option<usize>,
        said: &[Token],
        lines: (usize, usize),
    ) {
        // Of two that are level the later node comes first: the end, node 0, waits for the other.
        let state = if left.is_empty() && ahead < behind {
            (behind, ahead, Vec::new())
        } else {
            (ahead, behind, left.to_vec())
        };
        if self.met.is_some() || !self.seen.insert(state.clone()) {
            return;
        }
        let index = self.all.len();
        if left.is_empty() && ahead == behind {
            self.met = Some(index);
        }
        self.all.push(PairStep {
            state,
            before,
            said: said.to_vec(),
            lines,
        });
        self.open.push(index);
    }

    fn report(&self, met: usize, grammar: &Grammar, file: &str) -> Error {
        let mut steps = vec![met];
        while let Some(before) = self.all[steps[steps.len() - 1]].before {
            steps.push(before);
        }
        let mut text = String::new();
        for &step in steps.iter().rev() {
            grammar.say(&self.all[step].said, &mut text);
        }
        let (one, other) = self.all[steps[steps.len() - 1]].lines;
        let place = match (one, other) {
            (0, _) => format!("{file}: forms of one class"),
            (one, other) if one == other => format!("{file}:{one}:1: values of a feature"),
            (one, other) => format!("{file}:{other}:1: this alternative and that of line {one}"),
        };
        Error::input(format!("{place} make the same text: `… {text} …`")).hint(
            "the probability of such a text would not be that of its derivation; change a word so that the texts differ",
        )
    }
}

impl Builder<'_> {
    fn node(&mut self, node: AutomatonNode) -> Option<usize> {
        self.automaton.nodes.push(node);
        let made = self.automaton.nodes.len();
        (made <= LIMIT).then_some(made - 1)
    }

    fn say(&mut self, mut forms: Vec<Vec<Token>>, next: usize) -> Option<usize> {
        forms.sort();
        forms.dedup();
        self.automaton.sets.push(forms);
        let set = self.automaton.sets.len() - 1;
        self.node(AutomatonNode::Say { set, next })
    }

    fn rule(&mut self, rule: usize, given: &[u32], next: usize) -> Option<usize> {
        let grammar = self.grammar;
        let mut ways = Vec::new();
        for alternative in &grammar.rules[rule].alternatives {
            let mut values = given.to_vec();
            values.resize(alternative.slots.len(), 0);
            let way = self.items(alternative, &alternative.items, &mut values, next)?;
            ways.push((way, alternative.place.0));
        }
        match ways[..] {
            [(way, _)] => Some(way),
            _ => self.node(AutomatonNode::Fork(ways)),
        }
    }

    /// The node that begins with the items; `values` holds the features' values.
    fn items(
        &mut self,
        alternative: &Alternative,
        items: &[Symbol],
        values: &mut Vec<u32>,
        next: usize,
    ) -> Option<usize> {
        let grammar = self.grammar;
        let Some((item, rest)) = items.split_first() else {
            return Some(next);
        };
        if let Symbol::Draw { slot, .. } = item {
            let class = &grammar.classes[alternative.slots[*slot]];
            if !class.feature {
                return self.items(alternative, rest, values, next);
            }
            let mut ways = Vec::new();
            for value in 0..class.entries.len() {
                values[*slot] = value as u32;
                let way = self.items(alternative, rest, values, next)?;
                ways.push((way, alternative.place.0));
            }
            return self.node(AutomatonNode::Fork(ways));
        }
        let next = self.items(alternative, rest, values, next)?;
        match item {
            Symbol::Draw { .. } => Some(next),
            Symbol::Text(tokens) => self.say(vec![tokens.clone()], next),
            Symbol::Say { slot, form } => {
                let id = alternative.slots[*slot];
                let class = &grammar.classes[id];
                let column = form.column(|slot| values[slot], |slot| grammar.count(alternative, slot));
                if class.feature {
                    let said = class.entries[values[*slot] as usize][column].clone();
                    return self.say(vec![said], next);
                }
                if let Some(&set) = self.columns.get(&(id, column)) {
                    return self.node(AutomatonNode::Say { set, next });
                }
                let forms = class.entries.iter().map(|entry| entry[column].clone()).collect();
                let node = self.say(forms, next)?;
                self.columns.insert((id, column), self.automaton.sets.len() - 1);
                Some(node)
            }
            Symbol::Call { rule, arguments } => {
                let given: Vec<u32> = arguments.iter().map(|&slot| values[slot]).collect();
                self.rule(*rule, &given, next)
            }
        }
    }
}
