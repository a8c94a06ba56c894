//! Ranks that are threads of one process.

use std::fmt::{self, Debug};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::{Communicator, Cut, Rank};
use crate::error::{Error, Result};

/// A rank that is a thread of this process. When it is dropped, the others learn that it has gone.
pub struct ThreadRank {
    rank: Rank,
    meeting: Arc<Meeting>,
}

/// As many ranks as that, one for each thread.
#[must_use]
pub fn ranks(world: u32) -> Vec<ThreadRank> {
    let meeting = Arc::new(Meeting {
        world: world as usize,
        round: Mutex::default(),
        changed: Condvar::new(),
    });
    let rank = |rank| ThreadRank {
        rank: Rank { rank, world },
        meeting: meeting.clone(),
    };
    (0..world).map(rank).collect()
}

/// What a rank brings to a meeting.
#[derive(Clone, PartialEq)]
enum Load {
    /// For an exchange or a gathering, with the runs of the ranks.
    Floats(&'static str, Vec<Range<usize>>, Vec<f32>),
    /// A few numbers, with how many each rank has.
    Numbers(Vec<usize>, Vec<f64>),
    /// Rank 0's bytes; nothing of the others.
    Bytes(Vec<u8>),
}

/// The operation and its sizes, without the numbers: equal on all ranks.
impl Debug for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Floats(what, runs, _) => write!(f, "{what} of {runs:?}"),
            Self::Numbers(counts, _) => write!(f, "gathering of {counts:?} numbers"),
            Self::Bytes(_) => f.write_str("broadcast"),
        }
    }
}

/// Where ranks meet: none leaves before all have come.
struct Meeting {
    world: usize,
    round: Mutex<Round>,
    changed: Condvar,
}

#[derive(Default)]
struct Round {
    number: u64,
    /// What ranks of this round have brought.
    brought: Vec<(u32, Load)>,
    /// What all ranks of the last round brought, in their order, and how many have not seen it.
    last: Arc<Vec<Load>>,
    unseen: usize,
    /// Why the ranks can meet no more.
    ended: Option<String>,
}

impl Meeting {
    fn lock(&self) -> MutexGuard<'_, Round> {
        self.round.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, why: String) {
        self.lock().ended.get_or_insert(why);
        self.changed.notify_all();
    }

    /// Brings a load, and waits until all have come; returns what all brought, in the order of the ranks.
    fn meet(&self, rank: u32, load: Load) -> Result<Arc<Vec<Load>>> {
        let mut round = self.lock();
        while round.unseen > 0 && round.ended.is_none() {
            round = self.wait(round);
        }
        let number = round.number;
        if let Some((other, brought)) = round.brought.first()
            && format!("{brought:?}") != format!("{load:?}")
        {
            let why = format!("rank {rank} calls a {load:?}, but rank {other} a {brought:?}");
            round.ended.get_or_insert(why);
        }
        round.brought.push((rank, load));
        if round.brought.len() == self.world && round.ended.is_none() {
            let mut all = std::mem::take(&mut round.brought);
            all.sort_by_key(|(rank, _)| *rank);
            round.last = Arc::new(all.into_iter().map(|(_, load)| load).collect());
            round.unseen = self.world;
            round.number += 1;
        }
        self.changed.notify_all();
        while round.number == number && round.ended.is_none() {
            round = self.wait(round);
        }
        if round.number == number {
            let why = round.ended.as_deref().unwrap_or_default();
            return Err(Error::environment(why.to_owned()));
        }
        round.unseen -= 1;
        self.changed.notify_all();
        Ok(round.last.clone())
    }

    fn wait<'a>(&self, round: MutexGuard<'a, Round>) -> MutexGuard<'a, Round> {
        self.changed.wait(round).unwrap_or_else(PoisonError::into_inner)
    }
}

impl Debug for ThreadRank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "thread of {:?}", self.rank)
    }
}

impl Drop for ThreadRank {
    fn drop(&mut self) {
        self.meeting.end(format!("rank {} has ended", self.rank.rank));
    }
}

impl Communicator for ThreadRank {
    fn rank(&self) -> Rank {
        self.rank
    }

    fn local(&self) -> u32 {
        self.rank.rank
    }

    fn exchange(&self, own: &[f32], runs: &[Range<usize>], received: &mut [f32]) -> Result<()> {
        let sent = runs.iter().flat_map(|run| &own[run.clone()]).copied().collect();
        let all = self
            .meeting
            .meet(self.rank.rank, Load::Floats("exchange", runs.to_vec(), sent))?;
        let rank = self.rank.rank as usize;
        let before: usize = runs[..rank].iter().map(Range::len).sum();
        let length = runs[rank].len();
        for (load, into) in all.iter().zip(received.chunks_mut(length.max(1))) {
            if let Load::Floats(_, _, sent) = load {
                into.copy_from_slice(&sent[before..before + length]);
            }
        }
        Ok(())
    }

    fn gather(&self, values: &mut [f32], cut: &Cut) -> Result<()> {
        let own = values[cut.of(self.rank)].to_vec();
        let load = Load::Floats("gathering", cut.parts().collect(), own);
        let all = self.meeting.meet(self.rank.rank, load)?;
        for (load, part) in all.iter().zip(cut.parts()) {
            if let Load::Floats(_, _, own) = load {
                values[part].copy_from_slice(own);
            }
        }
        Ok(())
    }

    fn all_gather(&self, own: &[f64], counts: &[usize]) -> Result<Vec<f64>> {
        let load = Load::Numbers(counts.to_vec(), own.to_vec());
        let all = self.meeting.meet(self.rank.rank, load)?;
        let numbers = all.iter().flat_map(|load| match load {
            Load::Numbers(_, numbers) => numbers.clone(),
            _ => vec![],
        });
        Ok(numbers.collect())
    }

    fn broadcast(&self, bytes: &mut Vec<u8>) -> Result<()> {
        let own = if self.rank.is_first() {
            std::mem::take(bytes)
        } else {
            vec![]
        };
        let all = self.meeting.meet(self.rank.rank, Load::Bytes(own))?;
        if let Some(Load::Bytes(first)) = all.first() {
            bytes.clone_from(first);
        }
        Ok(())
    }

    fn abandon(&self, why: &str, _: u8) {
        self.meeting
            .end(format!("rank {} has failed: {why}", self.rank.rank));
    }

    fn described(&self) -> String {
        "threads of one process".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a function on every rank at once; the results in the order of the ranks.
    fn on_all<T: Send>(world: u32, each: impl Fn(ThreadRank) -> T + Sync) -> Vec<T> {
        std::thread::scope(|scope| {
            let started: Vec<_> = ranks(world)
                .into_iter()
                .map(|rank| scope.spawn(|| each(rank)))
                .collect();
            started.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    #[test]
    fn threads_move_every_part_to_its_rank_and_back() {
        let cut = Cut::at_chunks(&[0..3, 3..4, 4..9], 3);
        let results = on_all(3, |ranks| {
            let rank = ranks.rank().rank;
            let own: Vec<f32> = (0..9).map(|i| (100 * rank + i) as f32).collect();
            let part = cut.of(ranks.rank());
            let mut received = vec![0.0; 3 * part.len()];
            let runs: Vec<_> = cut.parts().collect();
            // Many rounds, so that a rank that is ahead meets those of the round before.
            for _ in 0..50 {
                ranks.exchange(&own, &runs, &mut received).unwrap();
            }
            let mut values = own.clone();
            ranks.gather(&mut values, &cut).unwrap();
            let numbers: Vec<f64> = (0..rank).map(f64::from).collect();
            let numbers = ranks.all_gather(&numbers, &[0, 1, 2]).unwrap();
            let mut bytes = if rank == 0 { b"first".to_vec() } else { vec![] };
            ranks.broadcast(&mut bytes).unwrap();
            (part, received, values, numbers, bytes)
        });
        for (part, received, values, numbers, bytes) in results {
            let expected: Vec<f32> = (0..3)
                .flat_map(|from| part.clone().map(move |i| (100 * from + i) as f32))
                .collect();
            assert_eq!(received, expected);
            let expected: Vec<f32> = (cut.parts().enumerate())
                .flat_map(|(rank, part)| part.map(move |i| (100 * rank + i) as f32))
                .collect();
            assert_eq!(values, expected);
            assert_eq!((numbers, &bytes[..]), (vec![0.0, 0.0, 1.0], &b"first"[..]));
        }
    }

    #[test]
    fn threads_that_wait_for_a_failed_or_ended_rank_fail() {
        for fails in [true, false] {
            let results = on_all(3, |ranks| {
                if ranks.rank().rank == 1 {
                    if fails {
                        ranks.abandon("the disk is full", 3);
                    }
                    return String::new();
                }
                ranks.all_gather(&[1.0], &[1, 1, 1]).unwrap_err().to_string()
            });
            let expected = if fails {
                "rank 1 has failed: the disk is full"
            } else {
                "rank 1 has ended"
            };
            assert_eq!([&*results[0], &*results[2]], [expected; 2]);
        }
    }

    #[test]
    fn threads_that_call_different_operations_fail() {
        let results = on_all(2, |ranks| {
            let counts = [1 + ranks.rank().rank as usize, 1];
            ranks.all_gather(&[1.0], &counts).unwrap_err().to_string()
        });
        assert!(
            results
                .iter()
                .all(|error| error.contains("rank 0") && error.contains("rank 1")),
            "{results:?}"
        );
    }
}
