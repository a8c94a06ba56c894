//! The types of tensors, their names in PyTorch and the classes of their storages.

use std::fmt;

/// The type of a tensor's elements, of those that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TorchDtype {
    /// `torch.float64`.
    F64,
    /// `torch.float32`.
    F32,
    /// `torch.float16`.
    F16,
    /// `torch.bfloat16`.
    BF16,
    /// `torch.int64`.
    I64,
    /// `torch.int32`.
    I32,
    /// `torch.int16`.
    I16,
    /// `torch.int8`.
    I8,
    /// `torch.uint8`.
    U8,
    /// `torch.bool`.
    Bool,
}

/// Types with their names and the classes of their storages.
const TYPES: [(TorchDtype, &str, &str); 10] = [
    (TorchDtype::F64, "float64", "DoubleStorage"),
    (TorchDtype::F32, "float32", "FloatStorage"),
    (TorchDtype::F16, "float16", "HalfStorage"),
    (TorchDtype::BF16, "bfloat16", "BFloat16Storage"),
    (TorchDtype::I64, "int64", "LongStorage"),
    (TorchDtype::I32, "int32", "IntStorage"),
    (TorchDtype::I16, "int16", "ShortStorage"),
    (TorchDtype::I8, "int8", "CharStorage"),
    (TorchDtype::U8, "uint8", "ByteStorage"),
    (TorchDtype::Bool, "bool", "BoolStorage"),
];

/// Further types of PyTorch, which are not read.
const OTHER_TYPES: [&str; 17] = [
    "complex32",
    "complex64",
    "complex128",
    "uint16",
    "uint32",
    "uint64",
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e5m2",
    "float8_e5m2fnuz",
    "float8_e8m0fnu",
    "float4_e2m1fn_x2",
    "qint8",
    "quint8",
    "qint32",
    "quint4x2",
    "quint2x4",
];

/// The class of storages that have bytes.
const UNTYPED: &str = "torch.storage.UntypedStorage";

/// Whether a global is a class of storages.
pub(super) fn is_storage(global: &str) -> bool {
    global == UNTYPED || storage_class(global).is_some()
}

/// The class of storages that a global is, without its module.
fn storage_class(global: &str) -> Option<&str> {
    let class = global.strip_prefix("torch.")?;
    let class = class.strip_prefix("cuda.").unwrap_or(class);
    (class.ends_with("Storage") && !class.contains('.')).then_some(class)
}

impl TorchDtype {
    /// All types.
    pub const ALL: [Self; 10] = {
        let mut all = [Self::F64; 10];
        let mut at = 0;
        while at < 10 {
            all[at] = TYPES[at].0;
            at += 1;
        }
        all
    };

    /// Bytes of an element.
    #[must_use]
    pub fn width(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    /// Whether elements are floating-point numbers.
    #[must_use]
    pub fn is_float(self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::BF16)
    }

    /// The class of storages with this type, without `torch.`.
    #[must_use]
    pub fn storage_class(self) -> &'static str {
        self.row().2
    }

    fn row(self) -> &'static (Self, &'static str, &'static str) {
        // One row for each, in the order of the variants.
        &TYPES[self as usize]
    }

    /// By the global of a storage's class; none where it is no storage, or one of a type that is not read.
    pub(super) fn of_storage(global: &str) -> Option<Self> {
        if global == UNTYPED {
            return Some(Self::U8);
        }
        let class = storage_class(global)?;
        TYPES.iter().find(|row| row.2 == class).map(|row| row.0)
    }

    /// Whether a global is the name of a type of PyTorch.
    pub(super) fn is_name(global: &str) -> bool {
        let Some(name) = global.strip_prefix("torch.") else {
            return false;
        };
        TYPES.iter().any(|row| row.1 == name) || OTHER_TYPES.contains(&name)
    }
}

impl fmt::Display for TorchDtype {
    /// The name in PyTorch, without `torch.`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().1)
    }
}
