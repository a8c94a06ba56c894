//! What is found of CUDA on a machine, as plain facts, and whether it is enough: a pure function of them.

use std::fmt;

use crate::error::Error;

/// The oldest architecture whose tensor cores know bf16 and tf32.
pub const OLDEST: (u32, u32) = (8, 0);

/// A version as CUDA counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Of one major version, all go together.
    pub major: u32,
    /// Within it.
    pub minor: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The result of looking for a library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detected<T> {
    /// It is not installed, or not where libraries are looked for.
    Absent,
    /// It is there and does not do what is asked of it: its own words.
    Broken(String),
    /// It is there.
    There(T),
}

impl<T> Detected<T> {
    /// The library, if it was found.
    #[must_use]
    pub fn there(&self) -> Option<&T> {
        match self {
            Self::There(there) => Some(there),
            Self::Absent | Self::Broken(_) => None,
        }
    }
}

/// Everything that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CudaSupport {
    /// libcuda, which comes with the driver.
    pub driver: Detected<Installed>,
    /// NVRTC, which compiles kernels.
    pub compiler: Detected<Compiler>,
    /// cublasLt, which multiplies matrices.
    pub products: Detected<Version>,
}

/// A driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// The newest CUDA that it runs.
    pub cuda: Version,
    /// Its own number, where the system reports it: `580.65.06`.
    pub release: Option<String>,
    /// The devices that it shows, or why it does not start.
    pub gpus: Result<Vec<Gpu>, String>,
}

impl Installed {
    /// Whether it runs what a library of that version makes: those of one major version go with every driver of it and of
    /// later ones, not of earlier ones.
    #[must_use]
    pub fn runs(&self, version: Version) -> bool {
        self.cuda.major >= version.major
    }
}

/// A compiler of kernels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiler {
    /// Its version.
    pub version: Version,
    /// The architectures that it supports: 90 for `sm_90`. Empty where it does not report them.
    pub architectures: Vec<u32>,
    /// Whether it compiles, where that was tried: a part of it may be missing.
    pub test_compile: Option<Result<(), String>>,
}

impl Compiler {
    /// What to try it for: the device's architecture, or one that it knows.
    #[must_use]
    pub fn tried_for(&self, gpu: Option<&Gpu>) -> String {
        let newest = self.architectures.iter().filter(|&&it| it <= 90).max();
        gpu.map_or_else(|| format!("sm_{}", newest.unwrap_or(&80)), Gpu::architecture)
    }
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// Its number among those that CUDA_VISIBLE_DEVICES shows.
    pub number: usize,
    /// As the driver calls it.
    pub name: String,
    /// Its identifier, which does not depend on its number; absent where the driver does not report it.
    pub uuid: Option<String>,
    /// Compute capability.
    pub capability: (u32, u32),
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Memory in bytes.
    pub memory: u64,
    /// Memory that is free, where that was asked: it takes a context on the device.
    pub free: Option<u64>,
    /// Whether it may be computed on: an administrator can close it.
    pub is_open: bool,
    /// The mdlm that computes on it, where that was asked.
    pub holder: Option<GpuHolder>,
}

impl Gpu {
    /// What NVRTC calls its architecture. Hopper's own instructions need its `a`.
    #[must_use]
    pub fn architecture(&self) -> String {
        let (major, minor) = self.capability;
        let own = if self.capability == (9, 0) { "a" } else { "" };
        format!("sm_{major}{minor}{own}")
    }
}

/// A process that computes on a GPU.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct GpuHolder {
    /// The process.
    pub pid: u32,
    /// What it was started as, shortened: `mdlm run pipelines/lm1b.json`.
    pub command: String,
}

impl fmt::Display for GpuHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.pid, self.command)
    }
}

/// Why the GPU cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsupported {
    /// There is no driver.
    NoDriver,
    /// The driver does not answer, or does not start.
    Driver(String),
    /// The driver shows no device of that number, but so many.
    NoDevice(usize, usize),
    /// The device's name: it is closed to computing.
    Closed(String),
    /// The device's name and compute capability.
    OldDevice(String, (u32, u32)),
    /// A library is missing, or does not answer; the driver's CUDA decides which one to install.
    Library(Library, Option<String>, Version),
    /// The library is of a later major version than the driver's CUDA.
    OldDriver(Library, Version, Version),
    /// NVRTC does not know the device's architecture.
    OldCompiler(Version, String, String),
}

/// A library that is loaded at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Library {
    /// Compiles kernels.
    Nvrtc,
    /// Multiplies matrices.
    CublasLt,
}

impl Library {
    /// As its makers call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nvrtc => "NVRTC",
            Self::CublasLt => "cublasLt",
        }
    }

    /// How to get it for a driver of that CUDA: NVIDIA's packages have a name for every major version up to 12.
    fn install(self, cuda: Version) -> String {
        let package = match self {
            Self::Nvrtc => "nvidia-cuda-nvrtc",
            Self::CublasLt => "nvidia-cublas",
        };
        let major = cuda.major;
        let suffix = if major < 13 {
            format!("-cu{major}")
        } else {
            String::new()
        };
        format!(
            "install the CUDA {major} toolkit, or `pip install {package}{suffix}`, and name the folder of the \
             library in LD_LIBRARY_PATH"
        )
    }
}

impl CudaSupport {
    /// Nothing at all.
    #[must_use]
    pub fn nothing() -> Self {
        Self {
            driver: Detected::Absent,
            compiler: Detected::Absent,
            products: Detected::Absent,
        }
    }

    /// The devices, as far as they could be asked for.
    #[must_use]
    pub fn gpus(&self) -> &[Gpu] {
        match self.driver.there().map(|driver| &driver.gpus) {
            Some(Ok(gpus)) => gpus,
            Some(Err(_)) | None => &[],
        }
    }

    /// The device that is computed on: number 0 of those that are shown.
    ///
    /// # Errors
    /// The reason why no GPU can be used.
    pub fn verdict(&self) -> Result<&Gpu, Unsupported> {
        self.usable(0)
    }

    /// The device of that number, if it can be computed on.
    ///
    /// # Errors
    /// The reason why the device cannot be used.
    pub fn usable(&self, number: usize) -> Result<&Gpu, Unsupported> {
        let driver = match &self.driver {
            Detected::There(driver) => driver,
            Detected::Absent => return Err(Unsupported::NoDriver),
            Detected::Broken(words) => return Err(Unsupported::Driver(words.clone())),
        };
        let gpus = driver
            .gpus
            .as_ref()
            .map_err(|words| Unsupported::Driver(words.clone()))?;
        let gpu = gpus
            .get(number)
            .ok_or(Unsupported::NoDevice(number, gpus.len()))?;
        if !gpu.is_open {
            return Err(Unsupported::Closed(gpu.name.clone()));
        }
        if gpu.capability < OLDEST {
            return Err(Unsupported::OldDevice(gpu.name.clone(), gpu.capability));
        }
        let missing = |library, words| Unsupported::Library(library, words, driver.cuda);
        let compiler = match &self.compiler {
            Detected::There(compiler) => compiler,
            Detected::Absent => return Err(missing(Library::Nvrtc, None)),
            Detected::Broken(words) => return Err(missing(Library::Nvrtc, Some(words.clone()))),
        };
        if let Some(Err(words)) = &compiler.test_compile {
            return Err(missing(Library::Nvrtc, Some(words.clone())));
        }
        let products = match &self.products {
            Detected::There(products) => *products,
            Detected::Absent => return Err(missing(Library::CublasLt, None)),
            Detected::Broken(words) => return Err(missing(Library::CublasLt, Some(words.clone()))),
        };
        for (library, version) in [(Library::Nvrtc, compiler.version), (Library::CublasLt, products)] {
            if !driver.runs(version) {
                return Err(Unsupported::OldDriver(library, version, driver.cuda));
            }
        }
        let (major, minor) = gpu.capability;
        let known = &compiler.architectures;
        if !known.is_empty() && !known.contains(&(10 * major + minor)) {
            return Err(Unsupported::OldCompiler(
                compiler.version,
                gpu.name.clone(),
                gpu.architecture(),
            ));
        }
        Ok(gpu)
    }

    /// Name and versions, for the record of what was computed: `NVIDIA H100, driver 580.65.06 (CUDA 13.0), NVRTC 13.0, cublasLt
    /// 13.1`.
    #[must_use]
    pub fn described(&self) -> String {
        let mut parts: Vec<String> = self
            .gpus()
            .first()
            .map(|gpu| gpu.name.clone())
            .into_iter()
            .collect();
        if let Some(driver) = self.driver.there() {
            parts.push(match &driver.release {
                Some(release) => format!("driver {release} (CUDA {})", driver.cuda),
                None => format!("driver for CUDA {}", driver.cuda),
            });
        }
        if let Some(compiler) = self.compiler.there() {
            parts.push(format!("NVRTC {}", compiler.version));
        }
        if let Some(products) = self.products.there() {
            parts.push(format!("cublasLt {products}"));
        }
        parts.join(", ")
    }
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDriver => f.write_str("no CUDA driver (libcuda) is installed"),
            Self::Driver(words) => write!(f, "the CUDA driver does not work: {words}"),
            Self::NoDevice(_, 0) => f.write_str("the CUDA driver finds no GPU"),
            Self::NoDevice(number, count) => {
                write!(f, "there is no GPU {number}: the CUDA driver finds {count}")
            }
            Self::Closed(name) => write!(f, "`{name}` does not allow computing (compute mode `prohibited`)"),
            Self::OldDevice(name, (major, minor)) => write!(
                f,
                "`{name}` has compute capability {major}.{minor}, {}.{} is needed",
                OLDEST.0, OLDEST.1
            ),
            Self::Library(library, None, _) => {
                let what = match library {
                    Library::Nvrtc => "compiles kernels",
                    Library::CublasLt => "multiplies matrices",
                };
                write!(f, "the library {}, which {what}, was not found", library.name())
            }
            Self::Library(library, Some(words), _) => {
                write!(f, "the library {} does not work: {words}", library.name())
            }
            Self::OldDriver(library, version, driver) => write!(
                f,
                "the driver is for CUDA {driver}, but {} {version} needs one for CUDA {}",
                library.name(),
                version.major
            ),
            Self::OldCompiler(version, name, architecture) => {
                write!(
                    f,
                    "NVRTC {version} does not support `{architecture}`, the architecture of `{name}`"
                )
            }
        }
    }
}

impl Unsupported {
    /// What can be done about it.
    #[must_use]
    pub fn way_out(&self) -> String {
        match self {
            Self::NoDriver => {
                "install NVIDIA's driver; start a container with access to the GPU (`docker run --gpus \
                 all`)"
                    .to_owned()
            }
            Self::Driver(_) => {
                "check whether `nvidia-smi` works; after an update of the driver, restart the machine"
                    .to_owned()
            }
            Self::NoDevice(..) => "check CUDA_VISIBLE_DEVICES; `nvidia-smi -L` lists all GPUs".to_owned(),
            Self::Closed(_) => "allow it with `nvidia-smi -c DEFAULT`, or select another GPU with \
                 CUDA_VISIBLE_DEVICES"
                .to_owned(),
            Self::OldDevice(..) => {
                "select a GPU of the Ampere generation (A100, RTX 30) or newer with CUDA_VISIBLE_DEVICES"
                    .to_owned()
            }
            Self::Library(library, _, cuda) => library.install(*cuda),
            Self::OldDriver(library, version, driver) => format!(
                "update the driver to one for CUDA {}; or {}",
                version.major,
                library.install(*driver)
            ),
            Self::OldCompiler(..) => {
                "install a newer NVRTC of the driver's major version, and name its folder in LD_LIBRARY_PATH"
                    .to_owned()
            }
        }
    }

    /// The error for a command that asked for the GPU.
    #[must_use]
    pub fn into_error(self) -> Error {
        Error::environment(format!("use `--device cuda`: {self}"))
            .hint(format!("{}; or use `--device cpu`", self.way_out()))
    }
}

#[cfg(test)]
#[path = "well.rs"]
mod well;

#[cfg(test)]
mod tests {
    use super::well::well;
    use super::*;

    fn version(major: u32, minor: u32) -> Version {
        Version { major, minor }
    }

    fn driver(support: &mut CudaSupport) -> &mut Installed {
        match &mut support.driver {
            Detected::There(driver) => driver,
            Detected::Absent | Detected::Broken(_) => panic!("there is one"),
        }
    }

    fn gpu(support: &mut CudaSupport) -> &mut Gpu {
        &mut driver(support).gpus.as_mut().unwrap()[0]
    }

    #[test]
    fn missing_cuda_is_explained_with_a_hint() {
        type Spoil = fn(&mut CudaSupport);
        let cases: [(&str, Spoil); 14] = [
            ("no driver", |it| *it = CudaSupport::nothing()),
            ("driver that does not answer", |it| {
                it.driver = Detected::Broken("Missing symbol cuInit".to_owned());
            }),
            ("driver that does not start", |it| {
                driver(it).gpus = Err("CUDA_ERROR_SYSTEM_DRIVER_MISMATCH".to_owned());
            }),
            ("no device", |it| driver(it).gpus = Ok(vec![])),
            ("device closed", |it| gpu(it).is_open = false),
            ("device too old", |it| {
                gpu(it).name = "Tesla T4".to_owned();
                gpu(it).capability = (7, 5);
            }),
            ("no NVRTC", |it| it.compiler = Detected::Absent),
            ("no NVRTC, driver of 12", |it| {
                driver(it).cuda = version(12, 4);
                it.compiler = Detected::Absent;
            }),
            ("no cublasLt", |it| it.products = Detected::Absent),
            ("cublasLt that does not answer", |it| {
                it.products = Detected::Broken("Missing symbol cublasLtGetProperty".to_owned());
            }),
            ("driver too old for NVRTC", |it| driver(it).cuda = version(12, 4)),
            ("driver too old for cublasLt", |it| {
                driver(it).cuda = version(12, 4);
                it.compiler = Detected::There(Compiler {
                    version: version(12, 9),
                    architectures: vec![],
                    test_compile: None,
                });
            }),
            ("NVRTC that does not compile", |it| {
                it.compiler = Detected::There(Compiler {
                    version: version(13, 0),
                    architectures: vec![],
                    test_compile: Some(Err("failed to open libnvrtc-builtins.so.13.0".to_owned())),
                });
            }),
            ("NVRTC too old for the device", |it| gpu(it).capability = (12, 1)),
        ];
        let texts = cases.map(|(what, spoil)| {
            let mut support = well();
            spoil(&mut support);
            let trouble = support.verdict().unwrap_err();
            format!("{what}\n  {trouble}\n  hint: {}", trouble.way_out())
        });
        insta::assert_snapshot!(texts.join("\n"), @r"
        no driver
          no CUDA driver (libcuda) is installed
          hint: install NVIDIA's driver; start a container with access to the GPU (`docker run --gpus all`)
        driver that does not answer
          the CUDA driver does not work: Missing symbol cuInit
          hint: check whether `nvidia-smi` works; after an update of the driver, restart the machine
        driver that does not start
          the CUDA driver does not work: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH
          hint: check whether `nvidia-smi` works; after an update of the driver, restart the machine
        no device
          the CUDA driver finds no GPU
          hint: check CUDA_VISIBLE_DEVICES; `nvidia-smi -L` lists all GPUs
        device closed
          `NVIDIA H100 80GB HBM3` does not allow computing (compute mode `prohibited`)
          hint: allow it with `nvidia-smi -c DEFAULT`, or select another GPU with CUDA_VISIBLE_DEVICES
        device too old
          `Tesla T4` has compute capability 7.5, 8.0 is needed
          hint: select a GPU of the Ampere generation (A100, RTX 30) or newer with CUDA_VISIBLE_DEVICES
        no NVRTC
          the library NVRTC, which compiles kernels, was not found
          hint: install the CUDA 13 toolkit, or `pip install nvidia-cuda-nvrtc`, and name the folder of the library in LD_LIBRARY_PATH
        no NVRTC, driver of 12
          the library NVRTC, which compiles kernels, was not found
          hint: install the CUDA 12 toolkit, or `pip install nvidia-cuda-nvrtc-cu12`, and name the folder of the library in LD_LIBRARY_PATH
        no cublasLt
          the library cublasLt, which multiplies matrices, was not found
          hint: install the CUDA 13 toolkit, or `pip install nvidia-cublas`, and name the folder of the library in LD_LIBRARY_PATH
        cublasLt that does not answer
          the library cublasLt does not work: Missing symbol cublasLtGetProperty
          hint: install the CUDA 13 toolkit, or `pip install nvidia-cublas`, and name the folder of the library in LD_LIBRARY_PATH
        driver too old for NVRTC
          the driver is for CUDA 12.4, but NVRTC 13.0 needs one for CUDA 13
          hint: update the driver to one for CUDA 13; or install the CUDA 12 toolkit, or `pip install nvidia-cuda-nvrtc-cu12`, and name the folder of the library in LD_LIBRARY_PATH
        driver too old for cublasLt
          the driver is for CUDA 12.4, but cublasLt 13.1 needs one for CUDA 13
          hint: update the driver to one for CUDA 13; or install the CUDA 12 toolkit, or `pip install nvidia-cublas-cu12`, and name the folder of the library in LD_LIBRARY_PATH
        NVRTC that does not compile
          the library NVRTC does not work: failed to open libnvrtc-builtins.so.13.0
          hint: install the CUDA 13 toolkit, or `pip install nvidia-cuda-nvrtc`, and name the folder of the library in LD_LIBRARY_PATH
        NVRTC too old for the device
          NVRTC 13.0 does not support `sm_121`, the architecture of `NVIDIA H100 80GB HBM3`
          hint: install a newer NVRTC of the driver's major version, and name its folder in LD_LIBRARY_PATH
        ");
    }

    /// Machine code of a compiler runs on drivers of its major version and of later ones.
    #[test]
    fn versions_go_together_by_their_major_numbers() {
        let usable = |of_driver, compiler, products| {
            let mut support = well();
            driver(&mut support).cuda = of_driver;
            support.compiler = Detected::There(Compiler {
                version: compiler,
                architectures: vec![90],
                test_compile: None,
            });
            support.products = Detected::There(products);
            support.verdict().is_ok()
        };
        assert!(usable(version(13, 0), version(13, 2), version(13, 1)));
        assert!(usable(version(13, 0), version(12, 9), version(12, 4)));
        assert!(usable(version(12, 2), version(12, 9), version(12, 9)));
        assert!(!usable(version(12, 9), version(13, 0), version(12, 9)));
        assert!(!usable(version(12, 9), version(12, 9), version(13, 0)));
        assert!(version(12, 9) < version(13, 0));
    }

    #[test]
    fn first_device_is_used_though_another_process_holds_it() {
        let mut support = well();
        assert_eq!(support.verdict().unwrap().number, 0);
        gpu(&mut support).holder = Some(GpuHolder {
            pid: 7,
            command: "mdlm bench".to_owned(),
        });
        let used = support.verdict().unwrap();
        assert_eq!(
            used.holder.as_ref().unwrap().to_string(),
            "process 7 (mdlm bench)"
        );
        assert_eq!(
            support.described(),
            "NVIDIA H100 80GB HBM3, driver 580.65.06 (CUDA 13.0), NVRTC 13.0, cublasLt 13.1"
        );
    }

    #[test]
    fn architectures_have_the_names_of_the_compiler() {
        let of = |capability| {
            let mut support = well();
            gpu(&mut support).capability = capability;
            support.gpus()[0].architecture()
        };
        assert_eq!(of((8, 0)), "sm_80");
        assert_eq!(of((9, 0)), "sm_90a");
        assert_eq!(of((10, 0)), "sm_100");
        assert_eq!(of((12, 0)), "sm_120");
    }

    #[test]
    fn requested_gpu_that_is_unusable_is_an_environment_error() {
        let error = Unsupported::NoDriver.into_error();
        assert_eq!(error.kind().exit_code(), 3);
        assert!(error.hint_text().unwrap().ends_with("or use `--device cpu`"));
    }
}
