//! The training loop, AdamW and EMA.
