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

#[test]
fn checkpoint_config_that_names_two_networks_is_refused_with_both() {
    for (more, text) in [
        (
            json!({ "backbone": "dit", "causal": true }),
            "`backbone` is `dit`, but `causal` is true",
        ),
        (
            json!({ "backbone": "transformer", "causal": false }),
            "`backbone` is `transformer`, but `causal` is false",
        ),
        (
            json!({ "objective": { "kind": "mdlm" }, "causal": true }),
            "the objective is `mdlm`, which a DiT is trained for, but `causal` is true",
        ),
        (
            json!({ "objective": "mdlm", "backbone": "ar" }),
            "the objective is `mdlm`, which a DiT is trained for, but `backbone` is `ar`",
        ),
        (
            json!({ "objective": { "kind": "ar" }, "backbone": "dit" }),
            "the objective is `ar`, which a plain transformer is trained for, but `backbone` is `dit`",
        ),
        (
            json!({ "model_type": "duo", "objective": { "kind": "mdlm" } }),
            "but `model_type` is `duo`",
        ),
        (
            json!({ "hidden_size": 128 }),
            "`hidden_dim` is 768, but `hidden_size` is 128",
        ),
        (
            json!({ "mask_token_id": 7, "mask_index": 8 }),
            "`mask_token_id` is 7, but `mask_index` is 8",
        ),
        (
            json!({ "objective": "text-generation" }),
            "`objective` is \"text-generation\": unknown variant `text-generation`",
        ),
        (json!({ "objective": 3 }), "`objective` is 3"),
    ] {
        let mut config = published();
        let fields = config.as_object_mut().unwrap();
        fields.extend(more.as_object().unwrap().clone());
        let error = ConfigFacts::read("config.json", &config).unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
        assert!(error.hint_text().is_some(), "{error}");
    }
}

#[test]
fn checkpoint_config_with_the_objective_as_a_text_states_its_kind() {
    let of = |more: Value| {
        let mut config = published();
        config
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        facts(&config)
    };
    let mdlm = of(json!({ "objective": "mdlm", "time_conditioning": true }));
    assert!(mdlm.objective.unwrap().is_time_conditioned());
    assert_eq!(
        Value::Object(mdlm.stated),
        json!({ "kind": "mdlm", "time_conditioning": true })
    );
    assert!(!mdlm.states_all);
    assert_eq!(of(json!({ "objective": "ar" })).objective.unwrap().kind(), "ar");
    assert_eq!(of(json!({ "backbone": "ar" })).objective.unwrap().kind(), "ar");
}

#[test]
fn checkpoint_config_states_ids_of_special_tokens_and_other_constants() {
    let mut config = published();
    for (field, value) in [
        ("bos_token_id", json!(50256)),
        ("eos_token_id", json!([1, 2])),
        ("pad_token_id", json!(-1)),
        ("rope_theta", json!(10000)),
    ] {
        config[field] = value;
    }
    let found = facts(&config);
    let roles: Vec<_> = found
        .roles
        .iter()
        .map(|role| (role.role, role.ids.clone()))
        .collect();
    assert_eq!(roles, [("bos", vec![50256]), ("eos", vec![1, 2])]);
    assert_eq!(found.unlike, None);
    for (field, value, text) in [
        (
            "rope_theta",
            json!(500_000.0),
            "`rope_theta` is 500000, and mdlm's network has 10000",
        ),
        (
            "mlp_ratio",
            json!(2),
            "`mlp_ratio` is 2, and mdlm's network has 4",
        ),
        (
            "hidden_act",
            json!("silu"),
            "`hidden_act` is `silu`, and mdlm's network has GELU",
        ),
        (
            "rope_scaling",
            json!({ "rope_type": "yarn" }),
            "`rope_scaling` is `yarn`, and mdlm's network has none",
        ),
    ] {
        let mut other = config.clone();
        other[field] = value;
        assert_eq!(facts(&other).unlike.as_deref(), Some(text));
    }
}

#[test]
fn checkpoint_settings_of_the_authors_name_network_masking_and_schedule() {
    let with = |more: Value| {
        let mut settings = json!({
            "parameterization": "d3pm", "T": 50, "backbone": "dit", "subs_masking": false, "time_conditioning": false,
            "noise": { "type": "loglinear" }, "model": { "length": 128, "scale_by_sigma": true }
        });
        settings
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        settings
    };
    let read = |more: Value| ConfigFacts::read("hyper_parameters", &with(more));
    assert_eq!(read(json!({})).unwrap().objective.unwrap().kind(), "d3pm");
    let masking = read(json!({ "subs_masking": true })).unwrap();
    let Some(Objective::Mdlm(found)) = masking.objective else {
        panic!()
    };
    assert!(found.zero_masking && !found.carry_over && found.steps == Some(50));
    let own = serde_json::from_value(json!({ "kind": "mdlm", "steps": 50 })).unwrap();
    assert_eq!(
        masking.conflict(&own).unwrap(),
        ("carry_over".to_owned(), "false".to_owned(), "absent".to_owned())
    );
    for (more, text) in [
        (
            json!({ "parameterization": "subs", "subs_masking": true }),
            "`subs_masking` is true, but `parameterization` is `subs`",
        ),
        (
            json!({ "backbone": "ar" }),
            "the objective is `d3pm`, which a DiT is trained for, but `backbone` is `ar`",
        ),
        (
            json!({ "parameterization": "subs", "model": { "causal": true } }),
            "`backbone` is `dit`, but `model.causal` is true",
        ),
        (
            json!({ "T": 50, "algo": { "T": 60 } }),
            "`T` is 50, but `algo.T` is 60",
        ),
        (
            json!({ "objective": "sedd" }),
            "`objective` is `sedd`, but the other settings are those of `d3pm`",
        ),
    ] {
        let error = read(more).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
    let unscaled = json!({ "parameterization": "sedd", "T": 0, "model": { "scale_by_sigma": false } });
    let unscaled = read(unscaled).unwrap();
    assert!(unscaled.objective.is_none() && unscaled.foreign.unwrap().contains("`scale_by_sigma`"));
    // A softmax takes the scale out.
    let without = json!({ "parameterization": "subs", "T": 0, "model": { "scale_by_sigma": false } });
    assert_eq!(read(without).unwrap().objective.unwrap().kind(), "mdlm");
    // The autoregressive model of BD3-LM's code is of its DiT's class.
    let causal =
        json!({ "backbone": null, "algo": { "name": "ar", "backbone": "dit", "causal_attention": true } });
    assert_eq!(read(causal).unwrap().objective.unwrap().kind(), "ar");
    for (target, kind) in [
        ("transformers.get_constant_schedule_with_warmup", "constant"),
        ("utils.CosineDecayWarmupLRScheduler", "cosine"),
        ("torch.optim.lr_scheduler.StepLR", "StepLR"),
    ] {
        let found = read(json!({ "lr_scheduler": { "_target_": target } })).unwrap();
        assert_eq!(found.schedule.as_deref(), Some(kind));
    }
}
