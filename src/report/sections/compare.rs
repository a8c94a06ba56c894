//! A comparison: its table, and what is said about it.

use std::path::Path;

use maud::{Markup, html};

use crate::error::Result;
use crate::report::parts::table;
use crate::stages::compare::{Comparison, TextBlock, blocks};

/// The table of a comparison in a folder.
///
/// # Errors
/// The comparison cannot be read.
pub(super) fn section(folder: &Path) -> Result<Markup> {
    let blocks = blocks(&Comparison::open(folder)?);
    Ok(html! {
        @for block in &blocks {
            @match block {
                // The section has a heading.
                TextBlock::Heading(_) => {}
                TextBlock::Paragraph(text) => p.more { (text) },
                TextBlock::Table(rows) => (table(rows)),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn comparison_of_objectives_explains_its_signs() {
        let folder = tempfile::tempdir().unwrap();
        let rows = r#"{ "sorted_by": "bits_per_byte", "rows": [
            { "name": "causal", "point": { "objective": "ar" },
              "metrics": { "bits_per_byte": { "value": 1.0, "low": 0.75, "high": 1.25 },
                           "perplexity": { "value": 4.0, "low": 3.0, "high": 5.0 } },
              "objective": "ar", "quantity": "exact", "unit": "per token of text", "scored": true },
            { "name": "masked", "point": { "objective": "mdlm" },
              "metrics": { "bits_per_byte": { "value": 2.0, "low": 1.75, "high": 2.25 },
                           "perplexity": { "value": 3.0, "low": 2.0, "high": 4.0 } },
              "unit": "per token of text" }
        ] }"#;
        fs::write(folder.path().join(crate::stages::compare::TABLE), rows).unwrap();
        let table = section(folder.path()).unwrap().into_string();
        for expected in [
            "<tr><th>stage</th><th>objective</th><th>bits_per_byte</th><th>perplexity</th></tr>",
            "<tr><td>causal</td><td>ar</td><td>1.0000 ± 0.2500</td><td>4.000 (3.000–5.000)</td></tr>",
            "<tr><td>masked</td><td>mdlm</td><td>≤ 2.0000 ± 0.2500</td><td>≤ 3.000 (2.000–4.000)</td></tr>",
            "so that the difference is an upper bound on that of the likelihoods.</p>",
            "<p class=\"more\">Note: ≤ marks an upper bound; 1 of 2 rows is exact, without a sign.</p>",
            "per token of text in 1 row, per scored token of text in 1; the two are not comparable",
        ] {
            assert!(table.contains(expected), "{expected} is not in {table}");
        }
    }

    #[test]
    fn comparison_is_a_table() {
        let folder = tempfile::tempdir().unwrap();
        let rows = r#"{ "sorted_by": "bits_per_byte", "rows": [
            { "point": { "note": "a|<b" }, "metrics": { "bits_per_byte": { "value": 1.0, "low": 0.75, "high": 1.25 } },
              "model": "MODEL" },
            { "point": { "note": "c" }, "metrics": { "bits_per_byte": { "value": 2.0, "low": 1.75, "high": 2.25 } },
              "model": "MODEL" }
        ] }"#;
        let rows = rows.replace("MODEL", &crate::store::Digest::of(b"model").to_string());
        fs::write(folder.path().join(crate::stages::compare::TABLE), rows).unwrap();
        let table = section(folder.path()).unwrap().into_string();
        assert!(
            table.contains(
                "<tr><th>note</th><th>bits_per_byte</th></tr><tr><td>a|&lt;b</td><td>1.0000 ± 0.2500</td></tr>"
            ),
            "{table}"
        );
        assert!(
            table.contains("Best by bits_per_byte: note a|&lt;b, clearly different from all others"),
            "{table}"
        );
    }
}
