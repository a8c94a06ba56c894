//! Training takes what it needs in its first steps and nothing more: held by counting every allocation.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use mdlm::data::SpecialIds;
use mdlm::data::rows::Rows;
use mdlm::diffusion::objective;
use mdlm::event::Cancel;
use mdlm::manifest::{LearningRateSchedule, Objective, WarmupRates};
use mdlm::model::{self, Device};
use mdlm::precision::Precision;
use mdlm::shapes::{Backbone, SHAPES};
use mdlm::train::{AdamW, CheckpointManager, StepBench, TrainConfig, Trainer};

/// The system's allocator, with the bytes alive and the most there were.
struct Counting;

static ALIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The same of this thread alone. What another thread frees makes the first negative.
    static ALIVE_HERE: Cell<isize> = const { Cell::new(0) };
    static PEAK_HERE: Cell<isize> = const { Cell::new(0) };
}

/// What `work` gives, and the most bytes that this thread asked for at once while it worked.
pub fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = ALIVE_HERE.get();
    PEAK_HERE.set(before);
    let result = work();
    (result, (PEAK_HERE.get() - before) as usize)
}

// SAFETY: everything is passed on to the system's allocator; counting touches atomics alone.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        ALIVE.fetch_sub(layout.size(), Relaxed);
        // A thread that ends may free when its counts are gone.
        let _ = ALIVE_HERE.try_with(|alive| alive.set(alive.get() - layout.size() as isize));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(block, layout) }
    }
}

fn count(bytes: usize) {
    PEAK.fetch_max(ALIVE.fetch_add(bytes, Relaxed) + bytes, Relaxed);
    let _ = ALIVE_HERE.try_with(|alive| {
        alive.set(alive.get() + bytes as isize);
        PEAK_HERE.with(|peak| peak.set(peak.get().max(alive.get())));
    });
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// In a process of its own: other tests allocate too.
#[test]
fn memory_of_training_does_not_grow_after_the_first_steps() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "memory::child_trains", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && printed.contains("1 passed"),
        "{printed}"
    );
}

#[test]
#[ignore = "run by `memory_of_training_does_not_grow_after_the_first_steps`"]
fn child_trains() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    pool.install(train);
}

fn train() {
    let shape = SHAPES.find("nano").unwrap();
    let mask = shape.vocabulary as u32 - 1;
    let special = SpecialIds {
        bos: 0,
        eos: 0,
        pad: 0,
        mask,
    };
    let tokens = (0..64 * shape.length as u32).map(|i| i * i % mask).collect();
    let rows = Rows::from_memory(mask + 1, special, shape.length, tokens, None).unwrap();
    let objective = objective::build(&Objective::default(), mask, mask + 1, 1);
    let job = Trainer {
        rows: &rows,
        objective: &*objective,
        config: TrainConfig {
            steps: 1_000,
            batch: 16,
            micro_batch: 8,
            learning_rate: 1e-3,
            warmup_steps: 0,
            warmup_rates: WarmupRates::FromOne,
            schedule: LearningRateSchedule::Constant,
            adam: AdamW::default(),
            gradient_clip: 1.0,
            ema: 0.99,
            dropout: 0.1,
            validation_every: 0,
            checkpoint_every: 1_000,
            seed: 1,
        },
        checkpoints: &CheckpointManager::default(),
        sharing: mdlm::ranks::Sharing::alone(),
        cancel: &Cancel::default(),
    };
    let weights = model::initial(shape, Backbone::Dit, 1);
    let mut learner =
        model::build_learner(shape, Backbone::Dit, Device::Cpu, Precision::F32, &weights).unwrap();
    let mut rehearsal = StepBench::new(&job, &mut *learner).unwrap();
    let mut steps = |count| {
        PEAK.store(0, Relaxed);
        for _ in 0..count {
            rehearsal.step().unwrap();
        }
        (ALIVE.load(Relaxed), PEAK.load(Relaxed))
    };
    // The first steps find the largest number of masked tokens there will be, give or take a few.
    let (alive, peak) = steps(50);
    for _ in 0..5 {
        let (alive_now, peak_now) = steps(20);
        // 16 KiB: lines of the log, and the pool's own queues.
        assert!(
            alive_now <= alive + (16 << 10),
            "{alive} bytes grew to {alive_now}"
        );
        assert!(
            peak_now <= peak + peak / 20,
            "a peak of {peak} bytes grew to {peak_now}"
        );
    }
}
