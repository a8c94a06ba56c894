//! Which tokens a model was trained with, by the files of a tokenizer beside its weights, and where they differ from others.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::files::{CheckpointFile, read_json};
use crate::data::{RoleSource, TokensInfo};
use crate::error::{Context as _, Result};

/// What the files of a tokenizer state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenizerFacts {
    /// The file that has the vocabulary.
    file: String,
    /// Tokens by id.
    tokens: BTreeMap<u64, String>,
    /// Whether all tokens are among them.
    is_whole: bool,
    /// The kind of its model: `BPE`.
    kind: Option<String>,
    /// Merges of a BPE in their order, each as two tokens with a space between them.
    merges: Option<Vec<String>>,
    /// Whether it changes letters to lower case.
    lowercases: Option<bool>,
    /// Tokens with a special role: the role, the token, the file that states it.
    roles: Vec<(&'static str, String, String)>,
    /// Further tokens by id, with the file that states them.
    added: Vec<(u64, String, String)>,
}

impl TokenizerFacts {
    /// Reads the files of a tokenizer that stand beside weights. Of several with a vocabulary the first counts.
    ///
    /// # Errors
    /// A file cannot be read, or is no JSON where it should be.
    pub fn read(files: &[CheckpointFile]) -> Result<Self> {
        let mut facts = Self::default();
        for file in files {
            let context = || format!("read `{}`", file.path.display());
            match &*file.name {
                "vocab.txt" if facts.tokens.is_empty() => {
                    let text = std::fs::read_to_string(&file.path).context(context)?;
                    facts.file.clone_from(&file.name);
                    facts.tokens = (0..).zip(text.lines().map(str::to_owned)).collect();
                }
                "vocab.txt" => {}
                _ => facts.add(&file.name, &read_json(&file.path).context(context)?),
            }
        }
        Ok(facts)
    }

    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        let json = read_json(path).context(|| format!("read `{}`", path.display()))?;
        let mut facts = Self::default();
        facts.add("tokenizer.json", &json);
        Ok(facts)
    }

    fn add(&mut self, file: &str, json: &Value) {
        match file {
            "tokenizer.json" => {
                let model = &json["model"];
                self.tokens = vocabulary(&model["vocab"]);
                for token in json["added_tokens"].as_array().into_iter().flatten() {
                    if let (Some(id), Some(content)) = (token["id"].as_u64(), token["content"].as_str()) {
                        self.tokens.insert(id, content.to_owned());
                    }
                }
                file.clone_into(&mut self.file);
                self.is_whole = !self.tokens.is_empty();
                self.kind = model["type"].as_str().map(str::to_owned);
                let merges = model["merges"].as_array();
                self.merges = merges.and_then(|merges| merges.iter().map(merge).collect());
                self.lowercases = Some(lowercases(&json["normalizer"]));
            }
            "vocab.json" if self.tokens.is_empty() => {
                file.clone_into(&mut self.file);
                self.tokens = vocabulary(json);
            }
            "vocab.json" => {}
            _ => {
                for role in ["bos", "eos", "pad", "mask"] {
                    let stated = &json[format!("{role}_token")];
                    let token = stated.as_str().or_else(|| stated["content"].as_str());
                    if let Some(token) = token {
                        self.roles.push((role, token.to_owned(), file.to_owned()));
                    }
                }
                for (id, token) in json["added_tokens_decoder"].as_object().into_iter().flatten() {
                    if let (Ok(id), Some(content)) = (id.parse(), token["content"].as_str()) {
                        self.added.push((id, content.to_owned(), file.to_owned()));
                    }
                }
            }
        }
    }

    /// The first difference from a tokenize stage's tokenizer, which the stage `name` made: a sentence without its full stop.
    /// How a mask is spelled that was appended to the vocabulary makes none.
    #[must_use]
    pub fn difference(&self, own: &Self, info: &TokensInfo, name: &str) -> Option<String> {
        let mask = u64::from(info.special.mask);
        let is_appended = info.roles.mask.found == RoleSource::Appended;
        let is_free = |id: u64| is_appended && id == mask;
        let stated = self.tokens.iter().map(|(id, token)| (*id, token, &self.file));
        let added = self.added.iter().map(|(id, token, file)| (*id, token, file));
        let mut differing = stated
            .chain(added)
            .filter(|(id, token, _)| !is_free(*id) && own.tokens.get(id) != Some(*token));
        if let Some((id, token, file)) = differing.next() {
            let ours = own.tokens.get(&id);
            let ours = ours.map_or("absent from the tokenizer".to_owned(), |ours| {
                format!("`{ours}` by the tokenizer")
            });
            return Some(format!(
                "token {id} is `{token}` in `{file}`, but {ours} of `{name}`"
            ));
        }
        let is_absent = |id: &u64| !is_free(*id) && !self.tokens.contains_key(id);
        if self.is_whole
            && let Some((id, token)) = own.tokens.iter().find(|(id, _)| is_absent(id))
        {
            return Some(format!(
                "`{}` has no token {id}, which is `{token}` by the tokenizer of `{name}`",
                self.file
            ));
        }
        self.model_difference(own, name)
            .or_else(|| self.role_difference(own, info, name))
    }

    /// A difference of how text becomes tokens, where the tokens are the same.
    fn model_difference(&self, own: &Self, name: &str) -> Option<String> {
        let file = &self.file;
        if let (Some(theirs), Some(ours)) = (&self.kind, &own.kind)
            && theirs != ours
        {
            return Some(format!(
                "the tokenizer is a `{theirs}` in `{file}`, but a `{ours}` by the tokenizer of `{name}`"
            ));
        }
        if let (Some(theirs), Some(ours)) = (&self.merges, &own.merges)
            && theirs != ours
        {
            let at = theirs.iter().zip(ours).position(|(a, b)| a != b);
            let at = at.unwrap_or(theirs.len().min(ours.len()));
            let [theirs, ours] = [theirs, ours].map(|merges| {
                let merge = merges.get(at);
                merge.map_or("absent".to_owned(), |merge| format!("`{merge}`"))
            });
            return Some(format!(
                "merge {at} is {theirs} in `{file}`, but {ours} by the tokenizer of `{name}`"
            ));
        }
        if let (Some(theirs), Some(ours)) = (self.lowercases, own.lowercases)
            && theirs != ours
        {
            let does = |lowercases: bool| {
                if lowercases {
                    "lower case"
                } else {
                    "the letter case of the text"
                }
            };
            return Some(format!(
                "tokens have {} by `{file}`, but {} by the tokenizer of `{name}`",
                does(theirs),
                does(ours)
            ));
        }
        None
    }

    fn role_difference(&self, own: &Self, info: &TokensInfo, name: &str) -> Option<String> {
        let id_of = |facts: &Self, token: &str| {
            let found = facts.tokens.iter().find(|(_, known)| *known == token);
            found.map(|(id, _)| *id)
        };
        let is_appended = info.roles.mask.found == RoleSource::Appended;
        for (role, token, file) in &self.roles {
            let (ours, spelled) = match *role {
                "bos" => (info.special.bos, &info.roles.bos.token),
                "eos" => (info.special.eos, &info.roles.eos.token),
                "pad" => (info.special.pad, &info.roles.pad.token),
                _ => (info.special.mask, &info.roles.mask.token),
            };
            let theirs = id_of(self, token).or_else(|| id_of(own, token));
            if theirs == Some(u64::from(ours)) || theirs.is_none() && *role == "mask" && is_appended {
                continue;
            }
            let id = theirs.map_or(String::new(), |id| format!(" ({id})"));
            return Some(format!(
                "the {role} token is `{token}`{id} in `{file}`, but `{spelled}` ({ours}) by the tokenizer of `{name}`"
            ));
        }
        None
    }
}

/// A vocabulary: ids by token, or pieces with their scores in the order of the ids.
fn vocabulary(json: &Value) -> BTreeMap<u64, String> {
    match json {
        Value::Object(tokens) => {
            let by_id = |(token, id): (&String, &Value)| Some((id.as_u64()?, token.clone()));
            tokens.iter().filter_map(by_id).collect()
        }
        Value::Array(pieces) => {
            let piece = |(id, piece): (u64, &Value)| Some((id, piece[0].as_str()?.to_owned()));
            (0..).zip(pieces).filter_map(piece).collect()
        }
        _ => BTreeMap::new(),
    }
}

/// A merge, which is a pair in new files, and a text in old ones.
fn merge(json: &Value) -> Option<String> {
    match json {
        Value::String(merge) => Some(merge.clone()),
        Value::Array(pair) => Some(format!("{} {}", pair.first()?.as_str()?, pair.get(1)?.as_str()?)),
        _ => None,
    }
}

/// Whether a normalizer, or one that it is made of, changes letters to lower case.
fn lowercases(normalizer: &Value) -> bool {
    let parts = normalizer["normalizers"].as_array();
    normalizer["lowercase"] == true
        || normalizer["type"] == "Lowercase"
        || parts.is_some_and(|parts| parts.iter().any(lowercases))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn whole(json: &Value) -> TokenizerFacts {
        let mut facts = TokenizerFacts::default();
        facts.add("tokenizer.json", json);
        facts
    }

    /// A BPE with the tokens `e`, `a`, `b`, `ab` and an appended mask.
    fn own() -> Value {
        json!({
            "model": {
                "type": "BPE", "vocab": { "e": 0, "a": 1, "b": 2, "ab": 3 }, "merges": [["a", "b"]]
            },
            "added_tokens": [{ "id": 4, "content": "[MASK]" }]
        })
    }

    fn info() -> TokensInfo {
        serde_json::from_value(json!({
            "vocabulary": 5, "special": { "bos": 0, "eos": 0, "pad": 0, "mask": 4 },
            "roles": {
                "bos": { "token": "e", "found": "kind" }, "eos": { "token": "e", "found": "kind" },
                "pad": { "token": "e", "found": "eos" }, "mask": { "token": "[MASK]", "found": "appended" }
            },
            "tokenizer_digest": "", "records": 0, "tokens": 0, "bytes": 0, "words": 0, "unknown": 0
        }))
        .unwrap()
    }

    #[test]
    fn checkpoint_tokenizer_differs_by_token_merge_case_or_role() {
        let difference = |change: &dyn Fn(&mut Value), beside: &Value| {
            let mut json = own();
            change(&mut json);
            let mut theirs = whole(&json);
            theirs.add("special_tokens_map.json", beside);
            theirs.difference(&whole(&own()), &info(), "tokens")
        };
        let nothing = json!({});
        assert_eq!(difference(&|_| (), &nothing), None);
        // Without the mask, with another spelling of it, and with merges as old files have them.
        assert_eq!(
            difference(&|json| json["added_tokens"] = json!([]), &nothing),
            None
        );
        let spelled = |json: &mut Value| json["added_tokens"][0]["content"] = json!("<mask>");
        assert_eq!(difference(&spelled, &json!({ "mask_token": "<mask>" })), None);
        assert_eq!(
            difference(&|json| json["model"]["merges"] = json!(["a b"]), &nothing),
            None
        );
        let said = |change: &dyn Fn(&mut Value), beside: &Value| difference(change, beside).unwrap();
        let swapped = |json: &mut Value| json["model"]["vocab"] = json!({ "e": 0, "b": 1, "a": 2, "ab": 3 });
        assert_eq!(
            said(&swapped, &nothing),
            "token 1 is `b` in `tokenizer.json`, but `a` by the tokenizer of `tokens`"
        );
        let fewer = |json: &mut Value| json["model"]["vocab"] = json!({ "e": 0, "a": 1, "b": 2 });
        assert_eq!(
            said(&fewer, &nothing),
            "`tokenizer.json` has no token 3, which is `ab` by the tokenizer of `tokens`"
        );
        let more = |json: &mut Value| json["model"]["vocab"]["abc"] = json!(9);
        assert_eq!(
            said(&more, &nothing),
            "token 9 is `abc` in `tokenizer.json`, but absent from the tokenizer of `tokens`"
        );
        let merges = |json: &mut Value| json["model"]["merges"] = json!([["b", "a"]]);
        assert_eq!(
            said(&merges, &nothing),
            "merge 0 is `b a` in `tokenizer.json`, but `a b` by the tokenizer of `tokens`"
        );
        let kind = |json: &mut Value| json["model"]["type"] = json!("WordPiece");
        assert!(said(&kind, &nothing).starts_with("the tokenizer is a `WordPiece`"));
        let lower = |json: &mut Value| {
            json["normalizer"] = json!({ "type": "Sequence", "normalizers": [{ "type": "Lowercase" }] });
        };
        assert!(said(&lower, &nothing).starts_with("tokens have lower case by `tokenizer.json`"));
        assert_eq!(
            said(&|_| (), &json!({ "eos_token": { "content": "ab" } })),
            "the eos token is `ab` (3) in `special_tokens_map.json`, but `e` (0) by the tokenizer of `tokens`"
        );
        assert_eq!(
            said(&|_| (), &json!({ "pad_token": "<pad>" })),
            "the pad token is `<pad>` in `special_tokens_map.json`, but `e` (0) by the tokenizer of `tokens`"
        );
        let decoder = json!({ "added_tokens_decoder": { "2": { "content": "c" } } });
        assert!(said(&|_| (), &decoder).starts_with("token 2 is `c` in `special_tokens_map.json`"));
    }

    #[test]
    fn checkpoint_vocabulary_is_read_of_every_kind_of_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            CheckpointFile {
                name: name.to_owned(),
                path,
            }
        };
        let lines = TokenizerFacts::read(&[file("vocab.txt", "e\na\n")]).unwrap();
        let ids = TokenizerFacts::read(&[file("vocab.json", r#"{ "a": 1, "e": 0 }"#)]).unwrap();
        let pieces = whole(&json!({ "model": { "vocab": [["e", 0.0], ["a", -1.0]] } }));
        for facts in [lines, ids, pieces] {
            let tokens: Vec<_> = facts.tokens.iter().map(|(id, token)| (*id, &**token)).collect();
            assert_eq!(tokens, [(0, "e"), (1, "a")]);
        }
        assert!(TokenizerFacts::read(&[file("vocab.json", "{")]).is_err());
    }
}
