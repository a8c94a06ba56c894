//! Averaged weights among others, and tensors beside the network.

use super::*;

#[test]
fn checkpoint_with_tensors_beside_the_network_is_read_and_lists_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let expected = initial(nano(), Backbone::Dit, 7);
    let mut all = tensors(Backbone::Dit, "backbone.");
    for name in [
        "noise.sigma_max",
        "metrics.nll.mean_value",
        "valid_metrics.ppl.weight",
    ] {
        all.push((name.to_owned(), vec![1], vec![1.0]));
    }
    save(&path, &all);
    let checkpoint = ForeignCheckpoint::at(&path).unwrap();
    assert_eq!(
        checkpoint.skipped(),
        ["noise", "metrics", "valid_metrics"].map(|name| format!("`{name}`: 1 tensor beside the network"))
    );
    assert!(read(&path, nano(), Backbone::Dit).unwrap() == expected);
    // Averaged weights among the others, by name.
    for prefix in ["ema.", "model_ema.module.", "ema_model.backbone."] {
        let mut both = all.clone();
        let mut average = tensors(Backbone::Dit, prefix);
        average[0].2[0] = 9.0;
        both.extend(average);
        both.push((
            format!("{}decay", prefix.split_inclusive('.').next().unwrap()),
            vec![1],
            vec![0.5],
        ));
        save(&path, &both);
        let mut checkpoint = ForeignCheckpoint::at(&path).unwrap();
        assert_eq!(checkpoint.choose(None).unwrap(), Weights::Ema);
        let average = checkpoint.read(nano(), Backbone::Dit, Weights::Ema).unwrap();
        assert_eq!((average[0], &average[1..]), (9.0, &expected[1..]), "{prefix}");
        assert!(checkpoint.read(nano(), Backbone::Dit, Weights::Raw).unwrap() == expected);
    }
    // Those whose names have no dots, of the whole module or of the network alone.
    for (module, prefix) in [("backbone.", "model_ema."), ("", "model_ema."), ("", "ema.")] {
        let mut both = all.clone();
        let mut average = tensors(Backbone::Dit, module);
        average.retain(|(name, ..)| !name.ends_with("inv_freq"));
        average[0].2[0] = 9.0;
        for (name, ..) in &mut average {
            *name = format!("{prefix}{}", name.replace('.', ""));
        }
        both.extend(average);
        both.push((format!("{prefix}decay"), vec![], vec![0.9999]));
        save(&path, &both);
        let mut checkpoint = ForeignCheckpoint::at(&path).unwrap();
        let average = checkpoint.read(nano(), Backbone::Dit, Weights::Ema).unwrap();
        assert_eq!(
            (average[0], &average[1..]),
            (9.0, &expected[1..]),
            "{prefix}{module}"
        );
        assert!(checkpoint.read(nano(), Backbone::Dit, Weights::Raw).unwrap() == expected);
        let training = checkpoint.training();
        assert_eq!(
            (training.decay, training.settings.ema),
            (Some(0.9999), Some(0.9999))
        );
        assert!(!checkpoint.skipped().iter().any(|line| line.contains("ema")));
    }
    // PyTorch's averaged model says of its weights that they are an average.
    let mut averaged = tensors(Backbone::Dit, "module.");
    averaged.push(("n_averaged".to_owned(), vec![1], vec![12.0]));
    save(&path, &averaged);
    let mut checkpoint = ForeignCheckpoint::at(&path).unwrap();
    assert_eq!(checkpoint.choose(None).unwrap(), Weights::Ema);
    assert!(checkpoint.read(nano(), Backbone::Dit, Weights::Ema).unwrap() == expected);
    // Others have a way out.
    all.push(("lm_head.weight".to_owned(), vec![2], vec![1.0, 2.0]));
    save(&path, &all);
    let (text, hint) = refused(&path);
    assert!(
        text.contains("`lm_head.weight` is not a tensor of the network"),
        "{text}"
    );
    assert!(hint.contains("del state[\"lm_head.weight\"]"), "{hint}");
    // A tensor too few, and the other backbone: the hint is not the shape that was asked for.
    all.pop();
    all.remove(3);
    save(&path, &all);
    let (text, hint) = refused(&path);
    assert!(text.contains("is missing"), "{text}");
    assert!(hint.contains("save all tensors of the network"), "{hint}");
    let error = read(&path, nano(), Backbone::Transformer).unwrap_err();
    let hint = error.hint_text().unwrap();
    assert!(hint.contains("a DiT is trained for: `mdlm`"), "{hint}");
}

#[test]
fn checkpoint_average_without_dots_that_is_ambiguous_or_unknown_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let all = tensors(Backbone::Dit, "backbone.");
    let average = |name: &str| (format!("model_ema.{name}"), vec![64], vec![0.0; 64]);
    let mut both = all.clone();
    both.push((
        "backbone.blocks.0norm1.weight".to_owned(),
        vec![64],
        vec![0.0; 64],
    ));
    both.push(average("backboneblocks0norm1weight"));
    save(&path, &both);
    let (text, hint) = refused(&path);
    assert!(
        text.contains(
            "the name of the average `model_ema.backboneblocks0norm1weight` has no dots, and stands both for \
             `blocks.0.norm1.weight` and for `blocks.0norm1.weight`"
        ),
        "{text}"
    );
    assert!(hint.contains("`\"weights\": \"raw\"`"), "{hint}");
    let mut both = all;
    both.push(average("backboneblocks0norm9weight"));
    save(&path, &both);
    let (text, _) = refused(&path);
    assert!(
        text.contains("`model_ema.backboneblocks0norm9weight` has no dots, and no tensor beside the average"),
        "{text}"
    );
}
