//! One pass over text whose tokens are set apart by spaces, deciding for every gap whether it stays.
//!
//! Why what comes out is a fixed point. A rule is set off by a token that stands alone between gaps (a comma, `'s`,
//! `@-@`) and takes at least one of its gaps away, so that nothing that sets off a rule stands alone afterwards but at
//! the ends of a line, where the gap to take away is missing the second time too. Two tokens that close up must then
//! not make a new one that sets off a rule: `' s`, `n 't` and `@ @-@ @` are the pairs that could, and are taken care of
//! where they arise. What a rule asks about its neighbours, their first or last character, does not change when they
//! close up with others. A word's second half, `'Reilly`, looks as a quoted word does in natural text: it closes up where
//! the line is set apart (another rule takes a gap away), which it is not the second time; in other lines only after
//! what begins a name; a word like `'em` only where both hold; and never where a quote closes later.

use super::quotes::{self, Join, Quotes};
use super::tokens::{Token, is_suffix, token_from};

/// Which rules hold.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each rule holds or does not")]
pub(super) struct Rules {
    /// `, . ; : ! ?` close up to the word before, brackets and quotes hug what they enclose, and so does `°`.
    pub punctuation: bool,
    /// `@-@`, `@,@`, `@.@` join what they stand between, or close up to the one neighbour that they have.
    pub separators: bool,
    /// `= =` becomes `==`.
    pub headings: bool,
    /// `/` joins what it stands between.
    pub slashes: bool,
    /// When signs of currency close up to what follows.
    pub currency: Currency,
    /// Penn Treebank's stand-ins: `N`, `<unk>`, `\/`.
    pub treebank: bool,
}

/// When signs of currency close up to what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Currency {
    /// Never.
    Never,
    /// `$` and `#` before a number.
    BeforeNumbers,
    /// `$` and `£` before anything.
    Always,
}

impl Rules {
    /// Contractions alone, which every rule set has.
    pub(super) const NONE: Self = Self {
        punctuation: false,
        separators: false,
        headings: false,
        slashes: false,
        currency: Currency::Never,
        treebank: false,
    };
}

/// Bytes that a token begins or ends with when a rule may ask about it: whatever is neither letter nor digit, and the `n`
/// of `n't` and `N`. The rest, nearly all, is passed over.
const NOTABLE: [bool; 256] = {
    let mut notable = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let letter = byte as u8;
        notable[byte] = !letter.is_ascii_alphanumeric() || letter == b'n' || letter == b'N';
        byte += 1;
    }
    notable
};

/// Applies rules to a text, line by line.
pub(super) fn apply(rules: &Rules, text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (index, line) in text.split('\n').enumerate() {
        if index > 0 {
            out.push('\n');
        }
        TokenizedLine {
            rules,
            text: line.trim_matches(' '),
            quotes: None,
            spelling: None,
        }
        .write(&mut out);
    }
    out
}

/// What to do with a token.
#[derive(Default)]
struct Spacing {
    /// The gap before it goes.
    left: bool,
    /// The gap after it goes.
    right: bool,
    /// What stands in its place.
    instead: Option<&'static str>,
}

impl Spacing {
    const STAYS: Self = Self {
        left: false,
        right: false,
        instead: None,
    };
    const LEFT: Self = Self {
        left: true,
        ..Self::STAYS
    };
    const RIGHT: Self = Self {
        right: true,
        ..Self::STAYS
    };
    const BOTH: Self = Self {
        left: true,
        ..Self::RIGHT
    };
}

struct TokenizedLine<'a> {
    rules: &'a Rules,
    /// Without spaces at its ends.
    text: &'a str,
    /// Its quotes, once there is one.
    quotes: Option<Quotes<'a>>,
    /// How it is spelt, once a word asks.
    spelling: Option<Apostrophes>,
}

/// What a word that begins with an apostrophe asks of its line.
#[derive(Clone, Copy)]
struct Apostrophes {
    /// Tokens are set apart: a rule takes a gap away.
    set_apart: bool,
    /// Where the last apostrophe stands that closes up to a word before and that no letter follows.
    last_closing: usize,
}

impl<'a> TokenizedLine<'a> {
    fn write(&mut self, out: &mut String) {
        let Some(mut token) = self.token_from(0) else {
            return;
        };
        let mut before: Option<Token> = None;
        let mut closes_up = false;
        // What of the line is in `out` already.
        let mut copied = 0;
        loop {
            let after = self.token_from(token.end);
            let spacing = self.judge(before, token, after);
            if let Some(before) = before
                && (closes_up || spacing.left)
            {
                out.push_str(&self.text[copied..before.end]);
                copied = token.start;
            }
            if let Some(instead) = spacing.instead {
                out.push_str(&self.text[copied..token.start]);
                out.push_str(instead);
                copied = token.end;
            } else if self.rules.treebank && self.has_stand_ins(token) {
                out.push_str(&self.text[copied..token.start]);
                write_without_stand_ins(&self.text[token.start..token.end], out);
                copied = token.end;
            }
            closes_up = spacing.right;
            before = Some(token);
            match after {
                Some(after) => token = after,
                None => break,
            }
        }
        out.push_str(&self.text[copied..]);
    }

    #[inline]
    fn token_from(&self, place: usize) -> Option<Token> {
        token_from(self.text, place)
    }

    fn bytes(&self, token: Token) -> &[u8] {
        &self.text.as_bytes()[token.start..token.end]
    }

    fn is(&self, token: Option<Token>, text: &[u8]) -> bool {
        token.is_some_and(|token| self.bytes(token) == text)
    }

    #[inline]
    fn judge(&mut self, before: Option<Token>, token: Token, after: Option<Token>) -> Spacing {
        let bytes = self.text.as_bytes();
        let (first, last) = (bytes[token.start], bytes[token.end - 1]);
        if NOTABLE[usize::from(first)] || NOTABLE[usize::from(last)] {
            self.judge_notable(before, token, after)
        } else {
            Spacing::STAYS
        }
    }

    fn judge_notable(&mut self, before: Option<Token>, token: Token, after: Option<Token>) -> Spacing {
        match self.bytes(token) {
            b"\"" | b"'" if self.rules.punctuation => self.quote(),
            b"'" => self.apostrophe(before, after),
            [b'\'', suffix @ ..] if self.rules.punctuation && !is_suffix(suffix) => {
                let spacing = self.judge_without_quotes(before, token, after);
                let left = before.is_some_and(|before| self.is_second_half(before, token));
                Spacing {
                    left: spacing.left || left,
                    ..spacing
                }
            }
            _ => self.judge_without_quotes(before, token, after),
        }
    }

    fn judge_without_quotes(&self, before: Option<Token>, token: Token, after: Option<Token>) -> Spacing {
        let rules = self.rules;
        match self.bytes(token) {
            b"," | b"." | b";" | b":" | b"!" | b"?" | b")" | b"]" | b"}" if rules.punctuation => {
                Spacing::LEFT
            }
            b"(" | b"[" | b"{" if rules.punctuation => Spacing::RIGHT,
            b"/" if rules.slashes => Spacing::BOTH,
            b"=" if rules.headings && self.is(before, b"=") => Spacing::LEFT,
            b"N" if rules.treebank => Spacing {
                instead: Some("1"),
                ..Spacing::STAYS
            },
            b"@-@" if rules.separators => self.separator("-", before, after),
            b"@,@" if rules.separators => self.separator(",", before, after),
            b"@.@" if rules.separators => self.separator(".", before, after),
            // Nothing follows: the sign is the number's. Nothing comes before: it stays.
            b"\xC2\xB0" if rules.punctuation && before.is_some() => Spacing::BOTH,
            [b'n' | b'N', b'\'', b't' | b'T'] if !self.ends_in_apostrophe(before) => Spacing::LEFT,
            [b'n' | b'N'] if self.begins_not(after) => Spacing::LEFT,
            [b'\'', suffix @ ..] if is_suffix(suffix) => Spacing::LEFT,
            [.., b'$'] | [.., 0xC2, 0xA3] if rules.currency == Currency::Always => Spacing::RIGHT,
            [.., b'$' | b'#'] if rules.currency == Currency::BeforeNumbers && self.is_number(after) => {
                Spacing::RIGHT
            }
            _ => Spacing::STAYS,
        }
    }

    /// A quote that stands alone.
    fn quote(&mut self) -> Spacing {
        let text = self.text;
        match self.quotes.get_or_insert_with(|| Quotes::new(text)).next() {
            Join::Stays => Spacing::STAYS,
            Join::Left => Spacing::LEFT,
            Join::Right => Spacing::RIGHT,
            Join::Both => Spacing::BOTH,
        }
    }

    /// An apostrophe that stands alone where there are no quotes: part of a contraction, or of a possessive
    /// (`the players '`). A letter between two of them (`' D '`) is not a contraction.
    fn apostrophe(&self, before: Option<Token>, after: Option<Token>) -> Spacing {
        if let Some(after) = after
            && is_suffix(self.bytes(after))
        {
            let is_not = self.is(before, b"n") || self.is(before, b"N");
            let is_letter = !is_not && self.is(self.token_from(after.end), b"'");
            return if is_letter { Spacing::STAYS } else { Spacing::BOTH };
        }
        match before {
            Some(before) if quotes::is_plural(self.string(before)) => Spacing::LEFT,
            _ => Spacing::STAYS,
        }
    }

    /// Whether a token such as `'Reilly` is the second half of the word before it.
    fn is_second_half(&mut self, before: Token, token: Token) -> bool {
        let (first, second) = (self.string(before), &self.string(token)[1..]);
        if quotes::is_maam(first, second) {
            return true;
        }
        let is_word = first == "<unk>" || first.ends_with(char::is_alphabetic);
        if !is_word || !second.starts_with(char::is_alphabetic) {
            return false;
        }
        let spelling = self.spelling();
        if spelling.last_closing > token.start {
            return false;
        }
        // `get 'em` stays; `Xi 'er` and `rock 'n 'roll` are words cut apart where others are.
        match (spelling.set_apart, quotes::is_clipped(second)) {
            (true, true) => begins_name(first) || second == "n",
            (set_apart, is_clipped) => set_apart || (begins_name(first) && !is_clipped),
        }
    }

    fn spelling(&mut self) -> Apostrophes {
        if let Some(spelling) = self.spelling {
            return spelling;
        }
        let spelling = Apostrophes {
            set_apart: self.is_set_apart(),
            last_closing: self.last_closing(),
        };
        self.spelling = Some(spelling);
        spelling
    }

    /// Whether a rule takes a gap away, but for those about a word's second half.
    fn is_set_apart(&self) -> bool {
        let mut before = None;
        let mut next = self.token_from(0);
        while let Some(token) = next {
            next = self.token_from(token.end);
            let spacing = match self.bytes(token) {
                b"\"" | b"'" => Spacing::BOTH,
                _ => self.judge_without_quotes(before, token, next),
            };
            if (spacing.left && before.is_some()) || (spacing.right && next.is_some()) {
                return true;
            }
            before = Some(token);
        }
        false
    }

    /// Where the last apostrophe stands that closes up to a word before and that no letter follows; 0 where there is none.
    fn last_closing(&self) -> usize {
        let text = self.text;
        let closes = |&place: &usize| {
            let (before, after) = (&text[..place], &text[place + 1..]);
            before.chars().next_back().is_some_and(|last| last != ' ')
                && !after.starts_with(char::is_alphanumeric)
        };
        text.rmatch_indices('\'')
            .map(|(place, _)| place)
            .find(closes)
            .unwrap_or(0)
    }

    /// `@-@` beside a token or between two, unless they would make a new one.
    fn separator(&self, sign: &'static str, before: Option<Token>, after: Option<Token>) -> Spacing {
        let bytes = self.text.as_bytes();
        match (before, after) {
            (Some(before), Some(after)) if bytes[before.end - 1] == b'@' && bytes[after.start] == b'@' => {
                Spacing::STAYS
            }
            _ => Spacing {
                instead: Some(sign),
                ..Spacing::BOTH
            },
        }
    }

    fn ends_in_apostrophe(&self, token: Option<Token>) -> bool {
        token.is_some_and(|token| self.bytes(token).ends_with(b"'"))
    }

    fn string(&self, token: Token) -> &'a str {
        &self.text[token.start..token.end]
    }

    /// Whether `'t` follows an `n` that stands alone.
    fn begins_not(&self, after: Option<Token>) -> bool {
        let Some(after) = after else { return false };
        match self.bytes(after) {
            [b'\'', b't' | b'T'] => true,
            b"'" => {
                let next = self.token_from(after.end);
                self.is(next, b"t") || self.is(next, b"T")
            }
            _ => false,
        }
    }

    fn is_number(&self, token: Option<Token>) -> bool {
        token.is_some_and(|token| {
            let bytes = self.bytes(token);
            bytes[0].is_ascii_digit() || bytes == b"N"
        })
    }

    fn has_stand_ins(&self, token: Token) -> bool {
        self.bytes(token).iter().any(|byte| matches!(byte, b'<' | b'\\'))
    }
}

/// Whether a word looks like the first part of a name or of a French noun: a capital, or a letter alone.
pub(super) fn begins_name(word: &str) -> bool {
    let letters = word
        .rsplit(|c: char| !c.is_alphabetic())
        .next()
        .unwrap_or_default();
    let rest = &word[..word.len() - letters.len()];
    let mut chars = letters.chars();
    match (chars.next(), chars.next()) {
        _ if rest.ends_with('\'') => false,
        (Some(letter), None) => !matches!(letter, 'a' | 'A' | 'I'),
        (Some(first), Some(_)) => first.is_uppercase(),
        (None, _) => word == "<unk>",
    }
}

/// `<unk>` becomes `?`, and backslashes before a `/` go, all of them: what is left must not be one again.
fn write_without_stand_ins(token: &str, out: &mut String) {
    let mut rest = token;
    while let Some(at) = rest.find(['<', '\\']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("<unk>") {
            out.push('?');
            rest = after;
            continue;
        }
        let backslashes = rest.len() - rest.trim_start_matches('\\').len();
        if backslashes > 0 && rest[backslashes..].starts_with('/') {
            rest = &rest[backslashes..];
        } else {
            // A `<`, or backslashes that stay.
            let (kept, after) = rest.split_at(backslashes.max(1));
            out.push_str(kept);
            rest = after;
        }
    }
    out.push_str(rest);
}
