//! The store: artifacts, action records, digests, locks.
