//! Runs a plan: look up, lock, run, commit.
