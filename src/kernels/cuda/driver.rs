//! What the CUDA backend needs of a driver: memory, kernels, products. Two implementations: the real one, and one that runs
//! the kernels' sources on the CPU, for tests.

use crate::error::Result;

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
pub enum Element {
    /// 32 bits, for checking.
    F32,
    /// bfloat16: the upper half of an f32.
    Bf16,
}

impl Element {
    /// Bytes of one.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

/// The kernels of one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its folder: `attention`.
    pub name: &'static str,
    /// CUDA C; begins with `device.h`.
    pub source: &'static str,
}

/// What every source begins with.
pub const HEADER: &str = include_str!("device.h");

macro_rules! operations {
    ($($constant:ident $name:literal;)*) => {
        $(
            #[doc = concat!("The kernels of `", $name, "`.")]
            pub const $constant: Operation = Operation {
                name: $name,
                source: include_str!(concat!("../", $name, "/", $name, ".cu")),
            };
        )*
        /// All of them.
        pub const OPERATIONS: &[Operation] = &[$($constant),*];
    };
}

operations! {
    ATTENTION "attention";
    EMBED "embed";
    GATED_RESIDUAL "gated_residual";
    GATHER "gather";
    LINEAR "linear";
    LINEAR_GELU "linear_gelu";
    MODULATED_NORM "modulated_norm";
    NLL "nll";
    SILU "silu";
}

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
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// The operation that it belongs to.
    pub operation: Operation,
    /// Its name.
    pub kernel: &'static str,
    /// What its source is compiled for.
    pub element: Element,
    /// The dimensions that it is compiled for.
    pub constants: &'a [Constant],
    /// Blocks.
    pub grid: [usize; 3],
    /// Threads of a block.
    pub threads: usize,
    /// Bytes of shared memory.
    pub shared: usize,
    /// Its arguments.
    pub arguments: &'a [Argument],
}

/// An argument of a kernel.
#[derive(Clone, Copy, Debug)]
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
#[derive(Clone, Copy, Debug)]
pub struct Operand {
    /// Its first element.
    pub at: Address,
    /// What it is made of.
    pub element: Element,
    /// Whether it lies there transposed.
    pub transposed: bool,
}

/// c (m, n) = a (m, k) · b (k, n), row-major, added to what is there if `accumulate`; sums in f32.
#[derive(Clone, Copy, Debug)]
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
    pub element: Element,
    /// Whether c is added to.
    pub accumulate: bool,
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

    /// Takes note that memory of [`Driver::allocate`] lies idle, or is in use again: whoever runs the kernels for a test
    /// looks after it.
    fn idle(&self, _at: Address, _is_idle: bool) {}

    /// Copies to the device.
    fn write(&self, to: Address, bytes: &[u8]) -> Result<()>;

    /// Copies from the device, when all work before is done.
    fn read(&self, from: Address, bytes: &mut [u8]) -> Result<()>;

    /// Sets memory to zero.
    fn clear(&self, at: Address, bytes: usize) -> Result<()>;

    /// Copies within the device.
    fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<()>;

    /// Runs a kernel, compiling its source first where that was not done before.
    fn launch(&self, launch: &Launch<'_>) -> Result<()>;

    /// Multiplies two matrices.
    fn multiply(&self, product: &Product) -> Result<()>;
}
