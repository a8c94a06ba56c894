//! The objectives that tests go through, as a manifest has them: every kind, and every setting that changes what is asked of
//! a network or how its losses are weighed. It names nothing of the crate: `tests/gpu.rs` reads it too.

/// Names, and settings in JSON.
pub const SETTINGS: [(&str, &str); 15] = [
    ("mdlm", r#"{ "kind": "mdlm" }"#),
    ("mdlm in steps", r#"{ "kind": "mdlm", "steps": 8 }"#),
    (
        "mdlm without zero masking",
        r#"{ "kind": "mdlm", "steps": 8, "zero_masking": false }"#,
    ),
    (
        "mdlm without carry-over",
        r#"{ "kind": "mdlm", "steps": 8, "carry_over": false }"#,
    ),
    (
        "mdlm by importance",
        r#"{ "kind": "mdlm", "times": { "kind": "importance" } }"#,
    ),
    (
        "mdlm by change of variables",
        r#"{ "kind": "mdlm", "time_conditioning": true, "times": { "kind": "change_of_variables" } }"#,
    ),
    (
        "mdlm with a bell of times",
        r#"{ "kind": "mdlm", "times": { "kind": "bell" } }"#,
    ),
    (
        "mdlm with clipped times",
        r#"{ "kind": "mdlm", "times": { "kind": "clipped", "low": 0.2, "high": 0.9 } }"#,
    ),
    (
        "mdlm weighed as cross-entropy",
        r#"{ "kind": "mdlm", "weighting": "cross_entropy" }"#,
    ),
    ("sedd", r#"{ "kind": "sedd" }"#),
    (
        "sedd with geometric noise",
        r#"{ "kind": "sedd", "noise": { "kind": "geometric", "sigma_min": 1e-4, "sigma_max": 20.0 } }"#,
    ),
    ("d3pm", r#"{ "kind": "d3pm", "steps": 8 }"#),
    (
        "d3pm with independent times",
        r#"{ "kind": "d3pm", "antithetic": false, "time_conditioning": false }"#,
    ),
    ("ar", r#"{ "kind": "ar" }"#),
    ("mlm", r#"{ "kind": "mlm" }"#),
];
