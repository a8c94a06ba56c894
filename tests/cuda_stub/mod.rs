//! The CUDA stub (`cuda.cpp`), built for the tests that run with it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the libraries are called, as they are looked for.
const LIBRARIES: [&str; 4] = ["libcuda.so", "libnvrtc.so", "libcublasLt.so", "libnccl.so.2"];

/// A folder with the CUDA stub's libraries, and with a cache for what they compile.
pub struct CudaStub(PathBuf);

impl CudaStub {
    /// Compiled, unless a process was here before with the same sources.
    ///
    /// # Panics
    /// There is no C++ compiler, or it refuses the source.
    pub fn build() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let sources = ["tests/cuda_stub/cuda.cpp", "src/kernels/cuda/emulate.h"].map(|path| root.join(path));
        let mut digest = blake3::Hasher::new();
        for source in &sources {
            digest.update(&std::fs::read(source).expect("a source of the CUDA stub"));
        }
        let digest = digest.finalize().to_hex();
        let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let folder = parent.join(format!("cuda-stub-{}", &digest[..16]));
        if !folder.exists() {
            let beside = tempfile::tempdir_in(parent).expect("a folder");
            let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
            let library = beside.path().join(LIBRARIES[0]);
            let status = Command::new(compiler)
                .args(["-std=c++17", "-O2", "-fPIC", "-shared", "-o"])
                .args([&library, &sources[0]])
                .arg("-ldl")
                .status();
            assert!(
                status.expect("a C++ compiler").success(),
                "the CUDA stub does not compile"
            );
            // One library by three names: what one part of it knows, the others do.
            for name in &LIBRARIES[1..] {
                std::fs::hard_link(&library, beside.path().join(name)).expect("a link");
            }
            std::fs::copy(&sources[1], beside.path().join("emulate.h")).expect("a copy");
            // Another process may have been faster.
            let _ = std::fs::rename(beside.keep(), &folder);
        }
        Self(folder)
    }

    /// What a process needs in its environment to find the CUDA stub, whatever else the machine has.
    pub fn environment(&self) -> [(&'static str, OsString); 2] {
        [
            ("LD_LIBRARY_PATH", self.0.clone().into()),
            ("XDG_CACHE_HOME", self.0.join("cache").into()),
        ]
    }
}
