//! `mdlm doctor`: what this machine offers, and what mdlm does with it.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cli::args::compute::DeviceChoice;
use crate::cli::args::environment;
use crate::cli::render::style;
use crate::cli::render::table::paragraph;
use crate::cli::render::terminal::Terminal;
use crate::cli::render::words::shown;
use mdlm::error::{Error, Result};
#[cfg(unix)]
use mdlm::kernels::cuda::nccl;
#[cfg(test)]
use mdlm::kernels::cuda::support::{Compiler, Installed};
use mdlm::kernels::cuda::support::{CudaSupport, Detected, Gpu, GpuHolder, Unsupported, Version};
#[cfg(unix)]
use mdlm::kernels::cuda::surroundings::NCCL;
use mdlm::kernels::simd;
use mdlm::model::Device;
use mdlm::numbers::{bytes, count};
use mdlm::plural::{self, counted};
use mdlm::ranks::launcher::Launched;
#[cfg(unix)]
use mdlm::ranks::mpi;
use mdlm::stages::memory;
use mdlm::store::locking::System;
use mdlm::store::{Machine, Store};
use mdlm::system::{self, DeviceRequest, SelfTest, self_test};

/// What `mdlm doctor --help` says first.
pub const LONG_ABOUT: &str = "\
    Show what this machine offers, and what mdlm does with it.\n\n\
    Lists the processor, the memory and the store's file system; for CUDA the driver, the GPUs and the libraries that are \
    loaded at run time, and whether their versions fit; and whether `--device auto` uses the GPU, why, and what to install \
    if it does not. It compiles a kernel as a check. A GPU that is idle and was not tested before runs a self-test: the \
    smallest network must give the results that it gives on the CPU.";

/// Arguments of `mdlm doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
        mdlm doctor\n  \
        mdlm doctor --device cuda")]
pub struct Args {
    /// End with exit code 3 if that device cannot be used: cuda
    #[arg(long, value_name = "DEVICE", hide_possible_values = true)]
    pub device: Option<DeviceChoice>,
    /// Folder of results, instead of `.mdlm` of this folder
    ///
    /// Environment variable: MDLM_STORE.
    #[arg(long, value_name = "DIR")]
    pub store: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What was found.
#[derive(Serialize)]
struct DoctorReport {
    version: &'static str,
    revision: Option<&'static str>,
    system: String,
    processor: Option<String>,
    /// That this process may use.
    processors: usize,
    /// What loops are compiled for.
    vectors: &'static str,
    /// Whether `bf16` has instructions of its own on the CPU.
    has_bf16: bool,
    memory_bytes: Option<u64>,
    available_bytes: Option<u64>,
    store: StoreReport,
    driver: CudaComponent,
    gpus: Vec<GpuReport>,
    nvrtc: CudaComponent,
    cublaslt: CudaComponent,
    kernels: Option<Kernels>,
    /// The library through which `--ranks` talks.
    mpi: MpiReport,
    /// The library through which the GPUs of ranks talk.
    nccl: NcclReport,
    /// Of a GPU that can be used: whether it computes what the CPU does.
    self_test: Option<SelfTestReport>,
    /// What the environment asks for where the command line does not.
    stated_device: Option<String>,
    verdict: AutoDevice,
}

#[derive(Serialize)]
struct StoreReport {
    path: String,
    exists: bool,
    /// Why it cannot be used; nothing where it can, or is not there yet.
    fault: Option<String>,
}

/// The MPI library, and who has started this process.
#[derive(Default, Serialize)]
struct MpiReport {
    /// The library's own words, and its file.
    library: Option<String>,
    /// Why none can be used.
    fault: Option<String>,
    /// The launcher that has started this process as one of several.
    launcher: Option<String>,
}

/// NCCL.
#[derive(Default, Serialize)]
struct NcclReport {
    /// Its version, and its file.
    library: Option<String>,
    /// Why the stated one cannot be used.
    fault: Option<String>,
}

/// A part of CUDA.
#[derive(Default, Serialize)]
struct CudaComponent {
    found: bool,
    version: Option<String>,
    /// Of the driver its own number.
    #[serde(skip_serializing_if = "Option::is_none")]
    release: Option<String>,
    /// Whether the driver is new enough for it, where both are there.
    #[serde(skip_serializing_if = "Option::is_none")]
    fits_driver: Option<bool>,
    /// What NVRTC compiles for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    architectures: Vec<String>,
    /// What a kernel was compiled for to see that it works.
    #[serde(skip_serializing_if = "Option::is_none")]
    tried_for: Option<String>,
    /// Why it does not work.
    fault: Option<String>,
}

#[derive(Serialize)]
struct GpuReport {
    number: usize,
    name: String,
    uuid: Option<String>,
    compute_capability: String,
    architecture: String,
    multiprocessors: u32,
    memory_bytes: u64,
    free_bytes: Option<u64>,
    is_open: bool,
    used_by: Option<GpuHolder>,
}

/// The folder of compiled kernels.
#[derive(Serialize)]
struct Kernels {
    path: String,
    files: u64,
    bytes: u64,
}

/// Whether a GPU computes what the CPU computes.
#[derive(Serialize)]
struct SelfTestReport {
    outcome: SelfTestOutcome,
    fault: Option<String>,
    #[serde(skip)]
    way_out: Option<String>,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum SelfTestOutcome {
    Passed,
    Failed,
    /// Another process uses the GPU.
    NotTried,
}

/// What `--device auto` does.
#[derive(Serialize)]
struct AutoDevice {
    device: &'static str,
    because: String,
    way_out: Option<String>,
}

/// Examines the machine.
///
/// # Errors
/// The GPU was asked for and cannot be used; standard output cannot be written.
pub fn run(args: &Args, terminal: &Terminal) -> Result<u8> {
    let support = system::thorough_support();
    let store = environment::store(args.store.as_ref())?.unwrap_or_else(environment::store_here);
    let result = support.verdict().is_ok().then(self_test);
    let report = report(&support, result.as_ref(), &Store::at(store));
    if args.json {
        terminal.output_json(&report)?;
    } else {
        terminal.output(&text(&report, terminal))?;
    }
    let asked = match args.device {
        Some(device) => DeviceChoice::or_stated(Some(device))?,
        None => DeviceRequest::Auto,
    };
    match (asked, support.verdict(), result) {
        (DeviceRequest::On(Device::Cuda), Err(trouble), _) => Err(trouble.into_error()),
        (DeviceRequest::On(Device::Cuda), Ok(_), Some(SelfTest::Failed(error))) => Err(error),
        _ => Ok(0),
    }
}

fn report(support: &CudaSupport, result: Option<&SelfTest>, store: &Store) -> DoctorReport {
    let self_test = result.map(of_self_test);
    let machine = Machine::this();
    DoctorReport {
        version: env!("CARGO_PKG_VERSION"),
        revision: option_env!("MDLM_GIT_REVISION"),
        system: machine.system,
        processor: machine.processor,
        processors: machine.processors,
        vectors: simd::level(),
        has_bf16: simd::has_bf16(),
        memory_bytes: memory::installed(),
        available_bytes: memory::available(),
        store: of_store(store),
        driver: of_driver(support),
        gpus: support.gpus().iter().map(of_gpu).collect(),
        nvrtc: of_compiler(support),
        cublaslt: of_library(support, &support.products, |version| *version),
        kernels: system::kernel_folder().map(|folder| of_kernels(&folder)),
        mpi: of_mpi(),
        nccl: of_nccl(),
        verdict: verdict(support, self_test.as_ref()),
        self_test,
        stated_device: environment::variable("MDLM_DEVICE"),
    }
}

fn of_self_test(result: &SelfTest) -> SelfTestReport {
    let error = match result {
        SelfTest::Failed(error) => Some(error),
        SelfTest::Passed | SelfTest::Busy => None,
    };
    SelfTestReport {
        outcome: match result {
            SelfTest::Passed => SelfTestOutcome::Passed,
            SelfTest::Failed(_) => SelfTestOutcome::Failed,
            SelfTest::Busy => SelfTestOutcome::NotTried,
        },
        fault: error.map(ToString::to_string),
        way_out: error.and_then(Error::hint_text).map(str::to_owned),
    }
}

fn of_store(store: &Store) -> StoreReport {
    let exists = store.root().is_dir();
    // A store that does not exist is not created: the first run does that.
    let checked = if exists {
        store.check_locks_with(&System::this())
    } else {
        Ok(())
    };
    StoreReport {
        path: shown(store.root()),
        exists,
        fault: checked.err().map(|error| error.to_string()),
    }
}

fn of_mpi() -> MpiReport {
    let launched = Launched::from_environment(&environment::variable);
    let launcher = match &launched {
        Ok(Some(Launched { rank, launcher, .. })) => {
            Some(format!("{launcher}: process {} of {}", rank.rank, rank.world))
        }
        Ok(None) => None,
        Err(error) => Some(error.to_string()),
    };
    let family = launched.ok().flatten().and_then(|launched| launched.family);
    #[cfg(unix)]
    let found = mpi::find(family).map(|found| found.described());
    #[cfg(not(unix))]
    let found: Result<String> = Err(Error::environment("MPI needs a Unix system"));
    MpiReport {
        launcher,
        fault: found.as_ref().err().map(ToString::to_string),
        library: found.ok(),
    }
}

fn of_nccl() -> NcclReport {
    #[cfg(unix)]
    let found = nccl::find(environment::variable(NCCL).as_deref());
    #[cfg(unix)]
    let found = found.map(|found| found.map(|library| library.described()));
    #[cfg(not(unix))]
    let found: Result<Option<String>> = Ok(None);
    NcclReport {
        fault: found.as_ref().err().map(ToString::to_string),
        library: found.ok().flatten(),
    }
}

fn of_driver(support: &CudaSupport) -> CudaComponent {
    match &support.driver {
        Detected::Absent => CudaComponent::default(),
        Detected::Broken(words) => CudaComponent {
            found: true,
            fault: Some(words.clone()),
            ..CudaComponent::default()
        },
        Detected::There(driver) => CudaComponent {
            found: true,
            version: Some(driver.cuda.to_string()),
            release: driver.release.clone(),
            fault: driver.gpus.as_ref().err().cloned(),
            ..CudaComponent::default()
        },
    }
}

fn of_library<T>(
    support: &CudaSupport,
    library: &Detected<T>,
    version: impl Fn(&T) -> Version,
) -> CudaComponent {
    match library {
        Detected::Absent => CudaComponent::default(),
        Detected::Broken(words) => CudaComponent {
            found: true,
            fault: Some(words.clone()),
            ..CudaComponent::default()
        },
        Detected::There(library) => CudaComponent {
            found: true,
            version: Some(version(library).to_string()),
            fits_driver: support.driver.there().map(|driver| driver.runs(version(library))),
            ..CudaComponent::default()
        },
    }
}

fn of_compiler(support: &CudaSupport) -> CudaComponent {
    let part = of_library(support, &support.compiler, |compiler| compiler.version);
    let Some(compiler) = support.compiler.there() else {
        return part;
    };
    let names = compiler.architectures.iter().map(|number| format!("sm_{number}"));
    CudaComponent {
        architectures: names.collect(),
        tried_for: compiler
            .test_compile
            .as_ref()
            .map(|_| compiler.tried_for(support.gpus().first())),
        fault: compiler
            .test_compile
            .as_ref()
            .and_then(|compiled| compiled.as_ref().err().cloned()),
        ..part
    }
}

fn of_gpu(gpu: &Gpu) -> GpuReport {
    let (major, minor) = gpu.capability;
    GpuReport {
        number: gpu.number,
        name: gpu.name.clone(),
        uuid: gpu.uuid.clone(),
        compute_capability: format!("{major}.{minor}"),
        architecture: gpu.architecture(),
        multiprocessors: gpu.multiprocessors,
        memory_bytes: gpu.memory,
        free_bytes: gpu.free,
        is_open: gpu.is_open,
        used_by: gpu.holder.clone(),
    }
}

fn of_kernels(folder: &Path) -> Kernels {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let lengths: Vec<u64> = entries
        .filter_map(|entry| entry.metadata().ok())
        .filter(std::fs::Metadata::is_file)
        .map(|file| file.len())
        .collect();
    Kernels {
        path: shown(folder),
        files: lengths.len() as u64,
        bytes: lengths.iter().sum(),
    }
}

/// What `--device auto` does, why, and what would make it take the GPU.
fn verdict(support: &CudaSupport, self_test: Option<&SelfTestReport>) -> AutoDevice {
    let failed = self_test.and_then(|test| Some((test.fault.as_ref()?, test.way_out.clone())));
    match (support.verdict(), failed) {
        (Ok(_), Some((fault, way_out))) => AutoDevice {
            device: "cpu",
            because: format!("failed to {fault}"),
            way_out,
        },
        (Ok(gpu), None) => {
            let user = gpu.holder.as_ref().map_or_else(String::new, |holder| {
                format!("; {holder} uses it now: a run waits for it, unless MDLM_GPU_SHARED=1 is set")
            });
            AutoDevice {
                device: "cuda",
                because: format!(
                    "`{}` is present, and the versions of driver, NVRTC and cublasLt fit each other{user}",
                    gpu.name
                ),
                way_out: None,
            }
        }
        (Err(trouble), _) => AutoDevice {
            device: "cpu",
            because: trouble.to_string(),
            way_out: Some(Unsupported::way_out(&trouble)),
        },
    }
}

fn text(report: &DoctorReport, terminal: &Terminal) -> String {
    let rows: Vec<Vec<String>> = machine_rows(report)
        .into_iter()
        .chain(cuda_rows(report))
        .map(|(name, value)| vec![name, value])
        .collect();
    let mut text = terminal.table(&rows, |_, column| match column {
        0 => style::STRONG,
        _ => style::PLAIN,
    });
    let AutoDevice {
        device,
        because,
        way_out,
    } = &report.verdict;
    let device = if *device == "cpu" { "CPU" } else { "GPU" };
    text.push('\n');
    let mut say = |line: &str| {
        text.push_str(&paragraph(line));
        text.push('\n');
    };
    say(&format!("`--device auto` takes the {device}: {because}"));
    if let Some(way_out) = way_out {
        say(&format!("to use a GPU: {way_out}"));
    }
    if let Some(stated) = &report.stated_device {
        say(&format!(
            "MDLM_DEVICE asks for `{stated}` where `--device` is not given"
        ));
    }
    text
}

fn machine_rows(report: &DoctorReport) -> Vec<(String, String)> {
    let row = |name: &str, value: String| (name.to_owned(), value);
    let revision = report
        .revision
        .map_or_else(String::new, |revision| format!(" ({revision})"));
    let processor = report
        .processor
        .as_ref()
        .map_or_else(String::new, |name| format!("{name}, "));
    let processors = report.processors;
    let bf16 = if report.has_bf16 {
        "with AVX512-BF16, bf16 is faster than f32"
    } else {
        "without AVX512-BF16, bf16 is slower than f32"
    };
    let mut rows = vec![
        row("mdlm", format!("{}{revision}", report.version)),
        row("system", report.system.clone()),
        row(
            "processor",
            format!("{processor}{}", counted(processors, "processor")),
        ),
        row(
            "threads",
            format!("{processors}, unless `--threads` says otherwise"),
        ),
        row("vectors", format!("{}; {bf16}", report.vectors)),
    ];
    if let Some(memory) = report.memory_bytes {
        let available = report.available_bytes.map_or_else(String::new, |available| {
            format!(", {} of it available", bytes(available))
        });
        rows.push(row("memory", format!("{}{available}", bytes(memory))));
    }
    let store = &report.store;
    let state = match (&store.fault, store.exists) {
        (Some(fault), _) => format!("cannot be used: {fault}"),
        (None, true) => "its file system keeps locks".to_owned(),
        (None, false) => "not there yet".to_owned(),
    };
    rows.push(row("store", format!("{}: {state}", store.path)));
    let launcher =
        (report.mpi.launcher.as_ref()).map_or_else(String::new, |launcher| format!("; {launcher}"));
    let library = report.mpi.library.as_deref().unwrap_or("not found");
    rows.push(row("MPI", format!("{library}{launcher}")));
    let nccl = (report.nccl.library.as_ref()).or(report.nccl.fault.as_ref());
    rows.push(row("NCCL", nccl.map_or("not found", |words| words).to_owned()));
    rows
}

fn cuda_rows(report: &DoctorReport) -> Vec<(String, String)> {
    let row = |name: &str, value: String| (name.to_owned(), value);
    let driver = &report.driver;
    let version = driver
        .version
        .as_ref()
        .map_or_else(String::new, |version| format!("for CUDA up to {version}"));
    let text = match (driver.found, &driver.fault) {
        (false, _) => "not found (libcuda)".to_owned(),
        (true, Some(fault)) => format!("{version} does not work: {fault}").trim().to_owned(),
        (true, None) => match &driver.release {
            Some(release) => format!("{release}, {version}"),
            None => version,
        },
    };
    let mut rows = vec![row("driver", text)];
    if driver.version.is_some() && driver.fault.is_none() && report.gpus.is_empty() {
        rows.push(row("GPU", "the driver finds none".to_owned()));
    }
    for gpu in &report.gpus {
        let free = gpu
            .free_bytes
            .map_or_else(String::new, |free| format!("{} free of ", bytes(free)));
        let used = match (&gpu.used_by, gpu.is_open) {
            (_, false) => "; computing not allowed".to_owned(),
            (Some(holder), true) => format!("; used by {holder}"),
            (None, true) => String::new(),
        };
        let GpuReport {
            number,
            name,
            compute_capability,
            architecture,
            multiprocessors,
            memory_bytes,
            ..
        } = gpu;
        rows.push(row(
            &format!("GPU {number}"),
            format!(
                "{name}: compute capability {compute_capability} ({architecture}), {multiprocessors} multiprocessors, \
                 {free}{}{used}",
                bytes(*memory_bytes)
            ),
        ));
    }
    let architectures = match report.nvrtc.architectures.as_slice() {
        [] => String::new(),
        names => format!("; compiles for {}", names.join(" ")),
    };
    let tried = match (&report.nvrtc.tried_for, &report.nvrtc.fault) {
        (Some(architecture), None) => format!("; tested for {architecture}"),
        _ => String::new(),
    };
    rows.push(row(
        "NVRTC",
        library(&report.nvrtc, &format!("{architectures}{tried}")),
    ));
    rows.push(row("cublasLt", library(&report.cublaslt, "")));
    rows.extend(report.kernels.as_ref().map(|kernels| {
        let files = match kernels.files {
            0 => "none compiled yet".to_owned(),
            files => format!(
                "{} {}, {}",
                count(files),
                plural::of(files, "file"),
                bytes(kernels.bytes)
            ),
        };
        row("kernels", format!("{}: {files}", kernels.path))
    }));
    rows.extend(report.self_test.as_ref().map(|test| {
        let text = match test.outcome {
            SelfTestOutcome::Passed => "same results as the CPU, in f32 and in bf16",
            SelfTestOutcome::Failed => "failed",
            SelfTestOutcome::NotTried => "not run while another process uses the GPU",
        };
        row("self-test", text.to_owned())
    }));
    rows
}

/// A library, and whether it goes with the driver.
fn library(part: &CudaComponent, more: &str) -> String {
    let version = part.version.clone().unwrap_or_default();
    if let Some(fault) = &part.fault {
        return format!("{version} does not work: {fault}").trim().to_owned();
    }
    match part.fits_driver {
        _ if !part.found => "not found".to_owned(),
        Some(false) => format!("{version}: too new for the driver{more}"),
        Some(true) => format!("{version}, fits the driver{more}"),
        None => format!("{version}{more}"),
    }
}

#[cfg(test)]
#[path = "../../kernels/cuda/well.rs"]
mod well;

#[cfg(test)]
mod tests {
    use super::well::well;
    use super::*;

    fn described(support: &CudaSupport) -> String {
        described_of(support, &SelfTest::Passed)
    }

    fn described_of(support: &CudaSupport, result: &SelfTest) -> String {
        let result = support.verdict().is_ok().then_some(result);
        let report = DoctorReport {
            version: "1.2.3",
            revision: Some("0123abc"),
            system: "linux x86_64".to_owned(),
            processor: Some("Some Processor".to_owned()),
            processors: 16,
            vectors: "AVX-512",
            has_bf16: true,
            memory_bytes: Some(128 << 30),
            available_bytes: Some(100 << 30),
            store: StoreReport {
                path: ".mdlm".to_owned(),
                exists: true,
                fault: None,
            },
            mpi: MpiReport {
                library: Some("Open MPI 4.1.4 (libmpi.so.40)".to_owned()),
                ..MpiReport::default()
            },
            nccl: NcclReport {
                library: Some("NCCL 2.27.3 (libnccl.so.2)".to_owned()),
                fault: None,
            },
            kernels: Some(Kernels {
                path: "/home/me/.cache/mdlm/kernels".to_owned(),
                files: 12,
                bytes: 3_400_000,
            }),
            stated_device: None,
            ..report(support, result, &Store::at("/nowhere"))
        };
        let text = text(&report, &Terminal::new(false, clap::ColorChoice::Never));
        assert!(
            text.lines()
                .all(|line| line.chars().count() <= crate::cli::render::table::WIDTH),
            "{text}"
        );
        text
    }

    #[test]
    fn doctor_of_a_machine_with_a_working_gpu() {
        let mut support = well();
        if let Detected::There(driver) = &mut support.driver
            && let Ok([gpu]) = driver.gpus.as_deref_mut()
        {
            gpu.holder = Some(GpuHolder {
                pid: 7,
                command: "mdlm run pipelines/lm1b.json".to_owned(),
            });
        }
        insta::assert_snapshot!(described(&support), @r"
        mdlm       1.2.3 (0123abc)
        system     linux x86_64
        processor  Some Processor, 16 processors
        threads    16, unless `--threads` says otherwise
        vectors    AVX-512; with AVX512-BF16, bf16 is faster than f32
        memory     137 GB, 107 GB of it available
        store      .mdlm: its file system keeps locks
        MPI        Open MPI 4.1.4 (libmpi.so.40)
        NCCL       NCCL 2.27.3 (libnccl.so.2)
        driver     580.65.06, for CUDA up to 13.0
        GPU 0      NVIDIA H100 80GB HBM3: compute capability 9.0 (sm_90a), 132
                   multiprocessors, 84.0 GB free of 85.0 GB; used by process 7 (mdlm run
                   pipelines/lm1b.json)
        NVRTC      13.0, fits the driver; compiles for sm_75 sm_80 sm_86 sm_89 sm_90
                   sm_100 sm_120; tested for sm_90a
        cublasLt   13.1, fits the driver
        kernels    /home/me/.cache/mdlm/kernels: 12 files, 3.40 MB
        self-test  same results as the CPU, in f32 and in bf16

        `--device auto` takes the GPU: `NVIDIA H100 80GB HBM3` is present, and the
        versions of driver, NVRTC and cublasLt fit each other; process 7 (mdlm run
        pipelines/lm1b.json) uses it now: a run waits for it, unless MDLM_GPU_SHARED=1
        is set
        ");
    }

    /// A GPU that was not tested, or that failed.
    #[test]
    fn doctor_of_a_gpu_that_has_not_passed_the_self_test() {
        let last = |result: SelfTest| {
            let text = described_of(&well(), &result);
            text.lines().skip(16).collect::<Vec<_>>().join("\n")
        };
        insta::assert_snapshot!(last(SelfTest::Busy), @r"
        self-test  not run while another process uses the GPU

        `--device auto` takes the GPU: `NVIDIA H100 80GB HBM3` is present, and the
        versions of driver, NVRTC and cublasLt fit each other
        ");
        let error =
            Error::environment("pass the GPU self-test: its gradient differs").hint("another driver may do");
        insta::assert_snapshot!(last(SelfTest::Failed(error)), @r"
        self-test  failed

        `--device auto` takes the CPU: failed to pass the GPU self-test: its gradient
        differs
        to use a GPU: another driver may do
        ");
    }

    #[test]
    fn doctor_of_a_driver_that_is_too_old() {
        let mut support = well();
        if let Detected::There(driver) = &mut support.driver {
            driver.cuda = Version { major: 12, minor: 4 };
        }
        support.products = Detected::Absent;
        let cuda = described(&support).lines().skip(9).collect::<Vec<_>>().join("\n");
        insta::assert_snapshot!(cuda, @r"
        driver     580.65.06, for CUDA up to 12.4
        GPU 0      NVIDIA H100 80GB HBM3: compute capability 9.0 (sm_90a), 132
                   multiprocessors, 84.0 GB free of 85.0 GB
        NVRTC      13.0: too new for the driver; compiles for sm_75 sm_80 sm_86 sm_89
                   sm_90 sm_100 sm_120; tested for sm_90a
        cublasLt   not found
        kernels    /home/me/.cache/mdlm/kernels: 12 files, 3.40 MB

        `--device auto` takes the CPU: the library cublasLt, which multiplies matrices,
        was not found
        to use a GPU: install the CUDA 12 toolkit, or `pip install nvidia-cublas-cu12`,
        and name the folder of the library in LD_LIBRARY_PATH
        ");
    }

    #[test]
    fn doctor_of_a_machine_without_cuda() {
        let cuda = described(&CudaSupport::nothing())
            .lines()
            .skip(9)
            .collect::<Vec<_>>()
            .join("\n");
        insta::assert_snapshot!(cuda, @r"
        driver     not found (libcuda)
        NVRTC      not found
        cublasLt   not found
        kernels    /home/me/.cache/mdlm/kernels: 12 files, 3.40 MB

        `--device auto` takes the CPU: no CUDA driver (libcuda) is installed
        to use a GPU: install NVIDIA's driver; start a container with access to the GPU
        (`docker run --gpus all`)
        ");
    }
}
