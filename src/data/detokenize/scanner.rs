//! One pass over text whose tokens are set apart by spaces, deciding for every gap whether it stays.
//!
//! Why what comes out is a fixed point. A rule is set off by a token that stands alone between gaps (a comma, `'s`,
//! `@-@`) and takes at least one of its gaps away, so that nothing that sets off a rule stands alone afterwards but at
//! the ends of a line, where the gap to take away is missing the second time too. Two tokens that close up must then
//! not make a new one that sets off a rule: `' s`, `n 't` and `@ @-@ @` are the pairs that could, and are taken care of
//! where they arise. What a rule asks about its neighbours, their first or last character, does not change when they
//! close up with others.

/// Which rules hold.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each rule holds or does not")]
pub(super) struct Rules {
    /// `, . ; : ! ?` close up to the word before, brackets and quotes hug what they enclose, and so does `°`.
    pub punctuation: bool,
    /// `@-@`, `@,@`, `@.@` join what they stand between.
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

/// What contractions leave after their apostrophe.
const SUFFIXES: [&[u8]; 7] = [b"s", b"t", b"re", b"ve", b"ll", b"d", b"m"];

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
        Line {
            rules,
            text: line.trim_matches(' '),
            double_open: false,
            single_open: false,
        }
        .write(&mut out);
    }
    out
}

/// Where a token stands in its line.
#[derive(Clone, Copy)]
struct Token {
    start: usize,
    end: usize,
}

/// What becomes of a token.
#[derive(Default)]
struct Verdict {
    /// The gap before it goes.
    left: bool,
    /// The gap after it goes.
    right: bool,
    /// What stands in its place.
    instead: Option<&'static str>,
}

impl Verdict {
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

struct Line<'a> {
    rules: &'a Rules,
    /// Without spaces at its ends.
    text: &'a str,
    /// A `"` waits for its other.
    double_open: bool,
    /// A `'` waits for its other.
    single_open: bool,
}

impl Line<'_> {
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
            let verdict = self.judge(before, token, after);
            if let Some(before) = before
                && (closes_up || verdict.left)
            {
                out.push_str(&self.text[copied..before.end]);
                copied = token.start;
            }
            if let Some(instead) = verdict.instead {
                out.push_str(&self.text[copied..token.start]);
                out.push_str(instead);
                copied = token.end;
            } else if self.rules.treebank && self.has_stand_ins(token) {
                out.push_str(&self.text[copied..token.start]);
                write_without_stand_ins(&self.text[token.start..token.end], out);
                copied = token.end;
            }
            closes_up = verdict.right;
            before = Some(token);
            match after {
                Some(after) => token = after,
                None => break,
            }
        }
        out.push_str(&self.text[copied..]);
    }

    /// The first token at or after a place.
    #[inline]
    fn token_from(&self, place: usize) -> Option<Token> {
        let bytes = self.text.as_bytes();
        let start = place + bytes[place..].iter().position(|&byte| byte != b' ')?;
        let length = bytes[start..].iter().position(|&byte| byte == b' ');
        Some(Token {
            start,
            end: length.map_or(bytes.len(), |length| start + length),
        })
    }

    fn bytes(&self, token: Token) -> &[u8] {
        &self.text.as_bytes()[token.start..token.end]
    }

    fn is(&self, token: Option<Token>, text: &[u8]) -> bool {
        token.is_some_and(|token| self.bytes(token) == text)
    }

    #[inline]
    fn judge(&mut self, before: Option<Token>, token: Token, after: Option<Token>) -> Verdict {
        let bytes = self.text.as_bytes();
        let (first, last) = (bytes[token.start], bytes[token.end - 1]);
        if NOTABLE[usize::from(first)] || NOTABLE[usize::from(last)] {
            self.judge_notable(before, token, after)
        } else {
            Verdict::STAYS
        }
    }

    fn judge_notable(&mut self, before: Option<Token>, token: Token, after: Option<Token>) -> Verdict {
        let rules = self.rules;
        match self.bytes(token) {
            b"," | b"." | b";" | b":" | b"!" | b"?" | b")" | b"]" | b"}" if rules.punctuation => {
                Verdict::LEFT
            }
            b"(" | b"[" | b"{" if rules.punctuation => Verdict::RIGHT,
            b"\"" if rules.punctuation => self.double_quote(after),
            b"'" => self.apostrophe(before, after),
            b"/" if rules.slashes => Verdict::BOTH,
            b"=" if rules.headings && self.is(before, b"=") => Verdict::LEFT,
            b"N" if rules.treebank => Verdict {
                instead: Some("1"),
                ..Verdict::STAYS
            },
            b"@-@" if rules.separators => self.separator("-", before, after),
            b"@,@" if rules.separators => self.separator(",", before, after),
            b"@.@" if rules.separators => self.separator(".", before, after),
            // Nothing follows: the sign is the number's. Nothing comes before: it is nobody's.
            b"\xC2\xB0" if rules.punctuation && before.is_some() => Verdict::BOTH,
            [b'n' | b'N', b'\'', b't' | b'T'] => Verdict::LEFT,
            [b'n' | b'N'] if self.begins_not(after) => Verdict::LEFT,
            [b'\'', suffix @ ..] if is_suffix(suffix) => Verdict::LEFT,
            [.., b'$'] | [.., 0xC2, 0xA3] if rules.currency == Currency::Always => Verdict::RIGHT,
            [.., b'$' | b'#'] if rules.currency == Currency::BeforeNumbers && self.is_number(after) => {
                Verdict::RIGHT
            }
            _ => Verdict::STAYS,
        }
    }

    /// The quotes that stand alone open and close in turn.
    fn double_quote(&mut self, after: Option<Token>) -> Verdict {
        let closes = self.double_open || after.is_none();
        self.double_open = !closes;
        if closes { Verdict::LEFT } else { Verdict::RIGHT }
    }

    /// An apostrophe that stands alone is part of a contraction, closes a quote, marks a possessive (`the players '`),
    /// stands for a century (`the ' 80s`), or opens a quote; tried in this order.
    fn apostrophe(&mut self, before: Option<Token>, after: Option<Token>) -> Verdict {
        if after.is_some_and(|after| is_suffix(self.bytes(after))) {
            return Verdict::BOTH;
        }
        let plural = before.is_some_and(|before| matches!(self.bytes(before).last(), Some(b's' | b'S')));
        if !self.rules.punctuation {
            // Without punctuation there are no quotes.
            return if plural { Verdict::LEFT } else { Verdict::STAYS };
        }
        if self.single_open || plural || after.is_none() {
            self.single_open = false;
            return Verdict::LEFT;
        }
        let decade =
            |token| matches!(self.bytes(token), [a, b, b's'] if a.is_ascii_digit() && b.is_ascii_digit());
        self.single_open = !after.is_some_and(decade);
        Verdict::RIGHT
    }

    /// `@-@` between two tokens, unless they would make a new one.
    fn separator(&self, sign: &'static str, before: Option<Token>, after: Option<Token>) -> Verdict {
        let bytes = self.text.as_bytes();
        match (before, after) {
            (Some(before), Some(after)) if bytes[before.end - 1] != b'@' || bytes[after.start] != b'@' => {
                Verdict {
                    instead: Some(sign),
                    ..Verdict::BOTH
                }
            }
            _ => Verdict::STAYS,
        }
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

fn is_suffix(bytes: &[u8]) -> bool {
    bytes.len() <= 2 && SUFFIXES.iter().any(|suffix| bytes.eq_ignore_ascii_case(suffix))
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
