//! Hints for settings that stand outside the object where they belong.

use serde_json::Value;

use crate::manifest::fault::shortened;
use crate::manifest::json::Node;

/// The way out for a setting of a format that is written outside it, in `read` or beside it.
pub(super) fn in_format(schema: &Value, node: &Node, key: &str) -> Option<String> {
    let has = |field: &str| schema["properties"][field].is_object();
    let is_read = has("format") && has("longest_record");
    if !is_read && !has("read") {
        return None;
    }
    let usual = match key {
        "bad_rows" | "columns" | "comment" | "delimiter" | "escape" | "header" | "quote" | "quoted_lines" => {
            "csv"
        }
        "column" => "parquet",
        "field" => "json_lines",
        "record" => "text",
        _ => return None,
    };
    let stated = node.member("format").filter(|_| is_read);
    let stated = stated.map(|format| format.value.to_json()["kind"].clone());
    let kind = match (usual, stated.as_ref().and_then(Value::as_str)) {
        ("csv", Some("tsv")) => "tsv",
        ("parquet", Some("arrow")) => "arrow",
        _ => usual,
    };
    let value = shortened(&node.member(key)?.value.to_json());
    Some(format!(
        "it belongs in `format`: write \"read\": {{ \"format\": {{ \"kind\": \"{kind}\", \"{key}\": {value} }} }}"
    ))
}

/// The way out where a field of the files of a download stands beside `files`.
pub(super) fn in_files(schema: &Value, node: &Node, key: &str) -> Option<String> {
    if !schema["properties"]["files"]["items"]["properties"][key].is_object() {
        return None;
    }
    let files = node.member("files").map(|files| files.value.to_json());
    let files = files
        .as_ref()
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    let mut written = String::new();
    if key != "url" {
        let url = files.first().and_then(|file| file["url"].as_str());
        written = format!("\"url\": {}, ", shortened(&url.unwrap_or("…").into()));
    }
    let value = shortened(&node.member(key)?.value.to_json());
    let more = if files.len() > 1 { ", …" } else { "" };
    Some(format!(
        "it belongs in an object of `files`: write \"files\": [{{ {written}\"{key}\": {value} }}{more}]"
    ))
}
