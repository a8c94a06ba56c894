//! Fields as other programs name them, and fields of theirs that mdlm does not have.

/// Names that other programs give to fields of ours.
pub(in crate::manifest) const SYNONYMS: &[(&str, &str)] = &[
    ("T", "steps"),
    ("antithetic_sampling", "antithetic"),
    ("batch_size", "batch"),
    ("block_size", "length"),
    ("ckpt_every", "checkpoint_every"),
    ("clip_grad_norm", "gradient_clip"),
    ("context_length", "length"),
    ("depends_on", "from"),
    ("deps", "from"),
    ("dropout_rate", "dropout"),
    ("dtype", "precision"),
    ("ema_decay", "ema"),
    ("eps", "epsilon"),
    ("eval_every", "validation_every"),
    ("eval_interval", "validation_every"),
    ("eval_steps", "validation_every"),
    ("global_batch_size", "batch"),
    ("grad_clip", "gradient_clip"),
    ("input", "from"),
    ("inputs", "from"),
    ("iterations", "steps"),
    ("lr", "learning_rate"),
    ("lr_scheduler", "schedule"),
    ("max_grad_norm", "gradient_clip"),
    ("max_iters", "steps"),
    ("max_length", "length"),
    ("max_seq_length", "length"),
    ("max_steps", "steps"),
    ("mask_prob", "rate"),
    ("micro_batch_size", "micro_batch"),
    ("mixed_precision", "precision"),
    ("mlm_probability", "rate"),
    ("needs", "from"),
    ("num_samples", "count"),
    ("num_steps", "steps"),
    ("sampling_eps", "sampling_epsilon"),
    ("save_every", "checkpoint_every"),
    ("save_steps", "checkpoint_every"),
    ("scheduler", "schedule"),
    ("seq_len", "length"),
    ("seq_length", "length"),
    ("sequence_length", "length"),
    ("total_steps", "steps"),
    ("train_batch_size", "batch"),
    ("type", "kind"),
    ("val_check_interval", "validation_every"),
    ("val_every", "validation_every"),
    ("vocab", "vocabulary"),
    ("vocab_file", "vocabulary"),
    ("vocab_size", "vocabulary_size"),
    ("warmup", "warmup_steps"),
];

/// Our name of a field that another program may call so: the name itself where none does.
pub(in crate::manifest) fn our_name(name: &str) -> &str {
    let found = SYNONYMS.iter().find(|(other, _)| *other == name);
    found.map_or(name, |(_, ours)| *ours)
}

/// Fields of other programs' configurations that mdlm does not have, and the way out.
const ELSEWHERE: &[(&[&str], &str)] = &[
    (
        &[
            "epoch",
            "epochs",
            "max_epochs",
            "n_epochs",
            "num_epochs",
            "num_train_epochs",
        ],
        "set `steps` of the train stage; an epoch takes as many steps as there are train rows (`mdlm show` of the pack stage) \
         divided by `batch`",
    ),
    (
        &[
            "anchors",
            "base",
            "base_config",
            "defaults",
            "extend",
            "extends",
            "import",
            "imports",
            "include",
            "includes",
            "inherit",
            "inherits",
            "parent",
            "<<",
        ],
        "a manifest is one file: `--set PATH=VALUE` changes a field for a run, and `matrix` makes variants of a stage",
    ),
    (
        &[
            "constants",
            "env",
            "environment",
            "param",
            "params",
            "vars",
            "variables",
        ],
        "a manifest has no variables: write the value into its field, or set it with `--set PATH=VALUE`",
    ),
    (
        &["cmd", "command", "commands", "exec", "run", "script", "shell"],
        "a manifest cannot run programs: prepare the files first, then list them in `files` of a source stage",
    ),
    (
        &["accelerator", "cuda", "device", "devices", "gpu", "gpus"],
        "the device is not part of a manifest: use `mdlm run --device cpu|cuda` or MDLM_DEVICE",
    ),
    (
        &[
            "cores",
            "cpus",
            "n_jobs",
            "num_proc",
            "num_workers",
            "parallel",
            "resources",
            "threads",
            "workers",
        ],
        "the number of threads is not part of a manifest: use `mdlm run --threads N`, and `--jobs N` to run stages side by side",
    ),
    (
        &[
            "dest",
            "out",
            "out_dir",
            "output",
            "output_dir",
            "output_path",
            "outputs",
            "outs",
            "results",
            "save_dir",
            "save_path",
        ],
        "results are kept in the store: `mdlm path MANIFEST STAGE` prints their folder, and `--store DIR` selects another \
         store",
    ),
    (
        &[
            "ckpt_path",
            "restart",
            "resume",
            "resume_from",
            "resume_from_checkpoint",
        ],
        "leave it out: an interrupted training resumes from its checkpoint when you run the same command again",
    ),
    (
        &[
            "foreach",
            "grid",
            "grid_search",
            "search_space",
            "strategy",
            "sweep",
            "sweeps",
        ],
        "`matrix` of a stage sweeps its fields: `\"matrix\": { \"learning_rate\": [1e-3, 3e-3] }`",
    ),
    (
        &[
            "d_model",
            "depth",
            "dim",
            "embedding_size",
            "heads",
            "hidden_size",
            "layers",
            "n_embd",
            "n_head",
            "n_heads",
            "n_layer",
            "n_layers",
            "num_heads",
            "num_hidden_layers",
            "num_layers",
            "width",
        ],
        "`shape` sets the sizes of the network; `mdlm shapes` lists the shapes",
    ),
    (
        &["diffusion", "graph", "prior", "transition"],
        "leave it out: the noise of every objective but `ar` masks tokens; `mdlm objectives` lists the objectives",
    ),
    (
        &["backbone"],
        "leave it out: the kind of the `objective` chooses the network, a plain transformer for `ar` and a DiT for all others",
    ),
    (
        &["predictor"],
        "set the `kind` of `sampler` of a sample stage: `ancestral` (`ddpm`) or `cached` (`ddpm_cache`)",
    ),
    (
        &["optim", "optimizer"],
        "the optimizer is always AdamW; set `learning_rate`, `beta1`, `beta2`, `epsilon` and `weight_decay`",
    ),
    (
        &[
            "accumulate_grad_batches",
            "gradient_accumulation",
            "gradient_accumulation_steps",
        ],
        "set `batch` to the rows of a whole step, and `micro_batch` to the rows that go through the network at a time",
    ),
    (
        &[
            "log_every",
            "log_interval",
            "logging",
            "logging_steps",
            "tensorboard",
            "wandb",
        ],
        "the losses are in `metrics.jsonl` in the folder that `mdlm path` prints; `mdlm run --log-every` sets how often they are printed",
    ),
];

/// The way out for a field of another program's configuration.
pub(in crate::manifest) fn elsewhere(key: &str) -> Option<&'static str> {
    let key = key.to_lowercase().replace('-', "_");
    let found = ELSEWHERE.iter().find(|(names, _)| names.contains(&&*key));
    found.map(|(_, hint)| *hint)
}
