//! The perplexity bound and its interval.
