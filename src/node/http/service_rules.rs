//! The options of a node as its service has them.

use super::service::ServiceRules;
use crate::exposition::{NameValidation, PushLimits};
use crate::gateway::pages::{PageFrame, PageOwner};
use crate::gateway::query::NodeStatus;
use crate::gateway::{BodyRules, RouteConfig};
use crate::node::metrics::{REVISION, VERSION};
use crate::node::options::{NodeOptions, NodeRole};

fn names(options: &NodeOptions) -> NameValidation {
    if options.push.enable_utf8_names { NameValidation::Utf8 } else { NameValidation::Legacy }
}

/// The routes of a node with these options.
pub fn route_config(options: &NodeOptions) -> RouteConfig {
    RouteConfig {
        route_prefix: options.web.route_prefix.clone(),
        telemetry_path: options.web.telemetry_path.clone(),
        admin_api: options.web.enable_admin_api,
        lifecycle: options.web.enable_lifecycle,
        names: names(options),
    }
}

/// The rules by which a node with these options handles requests. `owner` is whose its pages are.
pub fn service_rules(options: &NodeOptions, owner: PageOwner) -> ServiceRules {
    let limits = &options.limits;
    let push = PushLimits { timestamps: options.push.timestamps, ..limits.push };
    let body = BodyRules {
        body_bytes_max: limits.body_bytes_max,
        names: names(options),
        limits: push,
        openmetrics: options.push.openmetrics,
    };
    ServiceRules {
        body,
        compressed_bytes_max: limits.compressed_body_bytes_max,
        checked: !options.push.disable_consistency_check,
        admin_api: options.web.enable_admin_api,
        page_frame: PageFrame::new(options.web.external_path.as_deref(), owner),
        telemetry_path: options.web.telemetry_path.clone(),
        is_hub: options.role == NodeRole::Hub,
        scrapes_max: limits.scrapes_max,
        aggregate: options.aggregate.rules.clone(),
        store_limits: limits.store,
    }
}

/// The status of a node with these options that started then.
pub fn status(options: &NodeOptions, started_ns: u64) -> NodeStatus {
    let build = [
        ("version", VERSION.to_string()),
        ("revision", REVISION.to_string()),
        ("role", if options.role == NodeRole::Hub { "hub" } else { "edge" }.to_string()),
    ];
    NodeStatus {
        build: build.into_iter().map(|(name, value)| (name.to_string(), value)).collect(),
        flags: options.flags.clone(),
        changed: options.changed_flags(),
        start_ns: started_ns,
    }
}
