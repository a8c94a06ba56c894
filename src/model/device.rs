//! Where networks compute: the requested device and the available ones.
//!
//! Looking for a GPU takes tenths of a second where there is a driver, and nothing is asked of it where nothing is computed:
//! a [`DeviceRequest`] is resolved when the first network is about to be made, and once in a process.

use super::self_test as gpu_test;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::kernels::cuda::gpu_lock::{self, GpuLock};
use crate::kernels::cuda::support::{GpuHolder, Unsupported};
use crate::kernels::cuda::{device, probe};

/// Where a network computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The fused operations on the CPU.
    #[default]
    Cpu,
    /// Kernels of our own on a GPU: number 0 of those that CUDA_VISIBLE_DEVICES shows.
    Cuda,
    /// dfdx's own CUDA device.
    #[cfg(feature = "dfdx-cuda")]
    DfdxCuda,
}

/// Where a network is to compute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceRequest {
    /// On the GPU if there is one that can be used, else on the CPU.
    #[default]
    Auto,
    /// There and nowhere else.
    On(Device),
}

impl DeviceRequest {
    /// Checks that the requested device can be used. `Auto` accepts any machine and checks nothing.
    ///
    /// # Errors
    /// The GPU cannot be used: the reason, with a hint.
    pub fn check(self) -> Result<()> {
        match self {
            Self::On(Device::Cuda) => probe::support()
                .verdict()
                .map(drop)
                .map_err(Unsupported::into_error),
            Self::Auto | Self::On(_) => Ok(()),
        }
    }

    /// The device, and an event about it: which GPU it is, or why no GPU is used although there is a driver.
    ///
    /// # Errors
    /// The errors of [`DeviceRequest::check`].
    pub fn resolve(self) -> Result<(Device, Option<Event>)> {
        self.check()?;
        match self {
            Self::On(Device::Cuda) | Self::Auto => {
                Ok(automatic(probe::support().verdict().map(|gpu| &*gpu.name)))
            }
            Self::On(device) => Ok((device, None)),
        }
    }

    /// The resolved device once it has been seen to compute rightly, which takes the GPU lock: `auto`
    /// skips a GPU that does not and logs why.
    ///
    /// # Errors
    /// The GPU that is asked for fails, or computes something else than the CPU.
    pub fn trusted(self, resolved: Device) -> Result<(Device, Option<Event>)> {
        if resolved != Device::Cuda {
            return Ok((resolved, None));
        }
        match (self, gpu_test::pass()) {
            (_, Ok(())) => Ok((resolved, None)),
            (Self::On(_), Err(error)) => Err(error),
            (Self::Auto, Err(error)) => {
                let text = format!("computes on the CPU: failed to {error}");
                Ok((Device::Cpu, Some(Event::Warning(text))))
            }
        }
    }
}

/// The choice of `auto`, given what was found.
fn automatic(found: Result<&str, Unsupported>) -> (Device, Option<Event>) {
    match found {
        Ok(name) => (Device::Cuda, Some(Event::Note(format!("computes on {name}")))),
        // Without a driver the CPU is what a user expects.
        Err(Unsupported::NoDriver) => (Device::Cpu, None),
        // All were hidden, most likely by intention.
        Err(trouble @ Unsupported::NoDevice(..)) => (
            Device::Cpu,
            Some(Event::Note(format!("computes on the CPU: {trouble}"))),
        ),
        Err(trouble) => {
            let text = format!("computes on the CPU: {trouble}; `mdlm doctor` shows details");
            (Device::Cpu, Some(Event::Warning(text)))
        }
    }
}

/// The result of the self-test of a GPU.
#[derive(Debug)]
pub enum SelfTest {
    /// Its results are the CPU's.
    Passed,
    /// They are not, or it fails.
    Failed(Error),
    /// It was not tried: another process computes there.
    Busy,
}

/// Tries the GPU, unless it has passed before or another process computes there. There must be one that can be used.
#[must_use]
pub fn self_test() -> SelfTest {
    if gpu_test::has_passed() {
        return SelfTest::Passed;
    }
    let Ok(_lock) = Device::Cuda.lock(&mut |why| Err(Error::environment(why))) else {
        return SelfTest::Busy;
    };
    gpu_test::pass().map_or_else(SelfTest::Failed, |()| SelfTest::Passed)
}

impl Device {
    /// Whether it is a GPU.
    #[must_use]
    pub fn is_gpu(self) -> bool {
        self != Self::Cpu
    }

    /// What an artifact's provenance says of it: `cpu`, or a GPU with the versions of what it was driven by.
    #[must_use]
    pub fn described(self) -> String {
        match self {
            Self::Cpu => "cpu".to_owned(),
            Self::Cuda => {
                let plain = if device::is_plain() {
                    ", products without epilogues"
                } else {
                    ""
                };
                format!("cuda: {}{plain}", probe::support().described())
            }
            #[cfg(feature = "dfdx-cuda")]
            Self::DfdxCuda => format!("dfdx-cuda: {}", probe::support().described()),
        }
    }

    /// Waits until no other process computes there; no other one does until the returned lock is dropped. `waiting` is
    /// called repeatedly meanwhile, with the reason; an error of `waiting` ends the waiting.
    ///
    /// # Errors
    /// The errors of `waiting`.
    pub fn lock(self, waiting: &mut dyn FnMut(&str) -> Result<()>) -> Result<Option<GpuLock>> {
        let all = if self == Self::Cuda {
            probe::support().gpus()
        } else {
            &[]
        };
        let Some((gpu, uuid)) = all.first().and_then(|gpu| Some((gpu, gpu.uuid.as_deref()?))) else {
            return Ok(None);
        };
        gpu_lock::take(uuid, &mut |holder| waiting(&awaited(gpu.number, holder))).map(Some)
    }
}

fn awaited(gpu: usize, holder: Option<&GpuHolder>) -> String {
    let by = holder.map_or_else(|| "another process".to_owned(), ToString::to_string);
    format!("waiting for GPU {gpu}, used by {by}; MDLM_GPU_SHARED=1 does not wait")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_uses_a_working_gpu_or_says_why_not() {
        let of = |found| {
            let (device, event) = automatic(found);
            let event = match event {
                None => "nothing".to_owned(),
                Some(Event::Note(text)) => format!("note: {text}"),
                Some(Event::Warning(text)) => format!("warning: {text}"),
                Some(other) => panic!("{other:?}"),
            };
            (device, event)
        };
        assert_eq!(
            of(Err(Unsupported::NoDriver)),
            (Device::Cpu, "nothing".to_owned())
        );
        assert_eq!(
            of(Err(Unsupported::NoDevice(0, 0))),
            (
                Device::Cpu,
                "note: computes on the CPU: the CUDA driver finds no GPU".to_owned()
            )
        );
        assert_eq!(
            of(Err(Unsupported::OldDevice("Tesla T4".to_owned(), (7, 5)))),
            (
                Device::Cpu,
                "warning: computes on the CPU: `Tesla T4` has compute capability 7.5, 8.0 is needed; `mdlm doctor` \
                 shows details"
                    .to_owned()
            )
        );
        assert_eq!(
            of(Ok("NVIDIA H100")),
            (Device::Cuda, "note: computes on NVIDIA H100".to_owned())
        );
    }

    #[test]
    fn cpu_is_always_available_and_needs_no_lock() {
        let cpu = DeviceRequest::On(Device::Cpu).resolve().unwrap();
        assert!(matches!(cpu, (Device::Cpu, None)));
        assert!(Device::Cpu.lock(&mut |_| panic!("waits")).unwrap().is_none());
        assert_eq!(Device::Cpu.described(), "cpu");
        let holder = GpuHolder {
            pid: 7,
            command: "mdlm run a.json".to_owned(),
        };
        assert_eq!(
            awaited(0, Some(&holder)),
            "waiting for GPU 0, used by process 7 (mdlm run a.json); MDLM_GPU_SHARED=1 does not wait"
        );
    }
}
