//! Tensors of a PyTorch file: views of storages, read in the order of their rows.

use std::path::Path;

use super::super::rounded;
use super::BRING_AGAIN;
use super::archive::{ArchiveSource, TorchArchive};
use super::dtype::TorchDtype;
use super::pickle::{LONGEST_PICKLE, parse};
use super::values::{Pickle, PickleNode, PickleValue};
use crate::error::{Context as _, Error, Result};
use crate::plural::counted;

/// A tensor: which elements of a storage it has, in which order. All of them lie in the storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TorchTensor {
    /// The type of its elements.
    pub dtype: TorchDtype,
    /// Its dimensions; none for a tensor of one element.
    pub dims: Vec<usize>,
    /// Elements of the storage from one index of a dimension to the next. 0 repeats elements.
    pub strides: Vec<usize>,
    /// Its first element in the storage.
    pub offset: usize,
    /// The storage: tensors with the same one may share elements.
    pub storage: String,
    /// Elements: the product of the dimensions.
    elements: usize,
    /// Elements of the storage from the first that is used to the last; 0 without elements.
    span: usize,
}

impl TorchTensor {
    /// Resolves a [`PickleValue::Tensor`]; its storage's record is not looked at.
    ///
    /// # Errors
    /// Input errors: the value is no tensor, the type of its elements is not read, or it has elements outside of its storage.
    pub fn of(pickle: &Pickle, node: PickleNode) -> Result<Self> {
        let &PickleValue::Tensor {
            storage,
            offset,
            dims,
            strides,
        } = pickle.value(node)
        else {
            return Err(Error::input(format!(
                "{} is no tensor",
                pickle.describe(node, 100)
            )));
        };
        let &PickleValue::Storage {
            class, key, elements, ..
        } = pickle.value(storage)
        else {
            return Err(Error::internal("a tensor without a storage"));
        };
        let class = pickle.global(class).unwrap_or_default();
        let dtype = TorchDtype::of_storage(class).ok_or_else(|| {
            let read: Vec<String> = TorchDtype::ALL.iter().map(ToString::to_string).collect();
            Error::input(format!(
                "its elements are those of a `{class}`, and {} are read",
                read.join(", ")
            ))
            .hint("convert it with PyTorch, as with `tensor.float()`, and save it again")
        })?;
        let numbers = |tuple: PickleNode| -> Option<Vec<usize>> {
            let number = |&node: &PickleNode| usize::try_from(pickle.int(node)?).ok();
            pickle.elements(tuple).iter().map(number).collect()
        };
        let (Some(dims), Some(strides)) = (numbers(dims), numbers(strides)) else {
            return Err(Error::internal("a tensor without dimensions"));
        };
        let count = if dims.contains(&0) {
            Some(0)
        } else {
            dims.iter()
                .try_fold(1_usize, |count, &dim| count.checked_mul(dim))
        };
        let last = dims
            .iter()
            .zip(&strides)
            .try_fold(0_usize, |last, (&dim, &stride)| {
                last.checked_add(dim.saturating_sub(1).checked_mul(stride)?)
            });
        let span = match (count, last) {
            (Some(0), _) => Some(0),
            (_, Some(last)) => last.checked_add(1),
            _ => None,
        };
        let start = offset;
        let offset = usize::try_from(offset).ok();
        let end = offset
            .zip(span)
            .and_then(|(offset, span)| offset.checked_add(span));
        let fits = end.is_some_and(|end| end as u64 <= elements) || count == Some(0);
        let (Some(span), Some(offset), true) = (span, offset, fits) else {
            return Err(Error::input(format!(
                "it has elements outside of its storage of {}: dimensions {dims:?} with strides {strides:?} from element \
                 {start} on",
                counted(elements, "element")
            ))
            .hint(BRING_AGAIN));
        };
        // Strides of 0 repeat elements without end.
        let count = count.filter(|count| {
            let bytes = count.checked_mul(8);
            bytes.is_some_and(|bytes| isize::try_from(bytes).is_ok())
        });
        let count = count.ok_or_else(|| {
            Error::input(format!(
                "it has more elements than memory can have: dimensions {dims:?}"
            ))
            .hint(BRING_AGAIN)
        })?;
        Ok(Self {
            dtype,
            dims,
            strides,
            offset,
            storage: pickle.text(key).unwrap_or_default().to_owned(),
            elements: count,
            span,
        })
    }

    /// Its elements: the product of the dimensions. A small file may state many with strides of 0: compare the dimensions
    /// with those that are expected before memory is reserved.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.elements
    }

    /// Whether its elements stand in the storage in the order of its rows, with no other between them.
    #[must_use]
    pub fn is_contiguous(&self) -> bool {
        if self.elements == 0 {
            return true;
        }
        let mut expected = 1;
        for (&dim, &stride) in self.dims.iter().zip(&self.strides).rev() {
            if dim != 1 && stride != expected {
                return false;
            }
            // No overflow: it is at most the count of elements.
            expected *= dim;
        }
        true
    }
}

/// A file of `torch.save`, whose pickle has been read.
#[derive(Debug)]
pub struct TorchFile {
    archive: TorchArchive,
    pickle: Pickle,
}

impl TorchFile {
    /// Opens a file and reads its pickle; nothing of it is executed.
    ///
    /// # Errors
    /// Input errors: those of [`TorchArchive::open`] and [`parse`].
    pub fn open(path: &Path) -> Result<Self> {
        TorchArchive::open(path)
            .and_then(Self::with)
            .context(|| format!("read `{}`", path.display()))
    }

    /// Reads a file from something else than a path.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn of(source: impl ArchiveSource + 'static) -> Result<Self> {
        Self::with(TorchArchive::of(source)?)
    }

    fn with(mut archive: TorchArchive) -> Result<Self> {
        let bytes = archive.whole("data.pkl", LONGEST_PICKLE)?;
        let pickle = parse(&bytes).context(|| format!("record `{}/data.pkl`", archive.name()))?;
        Ok(Self { archive, pickle })
    }

    /// The values of the file.
    #[must_use]
    pub fn pickle(&self) -> &Pickle {
        &self.pickle
    }

    /// The records of the archive.
    #[must_use]
    pub fn archive(&self) -> &TorchArchive {
        &self.archive
    }

    /// A tensor among the values, compared with the record of its storage.
    ///
    /// # Errors
    /// Those of [`TorchTensor::of`]; the record is missing or has another length than the storage.
    pub fn tensor(&self, node: PickleNode) -> Result<TorchTensor> {
        let tensor = TorchTensor::of(&self.pickle, node)?;
        let elements = match self.pickle.value(node) {
            PickleValue::Tensor { storage, .. } => match self.pickle.value(*storage) {
                PickleValue::Storage { elements, .. } => *elements,
                _ => 0,
            },
            _ => 0,
        };
        let record = record(&tensor.storage);
        let length = self.archive.length(&record).ok_or_else(|| {
            Error::input(format!("its storage, record `{record}`, is missing")).hint(BRING_AGAIN)
        })?;
        if elements.checked_mul(tensor.dtype.width() as u64) != Some(length) {
            return Err(Error::input(format!(
                "its storage has {} of type {}, and record `{record}` has {}",
                counted(elements, "element"),
                tensor.dtype,
                counted(length, "byte")
            ))
            .hint(BRING_AGAIN));
        }
        Ok(tensor)
    }

    /// Reads a tensor of floating-point numbers in the order of its rows; f64 is rounded to f32.
    ///
    /// # Errors
    /// Input errors: the tensor has integers; a finite f64 is beyond f32; those of [`bytes`](Self::bytes).
    pub fn floats(&mut self, tensor: &TorchTensor, into: &mut [f32]) -> Result<()> {
        let decode: fn(&[u8], usize) -> Result<f32> = match tensor.dtype {
            TorchDtype::F32 => |bytes, _| Ok(f32::from_le_bytes(array(bytes))),
            TorchDtype::F16 => |bytes, _| Ok(half::f16::from_le_bytes(array(bytes)).to_f32()),
            TorchDtype::BF16 => |bytes, _| Ok(half::bf16::from_le_bytes(array(bytes)).to_f32()),
            TorchDtype::F64 => |bytes, place| rounded(f64::from_le_bytes(array(bytes)), place),
            other => {
                return Err(Error::input(format!(
                    "its elements are {other}, expected floating-point numbers"
                )));
            }
        };
        let width = tensor.dtype.width();
        expect_elements(tensor, into.len())?;
        self.visit(tensor, &mut |first, bytes| {
            let into = &mut into[first..][..bytes.len() / width];
            for (place, (into, bytes)) in into.iter_mut().zip(bytes.chunks_exact(width)).enumerate() {
                *into = decode(bytes, first + place)?;
            }
            Ok(())
        })
    }

    /// Reads a tensor of integers or truth values (0 and 1) in the order of its rows.
    ///
    /// # Errors
    /// Input errors: the tensor has floating-point numbers; those of [`bytes`](Self::bytes).
    pub fn integers(&mut self, tensor: &TorchTensor, into: &mut [i64]) -> Result<()> {
        let decode: fn(&[u8]) -> i64 = match tensor.dtype {
            TorchDtype::I64 => |bytes| i64::from_le_bytes(array(bytes)),
            TorchDtype::I32 => |bytes| i32::from_le_bytes(array(bytes)).into(),
            TorchDtype::I16 => |bytes| i16::from_le_bytes(array(bytes)).into(),
            TorchDtype::I8 => |bytes| i8::from_le_bytes(array(bytes)).into(),
            TorchDtype::U8 => |bytes| bytes[0].into(),
            TorchDtype::Bool => |bytes| (bytes[0] != 0).into(),
            other => {
                return Err(Error::input(format!(
                    "its elements are {other}, expected integers"
                )));
            }
        };
        let width = tensor.dtype.width();
        expect_elements(tensor, into.len())?;
        self.visit(tensor, &mut |first, bytes| {
            let into = &mut into[first..][..bytes.len() / width];
            for (into, bytes) in into.iter_mut().zip(bytes.chunks_exact(width)) {
                *into = decode(bytes);
            }
            Ok(())
        })
    }

    /// Reads a tensor in the order of its rows, in the bytes of its own type, lowest byte first.
    ///
    /// # Errors
    /// Input errors: another length than that of the tensor; the record is damaged. Of the environment: the file cannot be
    /// read.
    pub fn bytes(&mut self, tensor: &TorchTensor, into: &mut [u8]) -> Result<()> {
        let width = tensor.dtype.width();
        if !into.len().is_multiple_of(width) {
            return Err(Error::internal("bytes that are no whole elements"));
        }
        expect_elements(tensor, into.len() / width)?;
        self.visit(tensor, &mut |first, bytes| {
            into[first * width..][..bytes.len()].copy_from_slice(bytes);
            Ok(())
        })
    }

    /// Passes on runs of elements in the order of the rows, each with the number of its first.
    ///
    /// A tensor that is not contiguous is read with all that lies between its first element and its last: no more memory than
    /// its storage has in the file.
    fn visit(
        &mut self,
        tensor: &TorchTensor,
        each: &mut dyn FnMut(usize, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let width = tensor.dtype.width();
        let record = record(&tensor.storage);
        if tensor.elements == 0 {
            return Ok(());
        }
        // In the record, which is as long as the storage.
        let start = tensor.offset as u64 * width as u64;
        let range = start..start + tensor.span as u64 * width as u64;
        if tensor.is_contiguous() {
            let mut first = 0;
            return self.archive.read(&record, range, &mut |bytes| {
                each(first, bytes)?;
                first += bytes.len() / width;
                Ok(())
            });
        }
        if self
            .archive
            .length(&record)
            .is_none_or(|length| length < range.end)
        {
            return Err(
                Error::input(format!("record `{record}` is shorter than its storage")).hint(BRING_AGAIN),
            );
        }
        let mut span = Vec::new();
        span.try_reserve_exact(tensor.span * width).map_err(|_| {
            Error::environment(format!(
                "no memory for the {} that a tensor with strides lies in",
                counted(tensor.span * width, "byte")
            ))
        })?;
        self.archive.read(&record, range, &mut |bytes| {
            span.extend_from_slice(bytes);
            Ok(())
        })?;
        rows(tensor, &mut |first, at, count| {
            each(first, &span[at * width..(at + count) * width])
        })
    }
}

/// Passes on runs of elements: the number of the first, its place from the tensor's first element on, how many.
fn rows(tensor: &TorchTensor, each: &mut dyn FnMut(usize, usize, usize) -> Result<()>) -> Result<()> {
    // The last dimensions that lie together are one run.
    let mut run = 1;
    let mut outer = tensor.dims.len();
    while outer > 0 && (tensor.dims[outer - 1] == 1 || tensor.strides[outer - 1] == run) {
        run *= tensor.dims[outer - 1];
        outer -= 1;
    }
    let (dims, strides) = (&tensor.dims[..outer], &tensor.strides[..outer]);
    let mut index = vec![0; outer];
    let mut at = 0;
    for first in (0..tensor.elements).step_by(run) {
        each(first, at, run)?;
        // The next index: the last dimension counts fastest.
        for axis in (0..outer).rev() {
            index[axis] += 1;
            if index[axis] < dims[axis] {
                at += strides[axis];
                break;
            }
            index[axis] = 0;
            at -= (dims[axis] - 1) * strides[axis];
        }
    }
    Ok(())
}

fn record(storage: &str) -> String {
    format!("data/{storage}")
}

fn expect_elements(tensor: &TorchTensor, expected: usize) -> Result<()> {
    if tensor.elements == expected {
        return Ok(());
    }
    Err(Error::input(format!(
        "it has {}, expected {expected}",
        counted(tensor.elements, "element")
    )))
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[..N]);
    array
}
