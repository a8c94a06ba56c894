//! A machine that has all that CUDA needs: where tests of the library and of the program begin.

use super::{Compiler, CudaSupport, Detected, Gpu, Installed, Version};

/// A machine where all is well.
pub fn well() -> CudaSupport {
    let gpu = Gpu {
        number: 0,
        name: "NVIDIA H100 80GB HBM3".to_owned(),
        uuid: Some("GPU-1".to_owned()),
        capability: (9, 0),
        multiprocessors: 132,
        memory: 85_000_000_000,
        free: Some(84_000_000_000),
        is_open: true,
        holder: None,
    };
    let version = |major, minor| Version { major, minor };
    CudaSupport {
        driver: Detected::There(Installed {
            cuda: version(13, 0),
            release: Some("580.65.06".to_owned()),
            gpus: Ok(vec![gpu]),
        }),
        compiler: Detected::There(Compiler {
            version: version(13, 0),
            architectures: vec![75, 80, 86, 89, 90, 100, 120],
            test_compile: Some(Ok(())),
        }),
        products: Detected::There(version(13, 1)),
    }
}
