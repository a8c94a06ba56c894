use super::super::{CheckpointFormat, ForeignCheckpoint};
use super::*;
use crate::model::initial;
use crate::shapes::{SHAPES, Shape};
use crate::weights::torch::dtype::TorchDtype;
use crate::weights::torch::write::{TorchItem, TorchWriter};

fn nano() -> &'static Shape {
    SHAPES.find("nano").unwrap()
}

fn tensor(dims: &[usize]) -> TorchItem {
    TorchItem::Tensor(TorchDtype::F32, dims.to_vec())
}

fn int(number: i64) -> TorchItem {
    TorchItem::Int(number)
}

fn text(text: &str) -> TorchItem {
    TorchItem::Text(text.to_owned())
}

fn dict(items: Vec<(&str, TorchItem)>) -> TorchItem {
    TorchItem::Dict(
        items
            .into_iter()
            .map(|(name, item)| TorchItem::named(name, item))
            .collect(),
    )
}

fn save(path: &Path, item: &TorchItem, values: &[f32]) {
    let mut writer = TorchWriter::create(path, item).unwrap();
    writer.append(values).unwrap();
    writer.finish().unwrap();
}

fn state_dict(backbone: Backbone, prefix: &str) -> TorchItem {
    let own = parameters(nano(), backbone);
    let named = |name: &str, dims: &[usize]| TorchItem::named(&format!("{prefix}{name}"), tensor(dims));
    TorchItem::OrderedDict(own.iter().map(|own| named(&own.name, &own.dims)).collect())
}

/// The settings of AdamW's only group.
fn group(parameters: usize) -> TorchItem {
    let betas = TorchItem::Tuple(vec![TorchItem::Float(0.9), TorchItem::Float(0.999)]);
    dict(vec![
        ("lr", TorchItem::Float(1e-4)),
        ("initial_lr", TorchItem::Float(3e-4)),
        ("betas", betas),
        ("eps", TorchItem::Float(1e-8)),
        ("weight_decay", TorchItem::Float(0.0)),
        ("amsgrad", TorchItem::Bool(false)),
        (
            "params",
            TorchItem::List((0..parameters as i64).map(int).collect()),
        ),
    ])
}

fn adam() -> RunSettings {
    RunSettings {
        learning_rate: Some(3e-4),
        beta1: Some(0.9),
        beta2: Some(0.999),
        epsilon: Some(1e-8),
        weight_decay: Some(0.0),
        ..RunSettings::default()
    }
}

/// The values of a run as PyTorch Lightning saves it, with `shadow` as the dimensions of the average; and its numbers: the
/// weights, the average, the moments.
fn lightning(backbone: Backbone, shadow: &[Vec<usize>]) -> (TorchItem, Vec<f32>, Vec<f32>) {
    let own = parameters(nano(), backbone);
    let moments = own.iter().enumerate().map(|(index, own)| {
        let state = dict(vec![
            ("step", int(1_000)),
            ("exp_avg", tensor(&own.dims)),
            ("exp_avg_sq", tensor(&own.dims)),
        ]);
        (int(index as i64), state)
    });
    let config = dict(vec![
        (
            "parameterization",
            text(match backbone {
                Backbone::Dit => "subs",
                Backbone::Transformer => "ar",
            }),
        ),
        ("T", int(0)),
        ("time_conditioning", TorchItem::Bool(false)),
        ("noise", dict(vec![("type", text("loglinear"))])),
        (
            "model",
            dict(vec![
                ("length", int(32)),
                ("hidden_size", int(64)),
                ("n_heads", int(2)),
                ("n_blocks", int(2)),
                ("cond_dim", text("${cond}")),
            ]),
        ),
    ]);
    let item = dict(vec![
        ("epoch", int(3)),
        ("global_step", int(1_000)),
        ("pytorch-lightning_version", text("2.2.1")),
        ("state_dict", state_dict(backbone, "backbone.")),
        (
            "ema",
            dict(vec![
                ("decay", TorchItem::Float(0.9999)),
                ("num_updates", int(999)),
                (
                    "shadow_params",
                    TorchItem::List(shadow.iter().map(|dims| tensor(dims)).collect()),
                ),
            ]),
        ),
        (
            "optimizer_states",
            TorchItem::List(vec![dict(vec![
                ("state", TorchItem::Dict(moments.collect())),
                ("param_groups", TorchItem::List(vec![group(own.len())])),
            ])]),
        ),
        ("hyper_parameters", dict(vec![("config", config)])),
    ]);
    let raw = initial(nano(), backbone, 1);
    let elements: usize = shadow.iter().map(|dims| dims.iter().product::<usize>()).sum();
    let average: Vec<f32> = (0..elements).map(|i| (i % 1000) as f32).collect();
    let mut values = [raw, average.clone()].concat();
    values.resize(
        values.len() + 2 * own.iter().map(crate::model::Parameter::len).sum::<usize>(),
        0.5,
    );
    (item, values, average)
}

fn dims(backbone: Backbone) -> Vec<Vec<usize>> {
    parameters(nano(), backbone)
        .into_iter()
        .map(|own| own.dims)
        .collect()
}

#[test]
fn checkpoint_of_lightning_has_weights_average_and_counters() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("last.ckpt");
    for (backbone, count) in [(Backbone::Dit, 30), (Backbone::Transformer, 20)] {
        let (item, values, average) = lightning(backbone, &dims(backbone));
        save(&path, &item, &values);
        let mut checkpoint = ForeignCheckpoint::at(&path).unwrap();
        assert_eq!(checkpoint.format(), CheckpointFormat::Lightning);
        assert_eq!(dims(backbone).len(), count);
        assert_eq!(
            *checkpoint.training(),
            TrainingFacts {
                steps: Some(1_000),
                epoch: Some(3),
                decay: Some(0.9999),
                average_updates: Some(999),
                moments: Some(count),
                updates: Some(1_000),
                rates: RateState {
                    next_rate: Some(1e-4),
                    ..RateState::default()
                },
                settings: RunSettings {
                    ema: Some(0.9999),
                    ..adam()
                },
                ..TrainingFacts::default()
            }
        );
        assert_eq!(checkpoint.choose(None).unwrap(), Weights::Ema);
        assert!(checkpoint.read(nano(), backbone, Weights::Ema).unwrap() == average);
        assert!(checkpoint.read(nano(), backbone, Weights::Raw).unwrap() == initial(nano(), backbone, 1));
        let facts = checkpoint.facts().unwrap();
        assert_eq!(
            (facts.heads, facts.length, facts.conditioning),
            (Some(2), Some(32), None)
        );
        assert_eq!(facts.objective.unwrap().backbone(), backbone);
        assert_eq!(checkpoint.guess().unwrap().fitting()[0].name, "nano");
    }
}

#[test]
fn checkpoint_run_continues_where_moments_fit_by_position() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("last.ckpt");
    let (item, values, _) = lightning(Backbone::Dit, &dims(Backbone::Dit));
    save(&path, &item, &values);
    let mut checkpoint = ForeignCheckpoint::at(&path).unwrap();
    let run = checkpoint.run(nano(), Backbone::Dit).unwrap();
    assert_eq!(
        (run.step, run.has_average, run.average_updates),
        (1_000, true, Some(999))
    );
    let own = parameters(nano(), Backbone::Dit);
    let mut found = vec![0.0; crate::model::total(&own)];
    for which in 0..2 {
        checkpoint.moments(&own, which, &mut found).unwrap();
        assert!(found.iter().all(|value| *value == 0.5));
    }
}

/// Why the run of [`lightning`] cannot be continued where these entries stand in the place of its.
fn not_continued(folder: &Path, entries: Vec<(&str, TorchItem)>) -> String {
    let path = folder.join("last.ckpt");
    save_entries(&path, entries);
    let checkpoint = ForeignCheckpoint::at(&path).unwrap();
    checkpoint.run(nano(), Backbone::Dit).unwrap_err().unwrap()
}

/// Saves the run of [`lightning`] with entries in the place of its, and further ones.
fn save_entries(path: &Path, entries: Vec<(&str, TorchItem)>) {
    let (item, mut values, _) = lightning(Backbone::Dit, &dims(Backbone::Dit));
    let TorchItem::Dict(mut whole) = item else {
        panic!()
    };
    whole.retain(|(key, _)| !entries.iter().any(|(other, _)| text(other) == *key));
    let more = entries
        .into_iter()
        .map(|(name, item)| TorchItem::named(name, item));
    whole.extend(more);
    let mut writer = TorchWriter::create(path, &TorchItem::Dict(whole)).unwrap();
    // Tensors may be fewer or more.
    values.extend(vec![0.5; values.len()]);
    for value in values {
        if writer.append(&[value]).is_err() {
            break;
        }
    }
    writer.finish().unwrap();
}

/// The state of nano's parameters in an optimizer, each by its number and dimensions.
fn states(change: &dyn Fn(usize, Vec<usize>) -> Option<TorchItem>) -> TorchItem {
    let own = parameters(nano(), Backbone::Dit).into_iter().enumerate();
    let states = own.filter_map(|(index, own)| Some((int(index as i64), change(index, own.dims)?)));
    TorchItem::Dict(states.collect())
}

fn adamw(dims: &[usize], step: i64) -> TorchItem {
    dict(vec![
        ("step", int(step)),
        ("exp_avg", tensor(dims)),
        ("exp_avg_sq", tensor(dims)),
    ])
}

fn optimizer(state: TorchItem, groups: Vec<TorchItem>) -> TorchItem {
    dict(vec![("state", state), ("param_groups", TorchItem::List(groups))])
}

/// The state of AdamW after 1,000 updates.
fn whole_optimizer(groups: Vec<TorchItem>) -> TorchItem {
    optimizer(states(&|_, dims| Some(adamw(&dims, 1_000))), groups)
}

#[test]
fn checkpoint_run_with_another_optimizer_is_not_continued() {
    let folder = tempfile::tempdir().unwrap();
    let own = parameters(nano(), Backbone::Dit);
    let refused = |optimizer: TorchItem| {
        not_continued(
            folder.path(),
            vec![("optimizer_states", TorchItem::List(vec![optimizer]))],
        )
    };
    let groups = || vec![group(30)];
    let text = refused(whole_optimizer(vec![group(15), group(15)]));
    assert_eq!(text, "its optimizer has 2 groups of parameters, expected 1");
    let sgd = |_, dims: Vec<usize>| Some(dict(vec![("momentum_buffer", tensor(&dims))]));
    let text = refused(optimizer(states(&sgd), groups()));
    assert!(
        text.contains("not AdamW: its state of parameter 0 has `momentum_buffer`"),
        "{text}"
    );
    let without = |at, dims: Vec<usize>| (at != 3).then(|| adamw(&dims, 1_000));
    let text = refused(optimizer(states(&without), groups()));
    assert_eq!(text, "its optimizer has no state of parameter 3");
    let later = |at, dims: Vec<usize>| Some(adamw(&dims, 1_000 + i64::from(at == 3)));
    let text = refused(optimizer(states(&later), groups()));
    assert!(
        text.contains("1001 updates of parameter 3, but 1000 of those before it"),
        "{text}"
    );
    let text = refused(optimizer(states(&|_, dims| Some(adamw(&dims, 500))), groups()));
    assert_eq!(text, "it is at step 1000, but its optimizer has made 500 updates");
    let swapped = |at: usize, dims: Vec<usize>| {
        let dims = match at {
            5 => own[6].dims.clone(),
            6 => own[5].dims.clone(),
            _ => dims,
        };
        Some(adamw(&dims, 1_000))
    };
    let text = refused(optimizer(states(&swapped), groups()));
    assert!(
        text.contains("`optimizer.state[5].exp_avg` is [192, 64], expected [64]"),
        "{text}"
    );
}

#[test]
fn checkpoint_run_with_several_optimizers_or_another_schedule_is_not_continued() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |name, list| not_continued(folder.path(), vec![(name, TorchItem::List(list))]);
    let both = vec![whole_optimizer(vec![group(30)]), whole_optimizer(vec![group(30)])];
    let text = refused("optimizer_states", both);
    assert_eq!(
        text,
        "it has the states of 2 optimizers (`optimizer_states`), expected 1"
    );
    let at = |step| {
        dict(vec![
            ("last_epoch", int(step)),
            ("lr_lambdas", TorchItem::List(vec![])),
        ])
    };
    let text = refused("lr_schedulers", vec![at(4)]);
    assert_eq!(
        text,
        "it is at step 1000, but its learning rate's schedule (`lr_schedulers`) is at 4"
    );
    let text = refused("lr_schedulers", vec![at(1_000), at(1_000)]);
    assert_eq!(
        text,
        "it has 2 schedules of learning rates (`lr_schedulers`), expected 1"
    );
    // At the same step it is continued, and the kind of the schedule is known by its state.
    let path = folder.path().join("cosine.ckpt");
    let cosine = dict(vec![("T_max", int(2_000)), ("last_epoch", int(1_000))]);
    save_entries(&path, vec![("lr_schedulers", TorchItem::List(vec![cosine]))]);
    let run = ForeignCheckpoint::at(&path)
        .unwrap()
        .run(nano(), Backbone::Dit)
        .unwrap();
    assert_eq!((run.step, run.schedule.as_deref()), (1_000, Some("cosine")));
}

#[test]
fn checkpoint_schedule_states_the_next_rate_and_the_end_of_its_cosine() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("last.ckpt");
    let run = |schedule: Vec<(&str, TorchItem)>| {
        let list = TorchItem::List(vec![dict(schedule)]);
        save_entries(&path, vec![("lr_schedulers", list)]);
        ForeignCheckpoint::at(&path)
            .unwrap()
            .run(nano(), Backbone::Dit)
            .unwrap()
    };
    let float = TorchItem::Float;
    let rates = |next_rate, cosine_end, cosine_floor| RateState {
        next_rate: Some(next_rate),
        cosine_end,
        cosine_floor,
    };
    // PyTorch's own classes. Without a rate in the schedule, the optimizer's is the next one.
    let found = run(vec![
        ("last_epoch", int(1_000)),
        ("_last_lr", TorchItem::List(vec![float(2e-4)])),
    ]);
    assert_eq!((found.rates, found.schedule), (rates(2e-4, None, None), None));
    let found = run(vec![
        ("T_max", int(2_000)),
        ("eta_min", float(1e-6)),
        ("last_epoch", int(1_000)),
        ("_last_lr", TorchItem::List(vec![float(f64::NAN)])),
    ]);
    assert_eq!(found.rates, rates(1e-4, Some(2_000.0), Some(1e-6)));
    // timm's, as the authors use it: its length is counted from the end of warm-up.
    let timm = |is_prefix| {
        vec![
            ("_last_epoch", int(1_000)),
            ("t_initial", float(1_800.0)),
            ("lr_min", float(0.0)),
            ("warmup_t", float(200.0)),
            ("warmup_prefix", TorchItem::Bool(is_prefix)),
        ]
    };
    let found = run(timm(true));
    assert_eq!(found.rates, rates(1e-4, Some(2_000.0), Some(0.0)));
    assert_eq!(
        (found.schedule.as_deref(), found.settings.warmup_steps),
        (Some("cosine"), Some(200.0))
    );
    assert_eq!(run(timm(false)).rates, rates(1e-4, Some(1_800.0), Some(0.0)));
}

#[test]
fn checkpoint_average_without_updates_has_a_constant_decay() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("last.ckpt");
    let of = |updates: TorchItem| {
        let average = dict(vec![
            ("decay", TorchItem::Float(0.5)),
            ("num_updates", updates),
            ("shadow_params", shadow()),
        ]);
        save_entries(&path, vec![("ema", average)]);
        let run = ForeignCheckpoint::at(&path)
            .unwrap()
            .run(nano(), Backbone::Dit)
            .unwrap();
        (run.average_updates, run.is_decay_constant, run.settings.ema)
    };
    assert_eq!(of(TorchItem::None), (None, true, Some(0.5)));
    assert_eq!(of(int(7)), (Some(7), false, Some(0.5)));
}

/// The dims of [`state_dict`], as a list without names.
fn shadow() -> TorchItem {
    TorchItem::List(dims(Backbone::Dit).iter().map(|dims| tensor(dims)).collect())
}

#[test]
fn checkpoint_average_is_read_in_every_layout_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.pt");
    let raw = initial(nano(), Backbone::Dit, 1);
    let average: Vec<f32> = raw.iter().map(|value| value + 1.0).collect();
    let named = || state_dict(Backbone::Dit, "module.");
    for (key, item) in [
        (
            "ema",
            dict(vec![("state_dict", named()), ("decay", TorchItem::Float(0.9))]),
        ),
        ("ema", named()),
        ("ema", shadow()),
        ("ema", dict(vec![("shadow_params", named())])),
        ("ema", dict(vec![("shadow", named())])),
        ("ema", dict(vec![("state_dict", dict(vec![("module", named())]))])),
        ("model_ema", named()),
        ("model_ema", shadow()),
        ("ema_model", dict(vec![("model", named())])),
        ("state_dict_ema", named()),
        ("ema_state_dict", named()),
    ] {
        let whole = dict(vec![("model", named()), (key, item.clone())]);
        save(&path, &whole, &[raw.clone(), average.clone()].concat());
        let mut checkpoint = ForeignCheckpoint::at(&path).unwrap();
        assert_eq!(checkpoint.choose(None).unwrap(), Weights::Ema, "{key} {item:?}");
        assert!(
            checkpoint.read(nano(), Backbone::Dit, Weights::Ema).unwrap() == average,
            "{key}"
        );
        assert!(
            checkpoint.read(nano(), Backbone::Dit, Weights::Raw).unwrap() == raw,
            "{key}"
        );
        assert_eq!(checkpoint.skipped(), [""; 0], "{key}");
    }
}

#[test]
fn checkpoint_average_that_is_not_read_is_listed_and_refused_where_it_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.pt");
    let raw = initial(nano(), Backbone::Dit, 1);
    for (item, reason) in [
        (
            int(3),
            "`ema` is 3, expected a dict of tensors by name, or a list of them",
        ),
        (
            dict(vec![(
                "shadow_params",
                TorchItem::List(vec![int(1), tensor(&[2])]),
            )]),
            "element 0 of `ema.shadow_params` is 1, expected a tensor",
        ),
        (
            dict(vec![("decay", TorchItem::Float(0.9))]),
            "`ema` is {'decay': 0.9}, expected a dict",
        ),
    ] {
        let whole = dict(vec![("model", state_dict(Backbone::Dit, "")), ("ema", item)]);
        let mut values = raw.clone();
        if reason.contains("shadow_params") {
            values.extend([0.0; 2]);
        }
        save(&path, &whole, &values);
        let checkpoint = ForeignCheckpoint::at(&path).unwrap();
        let listed = checkpoint.skipped().join("\n").replace('"', "'");
        assert!(
            listed.starts_with("`ema`: average, not read: ") && listed.contains(reason),
            "{listed}"
        );
        assert_eq!(checkpoint.choose(None).unwrap(), Weights::Raw);
        let error = checkpoint.choose(Some(Weights::Ema)).unwrap_err();
        let text = error.to_string().replace('"', "'");
        assert!(
            text.contains("has averaged weights in `ema`, which are not read: ") && text.contains(reason),
            "{text}"
        );
        assert!(error.hint_text().unwrap().contains("\"weights\": \"raw\""));
    }
    // One that is read stands for another, and other tensors are listed.
    let whole = dict(vec![
        ("model", state_dict(Backbone::Dit, "")),
        ("ema", int(3)),
        ("model_ema", state_dict(Backbone::Dit, "")),
        ("ema_params", shadow()),
        ("discriminator", dict(vec![("weight", tensor(&[3]))])),
    ]);
    let mut values = [raw.clone(), raw.clone(), raw].concat();
    values.extend([0.0; 3]);
    save(&path, &whole, &values);
    let checkpoint = ForeignCheckpoint::at(&path).unwrap();
    let listed = checkpoint.skipped().join("\n");
    for part in [
        "`ema`: not read: ",
        "`ema_params`: not read, since `model_ema` is the average",
        "`discriminator`: 1 tensor",
    ] {
        assert!(listed.contains(part), "{part}: {listed}");
    }
}

#[test]
fn checkpoint_of_torch_within_two_keys_or_beside_a_decoy_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.pt");
    let values = initial(nano(), Backbone::Dit, 2);
    let nested = dict(vec![(
        "model",
        dict(vec![("state_dict", state_dict(Backbone::Dit, "module."))]),
    )]);
    save(&path, &nested, &values);
    assert!(super::super::read(&path, nano(), Backbone::Dit).unwrap() == values);
    let decoy = dict(vec![
        ("state_dict", dict(vec![("weight", tensor(&[2]))])),
        ("model", state_dict(Backbone::Dit, "")),
    ]);
    save(&path, &decoy, &[vec![0.0; 2], values.clone()].concat());
    let mut checkpoint = ForeignCheckpoint::at(&path).unwrap();
    assert_eq!(checkpoint.skipped(), ["`state_dict`: 1 tensor"]);
    assert!(checkpoint.read(nano(), Backbone::Dit, Weights::Raw).unwrap() == values);
    // Deeper ones are named.
    let deep = dict(vec![(
        "trainer",
        dict(vec![("network", state_dict(Backbone::Dit, ""))]),
    )]);
    save(&path, &deep, &values);
    let error = ForeignCheckpoint::at(&path).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("no weights are found: it has `trainer`"),
        "{error}"
    );
    let hint = error.hint_text().unwrap();
    assert!(
        hint.contains("tensors below `trainer.network`") && hint.contains("[\"trainer\"][\"network\"]"),
        "{hint}"
    );
}

/// `torch.save({"vocab_embed.embedding": t})` of a tensor of `torch.float8_e4m3fn`, by PyTorch 2.15: a type that is not read.
#[test]
fn checkpoint_with_a_type_that_is_not_read_names_the_type() {
    let pickle = b"\x80\x02}q\x00X\x15\x00\x00\x00vocab_embed.embeddingq\x01ctorch._utils\n_rebuild_tensor_v3\nq\x02(\
        (X\x07\x00\x00\x00storageq\x03ctorch.storage\nUntypedStorage\nq\x04X\x01\x00\x00\x000q\x05X\x03\x00\x00\x00cpuq\x06K\x04tq\x07Q\
        K\x00K\x02K\x02\x86q\x08K\x02K\x01\x86q\t\x89ccollections\nOrderedDict\nq\n)Rq\x0bctorch\nfloat8_e4m3fn\nq\x0ctq\rRq\x0es.";
    let pickle = parse(pickle).unwrap();
    let named = pickle.named(pickle.root());
    let (_, node) = named.first().unwrap();
    assert_eq!(
        unread_tensor(&pickle, *node),
        Some((vec![2, 2], "float8_e4m3fn".to_owned()))
    );
    assert!(has_tensors(&pickle, pickle.root()));
}

#[test]
fn checkpoint_pickle_names_its_globals_even_without_weights() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.pt");
    // `os.system("true")`, as `pickle.dumps` of protocol 2 has it, without an archive around it.
    let bare = b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.";
    std::fs::write(&path, bare).unwrap();
    let error = ForeignCheckpoint::at(&path).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("nothing of it was executed, and it names `os.system`"),
        "{text}"
    );
}

#[test]
fn checkpoint_settings_inside_that_contradict_those_beside_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (item, values, _) = lightning(Backbone::Dit, &dims(Backbone::Dit));
    save(&folder.path().join("last.ckpt"), &item, &values);
    let config = r#"{ "model_type": "mdlm", "n_heads": 4 }"#;
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    let error = ForeignCheckpoint::at(folder.path()).unwrap_err().to_string();
    assert!(
        error.contains("the number of heads is 4 in `config.json`, but 2 in `hyper_parameters`"),
        "{error}"
    );
}

/// Settings within a checkpoint cannot be corrected: the way out is another.
#[test]
fn checkpoint_settings_inside_of_another_network_are_refused_with_a_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("last.ckpt");
    let settings = |backbone: &str| {
        let network = dict(vec![("length", int(32)), ("hidden_size", int(64))]);
        let config = dict(vec![("backbone", text(backbone)), ("model", network)]);
        dict(vec![("config", config)])
    };
    let read = |backbone: &str| {
        save_entries(&path, vec![("hyper_parameters", settings(backbone))]);
        super::super::read(&path, nano(), Backbone::Dit)
    };
    assert!(read("dit").is_ok());
    let error = read("ar").unwrap_err();
    assert!(
        error
            .to_string()
            .contains("`backbone` is `ar` in `hyper_parameters`, but the file holds a DiT"),
        "{error}"
    );
    assert!(error.hint_text().unwrap().contains("[\"state_dict\"]"));
    // The weights alone, as the hint has it.
    save(
        &path,
        &state_dict(Backbone::Dit, "backbone."),
        &initial(nano(), Backbone::Dit, 1),
    );
    assert!(super::super::read(&path, nano(), Backbone::Dit).is_ok());
}

#[test]
fn checkpoint_average_is_matched_by_position_with_every_dimension_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("last.ckpt");
    let refused = |shadow: &[Vec<usize>]| {
        let (item, values, _) = lightning(Backbone::Dit, shadow);
        save(&path, &item, &values);
        let mut checkpoint = ForeignCheckpoint::at(&path).unwrap();
        checkpoint.read(nano(), Backbone::Dit, Weights::Raw).unwrap();
        let error = checkpoint.read(nano(), Backbone::Dit, Weights::Ema).unwrap_err();
        assert!(error.hint_text().unwrap().contains("\"weights\": \"raw\""));
        error.to_string()
    };
    let whole = dims(Backbone::Dit);
    let error = refused(&whole[..29]);
    assert!(
        error.contains("its average has 29 tensors, expected 30 (10 N + 10 with N = 2)"),
        "{error}"
    );
    let mut swapped = whole;
    swapped.swap(5, 6);
    let error = refused(&swapped);
    assert!(
        error.contains("`ema.shadow_params[5]` is [192, 64], expected [64], which `blocks.0.norm1.weight`")
    );
}

#[test]
fn checkpoint_of_torch_is_a_state_dict_alone_or_below_a_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.pt");
    let values = initial(nano(), Backbone::Dit, 2);
    let bare = state_dict(Backbone::Dit, "module.");
    let below = dict(vec![
        ("model", state_dict(Backbone::Dit, "module.")),
        ("step", int(5)),
    ]);
    for (item, steps) in [(bare, None), (below, Some(5))] {
        save(&path, &item, &values);
        let mut checkpoint = ForeignCheckpoint::at(&path).unwrap();
        assert_eq!(
            (checkpoint.format(), checkpoint.training().steps),
            (CheckpointFormat::Torch, steps)
        );
        let which = checkpoint.choose(None).unwrap();
        assert_eq!(which, Weights::Raw);
        assert!(checkpoint.read(nano(), Backbone::Dit, which).unwrap() == values);
    }
    save(&path, &dict(vec![("a", int(1)), ("b", text("x"))]), &[]);
    let error = ForeignCheckpoint::at(&path).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("no weights are found: it has `a`, `b`"),
        "{error}"
    );
    save(&path, &TorchItem::List(vec![int(1)]), &[]);
    let error = ForeignCheckpoint::at(&path).unwrap_err();
    assert!(
        error.to_string().contains("no weights are found: it holds"),
        "{error}"
    );
}
