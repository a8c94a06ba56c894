//! The pieces of a WordPiece vocabulary, found in plain words.

use std::collections::HashMap;

use tokenizers::Model as _;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;

use super::{Mixed, SLOT_BYTES, key};

/// A WordPiece vocabulary, as far as words of at most [`SLOT_BYTES`] bytes need it, by [`key`].
pub(super) struct Pieces {
    /// What a word begins with.
    starts: HashMap<u128, u32, Mixed>,
    /// What goes on in it, without the prefix that says so.
    continuations: HashMap<u128, u32, Mixed>,
    unknown: u32,
    lowercase: bool,
}

impl Pieces {
    /// The pieces of a model; nothing for one whose limits a short word may exceed.
    pub(super) fn of(model: &WordPiece, normalizer: BertNormalizer) -> Option<Self> {
        if model.max_input_chars_per_word < SLOT_BYTES {
            return None;
        }
        let unknown = model.token_to_id(&model.unk_token)?;
        let (mut starts, mut continuations) = (HashMap::default(), HashMap::default());
        for (token, id) in model.get_vocab() {
            let keep = |token: &str, pieces: &mut HashMap<_, _, _>| {
                if (1..=SLOT_BYTES).contains(&token.len()) {
                    pieces.insert(key(token.as_bytes(), 0, token.len()), id);
                }
            };
            keep(&token, &mut starts);
            if let Some(rest) = token.strip_prefix(&model.continuing_subword_prefix) {
                keep(rest, &mut continuations);
            }
        }
        Some(Self {
            starts,
            continuations,
            unknown,
            lowercase: normalizer.lowercase,
        })
    }

    /// Appends the ids of a chunk if it is of at most [`SLOT_BYTES`] letters and digits of ASCII, which the normalizer
    /// lower-cases at most: each piece the longest that there is, the unknown token when there is none (Wu et al.,
    /// arXiv 1609.08144).
    pub(super) fn word(&self, chunk: &str, ids: &mut Vec<u32>) -> bool {
        let length = chunk.len();
        if length > SLOT_BYTES || !chunk.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return false;
        }
        let mut word = [0; SLOT_BYTES];
        word[..length].copy_from_slice(chunk.as_bytes());
        if self.lowercase {
            word.make_ascii_lowercase();
        }
        let before = ids.len();
        let mut start = 0;
        while start < length {
            let pieces = if start == 0 {
                &self.starts
            } else {
                &self.continuations
            };
            let found = (start + 1..=length)
                .rev()
                .find_map(|end| Some((end, *pieces.get(&key(&word, start, end - start))?)));
            let Some((end, id)) = found else {
                ids.truncate(before);
                ids.push(self.unknown);
                break;
            };
            ids.push(id);
            start = end;
        }
        true
    }
}
