//! Manifests as the configurations of other programs would have them: the hints that lead from these to ours.

mod fields;
mod objectives;
mod tokenizers;

pub(super) use fields::{SYNONYMS, elsewhere, our_name};
pub use objectives::kinds_meant;
pub(super) use objectives::{continuous_time, of_authors, published_estimator};
pub use tokenizers::tokenizer;
pub(super) use tokenizers::{missing_of_tokenizer, object_to_write};
