//! The machine's GPUs: what is found of them, and what the devices that compute on them are handed.

use std::sync::OnceLock;

use super::environment::is_set;
use super::gpu_lock;
use super::kernel_files::{KernelFiles, kernel_folder};
use crate::kernels::cuda::probe;
use crate::kernels::cuda::support::{CudaSupport, Detected, Installed};
use crate::kernels::cuda::surroundings::{CAREFUL, CodeCache, NCCL, PLAIN, Surroundings, hand_in};
use crate::model::Device;

/// What was found, asked once per process: starting the driver takes tenths of a second. Devices that are opened from now on
/// keep their kernels on disk and follow the variables of the environment.
#[must_use]
pub fn support() -> &'static CudaSupport {
    static SUPPORT: OnceLock<CudaSupport> = OnceLock::new();
    SUPPORT.get_or_init(|| {
        prepare();
        released_by(probe::support().clone())
    })
}

/// What is found now, with what changes from moment to moment (free memory, the process that computes), and whether kernels
/// compile.
#[must_use]
pub fn thorough_support() -> CudaSupport {
    prepare();
    let mut support = released_by(probe::thorough());
    if let Detected::There(Installed { gpus: Ok(gpus), .. }) = &mut support.driver {
        for gpu in gpus {
            gpu.holder = gpu.uuid.as_deref().and_then(gpu_lock::holder);
        }
    }
    support
}

/// Whether products are to have no epilogues.
fn is_plain() -> bool {
    is_set(PLAIN)
}

/// What an artifact's provenance says of a device: `cpu`, or a GPU with the versions of what it was driven by.
#[must_use]
pub fn described(device: Device) -> String {
    match device {
        Device::Cpu => "cpu".to_owned(),
        Device::Cuda => {
            let plain = if is_plain() {
                ", products without epilogues"
            } else {
                ""
            };
            format!("cuda: {}{plain}", support().described())
        }
        #[cfg(feature = "dfdx-cuda")]
        Device::DfdxCuda => format!("dfdx-cuda: {}", support().described()),
    }
}

fn prepare() {
    hand_in(|| Surroundings {
        is_careful: is_set(CAREFUL),
        is_plain: is_plain(),
        nccl: std::env::var(NCCL).ok().filter(|file| !file.is_empty()),
        code: kernel_folder().map(|folder| Box::new(KernelFiles(folder)) as Box<dyn CodeCache>),
    });
}

/// The same with the release of the driver, which the system reports.
fn released_by(mut support: CudaSupport) -> CudaSupport {
    if let Detected::There(driver) = &mut support.driver {
        driver.release = release();
    }
    support
}

/// The number of the driver's release, from its kernel module: `NVRM version: NVIDIA UNIX x86_64 Kernel Module
/// 580.65.06 …`.
fn release() -> Option<String> {
    let text = std::fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    released(&text)
}

fn released(text: &str) -> Option<String> {
    let is_release = |word: &&str| {
        word.contains('.')
            && word
                .chars()
                .all(|letter| letter.is_ascii_digit() || letter == '.')
    };
    let line = text.lines().find(|line| line.starts_with("NVRM version"))?;
    line.split_whitespace().find(is_release).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn driver_release_is_read_from_the_kernel_module() {
        let old = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\nGCC version:\n";
        let open = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n";
        assert_eq!(released(old).as_deref(), Some("535.104.05"));
        assert_eq!(released(open).as_deref(), Some("580.65.06"));
        assert_eq!(released("something else"), None);
    }

    #[test]
    fn cpu_is_described_by_its_name() {
        assert_eq!(described(Device::Cpu), "cpu");
    }
}
