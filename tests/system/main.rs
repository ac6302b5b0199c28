//! The real binary from the outside: nodes as processes, real TLS between them, real disks.
//!
//! Every node listens on a port chosen by the kernel and logs it. No test waits for a fixed time, only for a condition
//! with a deadline. All tests are one crate, so that they share a link step and run in parallel.

mod adding;
mod alerts;
mod bad_input;
mod balancers;
mod certificates;
mod check_config;
mod clock;
mod damage;
mod demo;
mod doctor;
mod enrolment;
mod exec;
mod expiry;
mod faults;
mod fleet;
mod foreign_names;
mod http2;
mod ingress;
mod liveness;
mod mixed_types;
mod oddities;
mod operator;
mod packages;
mod pki;
mod probes;
mod prometheus;
mod prometheus_forms;
mod proxies;
mod push;
mod reach;
mod receipts;
mod refusals;
mod remote_write;
mod renewal;
mod resources;
mod returns;
mod revocation;
mod rights;
mod selection;
mod storage_faults;
mod store_commands;
mod test_runner;
mod thin_line;
mod tls_boxes;
mod tokens;
mod tree;
mod watch;
mod web_security;
