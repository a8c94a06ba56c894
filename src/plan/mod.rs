//! Manifest to typed DAG: cache keys and reasons.
