//! Noise schedules and the MDLM objective. Pure: no I/O, no tensors.
