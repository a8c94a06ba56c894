//! Orders of stages: each after those it consumes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// An order of stages, and the stages in cycles.
#[derive(Debug, PartialEq, Eq)]
pub struct StageOrder {
    /// The stages, each after those it consumes; among those that could be next, the first.
    pub ordered: Vec<usize>,
    /// The stages that are in a cycle or depend on one, in their order.
    pub circular: Vec<usize>,
    /// Number of stages and inputs visited, with which the time grows.
    pub looks: usize,
}

/// Orders stages; `consumed` has, for each stage, the indices of the stages that it consumes. An index may be repeated. A
/// stage that consumes an index without a stage counts as circular.
#[must_use]
pub fn order(consumed: &[Vec<usize>]) -> StageOrder {
    let mut looks = 0;
    let mut consumers: Vec<Vec<usize>> = vec![Vec::new(); consumed.len()];
    let mut waits_for: Vec<usize> = consumed.iter().map(Vec::len).collect();
    for (stage, targets) in consumed.iter().enumerate() {
        for &target in targets {
            looks += 1;
            if let Some(consumers) = consumers.get_mut(target) {
                consumers.push(stage);
            }
        }
    }
    let mut ready: BinaryHeap<Reverse<usize>> = (0..consumed.len())
        .filter(|&stage| waits_for[stage] == 0)
        .map(Reverse)
        .collect();
    let mut ordered = Vec::with_capacity(consumed.len());
    while let Some(Reverse(stage)) = ready.pop() {
        looks += 1;
        ordered.push(stage);
        for &consumer in &consumers[stage] {
            looks += 1;
            waits_for[consumer] -= 1;
            if waits_for[consumer] == 0 {
                ready.push(Reverse(consumer));
            }
        }
    }
    let circular = (0..consumed.len())
        .filter(|&stage| waits_for[stage] > 0)
        .collect();
    StageOrder {
        ordered,
        circular,
        looks,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition of the order: the next stage is the first of the remaining ones whose inputs are ordered.
    fn slowly(consumed: &[Vec<usize>]) -> (Vec<usize>, Vec<usize>) {
        let mut waiting: Vec<usize> = (0..consumed.len()).collect();
        let mut ordered: Vec<usize> = Vec::new();
        while let Some(place) = waiting
            .iter()
            .position(|&stage| consumed[stage].iter().all(|target| ordered.contains(target)))
        {
            ordered.push(waiting.remove(place));
        }
        (ordered, waiting)
    }

    #[test]
    fn stages_follow_those_they_consume_in_the_order_of_writing() {
        let mut state = 7_u32;
        let mut draw = |below: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) as usize % below
        };
        for _ in 0..200 {
            let stages = 1 + draw(12);
            let consumed: Vec<Vec<usize>> = (0..stages)
                .map(|_| (0..draw(3)).map(|_| draw(stages)).collect())
                .collect();
            let found = order(&consumed);
            assert_eq!((found.ordered, found.circular), slowly(&consumed), "{consumed:?}");
        }
        assert_eq!(order(&[vec![5]]).circular, [0]);
    }

    /// Twice the stages take twice the work, in either order of writing.
    #[test]
    fn ordering_takes_time_linear_in_the_stages() {
        let chain = |stages: usize| -> Vec<Vec<usize>> {
            (0..stages)
                .map(|stage| {
                    if stage + 1 < stages {
                        vec![stage + 1]
                    } else {
                        vec![]
                    }
                })
                .collect()
        };
        let star = |stages: usize| -> Vec<Vec<usize>> {
            (0..stages)
                .map(|stage| if stage == 0 { vec![] } else { vec![0] })
                .collect()
        };
        for graph in [&chain as &dyn Fn(usize) -> Vec<Vec<usize>>, &star] {
            let looks = |stages: usize| order(&graph(stages)).looks;
            assert!(
                looks(2_000) <= 2 * looks(1_000) + 3,
                "{} {}",
                looks(1_000),
                looks(2_000)
            );
        }
    }
}
