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
//! | `bound` consumes `model` | `bound@seed=1`, `bound@seed=2`, each consuming its namesake |
//! | `bound` consumes two swept stages | joined where they share a field, the product of the others |
//! | `bound` consumes `model@seed=2` | one `bound`: an instance is a stage like any other |
//! | a compare stage of `bound` | one stage that consumes all instances |
//!
//! Two consumed stages share a field when both have it from the same sweep, or when each sweeps a field of that name by
//! itself; then both must sweep it over the same values. A stage's own sweep and one that it inherits are two, whatever
//! their names: `model@rows.seed=1,model.seed=2`.
//!
//! A field is named as in `--set`: names joined by points. `null` in a list takes the field away, as there.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use indexmap::IndexMap;
use serde_json::{Number, Value};

use super::StageKind;
use super::fault::{Code, Draft, alternatives, quoted, suggestion};
use super::kinds;
use super::meaning::{KINDS, REFERENCES};
use super::order::order;
use super::text::{Data, Member, Node, Span, pointer_join};
use crate::plural;

/// Stages that a manifest may have once its sweeps are spelt out.
pub const MAX_STAGES: usize = 1_000;
/// Longest name of an instance, in bytes: it may become a file's name, of which systems take 255.
const MAX_NAME: usize = 200;
/// Longest value that stands in a name as it is, in characters.
const MAX_SPELT: usize = 40;
/// What stands between a stage's name and the values of an instance.
pub const SIGN: char = '@';

/// Where an instance stands in its sweep: the values by field, in the order of its name.
pub type Point = IndexMap<String, Value>;

/// A stage that a sweep has made.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// Its name: `model@seed=1`.
    pub name: String,
    /// Its values.
    pub point: Point,
}

/// The swept stages of a manifest, those that consume swept stages included.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sweeps {
    stages: IndexMap<String, Vec<Instance>>,
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
        let instance = instances.iter().find(|instance| instance.name == name)?;
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

impl Expansion {
    /// Brings faults of the expanded tree back to what was written: pointers, and one fault for what is wrong in all
    /// instances.
    pub fn bring_back(&self, drafts: Vec<Draft>) -> Vec<Draft> {
        type FaultIdentity = (Code, Span, String, String);
        // What follows from a faulty sweep is no fault of its own.
        let faulty = |stage: &str| {
            let below = self
                .faults
                .iter()
                .filter_map(|fault| fault.pointer.strip_prefix(stage));
            below.into_iter().any(|rest| rest.starts_with("/matrix"))
        };
        let follows = |draft: &Draft| match draft.code {
            Code::UnknownStage => {
                let names_an_instance = draft.value.as_ref().is_some_and(|name| name.contains(SIGN));
                names_an_instance && !self.faults.is_empty()
            }
            Code::MissingField => faulty(&draft.pointer),
            _ => false,
        };
        let mut kept: Vec<Draft> = Vec::with_capacity(drafts.len());
        let mut places: HashMap<String, (usize, HashSet<String>)> = HashMap::new();
        for mut draft in drafts {
            let Some(pointer) = self.written_pointer(&draft.pointer) else {
                if !follows(&draft) {
                    kept.push(draft);
                }
                continue;
            };
            draft.pointer = pointer;
            if follows(&draft) {
                continue;
            }
            let known: FaultIdentity = (
                draft.code,
                draft.span,
                draft.pointer.clone(),
                without_points(&draft.message),
            );
            let (place, messages) = places
                .entry(format!("{known:?}"))
                .or_insert_with(|| (kept.len(), HashSet::new()));
            messages.insert(draft.message.clone());
            if *place == kept.len() {
                kept.push(draft);
            }
        }
        for (place, messages) in places.into_values().filter(|(_, messages)| messages.len() > 1) {
            let more = messages.len() - 1;
            let message = &mut kept[place].message;
            *message = format!(
                "{message}, and so for {more} more {}",
                plural::of(more, "instance")
            );
        }
        kept
    }

    /// Where a pointer into the expanded tree leads in the text; nothing where they are the same.
    fn written_pointer(&self, pointer: &str) -> Option<String> {
        let below = pointer.strip_prefix("/stages/")?;
        let (name, rest) = below.split_at(below.find('/').unwrap_or(below.len()));
        let origin = self.origins.get(name)?;
        for (from, to) in &origin.aliases {
            if let Some(deeper) = rest.strip_prefix(from.as_str())
                && (deeper.is_empty() || deeper.starts_with('/'))
            {
                return Some(format!("{to}{deeper}"));
            }
        }
        Some(pointer_join("/stages", &origin.written) + rest)
    }
}

/// A message with the names of instances cut down to those of their stages.
fn without_points(message: &str) -> String {
    let mut out = String::new();
    let mut rest = message;
    while let Some(at) = rest.find(SIGN) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        rest = &rest[rest.find('`').unwrap_or(rest.len())..];
    }
    out + rest
}

/// One value of a sweep.
#[derive(Clone)]
struct Choice {
    /// With its place in the text.
    node: Node,
    value: Value,
    /// As it stands in names.
    text: String,
    /// Where it stands.
    pointer: String,
}

/// A field of a matrix and its values.
struct Axis {
    field: String,
    key_span: Span,
    choices: Vec<Choice>,
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
struct Written<'t> {
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
                .hint("sweep fewer values at a time: what has run stays in the store"),
            );
            break;
        }
        for instance in made {
            if !instance.coordinates.is_empty() {
                let point = point(&instance.coordinates, &names);
                expansion
                    .sweeps
                    .stages
                    .entry(stage.name.to_owned())
                    .or_default()
                    .push(Instance {
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
    stages: IndexMap<&'t str, Written<'t>>,
    /// The names of the stages, in their order.
    names: Rc<[&'t str]>,
    faults: Vec<Draft>,
}

impl<'t> Expander<'t> {
    /// Reads a stage and its own sweep.
    fn read(&mut self, index: usize, member: &'t Member) {
        let pointer = pointer_join("/stages", &member.key);
        if member.key.contains(SIGN) {
            let message = format!("{} is no name for a stage", quoted(&member.key));
            self.faults.push(
                Draft::new(Code::InvalidName, member.key_span, pointer.clone(), message)
                    .expected(super::STAGE_NAME)
                    .hint(format!("`{SIGN}` stands in the names of a sweep's instances")),
            );
        }
        let mut plain = member.value.clone();
        let mut axes = Vec::new();
        if let Data::Object(fields) = &mut plain.data
            && let Some(place) = fields.iter().position(|field| field.key == "matrix")
        {
            let matrix = fields.remove(place);
            axes = self.axes(&matrix.value, &pointer_join(&pointer, "matrix"));
        }
        let own = combinations(&axes)
            .into_iter()
            .map(|choices| self.own(index, &plain, &axes, &choices))
            .collect();
        let written = Written {
            name: &member.key,
            key_span: member.key_span,
            own,
            made: None,
        };
        self.stages.insert(&member.key, written);
    }

    /// A stage with one choice of each axis.
    fn own(&mut self, index: usize, plain: &Node, axes: &[Axis], choices: &[&Choice]) -> Own {
        let mut node = plain.clone();
        let mut coordinates = Vec::new();
        let mut aliases = Vec::new();
        for (axis, choice) in axes.iter().zip(choices) {
            if let Err(message) = set(&mut node, &axis.field, axis.key_span, &choice.node) {
                let fault = Draft::new(Code::Matrix, axis.key_span, choice.pointer.clone(), message)
                    .expected("a field of the stage, names joined by points: `objective.noise.epsilon`");
                // Once for all values.
                if !self.faults.iter().any(|other| other.span == fault.span) {
                    self.faults.push(fault);
                }
            }
            coordinates.push(Coordinate {
                field: axis.field.clone(),
                origins: vec![index],
                value: choice.value.clone(),
                text: choice.text.clone(),
            });
            let names = axis.field.split('.');
            let below = names.fold(String::new(), |pointer, name| pointer_join(&pointer, name));
            aliases.push((below, choice.pointer.clone()));
        }
        Own {
            coordinates,
            node,
            aliases,
        }
    }

    /// The fields of a matrix that have values.
    fn axes(&mut self, matrix: &Node, pointer: &str) -> Vec<Axis> {
        let Data::Object(fields) = &matrix.data else {
            self.faults.push(
                Draft::new(
                    Code::WrongType,
                    matrix.span,
                    pointer,
                    "a matrix is an object of fields",
                )
                .value(&matrix.to_json())
                .expected("fields, each with a list of values or a range: `{ \"seed\": [1, 2] }`"),
            );
            return Vec::new();
        };
        if fields.is_empty() {
            self.faults.push(
                Draft::new(Code::Matrix, matrix.span, pointer, "the matrix names no field")
                    .expected("fields, each with a list of values or a range: `{ \"seed\": [1, 2] }`")
                    .hint("leave `matrix` out for a stage that is not swept"),
            );
        }
        let mut axes: Vec<Axis> = Vec::new();
        for field in fields {
            let at = pointer_join(pointer, &field.key);
            let first = field.key.split('.').next().unwrap_or_default();
            if field.key.split('.').any(str::is_empty) || matches!(first, "kind" | "matrix") {
                let fault = Draft::new(
                    Code::Matrix,
                    field.key_span,
                    at,
                    format!("{} cannot be swept", quoted(&field.key)),
                );
                self.faults.push(
                    fault.expected("a field of the stage, names joined by points: `objective.noise.epsilon`"),
                );
                continue;
            }
            match choices(&field.value, &at) {
                Ok(choices) => axes.push(Axis {
                    field: field.key.clone(),
                    key_span: field.key_span,
                    choices,
                }),
                Err(fault) => self.faults.push(*fault),
            }
        }
        let product = axes.iter().fold(1_usize, |product, axis| {
            product.saturating_mul(axis.choices.len())
        });
        if product > MAX_STAGES {
            let factors: Vec<_> = axes.iter().map(|axis| axis.choices.len().to_string()).collect();
            let message = format!(
                "the matrix makes {} instances: {}",
                thousands(product),
                factors.join(" × ")
            );
            self.faults.push(
                Draft::new(Code::Matrix, matrix.span, pointer, message)
                    .expected(format!("at most {} stages in all", thousands(MAX_STAGES)))
                    .hint("sweep fewer values at a time: what has run stays in the store"),
            );
            for axis in &mut axes {
                axis.choices.truncate(1);
            }
        }
        axes
    }

    /// Lets the consumers of swept stages fan out, each stage after those that it consumes.
    fn connect(&mut self) {
        let targets: Vec<Vec<usize>> = self
            .stages
            .values()
            .map(|stage| {
                let names = stage.own.iter().flat_map(|own| references(&own.node));
                let mut targets: Vec<usize> = names
                    .filter_map(|(_, name)| {
                        let written = name.split(SIGN).next().unwrap_or_default();
                        self.stages.get_index_of(written)
                    })
                    .collect();
                targets.sort_unstable();
                targets.dedup();
                targets
            })
            .collect();
        let order = order(&targets);
        // A circle is reported elsewhere.
        for index in order.ordered.into_iter().chain(order.circular) {
            self.make(index);
        }
    }

    /// Makes the instances of a stage, given those of the stages that it consumes.
    fn make(&mut self, index: usize) {
        let names = self.names.clone();
        let stage_pointer = pointer_join("/stages", names[index]);
        let own = std::mem::take(&mut self.stages[index].own);
        let mut made = Vec::new();
        // What a stage inherits varies slowest, its own sweep fastest.
        let mut fanned: Vec<Vec<Made>> = Vec::new();
        for mut own in own {
            if kind(&own.node) == Some(StageKind::Compare) {
                self.gather(&mut own, &stage_pointer);
                let Own {
                    coordinates,
                    node,
                    aliases,
                } = own;
                let name = self.name(index, &coordinates, &names);
                made.push(Made {
                    name,
                    coordinates,
                    node,
                    aliases,
                });
                continue;
            }
            let mut instances = Vec::new();
            for (inherited, assigned) in self.inherited(&own.node, &stage_pointer) {
                let mut coordinates = inherited;
                coordinates.extend(own.coordinates.iter().cloned());
                let mut node = own.node.clone();
                for (field, instance) in assigned {
                    rename(&mut node, &field, &instance);
                }
                let name = self.name(index, &coordinates, &names);
                instances.push(Made {
                    name,
                    coordinates,
                    node,
                    aliases: own.aliases.clone(),
                });
            }
            let so_far: usize = fanned.iter().map(Vec::len).sum();
            fanned.push(instances);
            // Too many, which is reported where they are counted.
            if so_far > MAX_STAGES {
                break;
            }
        }
        let mut fanned: Vec<_> = fanned.into_iter().map(Vec::into_iter).collect();
        while fanned.iter().any(|instances| instances.len() > 0) {
            made.extend(fanned.iter_mut().filter_map(Iterator::next));
        }
        self.stages[index].made = Some(made);
    }

    /// The name of an instance: `model@learning_rate=0.001,seed=1`.
    fn name(&mut self, index: usize, coordinates: &[Coordinate], names: &[&str]) -> String {
        let stage = names[index];
        if coordinates.is_empty() {
            return stage.to_owned();
        }
        let values: Vec<_> = labels(coordinates, names)
            .iter()
            .zip(coordinates)
            .map(|(label, one)| format!("{label}={}", one.text))
            .collect();
        let name = format!("{stage}{SIGN}{}", values.join(","));
        if name.len() > MAX_NAME {
            let span = self.stages[index].key_span;
            let message = format!(
                "an instance of {} has a name of {} characters",
                quoted(stage),
                name.len()
            );
            if !self
                .faults
                .iter()
                .any(|fault| fault.span == span && fault.code == Code::Matrix)
            {
                self.faults.push(
                    Draft::new(Code::Matrix, span, pointer_join("/stages", stage), message)
                        .expected(format!(
                            "at most {MAX_NAME}: the stage's name, its swept fields and their values"
                        ))
                        .hint("sweep fewer fields together, or shorten the stage's name"),
                );
            }
        }
        name
    }

    /// What a stage's combination inherits: for every joined point of the consumed stages its coordinates, and what the
    /// fields that name them are to say.
    #[expect(clippy::type_complexity, reason = "two lists")]
    fn inherited(
        &mut self,
        node: &Node,
        stage_pointer: &str,
    ) -> Vec<(Vec<Coordinate>, Vec<(String, String)>)> {
        let mut joined: Vec<(Vec<Coordinate>, Vec<(String, String)>)> = vec![(Vec::new(), Vec::new())];
        let mut before: Vec<String> = Vec::new();
        for (field, target) in references(node) {
            let Some(made) = self
                .stages
                .get(target.as_str())
                .and_then(|stage| stage.made.as_ref())
            else {
                continue;
            };
            if made.iter().all(|instance| instance.coordinates.is_empty()) {
                continue;
            }
            let mut next = Vec::new();
            let mut alone: Vec<bool> = vec![true; made.len()];
            let mut unpaired = None;
            for (coordinates, assigned) in &joined {
                let mut found = false;
                for (instance, alone) in made.iter().zip(&mut alone) {
                    if let Some(both) = join(coordinates, &instance.coordinates) {
                        let mut assigned = assigned.clone();
                        assigned.push((field.clone(), instance.name.clone()));
                        next.push((both, assigned));
                        found = true;
                        *alone = false;
                    }
                    if next.len() > MAX_STAGES {
                        break;
                    }
                }
                if !found {
                    unpaired = assigned.last().map(|(_, instance)| instance.clone());
                }
            }
            if next.len() <= MAX_STAGES {
                let lonely = made.iter().zip(&alone).find(|(_, alone)| **alone);
                unpaired = unpaired.or(lonely.map(|(instance, _)| instance.name.clone()));
            }
            if let Some(unpaired) = unpaired
                && let Some(place) = node.at(&format!("/{field}"))
            {
                let message = format!(
                    "the sweeps of {} and {} do not go together: {} has no partner",
                    alternatives(&before).replace(" or ", ", "),
                    quoted(&target),
                    quoted(&unpaired)
                );
                self.faults.push(
                    Draft::new(
                        Code::Matrix,
                        place.span,
                        format!("{stage_pointer}/{field}"),
                        message,
                    )
                    .expected("stages that sweep their common fields over the same values"),
                );
            }
            if !next.is_empty() {
                joined = next;
            }
            before.push(target);
        }
        joined
    }

    /// Spells out what a compare stage compares: a name or a list of names becomes an object for every instance.
    fn gather(&mut self, own: &mut Own, stage_pointer: &str) {
        let Data::Object(fields) = &mut own.node.data else {
            return;
        };
        let Some(of) = fields.iter_mut().find(|field| field.key == "of") else {
            return;
        };
        let names: Vec<&Node> = match &of.value.data {
            Data::String(_) => vec![&of.value],
            Data::Array(items) => items.iter().collect(),
            _ => vec![],
        };
        let expected = super::compare::COMPARED;
        let of_pointer = format!("{stage_pointer}/of");
        if names.is_empty() {
            let empty = matches!(of.value.data, Data::Array(_));
            let (code, message) = if empty {
                (Code::OutOfRange, "there is nothing to compare")
            } else {
                (Code::WrongType, "this names no stage")
            };
            self.faults.push(
                Draft::new(code, of.value.span, of_pointer.clone(), message)
                    .value(&of.value.to_json())
                    .expected(expected),
            );
        }
        let several = names.len() > 1;
        let listed = matches!(of.value.data, Data::Array(_));
        let all = self.names.clone();
        let mut items = Vec::new();
        let mut seen = HashSet::new();
        for (place, node) in names.into_iter().enumerate() {
            let at = if listed {
                format!("{of_pointer}/{place}")
            } else {
                of_pointer.clone()
            };
            let Some(name) = node.as_str() else {
                self.faults.push(
                    Draft::new(Code::WrongType, node.span, at, "this names no stage")
                        .value(&node.to_json())
                        .expected(expected),
                );
                continue;
            };
            if !seen.insert(name) {
                let message = format!("{} is compared twice", quoted(name));
                self.faults
                    .push(Draft::new(Code::Matrix, node.span, at, message).expected("every stage once"));
                continue;
            }
            // A stage with all its instances, or one instance.
            let written = name.split(SIGN).next().unwrap_or_default();
            let made = self.stages.get(written).and_then(|stage| stage.made.as_ref());
            let mut targets: Vec<(String, Point)> = made
                .into_iter()
                .flatten()
                .filter(|instance| written == name || instance.name == name)
                .map(|instance| (instance.name.clone(), point(&instance.coordinates, &all)))
                .collect();
            if targets.is_empty() {
                targets.push((name.to_owned(), Point::new()));
            }
            for (target, point) in targets {
                own.aliases.push((format!("/of/{}", items.len()), at.clone()));
                let text = |text: &str| Node {
                    span: node.span,
                    data: Data::String(text.to_owned()),
                };
                let mut compared = vec![field_of(node.span, "stage", text(&target))];
                if several || point.is_empty() {
                    let name = if point.is_empty() { name } else { written };
                    compared.push(field_of(node.span, "name", text(name)));
                }
                let values = point
                    .iter()
                    .map(|(label, value)| field_of(node.span, label, placed(value, node.span)))
                    .collect();
                let values = Node {
                    span: node.span,
                    data: Data::Object(values),
                };
                compared.push(field_of(node.span, "point", values));
                items.push(Node {
                    span: node.span,
                    data: Data::Object(compared),
                });
            }
        }
        if items.len() > MAX_STAGES {
            // Reported where the instances are counted.
            items.truncate(MAX_STAGES);
        }
        of.value.data = Data::Array(items);
    }
}

fn field_of(span: Span, key: &str, value: Node) -> Member {
    Member {
        key: key.to_owned(),
        key_span: span,
        value,
    }
}

/// A value as a tree, all of it at one place.
fn placed(value: &Value, span: Span) -> Node {
    let data = match value {
        Value::Null => Data::Null,
        Value::Bool(value) => Data::Bool(*value),
        Value::Number(number) => Data::Number(number.clone()),
        Value::String(text) => Data::String(text.clone()),
        Value::Array(items) => Data::Array(items.iter().map(|item| placed(item, span)).collect()),
        Value::Object(fields) => Data::Object(
            fields
                .iter()
                .map(|(key, value)| field_of(span, key, placed(value, span)))
                .collect(),
        ),
    };
    Node { span, data }
}

fn kind(node: &Node) -> Option<StageKind> {
    let name = node.member("kind")?.value.as_str()?;
    KINDS.into_iter().find(|kind| kind.name() == name)
}

/// The stages that a stage names: field and name.
fn references(node: &Node) -> Vec<(String, String)> {
    let kind = kind(node);
    if kind == Some(StageKind::Compare) {
        let Some(of) = node.member("of") else {
            return Vec::new();
        };
        let names = match &of.value.data {
            Data::String(name) => vec![name.as_str()],
            Data::Array(items) => items.iter().filter_map(Node::as_str).collect(),
            _ => vec![],
        };
        return names
            .into_iter()
            .map(|name| ("of".to_owned(), name.to_owned()))
            .collect();
    }
    REFERENCES
        .iter()
        .filter(|(of, ..)| kind == Some(*of))
        .filter_map(|(_, field, _)| {
            let name = node.at(&format!("/{field}"))?.as_str()?;
            Some(((*field).to_owned(), name.to_owned()))
        })
        .collect()
}

/// Lets a field that names a stage name an instance.
fn rename(node: &mut Node, field: &str, instance: &str) {
    let mut node = node;
    for name in field.split('/') {
        let Data::Object(fields) = &mut node.data else {
            return;
        };
        let Some(member) = fields.iter_mut().find(|member| member.key == name) else {
            return;
        };
        node = &mut member.value;
    }
    node.data = Data::String(instance.to_owned());
}

/// Both points in one, where they agree.
fn join(a: &[Coordinate], b: &[Coordinate]) -> Option<Vec<Coordinate>> {
    let same_sweep = |x: &Coordinate, y: &Coordinate| {
        x.field == y.field && x.origins.iter().any(|origin| y.origins.contains(origin))
    };
    let mut both = a.to_vec();
    for one in b {
        let known = a.iter().position(|other| same_sweep(other, one)).or_else(|| {
            // Sweeps of two stages over fields of one name, neither known to the other side.
            a.iter().position(|other| {
                other.field == one.field && !b.iter().any(|another| same_sweep(another, other))
            })
        });
        match known {
            Some(place) => {
                if both[place].value != one.value {
                    return None;
                }
                for origin in &one.origins {
                    if !both[place].origins.contains(origin) {
                        both[place].origins.push(*origin);
                    }
                }
            }
            None => both.push(one.clone()),
        }
    }
    Some(both)
}

/// All combinations of choices, the first axis slowest; one empty combination without axes.
fn combinations(axes: &[Axis]) -> Vec<Vec<&Choice>> {
    let mut all: Vec<Vec<&Choice>> = vec![Vec::new()];
    for axis in axes {
        all = all
            .iter()
            .flat_map(|before| {
                axis.choices
                    .iter()
                    .map(|choice| before.iter().copied().chain([choice]).collect())
            })
            .collect();
    }
    all
}

/// Sets a field, names joined by points; `null` takes it away.
fn set(node: &mut Node, path: &str, key_span: Span, value: &Node) -> Result<(), String> {
    let mut node = node;
    let names: Vec<&str> = path.split('.').collect();
    for (depth, name) in names.iter().enumerate() {
        let last = depth + 1 == names.len();
        match &mut node.data {
            Data::Object(members) => {
                let found = members.iter().position(|member| member.key == *name);
                if last && value.data == Data::Null {
                    if let Some(place) = found {
                        members.remove(place);
                    }
                    return Ok(());
                }
                let place = found.unwrap_or_else(|| {
                    members.push(field_of(key_span, name, kinds::absent(name, key_span)));
                    members.len() - 1
                });
                if last {
                    members[place].key_span = key_span;
                }
                node = &mut members[place].value;
            }
            Data::Array(items) => {
                let count = items.len();
                node = name
                    .parse::<usize>()
                    .ok()
                    .and_then(|index| items.get_mut(index))
                    .ok_or_else(|| format!("there is no element {} in an array of {count}", quoted(name)))?;
            }
            _ => {
                let parent = names[..depth].join(".");
                return Err(if parent.is_empty() {
                    "what is no object has no fields to sweep".to_owned()
                } else {
                    format!("{} has no fields, so no {}", quoted(&parent), quoted(name))
                });
            }
        }
    }
    *node = value.clone();
    Ok(())
}

/// The values of a field: a list or a range.
fn choices(node: &Node, pointer: &str) -> Result<Vec<Choice>, Box<Draft>> {
    let wanted = "a list of values, `[1, 2]`, or a range, `{ \"from\": 1, \"to\": 4 }`";
    match &node.data {
        Data::Array(items) if items.is_empty() => {
            Err(
                Draft::new(Code::Matrix, node.span, pointer, "there are no values")
                    .expected(wanted)
                    .hint("leave the field out of `matrix` for one that is not swept")
                    .into(),
            )
        }
        Data::Array(items) => list(items, pointer),
        Data::Object(_) => range(node, pointer),
        _ => {
            let value = node.to_json();
            Err(Draft::new(
                Code::WrongType,
                node.span,
                pointer,
                format!("{} is one value", quoted(&super::fault::shortened(&value))),
            )
            .value(&value)
            .expected(wanted)
            .hint(format!("write [{}]", super::fault::shortened(&value)))
            .into())
        }
    }
}

fn list(items: &[Node], pointer: &str) -> Result<Vec<Choice>, Box<Draft>> {
    if items.len() > MAX_STAGES {
        let message = format!("there are {} values", thousands(items.len()));
        return Err(Draft::new(Code::Matrix, items[MAX_STAGES].span, pointer, message)
            .expected(format!("at most {} stages in all", thousands(MAX_STAGES)))
            .into());
    }
    let mut all: Vec<Choice> = Vec::new();
    for (place, node) in items.iter().enumerate() {
        let value = node.to_json();
        let text = spelling(&value);
        // Values of one spelling would have one name; `null` and "default" have.
        if let Some(first) = all
            .iter()
            .find(|other| other.value == value || other.text == text)
        {
            let message = format!("{} is there twice", quoted(&super::fault::shortened(&value)));
            return Err(
                Draft::new(Code::Matrix, node.span, format!("{pointer}/{place}"), message)
                    .value(&value)
                    .expected("every value once")
                    .related(first.node.span, "first here")
                    .into(),
            );
        }
        all.push(Choice {
            node: node.clone(),
            value,
            text,
            pointer: format!("{pointer}/{place}"),
        });
    }
    Ok(all)
}

/// The fields of a range.
const RANGE: [&str; 4] = ["from", "to", "step", "factor"];

/// What a range looks like, for a person.
const FORM: &str =
    "a range: `{ \"from\": 1, \"to\": 4 }`, with `step` or `factor` where that is not 1 more each";

/// The numbers of a range with their places.
type Numbers<'n> = [Option<(f64, &'n Node)>; 4];

/// The numbers of a range, in the order of [`RANGE`], with their places.
fn numbers<'n>(node: &'n Node, pointer: &str) -> Result<Numbers<'n>, Box<Draft>> {
    let mut numbers: Numbers<'_> = [None; 4];
    for member in node.members() {
        let at = pointer_join(pointer, &member.key);
        let Some(place) = RANGE.iter().position(|name| *name == member.key) else {
            return Err(Draft::new(
                Code::UnknownField,
                member.key_span,
                at,
                format!("a range has no {}", quoted(&member.key)),
            )
            .expected(FORM)
            .maybe_hint(suggestion(&member.key, RANGE).or_else(|| {
                Some("name a field within a field with a point, as in `objective.noise.epsilon`".to_owned())
            }))
            .into());
        };
        let number = match &member.value.data {
            Data::Number(number) => number.as_f64(),
            _ => None,
        };
        let Some(number) = number else {
            let value = member.value.to_json();
            let message = format!("{} is no number", quoted(&super::fault::shortened(&value)));
            return Err(Draft::new(Code::WrongType, member.value.span, at, message)
                .value(&value)
                .expected("a number")
                .into());
        };
        numbers[place] = Some((number, &member.value));
    }
    Ok(numbers)
}

fn range(node: &Node, pointer: &str) -> Result<Vec<Choice>, Box<Draft>> {
    // A hundred-millionth of a step: decimal fractions are not what they look like.
    const SLACK: f64 = 1e-8;
    let missing = |name: &str| -> Box<Draft> {
        Draft::new(
            Code::MissingField,
            node.span,
            pointer,
            format!("the range has no {}", quoted(name)),
        )
        .expected(FORM)
        .into()
    };
    let [from, to, step, factor] = numbers(node, pointer)?;
    let (from, _) = from.ok_or_else(|| missing("from"))?;
    let (to, to_node) = to.ok_or_else(|| missing("to"))?;
    if let (Some(_), Some((_, place))) = (step, factor) {
        return Err(Draft::new(
            Code::Matrix,
            place.span,
            format!("{pointer}/factor"),
            "a range goes by `step` or by `factor`, not by both",
        )
        .expected(FORM)
        .into());
    }
    let endless = |place: Span, how: String, hint: String| -> Box<Draft> {
        Draft::new(
            Code::Matrix,
            place,
            pointer,
            format!("the range never ends: {how}"),
        )
        .value(&node.to_json())
        .expected(FORM)
        .hint(hint)
        .into()
    };
    let count = if let Some((factor, place)) = factor {
        let rises = to >= from;
        if from <= 0.0 || to <= 0.0 || factor <= 0.0 || (factor > 1.0) != rises && from != to || factor == 1.0
        {
            return Err(endless(
                place.span,
                format!("{from} times {factor} again and again is never {to}"),
                "a range by factor is above zero, and its factor above 1 where it rises, below 1 where it falls"
                    .to_owned(),
            ));
        }
        (to / from).ln() / factor.ln()
    } else {
        let by = step.map_or(1.0, |(step, _)| step);
        if by == 0.0 || (to - from) / by < 0.0 {
            let place = step.map_or(to_node.span, |(_, node)| node.span);
            let hint = if to < from {
                "to go down, set a `step` below zero, or swap `from` and `to`".to_owned()
            } else {
                "set a `step` above zero".to_owned()
            };
            return Err(endless(
                place,
                format!("from {from} in steps of {by} it never comes to {to}"),
                hint,
            ));
        }
        (to - from) / by
    };
    let count = (count + SLACK).floor();
    if count.is_nan() || count >= MAX_STAGES as f64 {
        let message = format!("the range has more than {} values", thousands(MAX_STAGES));
        return Err(Draft::new(Code::Matrix, node.span, pointer, message)
            .value(&node.to_json())
            .expected(format!("at most {} stages in all", thousands(MAX_STAGES)))
            .into());
    }
    let at = |index: i32| match (step, factor) {
        (_, Some((factor, _))) => from * factor.powi(index),
        (step, None) => step.map_or(1.0, |(step, _)| step).mul_add(f64::from(index), from),
    };
    let mut all: Vec<Choice> = Vec::new();
    for index in 0..=(count as i32) {
        let number = tidy(at(index)).ok_or_else(|| missing("end"))?;
        let choice = choice(node, pointer, number);
        // Steps too small for the numbers' size.
        if all.last().is_some_and(|before| before.value == choice.value) {
            let text = &choice.text;
            let hint = "set a larger `step`".to_owned();
            return Err(endless(
                node.span,
                format!("{text} and a step is {text} again"),
                hint,
            ));
        }
        all.push(choice);
    }
    Ok(all)
}

/// A value of a range, which stands where the range does.
fn choice(node: &Node, pointer: &str, number: Number) -> Choice {
    let value = Value::Number(number.clone());
    Choice {
        node: Node {
            span: node.span,
            data: Data::Number(number),
        },
        text: spelling(&value),
        value,
        pointer: pointer.to_owned(),
    }
}

/// A number without the dust of binary fractions, to 12 digits; an integer where it has an integer's value, as in texts.
fn tidy(value: f64) -> Option<Number> {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53
    if value.fract() == 0.0 && value.abs() < EXACT {
        return Some(Number::from(value as i64));
    }
    let value: f64 = format!("{value:.11e}").parse().ok()?;
    if value.fract() == 0.0 && value.abs() < EXACT {
        return Some(Number::from(value as i64));
    }
    Number::from_f64(value)
}

/// A value as it stands in a name: letters, digits, `.`, `_`, `-` and `+`, so that neither a shell nor a path minds. What
/// had to be changed for that ends in some digits of its hash, so that two values never have one name.
fn spelling(value: &Value) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+');
    let whole = match value {
        Value::Null => return "default".to_owned(),
        Value::String(text) => text.clone(),
        Value::Object(fields) => match (fields.len(), fields.get("kind").and_then(Value::as_str)) {
            (1, Some(kind)) => kind.to_owned(),
            (_, kind) => format!("{}:{value}", kind.unwrap_or_default()),
        },
        other => other.to_string(),
    };
    if !whole.is_empty() && whole.chars().all(safe) && whole.len() <= MAX_SPELT {
        return whole;
    }
    let start = match value {
        Value::Object(fields) => fields.get("kind").and_then(Value::as_str).unwrap_or("object"),
        Value::Array(_) => "list",
        _ => &whole,
    };
    let mut short: String = start
        .chars()
        .map(|c| if safe(c) { c } else { '-' })
        .take(MAX_SPELT / 2)
        .collect();
    while short.starts_with(['-', '.']) {
        short.remove(0);
    }
    let hash = blake3::hash(value.to_string().as_bytes()).to_hex();
    let dot = if short.is_empty() { "" } else { "." };
    format!("{short}{dot}{}", &hash[..6])
}

/// A whole number with its thousands set off.
fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::manifest::{Faults, Loaded, Manifest, Stage};

    use super::*;

    /// A pipeline with some fields of stages set.
    fn load(changes: &[(&str, Value)]) -> Result<Loaded, Faults> {
        let mut manifest = json!({
            "name": "swept", "seed": 1,
            "stages": {
                "text": { "kind": "source", "input": { "kind": "files", "files": ["a.txt"] } },
                "tokens": { "kind": "tokenize", "from": "text", "tokenizer": { "kind": "characters" } },
                "rows": { "kind": "pack", "from": "tokens", "length": 32, "validation": 0.1 },
                "model": { "kind": "train", "from": "rows", "shape": "nano", "steps": 9000 },
                "bound": { "kind": "evaluate", "model": "model", "data": "rows" },
                "table": { "kind": "compare", "of": "bound" }
            }
        });
        for (pointer, value) in changes {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            let parent = format!("/stages/{parent}");
            manifest.pointer_mut(parent.trim_end_matches('/')).unwrap()[key] = value.clone();
        }
        Manifest::from_bytes("swept.json", manifest.to_string().into_bytes(), &[])
    }

    fn names(loaded: &Loaded) -> Vec<&str> {
        let stages = loaded.manifest.stages.keys().map(String::as_str);
        stages.filter(|name| name.contains(SIGN)).collect()
    }

    fn model<'a>(loaded: &'a Loaded, name: &str) -> &'a super::super::Train {
        match &loaded.manifest.stages[name] {
            Stage::Train(stage) => stage,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_sweep_is_stages_as_one_would_write_them_and_consumers_fan_out() {
        let swept = load(&[(
            "model/matrix",
            json!({ "learning_rate": [1e-4, 3e-4], "objective.noise.epsilon": [1e-3, 1e-2], "objective.noise.kind": ["cosine"] }),
        )])
        .unwrap();
        assert_eq!(
            names(&swept),
            [
                "model@learning_rate=0.0001,objective.noise.epsilon=0.001,objective.noise.kind=cosine",
                "model@learning_rate=0.0001,objective.noise.epsilon=0.01,objective.noise.kind=cosine",
                "model@learning_rate=0.0003,objective.noise.epsilon=0.001,objective.noise.kind=cosine",
                "model@learning_rate=0.0003,objective.noise.epsilon=0.01,objective.noise.kind=cosine",
                "bound@learning_rate=0.0001,objective.noise.epsilon=0.001,objective.noise.kind=cosine",
                "bound@learning_rate=0.0001,objective.noise.epsilon=0.01,objective.noise.kind=cosine",
                "bound@learning_rate=0.0003,objective.noise.epsilon=0.001,objective.noise.kind=cosine",
                "bound@learning_rate=0.0003,objective.noise.epsilon=0.01,objective.noise.kind=cosine",
            ]
        );
        let by_hand = load(&[
            ("model/learning_rate", json!(3e-4)),
            (
                "model/objective",
                json!({ "kind": "mdlm", "noise": { "kind": "cosine", "epsilon": 0.01 } }),
            ),
        ])
        .unwrap();
        let name = "model@learning_rate=0.0003,objective.noise.epsilon=0.01,objective.noise.kind=cosine";
        assert_eq!(model(&swept, name), model(&by_hand, "model"));
        assert_eq!(swept.sweeps.written(name), "model");
        assert_eq!(swept.sweeps.point(name).unwrap()["objective.noise.epsilon"], 0.01);
        assert_eq!(swept.sweeps.point("rows"), None);
        let Stage::Evaluate(bound) = &swept.manifest.stages[&name.replace("model@", "bound@")] else {
            panic!("no evaluate stage");
        };
        assert_eq!((&*bound.model, &*bound.data), (name, "rows"));
        let Stage::Compare(table) = &swept.manifest.stages["table"] else {
            panic!("no compare stage");
        };
        assert_eq!(table.of.len(), 4);
        assert!(table.of[3].stage.starts_with("bound@") && table.of[3].name.is_none());
        assert_eq!(table.of[3].point["learning_rate"], 3e-4);
        let selected = swept.sweeps.spelt_out(&["model".to_owned(), "text".to_owned()]);
        assert_eq!(selected.len(), 5);
        // What is written stays what was written.
        assert!(swept.written["stages"]["model"]["matrix"].is_object());
    }

    #[test]
    fn ranges_reach_their_end_and_their_numbers_are_tidy() {
        let values = |range: Value| {
            let loaded = load(&[("model/matrix", json!({ "dropout": range }))]).unwrap();
            let names = names(&loaded);
            let models = names.into_iter().filter(|name| name.starts_with("model@"));
            models
                .map(|name| {
                    assert_eq!(
                        model(&loaded, name).dropout,
                        loaded.sweeps.point(name).unwrap()["dropout"]
                    );
                    name.rsplit_once('=').unwrap().1.to_owned()
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(
            values(json!({ "from": 0, "to": 0.5, "step": 0.1 })),
            ["0", "0.1", "0.2", "0.3", "0.4", "0.5"]
        );
        assert_eq!(
            values(json!({ "from": 0.5, "to": 0.1, "step": -0.2 })),
            ["0.5", "0.3", "0.1"]
        );
        assert_eq!(values(json!({ "from": 0.3, "to": 0.3 })), ["0.3"]);
        assert_eq!(
            values(json!({ "from": 1e-9, "to": 0.5, "factor": 1000 })),
            ["1e-9", "1e-6", "0.001"]
        );
        assert_eq!(
            values(json!({ "from": 0.4, "to": 0.05, "factor": 0.5 })),
            ["0.4", "0.2", "0.1", "0.05"]
        );
    }

    #[test]
    fn consumers_of_two_sweeps_join_on_what_they_share() {
        // The model and its bound both come from one sweep of the rows.
        let diamond = load(&[("rows/matrix", json!({ "seed": [1, 2] }))]).unwrap();
        assert_eq!(
            names(&diamond),
            [
                "rows@seed=1",
                "rows@seed=2",
                "model@seed=1",
                "model@seed=2",
                "bound@seed=1",
                "bound@seed=2"
            ]
        );
        // A seed of its own is another one.
        let both = load(&[
            ("rows/matrix", json!({ "seed": [1, 2] })),
            ("model/matrix", json!({ "seed": [1, 2] })),
        ])
        .unwrap();
        assert_eq!(
            &names(&both)[2..6],
            [
                "model@rows.seed=1,model.seed=1",
                "model@rows.seed=1,model.seed=2",
                "model@rows.seed=2,model.seed=1",
                "model@rows.seed=2,model.seed=2"
            ]
        );
        assert_eq!(names(&both).len(), 10);
        let Stage::Evaluate(bound) = &both.manifest.stages["bound@rows.seed=2,model.seed=1"] else {
            panic!("no evaluate stage");
        };
        assert_eq!(
            (&*bound.model, &*bound.data),
            ("model@rows.seed=2,model.seed=1", "rows@seed=2")
        );
        // Sweeps that do not depend on each other: over one field they are joined, over two multiplied.
        let tests = json!({ "kind": "pack", "from": "tokens", "length": 32, "validation": 0.1, "matrix": { "seed": [1, 2] } });
        let two = |field: &str, values: Value| {
            load(&[
                ("/tests", tests.clone()),
                ("model/matrix", json!({ field: values })),
                ("bound/data", json!("tests")),
            ])
        };
        assert_eq!(names(&two("seed", json!([2, 1])).unwrap()).len(), 6);
        assert_eq!(
            names(&two("ema", json!([0.5, 0.6, 0.7])).unwrap()).len(),
            2 + 3 + 6
        );
        let faults = two("seed", json!([1, 3])).unwrap_err().to_string();
        assert!(
            faults.contains(
                "the sweeps of `model` and `tests` do not go together: `model@seed=3` has no partner"
            ),
            "{faults}"
        );
    }

    #[test]
    fn stages_may_be_swept_and_single_instances_named() {
        let loaded = load(&[
            ("rows/matrix", json!({ "wrap": [true, false] })),
            (
                "/others",
                json!({ "kind": "pack", "from": "tokens", "length": 32 }),
            ),
            ("model/matrix", json!({ "from": ["others", "rows@wrap=true"] })),
            ("bound/model", json!("model@from=others")),
            ("table/of", json!(["bound", "model", "model@from=others"])),
        ])
        .unwrap();
        assert_eq!(
            &names(&loaded)[2..],
            [
                "model@from=others",
                "model@from=rows-wrap-true.9b0ac6",
                "bound@wrap=true",
                "bound@wrap=false"
            ]
        );
        let Stage::Compare(table) = &loaded.manifest.stages["table"] else {
            panic!("no compare stage");
        };
        let rows: Vec<_> = table
            .of
            .iter()
            .map(|row| (row.name.as_deref().unwrap(), row.point.len()))
            .collect();
        assert_eq!(
            rows,
            [
                ("bound", 1),
                ("bound", 1),
                ("model", 1),
                ("model", 1),
                ("model", 1)
            ]
        );
    }

    #[test]
    fn values_of_every_kind_have_names_that_shells_and_paths_take() {
        for (value, name) in [
            (json!(1e-4), "0.0001"),
            (json!(-3), "-3"),
            (json!(true), "true"),
            (json!(null), "default"),
            (json!("lm1b-small"), "lm1b-small"),
            (json!({ "kind": "cosine" }), "cosine"),
        ] {
            assert_eq!(spelling(&value), name);
        }
        let odd = [
            json!(""),
            json!("a b"),
            json!("a-b/"),
            json!("../../etc/passwd"),
            json!("$(rm -rf /)"),
            json!("ä@=,"),
            json!("x".repeat(41)),
            json!([1, 2]),
            json!([]),
            json!({ "kind": "cosine", "epsilon": 0.1 }),
            json!({ "kind": "cosine", "epsilon": 0.2 }),
            json!({}),
        ];
        let names: HashSet<String> = odd.iter().map(spelling).collect();
        assert_eq!(names.len(), odd.len(), "{names:?}");
        for name in names {
            assert!(
                name.chars()
                    .all(|c| c.is_ascii_alphanumeric() || "._-+".contains(c))
                    && !name.starts_with('.'),
                "{name}"
            );
        }
        // Where a field is taken away its default holds.
        let loaded = load(&[("model/matrix", json!({ "dropout": [null, 0.2] }))]).unwrap();
        assert_eq!(model(&loaded, "model@dropout=default").dropout, 0.1);
    }

    #[test]
    fn there_is_a_limit_on_what_sweeps_make() {
        let range = |to: u32| json!({ "seed": { "from": 1, "to": to } });
        // 494 models and bounds, and the other stages.
        assert_eq!(
            load(&[("model/matrix", range(498))])
                .unwrap()
                .manifest
                .stages
                .len(),
            1000
        );
        let told = |changes: &[(&str, Value)]| load(changes).unwrap_err().to_string();
        let faults = told(&[("model/matrix", range(499))]);
        assert!(
            faults.contains("the sweeps make more than 1,000 stages"),
            "{faults}"
        );
        let faults = told(&[
            ("rows/matrix", range(400)),
            ("model/matrix", json!({ "ema": [0.5, 0.6, 0.7] })),
        ]);
        assert!(
            faults.contains("the sweeps make more than 1,000 stages"),
            "{faults}"
        );
        let fields = [
            "seed",
            "steps",
            "batch",
            "micro_batch",
            "checkpoint_every",
            "validation_every",
        ];
        let wide: serde_json::Map<String, Value> = fields
            .iter()
            .map(|field| ((*field).to_owned(), json!({ "from": 1, "to": 1000 })))
            .collect();
        let faults = told(&[("model/matrix", Value::Object(wide))]);
        assert!(faults.contains("the matrix makes"), "{faults}");
    }
}
