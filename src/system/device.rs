//! The device on which a command computes: the requested one and the available ones.
//!
//! Looking for a GPU takes tenths of a second where there is a driver, and nothing is asked of it where nothing is computed:
//! a [`DeviceRequest`] is resolved when the first network is about to be made, and once in a process.

use super::gpus::support;
use super::self_test;
use crate::error::Result;
use crate::event::Event;
use crate::kernels::cuda::support::Unsupported;
use crate::model::Device;

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
            Self::On(Device::Cuda) => support().verdict().map(drop).map_err(Unsupported::into_error),
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
            Self::On(Device::Cuda) | Self::Auto => Ok(automatic(support().verdict().map(|gpu| &*gpu.name))),
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
        match (self, self_test::pass()) {
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
    fn cpu_is_always_available() {
        let cpu = DeviceRequest::On(Device::Cpu).resolve().unwrap();
        assert!(matches!(cpu, (Device::Cpu, None)));
    }
}
