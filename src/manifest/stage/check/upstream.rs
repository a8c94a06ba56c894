//! The rows that a stage reads, and the stages behind them: their tokenizer, their length, their grammar.

use std::collections::HashSet;

use super::{StageEntry, Stages};
use crate::manifest::fault::{Code, Draft, alternatives, quoted};
use crate::manifest::stage::{Pack, Source, SourceInput, Stage, Tokenize, Tokenizer};
use crate::manifest::vocabularies::{Family, Published};
use crate::shape::Shape;

/// A pack stage and the tokenizer of its rows.
pub struct Upstream<'m> {
    pub pack: &'m Pack,
    /// The stage with the tokenizer; references to the tokenizers of other stages are followed.
    pub tokens: &'m str,
    pub tokenize: &'m Tokenize,
}

/// A tokenize stage whose tokenizer is its own.
#[derive(Clone, Copy)]
pub struct TokenizerOrigin<'m> {
    pub tokens: &'m str,
    pub tokenize: &'m Tokenize,
}

impl<'m> Upstream<'m> {
    /// The stage with the tokenizer.
    pub fn origin(&self) -> TokenizerOrigin<'m> {
        TokenizerOrigin {
            tokens: self.tokens,
            tokenize: self.tokenize,
        }
    }
}

impl Stages<'_> {
    pub fn source_of(&self, name: &str) -> Option<&Source> {
        match &self.entry(name)?.stage {
            Some(Stage::Source(stage)) => Some(stage),
            _ => None,
        }
    }

    pub fn tokenize_of(&self, name: &str) -> Option<&Tokenize> {
        match &self.entry(name)?.stage {
            Some(Stage::Tokenize(stage)) => Some(stage),
            _ => None,
        }
    }

    pub fn pack_of(&self, name: &str) -> Option<&Pack> {
        match &self.entry(name)?.stage {
            Some(Stage::Pack(stage)) => Some(stage),
            _ => None,
        }
    }

    /// A pack stage and its tokenizer, if no stage on the way has a fault.
    pub fn upstream(&self, pack: &str) -> Option<Upstream<'_>> {
        let pack = self.pack_of(pack)?;
        let TokenizerOrigin { tokens, tokenize } = self.tokenizer_of(&pack.from)?;
        Some(Upstream {
            pack,
            tokens,
            tokenize,
        })
    }

    /// The tokenize stage from which a tokenize stage has its tokenizer: itself, or the one that it names.
    pub fn tokenizer_of<'s>(&'s self, tokens: &'s str) -> Option<TokenizerOrigin<'s>> {
        let mut tokens = tokens;
        let mut seen = HashSet::new();
        loop {
            let tokenize = self.tokenize_of(tokens)?;
            match &tokenize.tokenizer {
                Tokenizer::Stage(other) if seen.insert(tokens) => tokens = &other.stage,
                Tokenizer::Stage(_) => return None,
                _ => return Some(TokenizerOrigin { tokens, tokenize }),
            }
        }
    }

    /// The stage of the tokenizer of some tokens, where it is known to drop white space.
    pub fn tokenizer_without_spaces<'s>(&'s self, tokens: &'s str) -> Option<&'s str> {
        let origin = self.tokenizer_of(tokens)?;
        let drops = match &origin.tokenize.tokenizer {
            Tokenizer::Bert(_) | Tokenizer::TrainWordpiece(_) => true,
            Tokenizer::Published(config) => Published::find(&config.name)
                .is_some_and(|published| matches!(published.family, Family::Bert { .. })),
            _ => false,
        };
        drops.then_some(origin.tokens)
    }

    /// The fault of a stage that uses rows of another length than its network's. `fault` makes it from the rows' length; its
    /// hint, if any, is another way out.
    pub fn row_length(&self, rows: &str, shape: &Shape, fault: impl FnOnce(u32) -> Draft) -> Option<Draft> {
        let pack = self.pack_of(rows)?;
        if pack.length as usize == shape.length {
            return None;
        }
        let fault = fault(pack.length).related(self.entry(rows)?.span("length"), "packed here");
        let way = format!("set `\"length\": {}` in {}", shape.length, quoted(rows));
        let hint = match &fault.hint {
            Some(other) => format!("{way}, or {other}"),
            None => way,
        };
        Some(fault.hint(hint))
    }

    /// `grammar` names a synthetic source; for an evaluation, the one that the rows come from.
    pub fn grammar(
        &self,
        entry: &StageEntry<'_>,
        grammar: Option<&str>,
        data: Option<&str>,
        faults: &mut Vec<Draft>,
    ) {
        let Some(grammar) = grammar else { return };
        let Some(Source { input, .. }) = self.source_of(grammar) else {
            return;
        };
        let SourceInput::Synthetic(synthetic) = input else {
            let synthetic: Vec<_> = self
                .entries
                .iter()
                .filter(|(_, e)| matches!(&e.stage, Some(Stage::Source(s)) if matches!(s.input, SourceInput::Synthetic(_))))
                .map(|(name, _)| *name)
                .collect();
            let which = if synthetic.is_empty() {
                String::new()
            } else {
                format!(": {}", alternatives(&synthetic))
            };
            let mut fault = entry
                .fault(
                    Code::Grammar,
                    "grammar",
                    format!("{} has no grammar: it is not a synthetic source", quoted(grammar)),
                )
                .expected(format!("a synthetic source{which}"))
                .hint("leave `grammar` out if the text is not synthetic");
            if let Some(source) = self.entry(grammar) {
                fault = fault.related(source.span("input/kind"), "not synthetic");
            }
            faults.push(fault);
            return;
        };
        // The exact entropy of a grammar says nothing about text from elsewhere.
        let Some(rows) = data else { return };
        let Some(from) = self
            .pack_of(rows)
            .and_then(|pack| self.tokenize_of(&pack.from))
            .map(|tokens| &tokens.from)
        else {
            return;
        };
        let same = match self.source_of(from).map(|source| &source.input) {
            Some(SourceInput::Synthetic(other)) => other.grammar == synthetic.grammar,
            Some(_) => false,
            None => return,
        };
        if !same {
            let message = format!(
                "the rows of {} come from {}, not from the grammar of {}",
                quoted(rows),
                quoted(from),
                quoted(grammar)
            );
            faults.push(
                entry
                    .fault(Code::Grammar, "grammar", message)
                    .expected("the synthetic source of the rows")
                    .hint("leave `grammar` out if the rows are not synthetic: the entropy of a grammar applies only to its own text"),
            );
        }
    }
}

/// Whether the tokenizers of two stages may be the same: one stage, or the same name, files or alphabet.
pub fn same_tokenizer(a: &TokenizerOrigin<'_>, b: &TokenizerOrigin<'_>) -> bool {
    if a.tokens == b.tokens {
        return true;
    }
    match (&a.tokenize.tokenizer, &b.tokenize.tokenizer) {
        (Tokenizer::TrainBpe(_) | Tokenizer::TrainWordpiece(_), other) => {
            a.tokenize.tokenizer == *other && a.tokenize.from == b.tokenize.from
        }
        // A local copy has the published content.
        (Tokenizer::Published(a), Tokenizer::Published(b)) => a.name == b.name,
        (Tokenizer::Download(a), Tokenizer::Download(b)) => a.url == b.url && a.special == b.special,
        (a, b) => a == b,
    }
}
