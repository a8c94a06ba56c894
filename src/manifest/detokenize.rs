//! The detokenizers of a source: rule sets, in mdlm's or the published version.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer, StrDeserializer};
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// A rule set that turns a corpus' tokenized spelling into natural text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Detokenizer {
    /// Penn Treebank: joins contractions; `N` becomes `1`, `$ N` becomes `$1`, `<unk>` becomes `?`.
    Ptb,
    /// WikiText: ` @-@ `, ` @,@ `, ` @.@ `, punctuation, contractions, names (`O 'Reilly`), quotes, brackets and
    /// headings.
    Wikitext,
    /// One Billion Word: punctuation, contractions, names (`O 'Reilly`), quotes, brackets, `/`, `$` and `£`.
    Lm1b,
    /// LAMBADA: typographic quotes become plain; each text begins with a line break, as in the version of the MDLM
    /// authors.
    Lambada,
    /// Scientific papers: the rules of WikiText and of One Billion Word.
    ScientificPapers,
}

/// Version of the rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Spelling {
    /// mdlm's rules: natural English text.
    #[default]
    Natural,
    /// The rules of the authors of arXiv 2406.07524, for comparison with their figures. They differ from mdlm's rules.
    /// PTB: a record has no white space at its ends; `N` becomes `1` only between two spaces (`nov. N` at the end of a record and `$ N` stay); `'re`, `'ve` and
    /// `'ll` are not joined to the word before. WikiText: a record keeps its leading space and ends with a line break;
    /// punctuation marks are joined only before a space; single quotes pair across apostrophes; ` N ` becomes ` 1 `
    /// (lines without text stay records, of one end mark, unless `empty_records` says otherwise).
    /// One Billion Word: a full stop is joined only to letters and digits, and every word that begins with an apostrophe
    /// is joined to the word before. Scientific papers: a full stop before a line break stays apart. LAMBADA: no difference.
    Published,
}

/// A detokenizer: `"ptb"`, or `{ "rules": "ptb", "as": "published" }`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detokenization {
    /// The rule set, named after a corpus.
    pub rules: Detokenizer,
    /// The version of the rules.
    pub spelling: Spelling,
}

impl From<Detokenizer> for Detokenization {
    fn from(rules: Detokenizer) -> Self {
        Self {
            rules,
            spelling: Spelling::Natural,
        }
    }
}

/// A rule set and its version.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Named {
    /// Name of the rule set.
    rules: Detokenizer,
    /// Version of the rules. Default: the more natural English.
    #[serde(default, rename = "as")]
    spelling: Spelling,
}

/// mdlm's rules are written as a name alone, however the manifest wrote them: a cache key has one form.
impl Serialize for Detokenization {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.spelling {
            Spelling::Natural => self.rules.serialize(serializer),
            spelling @ Spelling::Published => Named {
                rules: self.rules,
                spelling,
            }
            .serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Detokenization {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct One;
        impl<'de> Visitor<'de> for One {
            type Value = Detokenization;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a rule set, or an object with `rules`")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
                Detokenizer::deserialize(StrDeserializer::new(name)).map(Detokenization::from)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let Named { rules, spelling } = Named::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Detokenization { rules, spelling })
            }
        }
        deserializer.deserialize_any(One)
    }
}

/// Reads a list of detokenizers, or one without a list.
///
/// # Errors
/// The deserializer's error when the value is not a rule set or a list of rule sets.
pub(super) fn one_or_more<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<Detokenization>>, D::Error> {
    struct OneOrMore;
    impl<'de> Visitor<'de> for OneOrMore {
        type Value = Vec<Detokenization>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a rule set, or a list of them")
        }

        fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
            Detokenization::deserialize(StrDeserializer::new(name)).map(|one| vec![one])
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            Detokenization::deserialize(MapAccessDeserializer::new(map)).map(|one| vec![one])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
            Vec::deserialize(SeqAccessDeserializer::new(list))
        }
    }
    deserializer.deserialize_any(OneOrMore).map(Some)
}

/// The schema of the field: a name, an object or a list of them.
pub(super) fn schema(generator: &mut SchemaGenerator) -> Schema {
    let mut branches = match generator.subschema_for::<Detokenizer>().get("oneOf") {
        Some(Value::Array(names)) => names.clone(),
        _ => vec![],
    };
    branches.push(generator.subschema_for::<Named>().to_value());
    let one = json_schema!({
        "description": "A rule set: its name, or an object with its name and version.",
        "oneOf": branches,
    });
    branches.push(json_schema!({ "type": "array", "items": one }).to_value());
    json_schema!({ "oneOf": branches })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(Deserialize)]
    struct Field {
        #[serde(default, deserialize_with = "one_or_more")]
        detokenize: Option<Vec<Detokenization>>,
    }

    #[expect(clippy::needless_pass_by_value, reason = "callers write the value in place")]
    fn read(value: Value) -> Value {
        let field: Field = serde_json::from_value(json!({ "detokenize": value })).unwrap();
        serde_json::to_value(field.detokenize).unwrap()
    }

    #[test]
    fn cache_key_has_one_spelling_of_every_form() {
        assert_eq!(read(json!(["ptb"])), json!(["ptb"]));
        assert_eq!(read(json!("ptb")), json!(["ptb"]));
        assert_eq!(read(json!({ "rules": "ptb" })), json!(["ptb"]));
        assert_eq!(read(json!([{ "rules": "ptb", "as": "natural" }])), json!(["ptb"]));
        let published = json!({ "rules": "ptb", "as": "published" });
        assert_eq!(read(published.clone()), json!([published]));
        assert_eq!(read(json!([published, "lm1b"])), json!([published, "lm1b"]));
        assert_eq!(read(json!([])), json!([]));
        let absent: Field = serde_json::from_value(json!({})).unwrap();
        assert_eq!(absent.detokenize, None);
    }
}
