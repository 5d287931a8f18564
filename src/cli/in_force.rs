//! The second half of `check -v`: every value in force with where it was said, and what each route demands and sends.

use std::fmt::Write;

use crate::{
    config::{Kind, Loaded, Section, Sources, Table, Value},
    policy::{Policies, conditions::Conditions, step_up::StepUp},
    snapshot::{Route, Snapshot, document},
};

/// Writes all of it.
pub(super) fn write(out: &mut String, loaded: &Loaded, snapshot: &Snapshot) {
    out.push_str("values in force\n");
    let mut listing = Listing {
        out,
        sources: &loaded.sources,
    };
    for key in document::ROOT
        .keys
        .iter()
        .filter(|key| key.name != "blueprints")
    {
        listing.key(key.name, &key.kind, key.default, loaded.root.get(key.name));
    }
    for route in &snapshot.routes {
        describe_route(out, route);
    }
    out.push_str("\nrequests that meet no route\n");
    // Nobody is let in there, so only what stands before the route matters.
    let Policies {
        network,
        rate_limits,
        headers,
        ..
    } = &*snapshot.unrouted;
    group(out, "network", &network.describe());
    group(out, "rate limits", &rate_limits.describe());
    group(out, "headers", &headers.describe());
}

struct Listing<'a> {
    out: &'a mut String,
    sources: &'a Sources,
}

impl Listing<'_> {
    fn section(&mut self, path: &str, section: &'static Section, table: Option<&Table>) {
        for key in section.keys {
            let stated = table.and_then(|table| table.get(key.name));
            self.key(
                &format!("{path}.{}", key.name),
                &key.kind,
                key.default,
                stated,
            );
        }
    }

    fn key(&mut self, path: &str, kind: &'static Kind, default: &str, stated: Option<&Value>) {
        match kind {
            // No section, no answers to other origins: its defaults hold for nothing then.
            Kind::Table(section) if section.name == "cors" && stated.is_none() => {}
            // A default that is written as a whole says more than its parts.
            Kind::Table(section) if default.is_empty() => {
                if let Some(scalar) = stated.filter(|value| value.as_table().is_none()) {
                    return self.line(path, scalar);
                }
                self.section(path, section, stated.and_then(Value::as_table));
            }
            Kind::NamedTables(section) | Kind::Map(Kind::Table(section)) => {
                let named = stated.and_then(Value::as_table);
                for entry in named.iter().flat_map(|table| &table.entries) {
                    let path = format!("{path}.{}", entry.key);
                    self.section(&path, section, entry.value.as_table());
                }
            }
            Kind::Tables(section) => {
                let listed = stated.and_then(Value::as_array).unwrap_or_default();
                for (index, value) in listed.iter().enumerate() {
                    self.section(&format!("{path}[{index}]"), section, value.as_table());
                }
            }
            _ => match stated {
                Some(value) => self.line(path, value),
                None if default.is_empty() => {}
                None => {
                    let _ = writeln!(self.out, "  {path} = {default}  (default)");
                }
            },
        }
    }

    fn line(&mut self, path: &str, value: &Value) {
        let text: Vec<&str> = self.sources.slice(value.at).split_whitespace().collect();
        let place = self.sources.line_of(value.at);
        let _ = writeln!(self.out, "  {path} = {}  ({place})", text.join(" "));
    }
}

fn describe_route(out: &mut String, route: &Route) {
    let _ = writeln!(
        out,
        "\nroute `{}` of blueprint `{}` ({})",
        route.facts.route, route.facts.blueprint, route.told.place
    );
    let _ = writeln!(
        out,
        "  {} -> upstream `{}`",
        route.told.matches, route.cluster.name
    );
    describe_policies(out, &route.policies);
}

fn describe_policies(out: &mut String, policies: &Policies) {
    for (name, lines) in [
        ("network", policies.network.describe()),
        ("ban", policies.ban.describe(policies.authn.asks())),
        ("rate limits", policies.rate_limits.describe()),
        ("body", policies.body_limit.describe()),
        ("cors", policies.cors.describe()),
        ("auth", policies.authn.describe()),
        (
            "csrf",
            policies.csrf.describe((&policies.cors, &policies.authn)),
        ),
        (
            "sign-in",
            policies
                .step_up
                .as_deref()
                .map_or_else(Vec::new, StepUp::describe),
        ),
        ("roles and scopes", policies.rbac.describe()),
        (
            "conditions",
            policies
                .conditions
                .as_deref()
                .map_or_else(Vec::new, Conditions::describe),
        ),
        ("errors", policies.mask_errors.describe()),
        ("headers", policies.headers.describe()),
        ("cookies", policies.cookies.describe()),
    ] {
        group(out, name, &lines);
    }
}

fn group(out: &mut String, name: &str, lines: &[(String, String)]) {
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(out, "  {name}");
    for (what, rule) in lines {
        let _ = writeln!(out, "    {what:<30} {rule}");
    }
}
