//! Matrix products on a CUDA device, by cublasLt, which is loaded when it is asked for.
//!
//! How to multiply is chosen once for each kind of product, among the algorithms whose sums have one order, so that a device
//! gives the same bits each time.
//!
//! This is a seam file (invariant 7): cublasLt is a C library.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_void;

use cudarc::cublaslt::result::{self as lt, CublasError};
use cudarc::cublaslt::sys::{
    self, cublasLtEpilogue_t as Ending, cublasLtMatmulDescAttributes_t as Attribute,
    cublasLtMatmulPreferenceAttributes_t as Preference, cublasStatus_t as Status,
};
use cudarc::driver::{result, sys as driver_sys};

use super::driver::{Address, DType, Epilogue, Operand, Product};
use crate::error::Result;

/// Memory for partial sums: what the library's own documentation asks for on Hopper.
const WORKSPACE: usize = 32 << 20;
/// CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE: partial sums in f32 in the workspace, added up by a second kernel.
const IN_ORDER: u32 = 2;

/// The library, and what was learnt of it.
pub struct Products {
    library: sys::cublasLtHandle_t,
    workspace: Address,
    /// How to multiply, by kind of product; nothing where the library does not know.
    plans: RefCell<HashMap<AlgorithmKey, Option<sys::cublasLtMatmulAlgo_t>>>,
}

/// What an algorithm is chosen for.
#[derive(PartialEq, Eq, Hash)]
struct AlgorithmKey {
    sizes: [usize; 3],
    factors: [(DType, bool); 2],
    element: DType,
    accumulate: bool,
    tf32: bool,
    ending: u32,
    /// Of b, a and c.
    alignments: [u32; 3],
}

impl Products {
    /// The library, for the current context.
    pub fn new() -> Result<Self, Box<dyn std::error::Error>> {
        let library = lt::create_handle()?;
        // SAFETY: a context is current.
        let workspace = unsafe { result::malloc_sync(WORKSPACE) }?;
        Ok(Self {
            library,
            workspace: Address(workspace),
            plans: RefCell::default(),
        })
    }

    /// Gives everything back. Nothing may run any more.
    pub fn close(&self) {
        // SAFETY: made by `new`; called once, by the device's end.
        unsafe {
            let _ = lt::destroy_handle(self.library);
            let _ = result::free_sync(self.workspace.0);
        }
    }

    /// Whether products of this kind can be done.
    pub fn knows(&self, product: &Product) -> bool {
        let found = Description::new(product).and_then(|description| self.plan(product, &description));
        found.is_ok_and(|plan| plan.is_some())
    }

    /// Queues a product.
    pub fn multiply(&self, product: &Product, stream: driver_sys::CUstream) -> Result<(), CublasError> {
        let description = Description::new(product)?;
        let plan = self.plan(product, &description)?;
        let plan = plan.ok_or(CublasError(Status::CUBLAS_STATUS_NOT_SUPPORTED))?;
        let (one, start) = (1.0_f32, if product.accumulate { 1.0_f32 } else { 0.0 });
        let [b, a, c] = description.layouts;
        let at = |address: Address| address.0 as *const c_void;
        // SAFETY: the descriptions exist and hold the sizes of the matrices, which are the caller's; the factors are read
        // before the call returns.
        unsafe {
            lt::matmul(
                self.library,
                description.what,
                std::ptr::from_ref(&one).cast(),
                std::ptr::from_ref(&start).cast(),
                at(product.b.at),
                b,
                at(product.a.at),
                a,
                at(product.c),
                c,
                product.c.0 as *mut c_void,
                c,
                &raw const plan,
                self.workspace.0 as *mut c_void,
                WORKSPACE,
                stream.cast(),
            )
        }
    }

    /// The fastest algorithm that the library knows, among those that add up partial sums in one order.
    fn plan(
        &self,
        product: &Product,
        description: &Description,
    ) -> Result<Option<sys::cublasLtMatmulAlgo_t>, CublasError> {
        let key = AlgorithmKey {
            sizes: product.sizes,
            factors: [&product.a, &product.b].map(|operand| (operand.element, operand.transposed)),
            element: product.element,
            accumulate: product.accumulate,
            tf32: product.tf32,
            ending: ending(product.epilogue) as u32,
            alignments: [product.b.at, product.a.at, product.c].map(alignment),
        };
        if let Some(known) = self.plans.borrow().get(&key) {
            return Ok(*known);
        }
        let preference = lt::create_matmul_pref()?;
        let [b, a, c] = description.layouts;
        let [of_b, of_a, of_c] = key.alignments;
        let alignments = [
            (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, of_b),
            (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, of_a),
            (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, of_c),
            (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, of_c),
        ];
        // SAFETY: all descriptions are there; the values are copied, and have the types that the library states.
        let found = unsafe {
            lt::set_matmul_pref_attribute(
                preference,
                Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                std::ptr::from_ref(&WORKSPACE).cast(),
                size_of::<usize>(),
            )?;
            lt::set_matmul_pref_attribute(
                preference,
                Preference::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                std::ptr::from_ref(&IN_ORDER).cast(),
                size_of::<u32>(),
            )?;
            for (attribute, bytes) in alignments {
                let value = std::ptr::from_ref(&bytes).cast();
                lt::set_matmul_pref_attribute(preference, attribute, value, size_of::<u32>())?;
            }
            let found = lt::get_matmul_algo_heuristic(self.library, description.what, b, a, c, c, preference);
            lt::destroy_matmul_pref(preference)?;
            found
        };
        let found = match found {
            Ok(found) => Some(found.algo),
            Err(CublasError(Status::CUBLAS_STATUS_NOT_SUPPORTED | Status::CUBLAS_STATUS_INVALID_VALUE)) => {
                None
            }
            // No answer: the next time may get one.
            Err(other) => return Err(other),
        };
        self.plans.borrow_mut().insert(key, found);
        Ok(found)
    }
}

/// What an address is a multiple of, as far as algorithms care.
fn alignment(at: Address) -> u32 {
    1 << at.0.trailing_zeros().min(8)
}

fn ending(epilogue: Epilogue) -> Ending {
    match epilogue {
        Epilogue::Plain => Ending::CUBLASLT_EPILOGUE_DEFAULT,
        Epilogue::Bias(_) => Ending::CUBLASLT_EPILOGUE_BIAS,
        Epilogue::Gelu { .. } => Ending::CUBLASLT_EPILOGUE_GELU_AUX_BIAS,
        Epilogue::GeluGradient { .. } => Ending::CUBLASLT_EPILOGUE_DGELU,
        // Our a is its second factor.
        Epilogue::RowSums(_) => Ending::CUBLASLT_EPILOGUE_BGRADB,
    }
}

fn data_type(element: DType) -> sys::cudaDataType {
    match element {
        DType::F32 => sys::cudaDataType_t::CUDA_R_32F,
        DType::Bf16 => sys::cudaDataType_t::CUDA_R_16BF,
    }
}

/// cublasLt's descriptions of a product. It thinks in columns: what is row-major (r, c) here is its (c, r), so it computes
/// cᵀ = bᵀ aᵀ; a bias of our columns is one of its rows, as it wants it.
struct Description {
    what: sys::cublasLtMatmulDesc_t,
    /// Of b, a and c.
    layouts: [sys::cublasLtMatrixLayout_t; 3],
}

impl Description {
    fn new(product: &Product) -> Result<Self, CublasError> {
        let [m, n, k] = product.sizes;
        let compute = if product.tf32 && product.a.element == DType::F32 {
            sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32
        } else {
            sys::cublasComputeType_t::CUBLAS_COMPUTE_32F
        };
        let what = lt::create_matmul_desc(compute, sys::cudaDataType_t::CUDA_R_32F)?;
        // A matrix (rows, columns) as it lies: its rows are the library's columns.
        let layout = |operand: &Operand, rows: usize, columns: usize| {
            let (rows, columns) = if operand.transposed {
                (columns, rows)
            } else {
                (rows, columns)
            };
            lt::create_matrix_layout(
                data_type(operand.element),
                columns as u64,
                rows as u64,
                columns as i64,
            )
        };
        let c = Operand {
            at: product.c,
            element: product.element,
            transposed: false,
        };
        let description = Self {
            what,
            layouts: [
                layout(&product.b, k, n)?,
                layout(&product.a, m, k)?,
                layout(&c, m, n)?,
            ],
        };
        let operation = |operand: &Operand| i32::from(operand.transposed);
        description.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, &operation(&product.b))?;
        description.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSB, &operation(&product.a))?;
        description.set(
            Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE,
            &(ending(product.epilogue) as u32),
        )?;
        if let Epilogue::Bias(bias) | Epilogue::Gelu { bias, .. } | Epilogue::RowSums(bias) = product.epilogue
        {
            description.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias.0)?;
        }
        if let Epilogue::Gelu { kept, .. } | Epilogue::GeluGradient { kept } = product.epilogue {
            description.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &kept.0)?;
            description.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &(n as i64))?;
        }
        Ok(description)
    }

    /// Sets an attribute, whose type the library states: operations are of i32, epilogues of u32, pointers and leading
    /// dimensions of 64 bits.
    fn set<T: Copy>(&self, attribute: Attribute, value: &T) -> Result<(), CublasError> {
        let value = std::ptr::from_ref(value).cast();
        // SAFETY: the description exists; the value is copied, and has the size that is passed.
        unsafe { lt::set_matmul_desc_attribute(self.what, attribute, value, size_of::<T>()) }
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        // SAFETY: made by `new` and destroyed once; the library has copied what a running product needs.
        unsafe {
            let _ = lt::destroy_matmul_desc(self.what);
            for layout in self.layouts {
                let _ = lt::destroy_matrix_layout(layout);
            }
        }
    }
}
