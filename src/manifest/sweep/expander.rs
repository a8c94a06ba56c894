//! Makes the instances: a stage's own combinations, times what it inherits from the stages that it consumes.

use std::collections::{HashMap, HashSet};

use indexmap::IndexMap;

use super::tree::{FIELD, collects, field_of, is_field, kind, not_swept, placed, references, rename, set};
use super::values::{choices, in_one_form, thousands};
use super::{
    Axis, Coordinate, Expander, MAX_NAME, MAX_STAGES, Made, Own, Point, SIGN, SweepValue, WrittenStage,
    labels, point,
};
use crate::manifest::STAGE_NAME;
use crate::manifest::StageKind;
use crate::manifest::fault::{Code, Draft, alternatives, quoted};
use crate::manifest::instance::written;
use crate::manifest::json::{Data, Member, Node, pointer_join};
use crate::manifest::order::order;
use crate::manifest::stage::{COMPARED, JUDGED, TABULATED_FORM};

impl<'t> Expander<'t> {
    /// Reads a stage and its own sweep.
    pub(super) fn read(&mut self, index: usize, member: &'t Member) {
        let pointer = pointer_join("/stages", &member.key);
        if member.key.contains(SIGN) {
            let message = format!("{} is not a valid stage name", quoted(&member.key));
            self.faults.push(
                Draft::new(Code::InvalidName, member.key_span, pointer.clone(), message)
                    .expected(STAGE_NAME)
                    .hint(format!(
                        "`{SIGN}` is reserved for the names of a sweep's instances"
                    )),
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
        let written = WrittenStage {
            name: &member.key,
            key_span: member.key_span,
            own,
            made: None,
        };
        self.stages.insert(&member.key, written);
    }

    /// A stage with one choice of each axis.
    fn own(&mut self, index: usize, plain: &Node, axes: &[Axis], choices: &[&SweepValue]) -> Own {
        let mut node = plain.clone();
        let mut coordinates = Vec::new();
        let mut aliases = Vec::new();
        for (axis, choice) in axes.iter().zip(choices) {
            let pointer = |field: &str| match &choice.settings {
                Some(_) => pointer_join(&choice.pointer, field),
                None => choice.pointer.clone(),
            };
            let one = [(axis.field.clone(), axis.key_span, choice.node.clone())];
            for (field, key_span, value) in choice.settings.as_deref().unwrap_or(&one) {
                if let Err(message) = set(&mut node, field, *key_span, value) {
                    let fault = Draft::new(Code::Matrix, *key_span, pointer(field), message).expected(FIELD);
                    // Once for all values.
                    if !self.faults.iter().any(|other| other.span == fault.span) {
                        self.faults.push(fault);
                    }
                }
                let below = field.split('.');
                let below = below.fold(String::new(), |pointer, name| pointer_join(&pointer, name));
                aliases.push((below, pointer(field)));
            }
            coordinates.push(Coordinate {
                field: axis.field.clone(),
                origins: vec![index],
                value: choice.value.clone(),
                text: choice.text.clone(),
            });
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
                Draft::new(Code::WrongType, matrix.span, pointer, "`matrix` is not an object")
                    .value(&matrix.to_json())
                    .expected("fields, each with a list of values, a range or settings by name: `{ \"seed\": [1, 2] }`"),
            );
            return Vec::new();
        };
        if fields.is_empty() {
            self.faults.push(
                Draft::new(Code::Matrix, matrix.span, pointer, "`matrix` is empty")
                    .expected("fields, each with a list of values, a range or settings by name: `{ \"seed\": [1, 2] }`")
                    .hint("leave `matrix` out if the stage is not swept"),
            );
        }
        let mut axes: Vec<Axis> = Vec::new();
        for field in fields {
            let at = pointer_join(pointer, &field.key);
            if !is_field(&field.key) {
                self.faults.push(not_swept(field, at));
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
                    .hint("sweep fewer values at a time; finished stages stay in the store"),
            );
            for axis in &mut axes {
                axis.choices.truncate(1);
            }
        }
        axes
    }

    /// Lets the consumers of swept stages fan out, each stage after those that it consumes.
    pub(super) fn connect(&mut self) {
        let targets: Vec<Vec<usize>> = self
            .stages
            .values()
            .map(|stage| {
                let names = stage.own.iter().flat_map(|own| references(&own.node));
                let mut targets: Vec<usize> = names
                    .filter_map(|(_, name)| self.stages.get_index_of(written(&name)))
                    .collect();
                targets.sort_unstable();
                targets.dedup();
                targets
            })
            .collect();
        let order = order(&targets);
        // The semantic check reports cycles.
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
            if collects(&own.node) {
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
                "an instance of {} has a name of {} bytes",
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
                            "at most {MAX_NAME} bytes for the stage's name, its swept fields and their values"
                        ))
                        .hint("sweep fewer fields together, or shorten the stage's name"),
                );
            }
        }
        name
    }

    /// What a stage's combination inherits: for every joined point of the consumed stages, its coordinates, and the fields
    /// that name stages with the instances to name.
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
            let mut index = JoinIndex::new(made);
            for (coordinates, assigned) in &joined {
                let mut found = false;
                for place in index.candidates(coordinates) {
                    if let Some(both) = join(coordinates, &made[place].coordinates) {
                        let mut assigned = assigned.clone();
                        assigned.push((field.clone(), made[place].name.clone()));
                        next.push((both, assigned));
                        found = true;
                        alone[place] = false;
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
                    "the sweeps of {} and {} do not match: {} has no counterpart with the same values",
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
                    .expected("stages that sweep the fields they share over the same values"),
                );
            }
            if !next.is_empty() {
                joined = next;
            }
            before.push(target);
        }
        joined
    }

    /// Spells out what a compare, judge or table stage collects: a name or a list of names becomes an object for every instance.
    fn gather(&mut self, own: &mut Own, stage_pointer: &str) {
        let expected = match kind(&own.node) {
            Some(StageKind::Judge) => JUDGED,
            Some(StageKind::Table) => TABULATED_FORM,
            _ => COMPARED,
        };
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
        let of_pointer = format!("{stage_pointer}/of");
        if names.is_empty() {
            let empty = matches!(of.value.data, Data::Array(_));
            let (code, message) = if empty {
                (Code::OutOfRange, "`of` is empty")
            } else {
                (Code::WrongType, "this is not the name of a stage")
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
                    Draft::new(Code::WrongType, node.span, at, "this is not the name of a stage")
                        .value(&node.to_json())
                        .expected(expected),
                );
                continue;
            };
            if !seen.insert(name) {
                let message = format!("{} is listed twice", quoted(name));
                self.faults
                    .push(Draft::new(Code::Matrix, node.span, at, message).expected("every stage once"));
                continue;
            }
            // A stage with all its instances, or one instance.
            let written = written(name);
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

/// What distinguishes points of which each has the same place for the same sweep: fields and origins, without values.
type Axes = Vec<(String, Vec<usize>)>;

/// The instances of a stage by the values that they share with points of other stages, so that a point is joined with those
/// that it agrees with and not with all.
struct JoinIndex<'a> {
    made: &'a [Made],
    /// The places of the instances that have the same axes.
    groups: IndexMap<Axes, Vec<usize>>,
    /// Of points with some axes and a group: the places in both of what they share, and the group's instances by its values.
    shared: HashMap<(Axes, usize), SharedValues>,
}

/// What two groups of points share.
struct SharedValues {
    /// Places in the points of the other stages.
    places: Vec<usize>,
    /// The instances by the values there.
    instances: HashMap<Vec<String>, Vec<usize>>,
}

impl<'a> JoinIndex<'a> {
    fn new(made: &'a [Made]) -> Self {
        let mut groups: IndexMap<Axes, Vec<usize>> = IndexMap::new();
        for (place, instance) in made.iter().enumerate() {
            groups.entry(axes(&instance.coordinates)).or_default().push(place);
        }
        Self {
            made,
            groups,
            shared: HashMap::new(),
        }
    }

    /// The instances that agree with a point, and perhaps others, in their order.
    fn candidates(&mut self, point: &[Coordinate]) -> Vec<usize> {
        let axes = axes(point);
        let mut found = Vec::new();
        for (group, places) in self.groups.values().enumerate() {
            let shared = self.shared.entry((axes.clone(), group)).or_insert_with(|| {
                let first = &self.made[places[0]].coordinates;
                let pairs = first.iter().enumerate().filter_map(|(there, one)| {
                    let here = counterpart(point, first, one)?;
                    Some((here, there))
                });
                let (here, there): (Vec<usize>, Vec<usize>) = pairs.unzip();
                let mut instances: HashMap<Vec<String>, Vec<usize>> = HashMap::new();
                for &place in places {
                    let values = values(&self.made[place].coordinates, &there);
                    instances.entry(values).or_default().push(place);
                }
                SharedValues {
                    places: here,
                    instances,
                }
            });
            let values = values(point, &shared.places);
            found.extend(shared.instances.get(&values).into_iter().flatten());
        }
        found.sort_unstable();
        found
    }
}

fn axes(point: &[Coordinate]) -> Axes {
    point
        .iter()
        .map(|one| (one.field.clone(), one.origins.clone()))
        .collect()
}

/// The values of a point at some of its places.
fn values(point: &[Coordinate], places: &[usize]) -> Vec<String> {
    places
        .iter()
        .map(|&place| in_one_form(&point[place].value))
        .collect()
}

fn is_same_sweep(a: &Coordinate, b: &Coordinate) -> bool {
    a.field == b.field && a.origins.iter().any(|origin| b.origins.contains(origin))
}

/// The place in `a` that has to agree with a coordinate of `b`, if there is one. It does not depend on values.
fn counterpart(a: &[Coordinate], b: &[Coordinate], one: &Coordinate) -> Option<usize> {
    a.iter().position(|other| is_same_sweep(other, one)).or_else(|| {
        // Sweeps of two stages over fields of one name, neither known to the other side.
        a.iter().position(|other| {
            other.field == one.field && !b.iter().any(|another| is_same_sweep(another, other))
        })
    })
}

/// Both points in one, where they agree.
fn join(a: &[Coordinate], b: &[Coordinate]) -> Option<Vec<Coordinate>> {
    let mut both = a.to_vec();
    for one in b {
        match counterpart(a, b, one) {
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
fn combinations(axes: &[Axis]) -> Vec<Vec<&SweepValue>> {
    let mut all: Vec<Vec<&SweepValue>> = vec![Vec::new()];
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
