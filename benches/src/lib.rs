//! Comparisons with rival proxies, and micro-benchmarks.
