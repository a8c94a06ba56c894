//! What a quote that stands alone between gaps does: it opens, closes, marks a possessive or belongs to a word.
//!
//! A single quote is ambiguous: `the players ' union`, `he says ' no ' .`, `the ' 80s`, `singin ' it`, `' C ' and ' D '`.
//! One quote alone does not say which; all quotes of a line together mostly do, because what opens closes. Every reading
//! of a quote has a cost, small where the words beside it fit, and the readings of the line whose costs sum to the
//! least are taken (Viterbi, in time linear in the line's length). Double quotes take part: they open and close in turn
//! unless the line has an odd number of them.
//!
//! The states are what is open, whether the last quote opened, and whether a single quote has opened in the line.
//! The single quotes of most lines are all apostrophes, so the first one that opens costs [`QUOTED`]; the others of the
//! line do not pay it again. What it costs more:
//!
//! | reading | costs where |
//! |---|---|
//! | opens | a plural stands before; a word that goes on with a sentence (`and`, `of`) stands after; it never closes |
//! | closes | words without a stop follow; it is long |
//! | possessive, only after a word in `s` | a stop, the line's end or a function word follows; the word is a verb |
//! | lost letters | few words lose them: `' em`, `' cause`, `' 90s`, `' 98`, `singin '`, `lil '`, `' n '` |
//!
//! Three units of cost are about a factor of two: the costs roughly follow the logarithms of how often a reading occurs
//! beside such words in Wikipedia's text, set apart by the rules of the Moses tokenizer. A single quote between a word
//! in `s` and a lower-case word, for example, is a possessive there in 17 of 18 cases.

use super::tokens::{Token, is_suffix, token_from};

/// Which gaps beside a quote go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Join {
    /// None: the quote is the whole line.
    Stays,
    /// The gap before.
    Left,
    /// The gap after.
    Right,
    /// Both.
    Both,
}

/// Quotes that are decided together, at most: it bounds memory, and no line of prose has as many.
const TOGETHER: usize = 4096;

/// A double quote is open at the end of the line.
const UNCLOSED: u32 = 20;
/// A double quote closes that did not open.
const UNOPENED: u32 = 26;
/// A reading that the words beside it speak against.
const UNLIKELY: u32 = 30;
/// The line's first opening single quote: most lines have only apostrophes, and a line with one quotation has more.
const QUOTED: u32 = 10;
/// A single quote is open at the end of the line.
const UNCLOSED_SINGLE: u32 = 15;
/// An opening quote before a word that goes on with the sentence after a quotation.
const OPENS_BEFORE_RESUMING: u32 = 12;
/// Tokens within single quotes that cost 1: long quotes are rare.
const TOKENS_A_COST: u32 = 8;

/// Words in `s` that are not plurals: a quote after them opens.
const NO_PLURALS: [&str; 23] = [
    "always",
    "as",
    "does",
    "goes",
    "has",
    "hers",
    "his",
    "is",
    "its",
    "means",
    "perhaps",
    "plus",
    "says",
    "sometimes",
    "that's",
    "theirs",
    "this",
    "thus",
    "towards",
    "us",
    "versus",
    "was",
    "yes",
];

/// Words that a contraction or possessive does not follow: a letter between quotes after them is quoted, as in `an ' s '`.
const NO_STEMS: [&str; 44] = [
    "a",
    "an",
    "the",
    "and",
    "or",
    "nor",
    "of",
    "in",
    "by",
    "with",
    "as",
    "to",
    "from",
    "between",
    "before",
    "after",
    "into",
    "like",
    "say",
    "says",
    "said",
    "saying",
    "write",
    "writes",
    "wrote",
    "written",
    "add",
    "adds",
    "added",
    "spell",
    "spelt",
    "spelled",
    "drop",
    "drops",
    "dropped",
    "pronounce",
    "pronounced",
    "called",
    "means",
    "pronounces",
    "spells",
    "using",
    "without",
    "than",
];

/// Words that introduce letters in quotes, where no quote is open.
const INTRODUCING: [&str; 9] = [
    "letter",
    "letters",
    "words",
    "sounds",
    "suffix",
    "suffixes",
    "endings",
    "contractions",
    "consonants",
];

/// What it costs to take a quoted letter after such a word for a contraction or a possessive.
const QUOTED_LETTER: u32 = 22;

/// Words that go on with the sentence after a quotation, and that few quotations begin with.
const RESUMING: [&str; 18] = [
    "and", "or", "but", "which", "is", "are", "was", "were", "has", "of", "in", "by", "on", "at", "as",
    "for", "from", "with",
];

/// Words that begin quotations and do not follow a possessive.
const BEGINNING: [&str; 19] = [
    "a", "an", "the", "this", "that", "to", "not", "if", "what", "who", "there", "i", "you", "he", "she",
    "it", "we", "they", "my",
];

/// Pronouns that a word in `s` after them is the verb of.
const SUBJECTS: [&str; 4] = ["he", "she", "it", "who"];

/// Words that have lost their last letters.
const CLIPPED_ENDS: [&str; 7] = ["de", "lil", "ol", "mo", "yo", "th", "n"];

/// Words that begin with an apostrophe for letters left out.
const CLIPPED: [&str; 14] = [
    "em", "er", "til", "till", "n", "cause", "cos", "bout", "round", "twas", "tis", "tween", "neath",
    "gainst",
];

/// Whether a word is one that begins with an apostrophe for letters left out, as in `'em`.
pub(super) fn is_clipped(word: &str) -> bool {
    is_one_of(&CLIPPED, word)
}

/// The quotes of a line, decided in the line's order.
pub(super) struct Quotes<'a> {
    text: &'a str,
    /// Where the next token is looked for.
    place: usize,
    /// The tokens before it, the last one first.
    before: [Option<Token>; 2],
    /// Tokens so far.
    number: u32,
    open: Open,
    decided: std::vec::IntoIter<Join>,
}

/// What is open, and since which token.
#[derive(Clone, Copy, Debug, Default)]
struct Open {
    single: Option<u32>,
    double: Option<u32>,
    /// Whether a single quote of the line has opened.
    quoted: bool,
    /// Whether the last quote opened.
    opened: bool,
}

impl Open {
    /// Its number among the states of the search.
    fn state(self) -> usize {
        usize::from(self.single.is_some())
            | usize::from(self.double.is_some()) << 1
            | usize::from(self.opened) << 2
            | usize::from(self.quoted) << 3
    }
}

/// The states of the search.
const STATES: usize = 16;

/// The best readings so far that end in a state.
#[derive(Clone, Copy)]
struct Path {
    cost: u32,
    open: Open,
}

/// A quote and the words beside it.
#[derive(Clone, Copy)]
struct Site<'a> {
    is_double: bool,
    /// The token's number in the line.
    number: u32,
    before2: Option<&'a str>,
    before: Option<&'a str>,
    after: Option<&'a str>,
    after2: Option<&'a str>,
}

impl<'a> Quotes<'a> {
    /// Of a line without spaces at its ends.
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            text,
            place: 0,
            before: [None; 2],
            number: 0,
            open: Open::default(),
            decided: vec![].into_iter(),
        }
    }

    /// What the next quote of the line does.
    pub(super) fn next(&mut self) -> Join {
        if let Some(join) = self.decided.next() {
            return join;
        }
        let sites = self.sites();
        self.decided = self.decide(&sites).into_iter();
        self.decided.next().unwrap_or(Join::Stays)
    }

    /// The next quotes.
    fn sites(&mut self) -> Vec<Site<'a>> {
        let text = self.text;
        let of = |token: Token| &text[token.start..token.end];
        let mut sites = Vec::new();
        while sites.len() < TOGETHER
            && let Some(token) = token_from(text, self.place)
        {
            if let "'" | "\"" = of(token) {
                let after = token_from(text, token.end);
                let after2 = after.and_then(|after| token_from(text, after.end));
                sites.push(Site {
                    is_double: of(token) == "\"",
                    number: self.number,
                    before2: self.before[1].map(of),
                    before: self.before[0].map(of),
                    after: after.map(of),
                    after2: after2.map(of),
                });
            }
            self.before = [Some(token), self.before[0]];
            self.place = token.end;
            self.number = self.number.saturating_add(1);
        }
        sites
    }

    /// The readings of the least cost.
    fn decide(&mut self, sites: &[Site<'_>]) -> Vec<Join> {
        let mut paths: [Option<Path>; STATES] = [None; STATES];
        paths[self.open.state()] = Some(Path {
            cost: 0,
            open: self.open,
        });
        // Of each quote and state, the state before and what the quote does.
        let mut steps: Vec<[(u8, Join); STATES]> = Vec::with_capacity(sites.len());
        for site in sites {
            let mut next: [Option<Path>; STATES] = [None; STATES];
            let mut step = [(0, Join::Stays); STATES];
            for (from, path) in paths.iter().enumerate() {
                let Some(path) = path else { continue };
                site.readings(path.open, &mut |join, cost, open| {
                    let cost = path.cost.saturating_add(cost);
                    let state = open.state();
                    if next[state].is_none_or(|best| cost < best.cost) {
                        next[state] = Some(Path { cost, open });
                        step[state] = (from as u8, join);
                    }
                });
            }
            paths = next;
            steps.push(step);
        }
        let is_end = token_from(self.text, self.place).is_none();
        let cost = |path: &Path| {
            let single = UNCLOSED_SINGLE * u32::from(path.open.single.is_some());
            let double = UNCLOSED * u32::from(path.open.double.is_some());
            path.cost.saturating_add(if is_end { single + double } else { 0 })
        };
        let best = paths.iter().flatten().min_by_key(|path| cost(path));
        let Some(best) = best else { return vec![] };
        self.open = best.open;
        let mut state = best.open.state();
        let mut joins: Vec<Join> = steps
            .iter()
            .rev()
            .map(|step| {
                let (from, join) = step[state];
                state = usize::from(from);
                join
            })
            .collect();
        joins.reverse();
        joins
    }
}

impl Site<'_> {
    /// Calls `take` with every reading of the quote where that much is open: what it does, what it costs, and what is
    /// open then. There is one at least.
    fn readings(&self, open: Open, take: &mut dyn FnMut(Join, u32, Open)) {
        let closed = Open {
            opened: false,
            ..open
        };
        match (self.before, self.after) {
            (None, None) => take(Join::Stays, 0, closed),
            _ if self.is_double => self.double(open, take),
            _ => self.single(open, take),
        }
    }

    fn double(&self, open: Open, take: &mut dyn FnMut(Join, u32, Open)) {
        let closed = Open {
            opened: false,
            ..open
        };
        if open.double.is_none() && self.after.is_some() {
            let cost = if self.ends_something() { UNLIKELY } else { 0 };
            let double = Some(self.number);
            take(
                Join::Right,
                cost,
                Open {
                    double,
                    opened: true,
                    ..open
                },
            );
        }
        let Some(before) = self.before else { return };
        if let Some(since) = open.double {
            let mut cost = if self.is_empty(open) { UNLIKELY } else { 0 };
            // A single quote within it is still open: it was none.
            if open.single.is_some_and(|single| single > since) {
                cost += 15;
            }
            take(
                Join::Left,
                cost,
                Open {
                    double: None,
                    ..closed
                },
            );
        } else {
            // `… ," he said` is the end of what began on another line.
            let cost = if is_stop(before) { UNOPENED - 3 } else { UNOPENED };
            take(Join::Left, cost, closed);
        }
    }

    fn single(&self, open: Open, take: &mut dyn FnMut(Join, u32, Open)) {
        let closed = Open {
            opened: false,
            ..open
        };
        let is_open = open.single.is_some();
        let before = self.before.unwrap_or_default();
        let after = self.after.unwrap_or_default();
        let suffix = is_suffix(after.as_bytes());
        let is_not = matches!(before, "n" | "N") && matches!(after, "t" | "T");
        if is_not || is_maam(before, after) {
            return take(Join::Both, 0, closed);
        }
        let begins_and = is_and(after) && self.after2 == Some("'");
        if begins_and || (is_decade(after) && !self.ends_letter(open)) {
            return take(Join::Right, 0, closed);
        }
        // A single letter in quotes must not become `'s` that stands alone.
        let is_quoted_letter = suffix && self.after2 == Some("'");
        let is_introduced = is_quoted_letter && introduces(before, is_open);
        let quoted_letter = if is_introduced { QUOTED_LETTER } else { 0 };
        let possessive = is_plural(before).then(|| self.possessive(before, after) + quoted_letter);
        if suffix {
            take(Join::Both, contraction(before, after) + quoted_letter, closed);
        }
        if !is_open && self.after.is_some() && (!suffix || is_quoted_letter) {
            let after_plural = possessive.is_some() && !self.is_verb(before) && !is_introduced;
            let cost = self.opening(before, after, after_plural)
                + if suffix && !is_introduced { 5 } else { 0 }
                + if open.quoted { 0 } else { QUOTED };
            let now = Open {
                single: Some(self.number),
                opened: true,
                quoted: true,
                ..open
            };
            take(Join::Right, cost, now);
        }
        if self.before.is_some() {
            if let Some(since) = open.single {
                let cost =
                    self.closing(before, after, since) + if self.is_empty(open) { UNLIKELY } else { 0 };
                let now = Open {
                    single: None,
                    ..closed
                };
                take(Join::Left, cost, now);
            }
            let within = if is_open { 2 } else { 0 };
            if let Some(cost) = possessive {
                take(Join::Left, cost + within, closed);
            }
            take(Join::Left, self.clipped_end(before) + within, closed);
        }
        // Not after a letter in quotes, whose closing quote this is.
        let after_letter = self.before2 == Some("'") && is_suffix(before.as_bytes());
        if self.after.is_some() && !suffix && !after_letter {
            if is_clipped(after) && !(possessive.is_some() && begins_upper(after)) {
                take(Join::Right, if possessive.is_some() { 8 } else { 4 }, closed);
            } else if after.len() == 2 && after.bytes().all(|byte| byte.is_ascii_digit()) {
                take(Join::Right, 4, closed);
            }
        }
        // `O ' Reilly`.
        if is_initial(before)
            && self.before2 != Some("'")
            && after.starts_with(char::is_alphabetic)
            && !suffix
        {
            take(Join::Both, 10, closed);
        }
    }

    /// What it costs that the quote opens, beside [`QUOTED`].
    fn opening(&self, before: &str, after: &str, after_plural: bool) -> u32 {
        let words = match After::of(after) {
            After::Lower if after_plural => 8,
            After::Upper if after_plural => 3,
            _ if is_word(before) && !after_plural => 2,
            _ => 0,
        };
        let ends = if self.ends_something() { UNLIKELY } else { 0 };
        words + ends + if self.resumes() { OPENS_BEFORE_RESUMING } else { 0 }
    }

    /// What it costs that the quote closes what has been open since a token.
    fn closing(&self, before: &str, after: &str, since: u32) -> u32 {
        let goes_on = self.after.is_none() || self.ends_something() || self.resumes() || after == "\"";
        let ends = is_word(before) || is_stop(before) || matches!(before, "\"" | "..." | "…" | ")" | "]");
        let length = ((self.number - since) / TOKENS_A_COST).min(15);
        length + if goes_on { 0 } else { 3 } + if ends { 0 } else { 20 }
    }

    /// What it costs that the quote makes a plural or a name in `s` a possessive.
    fn possessive(&self, before: &str, after: &str) -> u32 {
        let words = match After::of(after) {
            _ if self.after.is_none() || self.ends_something() => 10,
            After::Function => 13,
            After::Coordinating | After::Upper => 6,
            After::Lower | After::Other => 3,
        };
        words + if self.is_verb(before) { 12 } else { 0 }
    }

    /// Whether the word before, which ends in `s`, is a verb or a particle and no plural.
    fn is_verb(&self, before: &str) -> bool {
        let has_subject = self.before2.is_some_and(|word| is_one_of(&SUBJECTS, word));
        has_subject || is_one_of(&NO_PLURALS, before)
    }

    /// Whether the quote stands behind a letter that an opening quote stands before: it closes.
    fn ends_letter(&self, open: Open) -> bool {
        let is_letter = self.before.is_some_and(|before| is_suffix(before.as_bytes()));
        is_letter && open.single.is_some_and(|since| since + 2 == self.number)
    }

    /// Whether what follows goes with the word before: a quote before it does not open.
    fn ends_something(&self) -> bool {
        self.after.is_some_and(|after| {
            is_stop(after)
                || matches!(after, ")" | "]" | "}" | "@-@" | "@,@" | "@.@")
                || after.starts_with("'s")
        })
    }

    /// Whether what follows goes on with the sentence after a quotation.
    fn resumes(&self) -> bool {
        self.after.is_some_and(|after| RESUMING.contains(&after))
    }

    /// Whether the quote would close what the one just before opened.
    fn is_empty(&self, open: Open) -> bool {
        open.opened && matches!(self.before, Some("'" | "\""))
    }

    /// What it costs that the quote ends a word that has lost letters, or is a sign of minutes or feet.
    fn clipped_end(&self, before: &str) -> u32 {
        let last = before.chars().next_back().unwrap_or(' ');
        if before.bytes().all(|byte| byte.is_ascii_digit()) {
            let degrees = self.before2.is_some_and(|token| token.ends_with('°'))
                || matches!(self.after, Some("N" | "E" | "S" | "W"));
            return if degrees { 3 } else { 12 };
        }
        if !is_word(before) {
            return 2 * UNLIKELY;
        }
        match last {
            'n' if before.len() > 3 && before.ends_with("in") => 6,
            _ if is_and(before) && self.before2 == Some("'") => 0,
            _ if is_one_of(&CLIPPED_ENDS, before) => 6,
            // K'ak', Mo'
            _ if before.starts_with('\'') && !is_suffix(&before.as_bytes()[1..]) => 10,
            'x' | 'z' | '>' => 13,
            _ if before.ends_with("ce") => 16,
            _ if self.after.is_none() || self.ends_something() => 20,
            _ => 30,
        }
    }
}

/// What it costs that `before ' after` is a contraction or a possessive set apart.
fn contraction(before: &str, after: &str) -> u32 {
    let shouts = after.starts_with(|first: char| first.is_ascii_uppercase());
    let fits = match before.chars().next_back() {
        Some(last) if last.is_lowercase() => !shouts,
        _ => true,
    };
    let mut cost = if fits { 0 } else { UNLIKELY };
    if !is_word(before) {
        cost += if matches!(before, "" | "\"" | ")" | "]") {
            5
        } else {
            UNLIKELY
        };
    }
    cost
}

/// Whether a word may be a plural, or a name in `s`, that an apostrophe makes a possessive.
pub(super) fn is_plural(word: &str) -> bool {
    word.len() > 1 && word.ends_with(['s', 'S']) && !word.starts_with('\'') && !word.ends_with("'s")
}

fn is_one_of(words: &[&str], word: &str) -> bool {
    words.iter().any(|other| word.eq_ignore_ascii_case(other))
}

/// What follows a quote, as far as it says whether the quote opens or marks a possessive.
enum After {
    /// `and`, `or`: `the boys ' and girls ' schools`.
    Coordinating,
    /// Another word of [`RESUMING`] or [`BEGINNING`].
    Function,
    Upper,
    Lower,
    Other,
}

impl After {
    fn of(after: &str) -> Self {
        match after.chars().next() {
            _ if matches!(after, "and" | "or") => Self::Coordinating,
            _ if RESUMING.contains(&after) || is_one_of(&BEGINNING, after) => Self::Function,
            Some(first) if first.is_uppercase() => Self::Upper,
            Some(first) if first.is_lowercase() => Self::Lower,
            _ => Self::Other,
        }
    }
}

/// Whether a letter between quotes after a word is a quoted one. The line's beginning counts as such a word.
fn introduces(word: &str, is_open: bool) -> bool {
    word.is_empty() || is_one_of(&NO_STEMS, word) || (!is_open && is_one_of(&INTRODUCING, word))
}

/// Whether two words are the parts of `ma'am`.
pub(super) fn is_maam(first: &str, second: &str) -> bool {
    let first = first.trim_start_matches(|c: char| !c.is_alphabetic());
    first.eq_ignore_ascii_case("ma") && second.eq_ignore_ascii_case("am")
}

/// What `rock 'n' roll` leaves of `and`.
fn is_and(word: &str) -> bool {
    matches!(word, "n" | "N")
}

/// `80s`, and `80s-style`.
fn is_decade(word: &str) -> bool {
    matches!(word.as_bytes(), [a, b, b's'] | [a, b, b's', b'-', ..] if a.is_ascii_digit() && b.is_ascii_digit())
}

/// Punctuation that closes up to the word before.
fn is_stop(token: &str) -> bool {
    matches!(token, "," | "." | ";" | ":" | "!" | "?")
}

/// Whether a token ends as words do.
fn is_word(token: &str) -> bool {
    token == "<unk>" || token.chars().next_back().is_some_and(char::is_alphanumeric)
}

/// A letter alone that is not a word: `O` of `O'Reilly`, `d` of `d'état`.
fn is_initial(token: &str) -> bool {
    let mut letters = token.chars();
    matches!((letters.next(), letters.next()), (Some(letter), None)
        if letter.is_alphabetic() && !matches!(letter, 'a' | 'A' | 'I'))
}

fn begins_upper(token: &str) -> bool {
    token.chars().next().is_some_and(char::is_uppercase)
}
