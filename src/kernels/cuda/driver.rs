//! What the CUDA backend needs of a driver: memory, kernels, products. Two implementations: the real one, and one that runs
//! the kernels' sources on the CPU, for tests.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use serde::Serialize;

use crate::error::Result;
use crate::ranks::{Communicator, Cut};

/// An address in the device's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address(pub u64);

impl Address {
    /// So many bytes further.
    #[must_use]
    pub fn offset(self, bytes: usize) -> Self {
        Self(self.0 + bytes as u64)
    }
}

/// What activations and the weights' working copies are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32 bits, for checking.
    F32,
    /// bfloat16: the upper half of an f32.
    Bf16,
}

impl DType {
    /// Bytes of one.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

/// The source of an operation's kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernels {
    /// The operation's folder: `attention`.
    pub name: &'static str,
    /// CUDA C; begins with `device.h`.
    pub source: &'static str,
}

/// What every source begins with.
pub const HEADER: &str = include_str!("device.h");

/// A dimension that is a constant for the compiler: its macro and its value.
pub type Constant = (&'static str, Value);

/// The value of a constant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A whole number.
    Whole(usize),
    /// An f32.
    Real(f32),
}

/// A kernel to be run.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// Its source.
    pub kernels: Kernels,
    /// Its name.
    pub kernel: &'static str,
    /// What its source is compiled for.
    pub element: DType,
    /// The dimensions that it is compiled for.
    pub constants: Vec<Constant>,
    /// Blocks.
    pub grid: [usize; 3],
    /// Threads of a block.
    pub threads: usize,
    /// Bytes of shared memory.
    pub shared: usize,
    /// Its arguments.
    pub arguments: Vec<Argument>,
}

/// An argument of a kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Argument {
    /// An address.
    At(Address),
    /// A number of 32 bits.
    Number(u32),
    /// An f32.
    Real(f32),
}

impl Argument {
    /// Its value in eight bytes, low ones first: what a kernel reads at the argument's address.
    #[must_use]
    pub fn bits(self) -> u64 {
        match self {
            Self::At(address) => address.0,
            Self::Number(number) => u64::from(number),
            Self::Real(real) => u64::from(real.to_bits()),
        }
    }
}

/// A matrix that takes part in a product.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Operand {
    /// Its first element.
    pub at: Address,
    /// What it is made of.
    pub element: DType,
    /// Whether it lies there transposed.
    pub transposed: bool,
}

/// What the elements of a product go through before they are stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Epilogue {
    /// Nothing.
    Plain,
    /// A bias is added, one of c's elements a column.
    Bias(Address),
    /// u = c + bias is kept, and gelu(u), the tanh form, is c.
    Gelu {
        /// One of c's elements a column.
        bias: Address,
        /// Where u is kept, laid out as c.
        kept: Address,
    },
    /// c is multiplied with gelu'(u).
    GeluGradient {
        /// u, laid out as c.
        kept: Address,
    },
    /// Nothing, but the sums of a's rows, over k, are stored too, one of c's elements a row: where c is a weight's gradient,
    /// its bias's.
    RowSums(Address),
}

/// c (m, n) = a (m, k) · b (k, n), row-major, added to c if `accumulate`; sums in f32.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Product {
    /// m, n, k.
    pub sizes: [usize; 3],
    /// (m, k), or (k, m) if transposed.
    pub a: Operand,
    /// (k, n), or (n, k) if transposed.
    pub b: Operand,
    /// Where c lies.
    pub c: Address,
    /// What c is made of.
    pub element: DType,
    /// Whether c is added to.
    pub accumulate: bool,
    /// Whether f32 factors may be rounded to tf32, of 11 significant bits.
    pub tf32: bool,
    /// What is done to the sums.
    pub epilogue: Epilogue,
}

/// What a device is asked to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Runs a kernel, compiling its source first where that was not done before.
    Launch(Launch),
    /// Multiplies two matrices.
    Multiply(Product),
    /// Sets memory to zero.
    Clear {
        /// Where.
        at: Address,
        /// How much.
        bytes: usize,
    },
    /// Copies within the device.
    Copy {
        /// Where from.
        from: Address,
        /// Where to.
        to: Address,
        /// How much.
        bytes: usize,
    },
    /// Nothing: from here on this piece of a larger one is a buffer, its content undefined. Who runs kernels for a test
    /// looks after it.
    Live {
        /// Where it begins.
        at: Address,
        /// Its size.
        bytes: usize,
    },
    /// Nothing: from here on no command touches that buffer.
    Idle {
        /// Where it begins.
        at: Address,
    },
}

impl Command {
    /// Calls `change` with every address in it.
    pub fn relocate(&mut self, change: impl Fn(&mut Address)) {
        match self {
            Self::Launch(launch) => {
                for argument in &mut launch.arguments {
                    if let Argument::At(at) = argument {
                        change(at);
                    }
                }
            }
            Self::Multiply(product) => {
                change(&mut product.a.at);
                change(&mut product.b.at);
                change(&mut product.c);
                match &mut product.epilogue {
                    Epilogue::Plain => {}
                    Epilogue::Bias(bias) => change(bias),
                    Epilogue::Gelu { bias, kept } => {
                        change(bias);
                        change(kept);
                    }
                    Epilogue::GeluGradient { kept } => change(kept),
                    Epilogue::RowSums(sums) => change(sums),
                }
            }
            Self::Copy { from, to, .. } => {
                change(from);
                change(to);
            }
            Self::Clear { at, .. } | Self::Live { at, .. } | Self::Idle { at } => change(at),
        }
    }
}

/// Free and whole memory of a device, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Not in use.
    pub free: usize,
    /// All there is.
    pub total: usize,
}

/// A device, one stream of work on it, in order.
///
/// # Errors
/// Every method fails with [`crate::error::Kind::Environment`] when the device does: out of memory, a kernel that cannot be
/// compiled or run.
#[expect(clippy::missing_errors_doc, reason = "stated once, above")]
pub trait Driver {
    /// Takes memory; what is in it is undefined.
    fn allocate(&self, bytes: usize) -> Result<Address>;

    /// Gives memory back that [`Driver::allocate`] gave.
    fn free(&self, at: Address, bytes: usize);

    /// A larger piece of memory in place of one that [`Driver::allocate`] gave, the first `kept` bytes of which it begins
    /// with. Where there is none, the old one stays.
    fn grow(&self, at: Address, bytes: usize, kept: usize, to: usize) -> Result<Address>;

    /// Copies to the device, after the work before; returns when `bytes` has been read, not when it is there.
    fn write(&self, to: Address, bytes: &[u8]) -> Result<()>;

    /// Copies from the device, when all work before is done.
    fn read(&self, from: Address, bytes: &mut [u8]) -> Result<()>;

    /// Copies from the device after the work before, without waiting: the ticket is for [`Driver::collect`].
    fn fetch(&self, from: Address, bytes: usize) -> Result<Ticket>;

    /// Waits for what was fetched.
    fn collect(&self, ticket: Ticket) -> Result<Vec<u8>>;

    /// Runs commands in order. `again`: they are expected to come again as they are, so that it pays to keep them as a
    /// graph, which is launched at once.
    fn run(&self, commands: Vec<Command>, again: bool) -> Result<()>;

    /// Joins the devices of all ranks, which call this at the same time: [`Driver::exchange`] and [`Driver::gather`] then move
    /// numbers between them, after the work before, as [`Communicator`]'s operations of these names do.
    fn join(&self, ranks: &Arc<dyn Communicator>) -> Result<()>;

    /// Sends the run `runs[r]` of the f32 at `own` to rank r, and receives every rank's run of this rank, one after the other.
    fn exchange(&self, own: Address, runs: &[Range<usize>], received: Address) -> Result<()>;

    /// Every rank's part of the words of four bytes at `at` to all.
    fn gather(&self, at: Address, cut: &Cut) -> Result<()>;

    /// How numbers travel between devices once they have been joined: `NCCL 2.27.3 (libnccl.so.2)`.
    fn joined(&self) -> Option<String> {
        None
    }

    /// Whether products of this kind (sizes, elements, epilogue; addresses do not matter) can be done with their epilogue.
    fn fuses(&self, product: &Product) -> bool;

    /// Begins to time every command by itself, from nothing: they no longer follow each other as closely as they could.
    fn time(&self) {}

    /// What was timed, by kernel and by product, and an end of it.
    fn timed(&self) -> Result<Vec<Timed>> {
        Ok(Vec::new())
    }

    /// Whether nothing is ever done, so that no content need be prepared.
    fn is_planning(&self) -> bool {
        false
    }

    /// The device's memory.
    fn capacity(&self) -> Result<Capacity>;
}

/// The time of a kernel, or of products of one size.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Timed {
    /// The kernel's name, or `multiply m×n×k`.
    pub what: String,
    /// How often it ran.
    pub count: u64,
    /// For how long, in all.
    pub seconds: f64,
}

/// Times by what was timed.
#[derive(Default)]
pub struct Times(BTreeMap<String, (u64, f64)>);

impl Times {
    /// Adds a command's time.
    pub fn add(&mut self, command: &Command, seconds: f64) {
        let what = match command {
            Command::Launch(launch) => launch.kernel.to_owned(),
            Command::Multiply(product) => {
                let [m, n, k] = product.sizes;
                format!("multiply {m}×{n}×{k}")
            }
            Command::Clear { .. } => "clear".to_owned(),
            Command::Copy { .. } => "copy".to_owned(),
            Command::Live { .. } | Command::Idle { .. } => return,
        };
        let (count, sum) = self.0.entry(what).or_default();
        *count += 1;
        *sum += seconds;
    }

    /// All of them, the longest first.
    #[must_use]
    pub fn sorted(self) -> Vec<Timed> {
        let timed = |(what, (count, seconds))| Timed { what, count, seconds };
        let mut all: Vec<Timed> = self.0.into_iter().map(timed).collect();
        all.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        all
    }
}

/// Names what was fetched.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);
