//! The machine around the program: its GPUs with their locks and self-tests, the variables of its environment, and the files
//! that belong to it rather than to a project. The rooms that compute are handed what they need of it.
//!
//! | file | purpose |
//! |---|---|
//! | `device.rs` | the device on which a command computes: the requested one, the available ones |
//! | `gpus.rs` | what is found of the machine's GPUs, and what their devices are handed |
//! | `device_lock.rs`, `gpu_lock.rs` | one process at a time computes on a GPU: the lock and its file |
//! | `self_test.rs` | the record that a GPU computes as the CPU does |
//! | `kernel_files.rs` | compiled kernels as files |
//! | `environment.rs` | variables, and the folder of what is kept |

mod device;
mod device_lock;
mod environment;
mod gpu_lock;
mod gpus;
mod kernel_files;
mod self_test;

pub use device::DeviceRequest;
pub use device_lock::lock;
pub use gpu_lock::GpuLock;
pub use gpus::{described, support, thorough_support};
pub use kernel_files::kernel_folder;
pub use self_test::{SelfTest, self_test};
