//! Where and how to compute.

use clap::ValueEnum;

use super::environment;
use crate::cli::render::terminal::Terminal;
use mdlm::error::{Error, Result};
use mdlm::event::{Cancel, Event};
use mdlm::executor;
use mdlm::model::Device;
use mdlm::system::{self, DeviceRequest, GpuLock};

/// Where and how to compute, neither of which changes what is made.
#[derive(Clone, Debug, clap::Args)]
pub struct ComputeArgs {
    /// Threads; default: all processors
    ///
    /// Their number changes the time, never the result. Environment variable: MDLM_THREADS.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Where to compute: auto, cpu or cuda
    ///
    /// auto, the default, uses a GPU if one can be used, else the CPU; `mdlm doctor` shows which. CUDA_VISIBLE_DEVICES
    /// selects one of several GPUs. Environment variable: MDLM_DEVICE.
    #[arg(long, value_name = "DEVICE", hide_possible_values = true)]
    pub device: Option<DeviceChoice>,
}

/// Where to compute, as asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DeviceChoice {
    /// The GPU if there is one that can be used, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU.
    #[value(alias = "gpu")]
    Cuda,
    /// dfdx's own CUDA device.
    #[cfg(feature = "dfdx-cuda")]
    DfdxCuda,
}

impl ComputeArgs {
    /// The number of threads.
    ///
    /// # Errors
    /// MDLM_THREADS is not a number of threads.
    pub fn threads(&self) -> Result<usize> {
        environment::threads(self.threads)
    }

    /// A pool of that many threads.
    ///
    /// # Errors
    /// The system gives no threads, or the environment states no number of them.
    pub fn pool(&self) -> Result<rayon::ThreadPool> {
        executor::pool(self.threads()?)
    }

    /// Where to compute, as asked for: by the command line, else by the environment.
    ///
    /// # Errors
    /// The errors of [`DeviceChoice::or_stated`].
    pub fn device(&self) -> Result<DeviceRequest> {
        DeviceChoice::or_stated(self.device)
    }
}

impl DeviceChoice {
    /// What the command line asks for, else the environment, else `auto`.
    ///
    /// # Errors
    /// MDLM_DEVICE is not a device.
    pub fn or_stated(asked: Option<Self>) -> Result<DeviceRequest> {
        if let Some(asked) = asked {
            return Ok(asked.choice());
        }
        let Some(stated) = environment::variable("MDLM_DEVICE") else {
            return Ok(DeviceRequest::Auto);
        };
        Self::from_str(&stated, false).map(Self::choice).map_err(|_| {
            let names: Vec<_> = Self::value_variants()
                .iter()
                .filter_map(ValueEnum::to_possible_value)
                .map(|value| value.get_name().to_owned())
                .collect();
            Error::input(format!("read MDLM_DEVICE: `{stated}` is not a device"))
                .hint(format!("set it to one of {}, or unset it", names.join(", ")))
        })
    }

    fn choice(self) -> DeviceRequest {
        match self {
            Self::Auto => DeviceRequest::Auto,
            Self::Cpu => DeviceRequest::On(Device::Cpu),
            Self::Cuda => DeviceRequest::On(Device::Cuda),
            #[cfg(feature = "dfdx-cuda")]
            Self::DfdxCuda => DeviceRequest::On(Device::DfdxCuda),
        }
    }
}

/// The device of a command that computes at once, and the GPU lock. Prints the device, and the process it waits for.
///
/// # Errors
/// The GPU that was asked for cannot be used, or the interruption.
pub fn compute_on(
    choice: DeviceRequest,
    cancel: &Cancel,
    terminal: &Terminal,
) -> Result<(Device, Option<GpuLock>)> {
    let (device, event) = choice.resolve()?;
    let print = |event| match event {
        Some(Event::Warning(text)) => terminal.warn(&text),
        Some(Event::Note(text)) => terminal.say(&text),
        _ => {}
    };
    print(event);
    let mut is_reported = false;
    let lock = system::lock(device, &mut |why| {
        cancel.check()?;
        if !is_reported {
            is_reported = true;
            terminal.say(why);
        }
        Ok(())
    })?;
    let (device, event) = choice.trusted(device)?;
    print(event);
    Ok((device, lock.filter(|_| device.is_gpu())))
}
