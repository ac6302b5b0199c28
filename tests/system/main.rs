//! The real binary from the outside, as its users meet it: nodes as processes, real TLS between them, real disks.
//!
//! Every node listens on a port of the kernel's choice and says in its log which; nothing here waits by the clock, only
//! for a condition with a deadline. One crate for all, so that they share a link step and run side by side.

mod support;

mod bad_input;
mod check_config;
mod damage;
mod demo;
mod faults;
mod liveness;
mod pki;
mod prometheus;
mod push;
mod storage_faults;
mod store_commands;
mod tree;
mod watch;
mod web_security;
