//! What the end-to-end tests share: the product running in a folder of its own, and clients for it.
