//! Tokenizers: loaded, trained or made of characters; all of them Hugging Face's `tokenizer.json` on disk.
//!
//! # Special tokens
//!
//! Four roles: BOS begins a row, EOS ends a document, PAD fills a row, MASK is the absorbing state. Which tokens play
//! them is resolved once, when the tokenizer is made, and stored beside it ([`SpecialIds`]).
//!
//! The text of a record never makes a special token: where it spells one (`[MASK]`, `<|endoftext|>`), the spelling is
//! tokenized like any other text (the `split_special_tokens` of Hugging Face's tokenizers). A tokenizer whose *model*
//! gives the id of a special token to text all the same (a Unigram or word-level vocabulary that lists it as a piece) is
//! refused at the first record where that happens. Meant are the tokens of the four roles and those that the file marks as
//! special, but for the unknown token, which text may make and which is counted. A manifest may allow all of them but the
//! mask, whose position could never be learnt.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::OnceLock;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokenizers::models::ModelWrapper;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::split::SplitPattern;
use tokenizers::{AddedToken, Model as _};

use crate::data::gpt2::{self, END_OF_TEXT, byte_level};
use crate::data::loss::{Loss, TextLosses};
use crate::data::merges::{Word, learn};
use crate::data::vocabulary::{assemble, has_gaps, numbered, parse_file, rewritten};
use crate::data::word_piece::{CONTINUATION, UNKNOWN, word_piece};
use crate::data::words::WordCounts;
use crate::data::{
    Role, RoleSource, Roles, RowsInfo, SpecialIds, TOKENIZER, TOKENS_INFO, TokensInfo, vocabulary,
};
use crate::error::{Context as _, Error, Kind, Result, Wrap as _, guarded};
use crate::manifest::{BertFile, Gpt2Files, SpecialTokens, TokenizerFile, TrainTokenizer};

/// Special tokens of the tokenizers made here, ids 0 to 3.
const SPECIAL: [&str; 4] = ["[PAD]", "[BOS]", "[EOS]", "[MASK]"];
/// Characters that a WordPiece vocabulary keeps, at most; the default of Hugging Face's `BertWordPieceTokenizer`.
const ALPHABET_LIMIT: usize = 1000;
/// One character a piece (Oniguruma's `.` leaves out the line break).
const ANY_CHARACTER: &str = r"[\s\S]";

const BOS_NAMES: [&str; 4] = ["[BOS]", "<s>", "[CLS]", END_OF_TEXT];
const EOS_NAMES: [&str; 4] = ["[EOS]", "</s>", "[SEP]", END_OF_TEXT];
const PAD_NAMES: [&str; 2] = ["[PAD]", "<pad>"];
const MASK_NAMES: [&str; 2] = ["[MASK]", "<mask>"];

/// A tokenizer with its roles resolved.
pub struct Tokenizer {
    /// What `tokenizers` knows it as: for GPT-2's files made on the first use.
    inner: OnceLock<tokenizers::Tokenizer>,
    /// GPT-2's files, if they are plain and a mask is all that is appended to them.
    gpt2: Option<gpt2::Gpt2Vocabulary>,
    special: SpecialIds,
    roles: Option<Roles>,
    vocabulary: u32,
    unknown: Option<u32>,
    /// What it may leave out of a text.
    losses: TextLosses,
    /// Ids that text must not make, ascending: those of special tokens.
    refused: Vec<u32>,
    /// What a person should know of the files that it was read from.
    warnings: Vec<String>,
    /// Ids of the characters, where the tokenizer is one of characters: Hugging Face's way takes a hundred bytes of
    /// memory a character, which a record of text8's size does not allow.
    characters: Option<HashMap<char, u32>>,
    /// Written on the first use: of a large vocabulary that takes a while, during which another thread can
    /// tokenize.
    json: OnceLock<String>,
}

impl Tokenizer {
    /// Reads the tokenizer of an artifact: `tokenizer.json`, with the roles of `tokens.json` or `rows.json`.
    ///
    /// # Errors
    /// A file is absent or damaged.
    pub fn open(artifact: &Path) -> Result<Self> {
        let path = artifact.join(TOKENIZER);
        if artifact.join(TOKENS_INFO).exists() {
            let info = TokensInfo::open(artifact)?;
            let mut this = Self::load(&path, info.special)?;
            this.roles = Some(info.roles);
            return Ok(this);
        }
        Self::load(&path, RowsInfo::open(artifact)?.special)
    }

    /// Reads a `tokenizer.json` whose roles are known.
    ///
    /// # Errors
    /// The file is absent or damaged.
    pub fn load(path: &Path, special: SpecialIds) -> Result<Self> {
        let what = || format!("read `{}`", path.display());
        let json = std::fs::read_to_string(path).context(what)?;
        let inner = parse_file(path, &json, &mut Vec::new())?;
        let this = Self::with_roles(inner, special, None, OnceLock::from(json));
        let ids = [special.bos, special.eos, special.pad, special.mask];
        match ids.iter().find(|&&id| id >= this.vocabulary) {
            Some(id) => Err(Error::input(format!(
                "a special token has id {id} in a vocabulary of {}",
                this.vocabulary
            ))
            .context(what())),
            None => Ok(this),
        }
    }

    /// A `tokenizer.json` that the user supplies.
    ///
    /// # Errors
    /// The file is absent or no tokenizer, or lacks a token for a role.
    pub fn from_file(config: &TokenizerFile, base: &Path) -> Result<Self> {
        let path = base.join(&config.path);
        let what = || format!("read `{}`", path.display());
        let mut warnings = Vec::new();
        let json = vocabulary::read(&path, &mut warnings)?;
        let inner = parse_file(&path, &json, &mut warnings)?;
        let has_gaps = has_gaps(&inner).context(what)?;
        let roles = config.special.clone().unwrap_or_default();
        let mut this = Self::resolve(inner, &roles, RoleSource::Manifest).context(what)?;
        this.warnings = warnings;
        if has_gaps {
            let rewritten = rewritten(&json, this.inner()?).context(what)?;
            let _ = this.json.set(rewritten);
        }
        Ok(this)
    }

    /// GPT-2's byte-level BPE from `vocab.json` and `merges.txt`.
    ///
    /// # Errors
    /// A file is absent or not what it should be.
    pub fn gpt2(config: &Gpt2Files, base: &Path) -> Result<Self> {
        let mut warnings = Vec::new();
        let path = base.join(&config.vocabulary);
        let files = gpt2::Gpt2Vocabulary::read(&path, &base.join(&config.merges), &mut warnings)?;
        let has = |names: &[&str]| names.iter().any(|&name| files.vocabulary.contains_key(name));
        let role = |found| Role {
            token: END_OF_TEXT.to_owned(),
            found,
        };
        if has(&PAD_NAMES) || has(&MASK_NAMES) || !files.is_plain() {
            let inner = files.tokenizer(&[END_OF_TEXT])?;
            has_gaps(&inner).context(|| format!("read `{}`", path.display()))?;
            let name = || Some(END_OF_TEXT.to_owned());
            let roles = SpecialTokens {
                bos: name(),
                eos: name(),
                ..SpecialTokens::default()
            };
            let this = Self::resolve(inner, &roles, RoleSource::Kind)?;
            return Ok(Self { warnings, ..this });
        }
        // What `resolve` comes to.
        let text = files.vocabulary[END_OF_TEXT];
        let mask = files.vocabulary.len() as u32;
        Ok(Self {
            losses: TextLosses::of_gpt2(|token| files.vocabulary.contains_key(token)),
            refused: vec![text.min(mask), text.max(mask)],
            warnings,
            inner: OnceLock::new(),
            gpt2: Some(files),
            special: SpecialIds {
                bos: text,
                eos: text,
                pad: text,
                mask,
            },
            roles: Some(Roles {
                bos: role(RoleSource::Kind),
                eos: role(RoleSource::Kind),
                pad: role(RoleSource::Eos),
                mask: appended(SPECIAL[3]),
            }),
            vocabulary: mask + 1,
            unknown: None,
            characters: None,
            json: OnceLock::new(),
        })
    }

    /// BERT's WordPiece from its `vocab.txt`.
    ///
    /// # Errors
    /// The file is absent, or lacks `[CLS]`, `[SEP]` or `[UNK]`.
    pub fn bert(config: &BertFile, base: &Path) -> Result<Self> {
        let path = base.join(&config.vocabulary);
        let what = || format!("read `{}`", path.display());
        let mut warnings = Vec::new();
        let text = vocabulary::read(&path, &mut warnings)?;
        let lines = vocabulary::lines(&text).context(what)?;
        let ids = lines.into_iter().enumerate();
        let vocabulary: Map<String, Value> = ids.map(|(id, line)| (line.to_owned(), json!(id))).collect();
        let names = ["[PAD]", UNKNOWN, "[CLS]", "[SEP]", "[MASK]"];
        for needed in [UNKNOWN, "[CLS]", "[SEP]"] {
            if !vocabulary.contains_key(needed) {
                return Err(Error::input(format!("there is no token `{needed}`"))
                    .hint("BERT's `vocab.txt` has one token a line")
                    .context(what()));
            }
        }
        let special: Vec<&str> = names
            .into_iter()
            .filter(|name| vocabulary.contains_key(*name))
            .collect();
        let inner = word_piece(&vocabulary, &special, config.lowercase)?;
        let roles = SpecialTokens {
            bos: Some("[CLS]".to_owned()),
            eos: Some("[SEP]".to_owned()),
            ..SpecialTokens::default()
        };
        let this = Self::resolve(inner, &roles, RoleSource::Kind)?;
        Ok(Self { warnings, ..this })
    }

    /// One token a character of `alphabet`, ids from 4 in its order.
    ///
    /// # Errors
    /// A character occurs twice.
    pub fn characters(alphabet: &str) -> Result<Self> {
        let mut vocabulary = numbered(&SPECIAL);
        for character in alphabet.chars() {
            let id = vocabulary.len();
            if vocabulary.insert(character.to_string(), json!(id)).is_some() {
                return Err(Error::input(format!(
                    "the alphabet has {} twice",
                    describe(character)
                )));
            }
        }
        let inner = assemble(
            &json!({
                "normalizer": null,
                "pre_tokenizer": {
                    "type": "Split", "pattern": {"Regex": ANY_CHARACTER}, "behavior": "Isolated", "invert": false,
                },
                "decoder": {"type": "Fuse"},
                // The unknown token is not in the vocabulary: an unknown character is an error everywhere.
                "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": UNKNOWN},
            }),
            &SPECIAL,
        )?;
        Self::resolve(inner, &SpecialTokens::default(), RoleSource::Kind)
    }

    /// Trains a byte-level BPE on counted words.
    ///
    /// # Errors
    /// Internal error: the `tokenizers` library fails.
    pub fn train_bpe(config: &TrainTokenizer, words: &WordCounts) -> Result<Self> {
        let mut symbols: Vec<String> = SPECIAL.map(str::to_owned).to_vec();
        let mut alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
        alphabet.sort_unstable();
        symbols.extend(alphabet.iter().map(char::to_string));
        let mut ids: HashMap<String, u32> = number(&symbols);
        let words = words
            .sorted()
            .into_iter()
            .map(|(word, count)| Word {
                symbols: word
                    .chars()
                    .filter_map(|c| ids.get(c.encode_utf8(&mut [0; 4]) as &str).copied())
                    .collect(),
                count,
            })
            .collect();
        let mut pairs = Vec::new();
        learn(words, u64::from(config.min_frequency), |(a, b)| {
            let (a, b) = (&symbols[a as usize], &symbols[b as usize]);
            if symbols.len() >= config.vocabulary_size as usize {
                return None;
            }
            let spelled = format!("{a}{b}");
            pairs.push((a.clone(), b.clone()));
            Some(give_id(spelled, &mut symbols, &mut ids))
        });
        let inner = byte_level(ids.into_iter().collect(), pairs, &SPECIAL, config.lowercase)?;
        Self::resolve(inner, &SpecialTokens::default(), RoleSource::Kind)
    }

    /// Trains a WordPiece vocabulary on counted words: the symbols of a byte-pair encoding with continuation prefixes,
    /// as Hugging Face's trainer does. Words with a character beyond the alphabet's limit are left out.
    ///
    /// # Errors
    /// Internal error: the `tokenizers` library fails.
    pub fn train_wordpiece(config: &TrainTokenizer, words: &WordCounts) -> Result<Self> {
        let size = config.vocabulary_size as usize;
        let words = words.sorted();
        // Each character may take two places, at the start of a word and within it; half the vocabulary is left for words.
        let limit = ALPHABET_LIMIT.min(size / 4);
        let mut frequency: BTreeMap<char, u64> = BTreeMap::new();
        for (word, count) in &words {
            for character in word.chars() {
                *frequency.entry(character).or_default() += count;
            }
        }
        let mut alphabet: Vec<(char, u64)> = frequency.into_iter().collect();
        // Stable: of equally frequent characters the smaller code point stays.
        alphabet.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        alphabet.truncate(limit);
        let kept: BTreeSet<char> = alphabet.into_iter().map(|(c, _)| c).collect();
        let words: Vec<_> = words
            .into_iter()
            .filter(|(word, _)| word.chars().all(|c| kept.contains(&c)))
            .collect();
        // Most marks never stand within a word: only what does takes a place as a continuation.
        let within: BTreeSet<char> = words.iter().flat_map(|(word, _)| word.chars().skip(1)).collect();

        let mut special = SPECIAL.to_vec();
        special.push(UNKNOWN);
        let mut symbols: Vec<String> = special.iter().map(|&s| s.to_owned()).collect();
        let start: HashMap<char, u32> = (symbols.len() as u32..)
            .zip(&kept)
            .map(|(id, &c)| (c, id))
            .collect();
        symbols.extend(kept.iter().map(char::to_string));
        let inner: HashMap<char, u32> = (symbols.len() as u32..)
            .zip(&within)
            .map(|(id, &c)| (c, id))
            .collect();
        symbols.extend(within.iter().map(|c| format!("{CONTINUATION}{c}")));
        let mut ids = number(&symbols);
        let words: Vec<Word> = words
            .into_iter()
            .map(|(word, count)| Word {
                symbols: word
                    .chars()
                    .enumerate()
                    .map(|(i, c)| if i == 0 { start[&c] } else { inner[&c] })
                    .collect(),
                count,
            })
            .collect();
        learn(words, u64::from(config.min_frequency), |(a, b)| {
            if symbols.len() >= size {
                return None;
            }
            let second = &symbols[b as usize];
            let second = second.strip_prefix(CONTINUATION).unwrap_or(second);
            let spelled = format!("{}{second}", symbols[a as usize]);
            Some(give_id(spelled, &mut symbols, &mut ids))
        });
        let inner = word_piece(&numbered(&symbols), &special, config.lowercase)?;
        Self::resolve(inner, &SpecialTokens::default(), RoleSource::Kind)
    }

    /// Finds the tokens of the four roles and appends the mask where there is none. `why` is whose wish the names are.
    fn resolve(mut inner: tokenizers::Tokenizer, names: &SpecialTokens, why: RoleSource) -> Result<Self> {
        let bos = role(&inner, "bos", names.bos.as_deref(), why, &BOS_NAMES)?;
        let eos = role(&inner, "eos", names.eos.as_deref(), why, &EOS_NAMES)?;
        let has = |names: &[&str]| names.iter().any(|name| inner.token_to_id(name).is_some());
        let pad = if names.pad.is_some() || has(&PAD_NAMES) {
            role(&inner, "pad", names.pad.as_deref(), why, &PAD_NAMES)?
        } else {
            Role {
                token: eos.token.clone(),
                found: RoleSource::Eos,
            }
        };
        let mask = match names.mask.as_deref() {
            Some(name) if inner.token_to_id(name).is_none() => appended(name),
            None if !has(&MASK_NAMES) => appended(SPECIAL[3]),
            named => role(&inner, "mask", named, why, &MASK_NAMES)?,
        };
        let before = if mask.found == RoleSource::Appended {
            size(&inner)
        } else {
            0
        };
        let roles = Roles { bos, eos, pad, mask };
        let tokens = [&roles.bos, &roles.eos, &roles.pad, &roles.mask].map(|role| &role.token);
        let known = inner.get_added_tokens_decoder();
        for name in tokens {
            if !known.values().any(|token| token.content == *name) {
                inner.add_special_tokens(&[AddedToken::from(name.clone(), true)]);
            }
        }
        let id = |name: &str| {
            inner
                .token_to_id(name)
                .ok_or_else(|| Error::internal(format!("token `{name}` was added and is missing")))
        };
        let special = SpecialIds {
            bos: id(&roles.bos.token)?,
            eos: id(&roles.eos.token)?,
            pad: id(&roles.pad.token)?,
            mask: id(&roles.mask.token)?,
        };
        if special.mask < before {
            return Err(Error::input(format!(
                "the ids of the vocabulary have gaps: a mask token would get the id {} of another token",
                special.mask
            ))
            .hint("name a token of the vocabulary as `special.mask`"));
        }
        if [special.bos, special.eos, special.pad].contains(&special.mask) {
            return Err(Error::input(format!(
                "token `{}` is the mask and has another role too",
                roles.mask.token
            ))
            .hint("name another one as `special.mask`; a name that the vocabulary lacks is appended to it"));
        }
        Ok(Self::with_roles(inner, special, Some(roles), OnceLock::new()))
    }

    fn with_roles(
        inner: tokenizers::Tokenizer,
        special: SpecialIds,
        roles: Option<Roles>,
        json: OnceLock<String>,
    ) -> Self {
        let unknown = unknown(&inner);
        let SpecialIds { bos, eos, pad, mask } = special;
        let added = inner.get_added_tokens_decoder();
        let added = added.iter().filter(|(_, token)| token.special).map(|(&id, _)| id);
        let mut refused: Vec<u32> = added
            // The unknown token is one that text may make, unless it has a role.
            .filter(|&id| Some(id) != unknown)
            .chain([bos, eos, pad, mask])
            .collect();
        refused.sort_unstable();
        refused.dedup();
        Self {
            special,
            roles,
            vocabulary: size(&inner),
            losses: TextLosses::of(&inner, unknown),
            unknown,
            refused,
            warnings: Vec::new(),
            characters: characters(&inner),
            json,
            gpt2: None,
            inner: OnceLock::from(inner),
        }
    }

    /// Lets text make special tokens, all but the mask.
    pub fn allow_special_tokens(&mut self) {
        self.refused = vec![self.special.mask];
    }

    /// What a person should know of the files that it was read from.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// What it may leave out of a text.
    pub(super) fn losses(&self) -> &TextLosses {
        &self.losses
    }

    /// GPT-2's files, where the tokenizer is what they describe and a mask.
    pub(super) fn gpt2_files(&self) -> Option<&gpt2::Gpt2Vocabulary> {
        self.gpt2.as_ref()
    }

    /// What `tokenizers` knows it as.
    ///
    /// # Errors
    /// Internal error: the `tokenizers` library rejects the vocabulary or the merges.
    pub(super) fn inner(&self) -> Result<&tokenizers::Tokenizer> {
        if let Some(inner) = self.inner.get() {
            return Ok(inner);
        }
        let files = self.gpt2.as_ref();
        let files = files.ok_or_else(|| Error::internal("a tokenizer is made of nothing"))?;
        let inner = files.tokenizer(&[END_OF_TEXT, SPECIAL[3]])?;
        // Two threads make the same.
        Ok(self.inner.get_or_init(|| inner))
    }

    /// Merges of a byte-level BPE in the order of their rank: the ids of two tokens and of what they make. Nothing where
    /// they are written otherwise than `tokenizers` writes them today.
    ///
    /// # Errors
    /// Internal error: the `tokenizers` library fails.
    pub(super) fn merges(&self, model: &BPE) -> Result<Option<Vec<[u32; 3]>>> {
        /// The part of a `tokenizer.json` that a BPE does not contain otherwise.
        #[derive(Deserialize)]
        struct Serialized {
            model: SerializedModel,
        }
        #[derive(Deserialize)]
        struct SerializedModel {
            merges: Vec<(String, String)>,
        }
        let Ok(written) = serde_json::from_str::<Serialized>(self.json()?) else {
            return Ok(None);
        };
        let id = |token: &str| model.token_to_id(token);
        let ids = |(a, b): &(String, String)| Some([id(a)?, id(b)?, id(&format!("{a}{b}"))?]);
        Ok(written.model.merges.iter().map(ids).collect())
    }

    /// Tokens in the vocabulary, the mask included: ids are below this.
    #[must_use]
    pub fn vocabulary(&self) -> u32 {
        self.vocabulary
    }

    /// Special roles.
    #[must_use]
    pub fn special(&self) -> SpecialIds {
        self.special
    }

    /// The tokens of the special roles and how they were found; unknown of a tokenizer that comes with rows or a model.
    #[must_use]
    pub fn roles(&self) -> Option<&Roles> {
        self.roles.as_ref()
    }

    /// The content of `tokenizer.json`.
    ///
    /// # Errors
    /// Internal error: the `tokenizers` library fails.
    pub fn json(&self) -> Result<&str> {
        if self.json.get().is_none() {
            let json = match &self.gpt2 {
                Some(files) => files.json(SPECIAL[3])?,
                None => {
                    (self.inner()?.to_string(true)).wrap(Kind::Internal, || "write a tokenizer".to_owned())?
                }
            };
            // Two threads write the same.
            let _ = self.json.set(json + "\n");
        }
        Ok(self.json.get().map_or("", String::as_str))
    }

    /// BLAKE3 of `tokenizer.json`, in hex.
    ///
    /// # Errors
    /// Internal error: the `tokenizers` library fails.
    pub fn digest(&self) -> Result<String> {
        Ok(blake3::hash(self.json()?.as_bytes()).to_hex().to_string())
    }

    /// The token of an id, as the vocabulary spells it.
    #[must_use]
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner().ok()?.id_to_token(id)
    }

    /// Appends the tokens of a text, none of them special, and returns what they leave out of it.
    ///
    /// # Errors
    /// A character is not in the alphabet, or the model makes a special token of text.
    pub fn encode(&self, text: &str, tokens: &mut Vec<u32>) -> Result<Loss> {
        if let Some(ids) = &self.characters {
            for (at, character) in text.char_indices() {
                let Some(&id) = ids.get(&character) else {
                    return Err(Error::input(format!(
                        "{} at byte {} is not in the alphabet",
                        describe(character),
                        at + 1
                    ))
                    .hint("clean the text, or add the character to the tokenizer's `alphabet`"));
                };
                tokens.push(id);
            }
            return Ok(Loss::default());
        }
        let start = tokens.len();
        let loss = self.encode_and_count(text, tokens)?;
        self.refuse_special(&tokens[start..], Some(text))?;
        Ok(loss)
    }

    /// Appends the ids that `tokenizers` makes of a text, and returns what they leave out of it.
    pub(super) fn encode_and_count(&self, text: &str, tokens: &mut Vec<u32>) -> Result<Loss> {
        let inner = self.inner()?;
        guarded(|| self.losses.encode(inner, text, tokens))
            .and_then(|loss| loss)
            .map_err(|error| Error::input(format!("tokenize: {error}")))
    }

    /// Appends the ids that `tokenizers` makes of a text.
    pub(super) fn encode_whole(&self, text: &str, tokens: &mut Vec<u32>) -> Result<()> {
        let inner = self.inner()?;
        let encoded = guarded(|| inner.encode_fast(text, false).map_err(|error| error.to_string()));
        let encoding = encoded
            .and_then(|encoded| encoded)
            .map_err(|error| Error::input(format!("tokenize: {error}")))?;
        tokens.extend_from_slice(encoding.get_ids());
        Ok(())
    }

    /// How many of the tokens are the unknown token.
    pub(super) fn unknown_in(&self, tokens: &[u32]) -> u64 {
        let count = |unknown| tokens.iter().filter(|&&id| id == unknown).count() as u64;
        self.unknown.map_or(0, count)
    }

    /// Fails when text has made special tokens; `text` is all of the record's, where it is at hand.
    pub(super) fn refuse_special(&self, tokens: &[u32], text: Option<&str>) -> Result<()> {
        let Some(&id) = tokens.iter().find(|id| self.refused.binary_search(id).is_ok()) else {
            return Ok(());
        };
        let name = self.token(id).unwrap_or_default();
        let at = text.and_then(|text| text.find(&name));
        let place = at.map_or(String::new(), |at| format!(" at byte {}", at + 1));
        let SpecialIds { bos, eos, pad, mask } = self.special;
        let unknown = Some(id) == self.unknown && at.is_none();
        let allow = "`\"special_tokens_in_text\": \"allow\"` in the tokenize stage";
        if id == mask && unknown {
            return Err(Error::input(format!(
                "the vocabulary lacks a part of the text, and its unknown token `{name}` is the mask token"
            ))
            .hint(
                "give the tokenizer a separate unknown token, `unk_token` in its file, or name another token as its \
                 `special.mask`",
            ));
        }
        if id == mask {
            return Err(Error::input(format!("the text contains the mask token `{name}`"))
                .hint("remove it from the text, or name another token as the tokenizer's `special.mask`"));
        }
        let roles = [("BOS", bos), ("EOS", eos), ("PAD", pad)];
        let roles: Vec<&str> = roles
            .iter()
            .filter(|(_, role)| *role == id)
            .map(|(name, _)| *name)
            .collect();
        let role = if roles.is_empty() {
            String::new()
        } else {
            format!(" ({})", roles.join(", "))
        };
        if unknown {
            return Err(Error::input(format!(
                "the vocabulary lacks a part of the text, and its unknown token `{name}` is a special token{role}"
            ))
            .hint(format!(
                "give the tokenizer a separate unknown token, `unk_token` in its file, or set {allow} to encode such \
                 text as that token"
            )));
        }
        Err(Error::input(format!(
            "the text contains the special token `{name}`{role}{place}"
        ))
        .hint(format!(
            "remove it from the text, or set {allow} to encode it as that token"
        )))
    }

    /// The text of tokens; special ones and ids outside the vocabulary are left out.
    ///
    /// # Errors
    /// The tokenizer's decoder fails.
    pub fn decode(&self, tokens: &[u32]) -> Result<String> {
        let SpecialIds { bos, eos, pad, mask } = self.special;
        let text: Vec<u32> = tokens
            .iter()
            .copied()
            .filter(|id| ![bos, eos, pad, mask].contains(id))
            .collect();
        let inner = self.inner()?;
        guarded(|| inner.decode(&text, false).map_err(|error| error.to_string()))
            .and_then(|decoded| decoded)
            .map_err(|error| Error::input(format!("decode tokens: {error}")))
    }
}

fn number(symbols: &[String]) -> HashMap<String, u32> {
    (0..).zip(symbols).map(|(id, s)| (s.clone(), id)).collect()
}

/// The id of a spelling: its own, or the next one.
fn give_id(spelled: String, symbols: &mut Vec<String>, ids: &mut HashMap<String, u32>) -> u32 {
    if let Some(&id) = ids.get(&spelled) {
        return id;
    }
    let id = symbols.len() as u32;
    symbols.push(spelled.clone());
    ids.insert(spelled, id);
    id
}

/// The mask that the vocabulary lacks.
fn appended(name: &str) -> Role {
    Role {
        token: name.to_owned(),
        found: RoleSource::Appended,
    }
}

/// The token of a role: the one that is named, else the first of the usual ones.
fn role(
    inner: &tokenizers::Tokenizer,
    role: &str,
    named: Option<&str>,
    why: RoleSource,
    usual: &[&str],
) -> Result<Role> {
    if let Some(name) = named {
        if inner.token_to_id(name).is_some() {
            return Ok(Role {
                token: name.to_owned(),
                found: why,
            });
        }
        let mut special: Vec<String> = inner
            .get_added_tokens_decoder()
            .into_values()
            .map(|token| format!("`{}`", token.content))
            .collect();
        special.sort();
        special.truncate(20);
        return Err(Error::input(format!(
            "the vocabulary has no token `{name}`, named as `special.{role}`"
        ))
        .hint(if special.is_empty() {
            "the tokenizer itself has no special tokens".to_owned()
        } else {
            format!("its special tokens are {}", special.join(", "))
        }));
    }
    usual
        .iter()
        .find(|name| inner.token_to_id(name).is_some())
        .map(|&name| Role {
            token: name.to_owned(),
            found: RoleSource::UsualName,
        })
        .ok_or_else(|| {
            Error::input(format!(
                "the vocabulary has no {role} token: tried {}",
                usual.join(", ")
            ))
            .hint(format!("name it as the tokenizer's `special.{role}`"))
        })
}

/// One more than the largest id.
fn size(inner: &tokenizers::Tokenizer) -> u32 {
    // Asked for one by one, ids without gaps are known soon; the whole vocabulary is slow to copy.
    let count = inner.get_vocab_size(true) as u32;
    if (0..count).rev().all(|id| inner.id_to_token(id).is_some()) {
        return count;
    }
    inner
        .get_vocab(true)
        .into_values()
        .max()
        .map_or(0, |id| id.saturating_add(1))
}

fn unknown(inner: &tokenizers::Tokenizer) -> Option<u32> {
    let model = inner.get_model();
    let id = |name: &str| model.token_to_id(name);
    match model {
        ModelWrapper::BPE(bpe) => bpe.unk_token.as_deref().and_then(id),
        ModelWrapper::WordPiece(pieces) => id(&pieces.unk_token),
        ModelWrapper::WordLevel(words) => id(&words.unk_token),
        ModelWrapper::Unigram(_) => serde_json::to_value(model)
            .ok()
            .and_then(|json| json["unk_id"].as_u64())
            .and_then(|id| u32::try_from(id).ok()),
    }
}

/// The table of a tokenizer of characters, as [`Tokenizer::characters`] makes it.
fn characters(inner: &tokenizers::Tokenizer) -> Option<HashMap<char, u32>> {
    let ModelWrapper::WordLevel(model) = inner.get_model() else {
        return None;
    };
    let Some(PreTokenizerWrapper::Split(split)) = inner.get_pre_tokenizer() else {
        return None;
    };
    let ours = matches!(&split.pattern, SplitPattern::Regex(pattern) if pattern == ANY_CHARACTER)
        && inner.get_normalizer().is_none()
        && model.token_to_id(&model.unk_token).is_none();
    ours.then(|| {
        let single = |token: &str| {
            let mut characters = token.chars();
            characters.next().filter(|_| characters.next().is_none())
        };
        model
            .get_vocab()
            .iter()
            .filter_map(|(token, &id)| single(token).map(|character| (character, id)))
            .collect()
    })
}

fn describe(character: char) -> String {
    if character.is_control() || character.is_whitespace() {
        format!("the character U+{:04X}", u32::from(character))
    } else {
        format!("the character `{character}` (U+{:04X})", u32::from(character))
    }
}
