//! The plain transformer beside the DiT.

use super::*;
use crate::shapes::SHAPES;

/// The tensors of the authors' autoregressive model, in the DiT's order.
#[test]
fn transformer_has_the_parameters_of_the_dit_without_time() {
    for shape in SHAPES.iter() {
        let [dit, own] = Backbone::ALL.map(|backbone| parameters(shape, backbone));
        assert_eq!(
            (dit.len(), own.len()),
            (10 + 10 * shape.blocks, 4 + 8 * shape.blocks)
        );
        let names = |parameters: &[Parameter]| -> Vec<String> {
            let names = parameters.iter().map(|parameter| parameter.name.clone());
            let of_time = |name: &String| name.contains("sigma_map") || name.contains("adaLN_modulation");
            names.filter(|name| !of_time(name)).collect()
        };
        assert_eq!(names(&own), names(&dit));
        assert_eq!(names(&own).len(), own.len());
        let mut end = 0;
        for parameter in &own {
            assert_eq!(parameter.offset, end);
            end += parameter.len();
            assert!(
                dit.iter()
                    .any(|other| (&other.name, &other.dims) == (&parameter.name, &parameter.dims))
            );
        }
    }
}

/// A modulation that changes nothing changes no bit: neither of a loss nor of a gradient.
#[test]
fn transformer_equals_the_dit_without_an_effect_of_time() {
    let case = Case::next_token(nano(), ALPHABET, 3, true);
    let plain = case.network_weights();
    for precision in [Precision::F32, Precision::Bf16] {
        let network = |backbone, weights: &[f32]| {
            CpuNetwork::<Nano, _>::new(Fused::with_precision(precision), backbone, weights).unwrap()
        };
        let mut own = network(Backbone::Transformer, &plain);
        let mut dit = network(Backbone::Dit, &timeless(nano(), &plain));
        assert_eq!(
            (own.backbone(), dit.backbone()),
            (Backbone::Transformer, Backbone::Dit)
        );
        let [found, expected] = [&mut own as &mut dyn HostNetwork, &mut dit]
            .map(|network| network.accumulate(&case.batch(), ALPHABET).unwrap());
        assert_eq!(bits(&found), bits(&expected));
        assert_eq!(
            bits(&gradient(&mut own)),
            bits(&without_time(nano(), &gradient(&mut dit)))
        );
    }
}
