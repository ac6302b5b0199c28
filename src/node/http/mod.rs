//! The HTTP server of a node: the Pushgateway API, scrapes and the web pages.
//!
//! Read in this order: [`server`] (the listeners, TLS and the guard in front of the service), [`protection`] and [`auth`]
//! (who may send requests, and how many), [`service`] (what each request does, by its [`service_rules`]), [`scrape`] and [`render_thread`] (the text
//! that Prometheus reads, and the thread that renders it), `push_body` (reading a push), `groups` (listing and deleting groups by selectors), `deleting` (one group, or all), [`receipts`]
//! (answers that wait for a hub), [`deletes`] (who deleted last), [`page_size`] and [`oddities`] (what the node warns of), `ui`,
//! `edge_page`, [`busiest`] and [`page_owner`] (the web pages).

pub mod auth;
pub mod busiest;
pub mod deletes;
mod deleting;
mod edge_page;
mod edges;
mod groups;
pub mod oddities;
pub mod page_owner;
pub mod page_size;
pub mod protection;
mod push_body;
pub mod receipts;
pub mod render_thread;
pub mod scrape;
pub mod server;
pub mod service;
pub mod service_rules;
mod ui;
