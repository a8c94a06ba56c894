use super::*;

fn facts(json: &Value) -> ConfigFacts {
    ConfigFacts::read("config.json", json).unwrap()
}

/// The fields of `kuleshov-group/mdlm-owt`.
fn published() -> Value {
    json!({
        "_name_or_path": "kuleshov-group/mdlm-owt", "architectures": ["MDLM"],
        "auto_map": { "AutoConfig": "configuration_mdlm.MDLMConfig", "AutoModelForMaskedLM": "modeling_mdlm.MDLM" },
        "cond_dim": 128, "dropout": 0.1, "hidden_dim": 768, "model_length": 1024, "model_type": "mdlm",
        "n_blocks": 12, "n_heads": 12, "return_dict": false, "time_conditioning": false,
        "torch_dtype": "float32", "transformers_version": "4.38.2", "vocab_size": 50258
    })
}

#[test]
fn checkpoint_config_of_the_hub_states_dimensions_and_objective() {
    let found = facts(&published());
    assert_eq!(
        [
            found.vocabulary,
            found.length,
            found.width,
            found.heads,
            found.blocks,
            found.conditioning
        ],
        [50258, 1024, 768, 12, 12, 128].map(Some)
    );
    assert_eq!(found.objective, Some(Objective::default()));
    assert_eq!((found.mask, found.foreign), (None, None));
    let mut conditioned = published();
    conditioned["time_conditioning"] = json!(true);
    assert!(facts(&conditioned).objective.unwrap().is_time_conditioned());
    let mut ours = published();
    ours["objective"] = json!({ "kind": "d3pm", "steps": 50, "time_conditioning": false });
    ours["mask_token_id"] = json!(7);
    ours["tokenizer_vocab_size"] = json!(8);
    ours["wrap"] = json!(false);
    let found = facts(&ours);
    assert_eq!((found.objective.unwrap().kind(), found.mask), ("d3pm", Some(7)));
    assert_eq!((found.tokens, found.wrap), (Some(8), Some(false)));
}

#[test]
fn checkpoint_config_of_block_diffusion_fits_with_one_block_a_row() {
    let with = |more: Value| {
        let mut config = published();
        config["model_type"] = json!("bd3lm");
        config
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        facts(&config)
    };
    assert_eq!(
        with(json!({ "block_size": 1024 })).objective,
        Some(Objective::default())
    );
    let no_blocks = with(json!({ "block_size": 1, "cross_attn": false }));
    assert_eq!(no_blocks.objective, Some(Objective::default()));
    let blocks = with(json!({ "block_size": 16 }));
    assert_eq!(blocks.objective, None);
    assert!(
        blocks
            .foreign
            .unwrap()
            .contains("blocks of 16 tokens in rows of 1024")
    );
    let duo = with(json!({ "model_type": "DUO" }));
    assert!(duo.objective.is_none() && duo.foreign.unwrap().contains("uniform noise"));
}

#[test]
fn checkpoint_config_of_saved_settings_states_sedd_and_the_authors_objectives() {
    let sedd = json!({
        "ngpus": 8, "tokens": 50257, "graph": { "type": "absorb", "file": "data" },
        "noise": { "type": "loglinear", "sigma_min": 1e-4, "sigma_max": 20 },
        "model": {
            "name": "small", "type": "ddit", "hidden_size": 768, "cond_dim": 128, "length": 1024, "n_blocks": 12,
            "n_heads": 12, "scale_by_sigma": true, "dropout": 0.1
        }
    });
    let found = facts(&sedd);
    assert_eq!((found.vocabulary, found.width), (Some(50258), Some(768)));
    assert_eq!(found.objective, Some(Objective::Sedd(SeddObjective::default())));
    let mut uniform = sedd.clone();
    uniform["graph"]["type"] = json!("uniform");
    assert!(facts(&uniform).foreign.unwrap().contains("`uniform` noise"));
    let mut geometric = sedd;
    geometric["noise"]["type"] = json!("geometric");
    let Some(Objective::Sedd(settings)) = facts(&geometric).objective else {
        panic!()
    };
    assert!(matches!(settings.noise, Noise::Geometric(range) if range.sigma_max == 20.0));

    let of = |parameterization: &str, steps: u32| {
        facts(&json!({
            "parameterization": parameterization, "T": steps, "time_conditioning": true,
            "model": { "hidden_size": 768, "length": 128 }, "noise": { "type": "loglinear" }
        }))
        .objective
    };
    assert_eq!(of("subs", 0).unwrap().steps(), None);
    assert_eq!(of("subs", 100).unwrap().steps(), Some(100));
    assert_eq!(of("d3pm", 1000), Some(Objective::D3pm(D3pmObjective::default())));
    assert_eq!(of("ar", 0).unwrap().kind(), "ar");
    assert_eq!(of("sedd", 0).unwrap().kind(), "sedd");
    assert_eq!(of("another", 0), None);
}

#[test]
fn checkpoint_config_that_contradicts_the_settings_beside_it_is_refused() {
    let of = |noise: &str| {
        let objective = json!({ "kind": "mdlm", "noise": { "kind": noise } });
        ConfigFacts::read(
            "config.json",
            &json!({ "model_type": "mdlm", "objective": objective }),
        )
        .unwrap()
    };
    of("cosine").agree(&of("cosine")).unwrap();
    let error = of("cosine").agree(&of("log_linear")).unwrap_err().to_string();
    assert!(error.contains("`noise` of the objective is "), "{error}");
}

#[test]
fn checkpoint_config_that_contradicts_itself_or_a_manifest_is_refused() {
    let mut ours = published();
    ours["objective"] = json!({ "kind": "mdlm", "time_conditioning": true });
    let error = ConfigFacts::read("config.json", &ours).unwrap_err().to_string();
    assert!(
        error.contains("`time_conditioning` is false, but true in its `objective`"),
        "{error}"
    );

    let shown = |json: &Value, own: &Value| {
        let own = serde_json::from_value(own.clone()).unwrap();
        facts(json)
            .conflict(&own)
            .map(|(field, theirs, ours)| format!("{field}: {theirs}, {ours}"))
    };
    // A model of the hub states no schedule.
    let cosine = json!({ "kind": "mdlm", "noise": { "kind": "cosine" } });
    assert_eq!(shown(&published(), &cosine), None);
    let conflict = shown(&published(), &json!({ "kind": "ar" }));
    assert_eq!(conflict.unwrap(), "kind: `mdlm`, `ar`");
    let settings = json!({
        "parameterization": "subs", "T": 0, "noise": { "type": "loglinear" }, "model": { "length": 128 }
    });
    assert_eq!(shown(&settings, &json!({ "kind": "mdlm" })), None);
    assert!(shown(&settings, &cosine).unwrap().starts_with("noise: {"));
    let conflict = shown(&settings, &json!({ "kind": "mdlm", "steps": 9 }));
    assert_eq!(conflict.unwrap(), "steps: absent, 9");
    // All is stated: what is left out has its default.
    ours["objective"] = json!({ "kind": "mdlm" });
    assert_eq!(shown(&ours, &json!({ "kind": "mdlm" })), None);
    let conflict = shown(&ours, &json!({ "kind": "mdlm", "carry_over": false }));
    assert_eq!(conflict.unwrap(), "carry_over: absent, false");
}

#[test]
fn checkpoint_settings_of_unknown_noise_have_no_objective() {
    let settings =
        json!({ "parameterization": "subs", "noise": { "type": "square" }, "model": { "length": 128 } });
    let found = facts(&settings);
    assert!(found.objective.is_none() && found.foreign.unwrap().contains("`square`"));
    let unconditioned = json!({ "parameterization": "sedd", "time_conditioning": false, "model": {} });
    assert!(!facts(&unconditioned).objective.unwrap().is_time_conditioned());
    let causal = json!({ "algo": { "name": "ar", "causal_attention": true }, "model": {} });
    assert_eq!(facts(&causal).objective.unwrap().kind(), "ar");
    let run = json!({
        "optim": { "lr": 3e-4, "beta1": "much" }, "training": { "ema": 0.9999 }, "model": {}, "data": { "wrap": false }
    });
    let found = facts(&run);
    assert_eq!(
        (found.settings.learning_rate, found.settings.beta1),
        (Some(3e-4), None)
    );
    assert_eq!((found.settings.ema, found.wrap), (Some(0.9999), Some(false)));
}

#[test]
fn checkpoint_config_with_a_wrong_type_is_refused_with_the_field() {
    for (config, text) in [
        (json!([1]), "it is a list"),
        (
            json!({ "vocab_size": "many" }),
            "`vocab_size` is \"many\", expected a whole number",
        ),
        (json!({ "vocab_size": -1 }), "expected a whole number"),
        (json!({ "time_conditioning": 1 }), "expected true or false"),
        (json!({ "model": { "length": true } }), "`model.length` is true"),
        (json!({ "objective": { "kind": "mdlm", "no": 1 } }), "`objective`"),
    ] {
        let error = ConfigFacts::read("config.json", &config).unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
    }
}
