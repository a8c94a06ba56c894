//! What stages that run side by side share: threads, memory, devices.
//!
//! A stage that is admitted keeps its threads until it ends: those that are free then, divided among all that are admitted
//! with it. Memory is an estimate ([`demand`]): a stage waits until what it is estimated to take is free, or until it is
//! alone. Stages that compute on a GPU take turns.

use std::collections::VecDeque;

use super::Options;
use crate::plan::Plan;
use crate::stages::{self, memory::DATA_BYTES};

/// What a stage takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Memory in bytes, estimated.
    pub memory: u64,
    /// Whether it computes on the GPU.
    pub gpu: bool,
}

/// The resources granted to a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Threads.
    pub threads: usize,
    demand: Demand,
}

/// What is free.
#[derive(Debug)]
pub struct Budget {
    jobs: usize,
    threads: usize,
    memory: u64,
    gpu: bool,
    running: usize,
}

impl Budget {
    /// All of it.
    #[must_use]
    pub fn new(options: &Options) -> Self {
        Self {
            jobs: options.jobs,
            threads: options.threads,
            memory: options.memory,
            gpu: true,
            running: 0,
        }
    }

    /// Which stages may begin, of those that could, and with what.
    pub fn admit(&mut self, demands: &[(usize, Demand)]) -> Vec<(usize, Grant)> {
        let mut admitted: VecDeque<(usize, Demand)> = VecDeque::new();
        for (index, demand) in demands {
            let slots = self.jobs.saturating_sub(self.running).min(self.threads);
            if admitted.len() == slots {
                break;
            }
            let alone = self.running == 0 && admitted.is_empty();
            if demand.gpu && !self.gpu || demand.memory > self.memory && !alone {
                continue;
            }
            self.gpu &= !demand.gpu;
            // A stage that runs alone may exceed the budget; it gets all of it.
            let memory = demand.memory.min(self.memory);
            self.memory -= memory;
            admitted.push_back((*index, Demand { memory, ..*demand }));
        }
        let mut grants = Vec::new();
        while let Some((index, demand)) = admitted.pop_front() {
            // The first ones take what does not divide.
            let threads = self.threads.div_ceil(admitted.len() + 1);
            self.threads -= threads;
            self.running += 1;
            grants.push((index, Grant { threads, demand }));
        }
        grants
    }

    /// Takes back the resources of a stage that ended.
    pub fn give_back(&mut self, grant: &Grant) {
        self.threads += grant.threads;
        self.memory += grant.demand.memory;
        self.gpu |= grant.demand.gpu;
        self.running -= 1;
    }
}

/// What a stage of a plan is estimated to take: a constant where its kind has no estimate. `on_gpu` is called only for a stage
/// that computes a network.
#[must_use]
pub fn demand(plan: &Plan, index: usize, on_gpu: &dyn Fn() -> bool) -> Demand {
    let stage = &plan.stages[index];
    let inputs = stage.inputs.iter().map(|input| &plan.stages[input.index].stage);
    let inputs: Vec<_> = inputs.collect();
    Demand {
        memory: stages::memory_of(&stage.stage, &inputs, &plan.base).unwrap_or(DATA_BYTES),
        gpu: stage.stage.computes_network() && on_gpu(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(jobs: usize, threads: usize, memory: u64) -> Budget {
        Budget {
            jobs,
            threads,
            memory,
            gpu: true,
            running: 0,
        }
    }

    fn admitted(budget: &mut Budget, demands: &[(usize, Demand)]) -> Vec<(usize, usize)> {
        let grants = budget.admit(demands);
        grants
            .iter()
            .map(|(index, grant)| (*index, grant.threads))
            .collect()
    }

    const SMALL: Demand = Demand {
        memory: 10,
        gpu: false,
    };

    #[test]
    fn jobs_divide_the_threads_and_share_no_thread() {
        let mut budget = budget(4, 7, 1000);
        let first = budget.admit(&[(0, SMALL), (1, SMALL), (2, SMALL)]);
        let threads: Vec<_> = first.iter().map(|(_, grant)| grant.threads).collect();
        assert_eq!(threads, [3, 2, 2]);
        assert_eq!(admitted(&mut budget, &[(3, SMALL)]), [], "no thread is free");
        budget.give_back(&first[1].1);
        assert_eq!(admitted(&mut budget, &[(3, SMALL)]), [(3, 2)]);
    }

    #[test]
    fn jobs_are_no_more_than_asked_for() {
        let mut budget = budget(2, 16, 1000);
        assert_eq!(
            admitted(&mut budget, &[(0, SMALL), (1, SMALL), (2, SMALL)]),
            [(0, 8), (1, 8)]
        );
        assert_eq!(admitted(&mut budget, &[(2, SMALL)]), []);
    }

    #[test]
    fn jobs_keep_within_the_memory_unless_one_is_alone() {
        let large = Demand {
            memory: 5000,
            gpu: false,
        };
        let mut budget = budget(4, 4, 1000);
        assert_eq!(
            admitted(&mut budget, &[(0, SMALL), (1, large), (2, SMALL)]),
            [(0, 2), (2, 2)],
            "it waits, and what fits does not wait for it"
        );
        let mut budget = self::budget(4, 4, 1000);
        let first = budget.admit(&[(1, large), (0, SMALL)]);
        assert_eq!(first.len(), 1);
        assert_eq!(first[0].1.threads, 4);
    }

    #[test]
    fn jobs_use_the_gpu_one_at_a_time() {
        let gpu = Demand { memory: 1, gpu: true };
        let mut budget = budget(4, 4, 1000);
        let first = budget.admit(&[(0, gpu), (1, gpu), (2, SMALL)]);
        assert_eq!(first.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 2]);
        budget.give_back(&first[0].1);
        assert_eq!(admitted(&mut budget, &[(1, gpu)]), [(1, 2)]);
    }
}
