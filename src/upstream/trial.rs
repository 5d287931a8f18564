//! Endpoints and clusters for the unit tests of this room; nothing listens on them.

use std::{
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::Duration,
};

use super::{
    balance::Balance,
    breaker::BreakerRules,
    budget::Budget,
    cluster::Cluster,
    endpoint::{Address, Endpoint, LinkRules, Protocol},
    outlier::OutlierRules,
    tunnel::Bounds,
};
use crate::observe::metrics::Metrics;

/// So many endpoints, whose names end in their number.
pub(super) fn endpoints(count: u16) -> Vec<Arc<Endpoint>> {
    let rules = LinkRules {
        protocol: Protocol::Http1,
        shared_limit: 1,
        connect_timeout: Duration::from_secs(3),
        idle_timeout: Duration::from_mins(1),
        idle_limit: 1,
        breaker: BreakerRules {
            failures: 5,
            open: Duration::from_secs(10),
        },
    };
    let one = |number| {
        let address = Address::Tcp {
            host: "127.0.0.1".to_owned(),
            port: number,
        };
        Arc::new(Endpoint::new(
            &format!("http://app-{number}"),
            address,
            rules,
            1,
        ))
    };
    (0..count).map(one).collect()
}

/// A cluster of so many endpoints.
pub(super) fn cluster(count: u16) -> Cluster {
    Cluster {
        name: "trial".into(),
        endpoints: endpoints(count),
        protocol: Protocol::Http1,
        balance: Balance::PowerOfTwo,
        response_timeout: Duration::from_secs(30),
        answer_idle: Duration::from_mins(5),
        request_timeout: Duration::from_secs(33),
        retries: 1,
        budget: Budget::new(0.1),
        health: None,
        outliers: OutlierRules::default(),
        slow_start: Duration::from_secs(10),
        dns_refresh: Duration::from_secs(30),
        tunnels: Bounds {
            idle: Duration::from_mins(10),
            age: Duration::from_hours(24),
            bytes: u64::MAX,
        },
        profile: crate::wire::path::Profile::default(),
        metrics: Metrics::new().upstream("trial"),
        voucher: None,
        ejecting: Mutex::new(()),
        replaced: AtomicBool::new(false),
    }
}
