//! The right to compute on a device, which one process has at a time.

use super::gpu_lock::{GpuLock, take};
use super::gpus::support;
use crate::error::Result;
use crate::kernels::cuda::support::GpuHolder;
use crate::model::Device;

/// Waits until no other process computes on a device; no other one does until the returned lock is dropped. `waiting` is
/// called repeatedly meanwhile, with the reason; an error of `waiting` ends the waiting.
///
/// # Errors
/// The errors of `waiting`.
pub fn lock(device: Device, waiting: &mut dyn FnMut(&str) -> Result<()>) -> Result<Option<GpuLock>> {
    let all = if device == Device::Cuda {
        support().gpus()
    } else {
        &[]
    };
    let Some((gpu, uuid)) = all.first().and_then(|gpu| Some((gpu, gpu.uuid.as_deref()?))) else {
        return Ok(None);
    };
    take(uuid, &mut |holder| waiting(&awaited(gpu.number, holder))).map(Some)
}

fn awaited(gpu: usize, holder: Option<&GpuHolder>) -> String {
    let by = holder.map_or_else(|| "another process".to_owned(), ToString::to_string);
    format!("waiting for GPU {gpu}, used by {by}; MDLM_GPU_SHARED=1 does not wait")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_needs_no_lock_and_waiting_names_the_process() {
        assert!(lock(Device::Cpu, &mut |_| panic!("waits")).unwrap().is_none());
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
