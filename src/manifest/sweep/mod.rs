//! Sweeps: a stage with a `matrix` becomes a stage for every combination of values, an *instance*.
//!
//! Expansion works on the text's tree, after overrides and before anything else looks at it. What comes out is a
//! manifest of plain stages, so that checks, planner, cache and executor do not depend on sweeps; and since a stage's name
//! is not in its key, an instance is the same work as the stage written by hand. Every value keeps its place in the
//! text: a fault of an instance points at the value in the list.
//!
//! | written | made |
//! |---|---|
//! | `"matrix": { "seed": [1, 2] }` in `model` | `model@seed=1`, `model@seed=2` |
//! | two fields | the product, the first field slowest: `model@learning_rate=0.001,seed=1` |
//! | `"matrix": { "corpus": { "ptb": { "input.corpus": "ptb", "detokenize": "ptb" } } }` | `text@corpus=ptb`: settings under one name |
//! | `bound` consumes `model` | `bound@seed=1`, `bound@seed=2`, each consuming its namesake |
//! | `bound` consumes two swept stages | joined where they share a field, the product of the others |
//! | `bound` consumes `model@seed=2` | one `bound`: an instance is a stage like any other |
//! | a compare stage of `bound` | one stage that consumes all instances |
//!
//! Two consumed stages share a field when both have it from the same sweep, or when each sweeps a field of that name by
//! itself; then both must sweep it over the same values. A stage's own sweep and one that it inherits are two, whatever
//! their names: `model@rows.seed=1,model.seed=2`.
//!
//! A field is named as in `--set`: names separated by dots. `null` in a list removes the field, as there.

mod expander;
mod origin;
#[cfg(test)]
mod tests;
mod tree;
mod values;

use std::collections::HashMap;
use std::rc::Rc;

use indexmap::IndexMap;
use serde_json::Value;

use super::fault::{Code, Draft};
use super::instance::{Instance, MAX_STAGES, Point, SIGN};
use super::json::{Data, Member, Node, pointer_join};
use super::span::Span;
use values::thousands;

/// Longest name of an instance, in bytes: it may become a file's name, of which systems take 255.
const MAX_NAME: usize = 200;
/// Longest value that stands in a name as it is, in characters.
const MAX_SPELT: usize = 40;
/// The swept stages of a manifest, those that consume swept stages included.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sweeps {
    stages: IndexMap<String, Vec<Instance>>,
    /// The places of the instances in their sweeps, by name.
    places: HashMap<String, usize>,
}

impl Sweeps {
    /// The instances of a stage as it was written; nothing where it is not swept.
    #[must_use]
    pub fn instances(&self, written: &str) -> Option<&[Instance]> {
        self.stages.get(written).map(Vec::as_slice)
    }

    /// The swept stages, by the names that were written, in the text's order.
    pub fn stages(&self) -> impl Iterator<Item = (&str, &[Instance])> {
        self.stages
            .iter()
            .map(|(name, instances)| (name.as_str(), instances.as_slice()))
    }

    /// The name that was written for a stage: `model` for `model@seed=1`.
    #[must_use]
    pub fn written<'a>(&self, name: &'a str) -> &'a str {
        match name.split_once(SIGN) {
            Some((written, _)) if self.stages.contains_key(written) => written,
            _ => name,
        }
    }

    /// Where a stage stands in its sweep; nothing for one that is not of a sweep.
    #[must_use]
    pub fn point(&self, name: &str) -> Option<&Point> {
        let instances = self.instances(self.written(name))?;
        let instance = instances.get(*self.places.get(name)?)?;
        Some(&instance.point)
    }

    /// Stage names with the names of swept stages replaced by those of all their instances.
    #[must_use]
    pub fn spelt_out(&self, names: &[String]) -> Vec<String> {
        names
            .iter()
            .flat_map(|name| match self.instances(name) {
                Some(instances) => instances.iter().map(|instance| instance.name.clone()).collect(),
                None => vec![name.clone()],
            })
            .collect()
    }
}

/// A tree with its sweeps spelt out.
pub(super) struct Expansion {
    /// The stages, none with a `matrix`.
    pub tree: Node,
    pub sweeps: Sweeps,
    /// What is wrong with the sweeps themselves.
    pub faults: Vec<Draft>,
    /// The origins of changed stages, by their new names.
    origins: HashMap<String, Origin>,
}

/// Where a stage of the expanded tree was written.
struct Origin {
    written: String,
    /// Pointers below the stage and where they lead in the text, deepest first.
    aliases: Vec<(String, String)>,
}

/// One value of a sweep.
#[derive(Clone)]
struct SweepValue {
    /// With its place in the text.
    node: Node,
    value: Value,
    /// As it stands in names.
    text: String,
    /// Where it stands.
    pointer: String,
    /// Of named settings, the fields that it sets, each with the place of its name.
    settings: Option<Vec<(String, Span, Node)>>,
}

/// A field of a matrix and its values; or settings by name, and what they are called together.
struct Axis {
    field: String,
    key_span: Span,
    choices: Vec<SweepValue>,
}

/// A value of an instance.
#[derive(Clone)]
struct Coordinate {
    field: String,
    /// The stages whose sweep it is: several where equal fields were joined.
    origins: Vec<usize>,
    value: Value,
    text: String,
}

/// A stage's own combination, before what it consumes is known.
struct Own {
    coordinates: Vec<Coordinate>,
    node: Node,
    aliases: Vec<(String, String)>,
}

/// A stage as it was written.
struct WrittenStage<'t> {
    name: &'t str,
    key_span: Span,
    own: Vec<Own>,
    /// Its result, once that is known.
    made: Option<Vec<Made>>,
}

/// A stage of the expanded tree.
struct Made {
    name: String,
    coordinates: Vec<Coordinate>,
    node: Node,
    aliases: Vec<(String, String)>,
}

/// Spells out the sweeps of a manifest.
pub(super) fn expand(tree: &Node) -> Expansion {
    let mut expansion = Expansion {
        tree: tree.clone(),
        sweeps: Sweeps::default(),
        faults: Vec::new(),
        origins: HashMap::new(),
    };
    let stages = tree.member("stages").map(|stages| stages.value.members());
    // The schema bounds the number of stages and reports where that is violated.
    let Some(members) = stages.filter(|stages| !stages.is_empty() && stages.len() <= MAX_STAGES) else {
        return expansion;
    };
    let mut expander = Expander {
        stages: IndexMap::with_capacity(members.len()),
        names: Rc::default(),
        faults: Vec::new(),
    };
    for (index, member) in members.iter().enumerate() {
        expander.read(index, member);
    }
    expander.names = expander.stages.keys().copied().collect();
    expander.connect();
    let names: Vec<&str> = members.iter().map(|member| member.key.as_str()).collect();
    let mut total = 0;
    let mut expanded: Vec<Member> = Vec::new();
    for (_, stage) in expander.stages {
        let made = stage.made.unwrap_or_default();
        total += made.len();
        if total > MAX_STAGES {
            let message = format!("the sweeps make more than {} stages", thousands(MAX_STAGES));
            expander.faults.push(
                Draft::new(
                    Code::Matrix,
                    stage.key_span,
                    pointer_join("/stages", stage.name),
                    message,
                )
                .expected(format!("at most {} stages in all", thousands(MAX_STAGES)))
                .hint("sweep fewer values at a time; finished stages stay in the store"),
            );
            break;
        }
        for instance in made {
            if !instance.coordinates.is_empty() {
                let point = point(&instance.coordinates, &names);
                let Sweeps { stages, places } = &mut expansion.sweeps;
                let instances = stages.entry(stage.name.to_owned()).or_default();
                places.insert(instance.name.clone(), instances.len());
                instances.push(Instance {
                    name: instance.name.clone(),
                    point,
                });
            }
            if !instance.coordinates.is_empty() || !instance.aliases.is_empty() {
                let mut aliases = instance.aliases;
                aliases.sort_by_key(|(from, _)| std::cmp::Reverse(from.len()));
                let origin = Origin {
                    written: stage.name.to_owned(),
                    aliases,
                };
                // As it stands in a pointer.
                let token = pointer_join("", &instance.name)[1..].to_owned();
                expansion.origins.insert(token, origin);
            }
            expanded.push(Member {
                key: instance.name,
                key_span: stage.key_span,
                value: instance.node,
            });
        }
    }
    expansion.faults = expander.faults;
    if let Data::Object(fields) = &mut expansion.tree.data
        && let Some(stages) = fields.iter_mut().find(|field| field.key == "stages")
    {
        stages.value.data = Data::Object(expanded);
    }
    expansion
}

/// The labels of coordinates: the field, with the sweep's stage before it where two sweeps have the same field.
fn labels(coordinates: &[Coordinate], names: &[&str]) -> Vec<String> {
    coordinates
        .iter()
        .map(|one| {
            let same = coordinates.iter().filter(|other| other.field == one.field);
            match one.origins.first().and_then(|origin| names.get(*origin)) {
                Some(stage) if same.count() > 1 => format!("{stage}.{}", one.field),
                _ => one.field.clone(),
            }
        })
        .collect()
}

fn point(coordinates: &[Coordinate], names: &[&str]) -> Point {
    labels(coordinates, names)
        .into_iter()
        .zip(coordinates.iter().map(|one| one.value.clone()))
        .collect()
}

struct Expander<'t> {
    stages: IndexMap<&'t str, WrittenStage<'t>>,
    /// The names of the stages, in their order.
    names: Rc<[&'t str]>,
    faults: Vec<Draft>,
}
