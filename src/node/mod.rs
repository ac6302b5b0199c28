//! Floor 5: a running node.
//!
//! [`running`] assembles one from its [`options`], its [`listeners`] and its store, which `start` reads back, and runs it.
//! [`threads`] are what it runs on. [`writer`] says who writes to the store, and when, and [`draft`] what peers ask of it;
//! [`service`] answers HTTP requests behind what [`web`] puts before it, `pages` those of people, [`scrape`] prints what
//! Prometheus reads, on the thread of [`press`], which gives way by [`priority`]; [`uplink`] and [`downlink`] are the ends of
//! links, both driven by [`link`], with [`links`] knowing what became of them and `above` which hubs are above this one.
//! [`metrics`], [`summary`], [`certificates`], [`clock`] and [`backoff`] are what their names say.

mod above;
pub mod backoff;
pub mod certificates;
pub mod clock;
pub mod downlink;
pub mod draft;
pub mod link;
pub mod links;
pub mod listeners;
pub mod metrics;
mod open_store;
pub mod options;
mod pages;
pub mod press;
pub mod priority;
pub mod running;
pub mod scrape;
pub mod service;
pub mod summary;
pub mod threads;
pub mod uplink;
pub mod web;
pub mod writer;

pub use running::{Node, StartError};
