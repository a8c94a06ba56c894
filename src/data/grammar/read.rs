//! Grammar file → [`Grammar`]: names resolved, every fault with its line and column.

use std::collections::HashMap;

use super::{Alternative, Class, Form, Grammar, Rule, Symbol, Token, split_marks};
use crate::error::{Error, Result};
use crate::plural::counted;

/// Entries of a feature, at most: the parser tries each.
const FEATURE_ENTRIES: usize = 8;
/// Largest weight of an alternative.
const MOST_WEIGHT: u64 = 1_000_000_000;

/// At its end, it joins a line with the next.
const CONTINUED: &str = "\\";

/// Reads a grammar; [`super::check`] has to see it before it is used.
pub fn read(text: &str, file: &str) -> Result<Grammar> {
    let mut reader = Reader {
        file,
        tokens: Vec::new(),
        ids: HashMap::new(),
        classes: Vec::new(),
        class_ids: HashMap::new(),
    };
    let blocks = reader.blocks(text)?;
    for block in &blocks {
        if let Head::Class { feature } = block.head {
            reader.class(block, feature)?;
        }
    }
    // Rules may call rules that come later: names first.
    let mut heads = Vec::new();
    let mut rule_ids = HashMap::new();
    for block in blocks.iter().filter(|block| matches!(block.head, Head::Rule)) {
        let head = reader.rule_head(block)?;
        if reader.class_ids.contains_key(head.name) || rule_ids.insert(head.name, heads.len()).is_some() {
            return Err(reader.fault(
                block.line,
                block.column,
                &format!("the name `{}` is taken", head.name),
            ));
        }
        heads.push((head, block));
    }
    let mut rules = Vec::new();
    for (head, block) in &heads {
        let mut alternatives = Vec::new();
        let mut total_weight = 0;
        for line in &block.body {
            let alternative = reader.alternative(line, head, &heads, &rule_ids)?;
            total_weight += alternative.weight;
            alternatives.push(alternative);
        }
        if alternatives.is_empty() {
            return Err(reader.fault(
                block.line,
                block.column,
                &format!("rule `{}` has no alternative", head.name),
            ));
        }
        rules.push(Rule {
            name: head.name.to_owned(),
            parameters: head.parameters.iter().map(|&(_, class)| class).collect(),
            alternatives,
            total_weight,
        });
    }
    let Some(&start) = rule_ids.get("record") else {
        return Err(Error::input(format!("{file}: there is no rule `record`"))
            .hint("a record is what the rule `record` makes"));
    };
    if !rules[start].parameters.is_empty() {
        return Err(Error::input(format!(
            "{file}: the rule `record` is given variables"
        )));
    }
    Ok(Grammar {
        tokens: reader.tokens,
        ids: reader.ids,
        classes: reader.classes,
        rules,
        start,
        entropy: super::Entropy::default(),
    })
}

struct Reader<'t> {
    file: &'t str,
    tokens: Vec<String>,
    ids: HashMap<String, Token>,
    classes: Vec<Class>,
    class_ids: HashMap<String, usize>,
}

#[derive(Clone, Copy)]
enum Head {
    Class { feature: bool },
    Rule,
}

/// A head line and the lines that belong to it.
struct Definition<'t> {
    head: Head,
    /// The head line after its keyword.
    text: &'t str,
    line: usize,
    column: usize,
    body: Vec<SourceLine<'t>>,
}

/// A piece of a line, or of lines joined by `\`, and its place (1-based; columns count characters).
#[derive(Clone, Copy)]
struct SourceLine<'t> {
    text: &'t str,
    number: usize,
    column: usize,
}

impl SourceLine<'_> {
    /// The rest from byte `at` on, without white space at its ends.
    fn from(&self, at: usize) -> Self {
        self.part(at, self.text.len())
    }

    /// The bytes from `start` to `end`, without white space at its ends.
    fn part(&self, start: usize, end: usize) -> Self {
        let text = &self.text[start..end];
        let blank = text.len() - text.trim_start().len();
        let before = &self.text[..start + blank];
        let (number, column) = match before.rfind('\n') {
            Some(newline) => {
                let lines = before.matches('\n').count();
                (self.number + lines, 1 + before[newline + 1..].chars().count())
            }
            None => (self.number, self.column + before.chars().count()),
        };
        Self {
            text: text.trim(),
            number,
            column,
        }
    }

    /// The parts between separators.
    fn split(&self, separator: char) -> Vec<Self> {
        let mut parts = Vec::new();
        let mut start = 0;
        for (at, _) in self.text.match_indices(separator) {
            parts.push(self.part(start, at));
            start = at + separator.len_utf8();
        }
        parts.push(self.from(start));
        parts
    }
}

struct RuleHead<'t> {
    name: &'t str,
    parameters: Vec<(&'t str, usize)>,
}

/// Variables of an alternative while it is read.
struct Scope<'t> {
    /// Name and slot; anonymous draws have no name.
    names: Vec<(&'t str, usize)>,
    slots: Vec<usize>,
}

impl Scope<'_> {
    fn find(&self, name: &str) -> Option<usize> {
        self.names.iter().find(|(n, _)| *n == name).map(|&(_, slot)| slot)
    }
}

impl<'t> Reader<'t> {
    fn fault(&self, line: usize, column: usize, message: &str) -> Error {
        Error::input(format!("{}:{line}:{column}: {message}", self.file))
    }

    fn at(&self, line: &SourceLine, message: &str) -> Error {
        self.fault(line.number, line.column, message)
    }

    fn blocks(&self, text: &'t str) -> Result<Vec<Definition<'t>>> {
        let mut blocks: Vec<Definition> = Vec::new();
        let mut lines = text.lines().enumerate();
        while let Some((index, first)) = lines.next() {
            let start = offset(text, first);
            let mut last = first;
            while last.ends_with(CONTINUED)
                && let Some((_, next)) = lines.next()
            {
                last = next;
            }
            let raw = &text[start..offset(text, last) + without_comment(last).len()];
            let raw = raw.trim_end();
            let whole = SourceLine {
                text: raw,
                number: index + 1,
                column: 1,
            };
            if raw.is_empty() {
                continue;
            }
            if raw.starts_with([' ', '\t']) {
                let Some(block) = blocks.last_mut() else {
                    return Err(self.at(
                        &whole.from(0),
                        "an indented line before any `class`, `feature` or `rule`",
                    ));
                };
                block.body.push(whole.from(0));
                continue;
            }
            let (keyword, rest) = raw.split_once(' ').unwrap_or((raw, ""));
            let head = match keyword {
                "class" => Head::Class { feature: false },
                "feature" => Head::Class { feature: true },
                "rule" => Head::Rule,
                _ => {
                    return Err(self
                        .at(&whole, &format!("`{keyword}` does not begin a definition"))
                        .hint("a line begins with `class`, `feature` or `rule`, or is indented"));
                }
            };
            let rest = whole.from(raw.len() - rest.len());
            blocks.push(Definition {
                head,
                text: rest.text,
                line: rest.number,
                column: rest.column,
                body: Vec::new(),
            });
        }
        Ok(blocks)
    }

    fn name(&self, line: &SourceLine<'t>) -> Result<&'t str> {
        let good = line.text.starts_with(|c: char| c.is_ascii_alphabetic())
            && line.text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if good {
            Ok(line.text)
        } else {
            Err(self
                .at(line, &format!("`{}` is not a name", line.text))
                .hint("a name is letters, digits and `_`, and begins with a letter"))
        }
    }

    fn class(&mut self, block: &Definition<'t>, feature: bool) -> Result<()> {
        let head = SourceLine {
            text: block.text,
            number: block.line,
            column: block.column,
        };
        let Some(colon) = head.text.find(':') else {
            return Err(self
                .at(&head, "a `:` and the columns are missing")
                .hint("for example `class city: name`"));
        };
        let name = self.name(&head.part(0, colon))?;
        let columns = head.from(colon + 1);
        let mut names: Vec<String> = Vec::new();
        for column in columns.split(' ').iter().filter(|part| !part.text.is_empty()) {
            let column_name = self.name(column)?.to_owned();
            if names.contains(&column_name) {
                return Err(self.at(column, &format!("column `{column_name}` is defined twice")));
            }
            names.push(column_name);
        }
        if names.is_empty() {
            return Err(self.at(&columns, &format!("`{name}` has no columns")));
        }
        let mut class = Class {
            name: name.to_owned(),
            feature,
            lookup: vec![HashMap::new(); names.len()],
            columns: names,
            entries: Vec::new(),
        };
        let mut first_forms = HashMap::new();
        for line in &block.body {
            self.entries(line, &mut class, &mut first_forms)?;
        }
        let least = if feature { 2 } else { 1 };
        if class.entries.len() < least || (feature && class.entries.len() > FEATURE_ENTRIES) {
            let allowed = if feature {
                format!("2 to {FEATURE_ENTRIES}")
            } else {
                "at least one".to_owned()
            };
            return Err(self.at(
                &head,
                &format!(
                    "`{name}` has {}; {allowed} are needed",
                    counted(class.entries.len(), "entry")
                ),
            ));
        }
        for (entry, forms) in class.entries.iter().enumerate() {
            for (column, form) in forms.iter().enumerate() {
                let entries = class.lookup[column].entry(form[0]).or_default();
                entries.push(entry as u32);
            }
        }
        if self
            .class_ids
            .insert(name.to_owned(), self.classes.len())
            .is_some()
        {
            return Err(self.at(&head, &format!("the name `{name}` is taken")));
        }
        self.classes.push(class);
        Ok(())
    }

    fn entries(
        &mut self,
        line: &SourceLine<'t>,
        class: &mut Class,
        first_forms: &mut HashMap<Vec<Token>, usize>,
    ) -> Result<()> {
        let (pattern, items) = match line.text.find(':') {
            Some(colon) => (line.part(0, colon), line.from(colon + 1).split(',')),
            None if class.columns.len() == 1 => {
                let star = SourceLine { text: "*", ..*line };
                (star, line.split(','))
            }
            None => (*line, vec![SourceLine { text: "", ..*line }]),
        };
        let forms = pattern.split('/');
        if forms.len() != class.columns.len() {
            return Err(self
                .at(
                    &pattern,
                    &format!(
                        "{} for the {} of `{}`",
                        counted(forms.len(), "form"),
                        counted(class.columns.len(), "column"),
                        class.name
                    ),
                )
                .hint(format!("the columns are {}", class.columns.join(" / "))));
        }
        let starred = pattern.text.contains('*');
        for item in items {
            if starred && item.text.is_empty() {
                return Err(self.at(&item, "an item is missing"));
            }
            let mut entry = Vec::new();
            for form in &forms {
                let spelled = form.text.replace('*', item.text);
                let words = self.words(&spelled);
                if words.is_empty() || spelled.contains(['{', '}', '<', '>', ',']) {
                    return Err(self.at(form, &format!("`{spelled}` is not a form")));
                }
                entry.push(words);
            }
            if let Some(other) = first_forms.insert(entry[0].clone(), item.number) {
                return Err(self.at(
                    &item,
                    &format!(
                        "`{}` is an entry of `{}` already, since line {other}",
                        forms[0].text.replace('*', item.text),
                        class.name
                    ),
                ));
            }
            class.entries.push(entry);
        }
        Ok(())
    }

    /// The words and marks of a text, remembered.
    fn words(&mut self, text: &str) -> Vec<Token> {
        let mut words = Vec::new();
        for chunk in text.split_whitespace().filter(|chunk| *chunk != CONTINUED) {
            for word in split_marks(chunk) {
                let next = self.tokens.len() as Token;
                let id = *self.ids.entry(word.to_owned()).or_insert(next);
                if id == next {
                    self.tokens.push(word.to_owned());
                }
                words.push(id);
            }
        }
        words
    }

    fn rule_head(&self, block: &Definition<'t>) -> Result<RuleHead<'t>> {
        let head = SourceLine {
            text: block.text,
            number: block.line,
            column: block.column,
        };
        let Some(head_text) = head.text.strip_suffix('=') else {
            return Err(self
                .at(&head, "a `=` at the end of the line is missing")
                .hint("for example `rule person who:name =`"));
        };
        let parts = head.part(0, head_text.len()).split(' ');
        let name = self.name(&parts[0])?;
        let mut parameters: Vec<(&str, usize)> = Vec::new();
        for part in parts[1..].iter().filter(|part| !part.text.is_empty()) {
            let Some(colon) = part.text.find(':') else {
                return Err(self
                    .at(part, &format!("`{}` has no class", part.text))
                    .hint("a rule's variable is written `VARIABLE:CLASS`"));
            };
            let variable = self.name(&part.part(0, colon))?;
            let class = self.class_id(&part.from(colon + 1))?;
            self.free(&part.part(0, colon), |v| parameters.iter().any(|&(n, _)| n == v))?;
            parameters.push((variable, class));
        }
        Ok(RuleHead { name, parameters })
    }

    fn class_id(&self, line: &SourceLine) -> Result<usize> {
        self.class_ids.get(line.text).copied().ok_or_else(|| {
            let error = self.at(line, &format!("there is no class `{}`", line.text));
            match suggestion(line.text, self.class_ids.keys().map(String::as_str)) {
                Some(name) => error.hint(format!("did you mean `{name}`?")),
                None => error,
            }
        })
    }

    /// Fails when a variable's name is taken by a class or by another variable.
    fn free(&self, line: &SourceLine, taken: impl Fn(&str) -> bool) -> Result<()> {
        if self.class_ids.contains_key(line.text) || taken(line.text) {
            return Err(self.at(line, &format!("the name `{}` is taken", line.text)));
        }
        Ok(())
    }

    fn alternative(
        &mut self,
        line: &SourceLine<'t>,
        head: &RuleHead<'t>,
        heads: &[(RuleHead<'t>, &Definition<'t>)],
        rule_ids: &HashMap<&str, usize>,
    ) -> Result<Alternative> {
        let mut weight = 1;
        let mut body = *line;
        if let Some((number, rest)) = line.text.split_once(':')
            && !number.is_empty()
            && number.bytes().all(|b| b.is_ascii_digit())
        {
            weight = number
                .parse()
                .ok()
                .filter(|w| (1..=MOST_WEIGHT).contains(w))
                .ok_or_else(|| {
                    self.at(
                        line,
                        &format!("a weight of {number} is not from 1 to {MOST_WEIGHT}"),
                    )
                })?;
            body = line.from(line.text.len() - rest.len());
        }
        let mut scope = Scope {
            names: head.parameters.iter().copied().map(|(n, _)| n).zip(0..).collect(),
            slots: head.parameters.iter().map(|&(_, class)| class).collect(),
        };
        let mut items = Vec::new();
        let mut start = 0;
        while start < body.text.len() {
            let rest = &body.text[start..];
            let close = match rest.chars().next() {
                Some('{') => Some('}'),
                Some('<') => Some('>'),
                _ => None,
            };
            let Some(close) = close else {
                let end = rest.find(['{', '<']).unwrap_or(rest.len());
                if let Some(at) = rest[..end].find(['}', '>']) {
                    let stray = body.from(start + at);
                    return Err(self.at(&stray, "a closing bracket without an opening one"));
                }
                let words = self.words(&rest[..end]);
                if !words.is_empty() {
                    items.push(Symbol::Text(words));
                }
                start += end;
                continue;
            };
            let Some(end) = rest.find(close) else {
                return Err(self.at(&body.from(start), &format!("`{close}` is missing")));
            };
            let inner = body.part(start + 1, start + end);
            if close == '}' {
                self.variable(&inner, &mut scope, &mut items)?;
            } else {
                items.push(self.call(&inner, &scope, heads, rule_ids)?);
            }
            start += end + 1;
        }
        Ok(Alternative {
            weight,
            items,
            slots: scope.slots,
            place: (line.number, line.column),
        })
    }

    fn call(
        &self,
        inner: &SourceLine<'t>,
        scope: &Scope,
        heads: &[(RuleHead<'t>, &Definition<'t>)],
        rule_ids: &HashMap<&str, usize>,
    ) -> Result<Symbol> {
        let parts = inner.split(' ');
        let Some(&rule) = rule_ids.get(parts[0].text) else {
            let error = self.at(&parts[0], &format!("there is no rule `{}`", parts[0].text));
            return Err(match suggestion(parts[0].text, rule_ids.keys().copied()) {
                Some(name) => error.hint(format!("did you mean `{name}`?")),
                None => error,
            });
        };
        let mut arguments = Vec::new();
        for part in parts[1..].iter().filter(|part| !part.text.is_empty()) {
            let slot = scope
                .find(part.text)
                .ok_or_else(|| self.at(part, &format!("there is no variable `{}` here", part.text)))?;
            arguments.push(slot);
        }
        let expected: Vec<usize> = heads[rule].0.parameters.iter().map(|&(_, class)| class).collect();
        let given: Vec<usize> = arguments.iter().map(|&slot| scope.slots[slot]).collect();
        if expected != given {
            let names = |classes: &[usize]| {
                let names: Vec<&str> = classes.iter().map(|&c| self.classes[c].name.as_str()).collect();
                names.join(" ")
            };
            return Err(self.at(
                inner,
                &format!(
                    "rule `{}` takes ({}), not ({})",
                    parts[0].text,
                    names(&expected),
                    names(&given)
                ),
            ));
        }
        Ok(Symbol::Call { rule, arguments })
    }

    fn variable(&self, inner: &SourceLine<'t>, scope: &mut Scope<'t>, items: &mut Vec<Symbol>) -> Result<()> {
        let parts = inner.split('.');
        let (first, forms) = (parts[0], &parts[1..]);
        let slot = if let Some(colon) = first.text.find(':') {
            let name = self.name(&first.part(0, colon))?;
            let class = first.from(colon + 1);
            let (class, distinct) = match class.text.find('-') {
                Some(dash) => {
                    let other = class.from(dash + 1);
                    let slot = scope.find(other.text).ok_or_else(|| {
                        self.at(&other, &format!("there is no variable `{}` here", other.text))
                    })?;
                    (class.part(0, dash), Some((slot, other)))
                }
                None => (class, None),
            };
            let id = self.class_id(&class)?;
            self.free(&first.part(0, colon), |v| scope.find(v).is_some())?;
            if let Some((other, place)) = &distinct
                && (scope.slots[*other] != id
                    || self.classes[id].entries.len() < 2
                    // Values of two features are independent draws: the mean lengths of forms rest on it.
                    || self.classes[id].feature)
            {
                return Err(self.at(
                    place,
                    &format!("`{}` is not another one of `{}`", place.text, class.text),
                ));
            }
            let slot = scope.slots.len();
            scope.slots.push(id);
            scope.names.push((name, slot));
            items.push(Symbol::Draw {
                slot,
                distinct: distinct.map(|(slot, _)| slot),
            });
            if forms.is_empty() && self.classes[id].feature {
                return Ok(());
            }
            slot
        } else if let Some(slot) = scope.find(first.text) {
            slot
        } else if self.class_ids.contains_key(first.text) {
            let class = self.class_id(&first)?;
            if self.classes[class].feature {
                return Err(self
                    .at(&first, &format!("the feature `{}` has no variable", first.text))
                    .hint(format!("write `{{v:{}}}`", first.text)));
            }
            let slot = scope.slots.len();
            scope.slots.push(class);
            items.push(Symbol::Draw { slot, distinct: None });
            slot
        } else {
            let names = scope.names.iter().map(|(n, _)| *n);
            let known = names.chain(self.class_ids.keys().map(String::as_str));
            let error = self.at(&first, &format!("there is no variable or class `{}`", first.text));
            return Err(match suggestion(first.text, known) {
                Some(name) => error.hint(format!("did you mean `{name}`?")),
                None => error,
            });
        };
        if matches!(forms, [form] if form.text == "-") {
            return Ok(());
        }
        let form = self.form(inner, forms, slot, scope)?;
        items.push(Symbol::Say { slot, form });
        Ok(())
    }

    /// The columns that `.a.b` selects, for every combination of the features among its parts.
    fn form(&self, inner: &SourceLine, parts: &[SourceLine<'t>], slot: usize, scope: &Scope) -> Result<Form> {
        let class = &self.classes[scope.slots[slot]];
        if parts.is_empty() {
            return Ok(Form {
                features: vec![],
                columns: vec![0],
            });
        }
        let mut features = Vec::new();
        let mut names = vec![String::new()];
        for (index, part) in parts.iter().enumerate() {
            let values: Vec<String> = match scope.find(part.text) {
                Some(feature) if feature == slot => {
                    return Err(self.at(part, &format!("`{}` selects its own form", part.text)));
                }
                Some(feature) if self.classes[scope.slots[feature]].feature => {
                    features.push(feature);
                    self.classes[scope.slots[feature]]
                        .entries
                        .iter()
                        .map(|forms| {
                            let words: Vec<&str> = forms[0]
                                .iter()
                                .map(|&t| self.tokens[t as usize].as_str())
                                .collect();
                            words.join("_")
                        })
                        .collect()
                }
                Some(_) => {
                    return Err(self.at(part, &format!("`{}` is not a feature", part.text)));
                }
                None => vec![part.text.to_owned()],
            };
            let joint = if index == 0 { "" } else { "_" };
            names = names
                .iter()
                .flat_map(|name| values.iter().map(move |value| format!("{name}{joint}{value}")))
                .collect();
        }
        let mut columns = Vec::new();
        for name in &names {
            let column = class.columns.iter().position(|c| c == name).ok_or_else(|| {
                self.at(inner, &format!("`{}` has no form `{name}`", class.name))
                    .hint(format!("its forms are {}", class.columns.join(", ")))
            })?;
            columns.push(column);
        }
        Ok(Form { features, columns })
    }
}

fn without_comment(line: &str) -> &str {
    line.split('#').next().unwrap_or_default()
}

/// The byte at which a line of the text begins.
fn offset(text: &str, line: &str) -> usize {
    line.as_ptr().addr() - text.as_ptr().addr()
}

fn suggestion<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    names
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(wrong, name), name))
        .filter(|&(distance, name)| distance * 3 <= name.len())
        .min()
        .map(|(_, name)| name)
}
