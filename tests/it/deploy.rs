//! The files beside the program: the unit, the image, compose and Kubernetes, the example configurations, the README.
//!
//! Each is read by a program that did not write it: systemd-analyze, a YAML parser, the built binary's own `check`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use portcullis::wire::halt::Reason;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::Ca;
use crate::harness::process::missing;
use crate::harness::proxy::portcullis;
use crate::harness::python::{run_json, venv};

/// The highest exposure that the unit may have, of 10.
const EXPOSURE: f64 = 1.5;

#[test]
fn the_unit_is_sandboxed_and_systemd_says_so() {
    let mut command = Command::new("systemd-analyze");
    command
        .args(["security", "--offline=true", "--no-pager"])
        .arg(file("config/systemd/portcullis.service"));
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{}", missing(&command, &error)));
    let talk = text(&output);
    let score: f64 = talk
        .lines()
        .find_map(|line| line.split_once("Overall exposure level for portcullis.service: "))
        .and_then(|(_, rest)| rest.split(' ').next()?.parse().ok())
        .unwrap_or_else(|| panic!("systemd-analyze gave no score:\n{talk}"));
    assert!(
        score <= EXPOSURE,
        "exposure {score}, at most {EXPOSURE}:\n{talk}"
    );
}

#[test]
fn the_unit_notifies_reloads_and_holds_one_capability() {
    let unit = settings(&read("config/systemd/portcullis.service"));
    let one = |key: &str| match unit.get(key).map(Vec::as_slice) {
        Some([value]) => value.as_str(),
        other => panic!("`{key}` stands once in the unit, found {other:?}"),
    };
    assert!(matches!(one("Type"), "notify" | "notify-reload"));
    assert_eq!(one("DynamicUser"), "yes");
    assert_eq!(one("AmbientCapabilities"), "CAP_NET_BIND_SERVICE");
    assert_eq!(one("CapabilityBoundingSet"), "CAP_NET_BIND_SERVICE");
    assert!(one("ExecReload").contains("-HUP $MAINPID"));
    assert!(one("LoadCredential").starts_with("app.key:"));
    // What `mfa.accounts` of the example is in: kept, and nobody else's.
    assert_eq!(one("StateDirectory"), "portcullis");
    assert_eq!(one("StateDirectoryMode"), "0700");
    assert!(!unit.contains_key("User"), "DynamicUser makes the user");
    let stop: u64 = one("TimeoutStopSec").parse().expect("seconds");
    assert!(
        stop > 30,
        "systemd waits longer than the default drain of 30s"
    );
}

#[test]
fn the_socket_unit_is_understood_and_has_the_addresses_of_the_example() {
    let directory = TempDir::new().expect("a directory");
    for name in ["portcullis.service", "portcullis.socket"] {
        // systemd looks whether the program is there.
        let unit = read(&format!("config/systemd/{name}"))
            .replace("/usr/local/bin/portcullis", "/bin/true");
        std::fs::write(directory.path().join(name), unit).expect("the directory takes files");
    }
    let mut command = Command::new("systemd-analyze");
    command
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .args(["./portcullis.socket", "./portcullis.service"])
        .current_dir(directory.path());
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{}", missing(&command, &error)));
    let talk = text(&output);
    assert!(output.status.success(), "{talk}");
    // A key that it does not know is told and no failure.
    assert!(!talk.contains("portcullis."), "{talk}");
    let unit = settings(&read("config/systemd/portcullis.socket"));
    let example: toml::Table = read("config/full.toml").parse().expect("TOML");
    let listed = ["https", "http"].map(|key| example["server"][key][0].as_str());
    let streams = unit["ListenStream"].iter().map(String::as_str).map(Some);
    assert!(streams.eq(listed), "{unit:?}");
    assert!(
        !unit.contains_key("Accept"),
        "each connection would be a process"
    );
}

#[test]
fn the_image_runs_one_program_without_a_shell_and_without_root() {
    let dockerfile = read("Dockerfile");
    let lines = instructions(&dockerfile);
    let last_from = lines
        .iter()
        .rposition(|line| line.starts_with("FROM "))
        .expect("a FROM line");
    assert!(last_from > 0, "the toolchain stays in an earlier stage");
    let stage = &lines[last_from..];
    let one = |name: &str| -> &str {
        let found: Vec<&String> = stage.iter().filter(|line| line.starts_with(name)).collect();
        assert_eq!(found.len(), 1, "`{name}` stands once in the last stage");
        found[0].trim_start_matches(name).trim()
    };
    assert_eq!(one("FROM "), "scratch", "the last stage holds no shell");
    assert!(
        stage.iter().all(|line| !line.starts_with("RUN ")),
        "nothing could run it"
    );
    let user: u32 = one("USER ")
        .split(':')
        .next()
        .and_then(|user| user.parse().ok())
        .expect("a numeric user, so that Kubernetes can tell it is not root");
    assert!(user >= 1000, "an unprivileged user");
    assert_eq!(one("EXPOSE "), "8080 8443");
    assert!(one("HEALTHCHECK ").contains(r#"CMD ["/usr/local/bin/portcullis", "healthcheck""#));
    let entry: Vec<String> = serde_json::from_str(one("ENTRYPOINT ")).expect("the exec form");
    let command: Vec<String> = serde_json::from_str(one("CMD ")).expect("the exec form");
    assert_eq!(entry, ["/usr/local/bin/portcullis"]);
    assert_eq!(command, ["run", "-c", "/etc/portcullis/gate.toml"]);
}

#[test]
fn compose_shuts_the_backend_in() {
    let documents = yaml("config/compose.yaml");
    let compose = &documents[0];
    for (name, service) in compose["services"].as_object().expect("services") {
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(service["cap_drop"], serde_json::json!(["ALL"]), "{name}");
        assert_eq!(
            service["security_opt"],
            serde_json::json!(["no-new-privileges:true"]),
            "{name}"
        );
        for dangerous in [
            "privileged",
            "cap_add",
            "network_mode",
            "pid",
            "ipc",
            "devices",
        ] {
            assert!(service.get(dangerous).is_none(), "{name}: {dangerous}");
        }
        let volumes = service["volumes"].as_array().cloned().unwrap_or_default();
        for volume in volumes {
            let volume = volume.as_str().expect("the short form");
            assert!(volume.ends_with(":ro"), "{name}: {volume} is writable");
            assert!(!volume.contains("docker.sock"), "{name}: {volume}");
        }
    }
    let legacy = &compose["services"]["legacy"];
    assert!(
        legacy.get("ports").is_none(),
        "the backend has no port on the host"
    );
    assert_eq!(legacy["networks"], serde_json::json!(["backend"]));
    assert_eq!(compose["networks"]["backend"]["internal"], true);
    let gate = &compose["services"]["gate"];
    assert_ne!(
        gate["user"]
            .as_str()
            .and_then(|user| user.split(':').next()),
        Some("0")
    );
    assert_eq!(
        gate["healthcheck"]["test"],
        serde_json::json!(["CMD", "/usr/local/bin/portcullis", "healthcheck"])
    );
}

#[test]
fn the_sidecar_meets_the_restricted_pod_standard() {
    let documents = yaml("config/kubernetes/sidecar.yaml");
    let of_kind = |kind: &str| {
        documents
            .iter()
            .find(|document| document["kind"] == kind)
            .unwrap_or_else(|| panic!("a {kind}"))
    };
    let pod = &of_kind("Deployment")["spec"]["template"]["spec"];
    assert_eq!(pod["automountServiceAccountToken"], false);
    for host in ["hostNetwork", "hostPID", "hostIPC"] {
        assert!(pod.get(host).is_none(), "{host}");
    }
    for container in pod["containers"].as_array().expect("containers") {
        let name = container["name"].as_str().expect("a name");
        let context = &container["securityContext"];
        assert_eq!(context["runAsNonRoot"], true, "{name}");
        assert_eq!(context["allowPrivilegeEscalation"], false, "{name}");
        assert_eq!(context["readOnlyRootFilesystem"], true, "{name}");
        assert_eq!(
            context["capabilities"],
            serde_json::json!({ "drop": ["ALL"] }),
            "{name}"
        );
        assert_eq!(
            context["seccompProfile"]["type"], "RuntimeDefault",
            "{name}"
        );
        assert!(
            container["resources"]["limits"]["memory"].is_string(),
            "{name}"
        );
    }
    let gate = &pod["containers"][0];
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        assert_eq!(
            gate[probe]["exec"]["command"],
            serde_json::json!(["/usr/local/bin/portcullis", "healthcheck"]),
            "{probe}: the admin listener is on loopback, where only the verb reaches it"
        );
    }
    let ports = of_kind("Service")["spec"]["ports"]
        .as_array()
        .expect("ports")
        .clone();
    let targets: BTreeSet<&str> = ports
        .iter()
        .filter_map(|port| port["targetPort"].as_str())
        .collect();
    assert_eq!(
        targets,
        BTreeSet::from(["http", "https"]),
        "the Service leads to the gate alone"
    );
}

#[test]
fn the_example_configurations_pass_check() {
    let desk = Desk::new();
    for name in ["quickstart.toml", "full.toml"] {
        let gate = desk.path().join(name);
        desk.expect_sound(&gate);
        let wrong = format!(
            "no_such_key = 1\n{}",
            std::fs::read_to_string(&gate).expect("a file")
        );
        std::fs::write(&gate, wrong).expect("a file");
        assert_eq!(
            desk.check(&gate).status.code(),
            Some(2),
            "{name} with a key that is not known"
        );
    }
}

#[test]
fn the_blueprints_pass_check_alone_and_together() {
    const AROUND: &str = "[server]\nhttp = [\"127.0.0.1:0\"]\nplaintext = true\n\
        [upstreams.legacy]\nservers = [\"http://127.0.0.1:8000\"]\n\
        [issuers.corp]\nissuer = \"https://idp.example/realms/main\"\naudience = [\"portcullis\"]\n\
        jwks_url = \"https://idp.example/jwks\"\nalgorithms = [\"RS256\"]\nroles = [\"realm_access.roles\"]\n";
    let desk = Desk::new();
    let mut names: Vec<String> = std::fs::read_dir(file("config/blueprints"))
        .expect("config/blueprints")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    assert!(!names.is_empty());
    names.push("*.toml".to_owned());
    for name in names {
        let gate = desk.path().join("around.toml");
        std::fs::write(
            &gate,
            format!("include = [\"blueprints/{name}\"]\n{AROUND}"),
        )
        .expect("a file");
        desk.expect_sound(&gate);
    }
}

#[test]
fn the_sidecars_own_configuration_passes_check() {
    let desk = Desk::new();
    let documents = yaml("config/kubernetes/sidecar.yaml");
    let gate = documents
        .iter()
        .find_map(|document| document["data"]["gate.toml"].as_str())
        .expect("a ConfigMap with gate.toml")
        .replace("/etc/portcullis/tls/tls", "tls/app");
    let path = desk.path().join("sidecar.toml");
    std::fs::write(&path, gate).expect("a file");
    desk.expect_sound(&path);
}

#[test]
fn the_full_file_names_every_key_of_the_schema() {
    let wanted = schema_keys();
    assert!(wanted.len() > 50, "the schema names the keys: {wanted:?}");
    let named = keys_named(&read("config/full.toml"));
    let absent: Vec<&String> = wanted
        .keys()
        .filter(|key| !key.ends_with('*') && !is_named(key, &named))
        .collect();
    assert!(
        absent.is_empty(),
        "config/full.toml does not name: {absent:#?}"
    );
    let unknown: Vec<&String> = named.iter().filter(|key| !is_known(key, &wanted)).collect();
    assert!(
        unknown.is_empty(),
        "config/full.toml names what the schema does not know: {unknown:#?}"
    );
}

#[test]
fn the_full_file_shows_the_defaults() {
    let full: toml::Table = read("config/full.toml").parse().expect("TOML");
    let full = serde_json::to_value(full).expect("JSON");
    let mut wrong = Vec::new();
    for (key, default) in schema_keys() {
        // Blueprints, issuers, keys and signers are examples: what they state is theirs.
        let stated = at(&full, &key);
        if let (Some(default), Some(stated)) = (default, stated)
            && !key.starts_with("blueprints")
            && !key.starts_with("issuers")
            && !key.starts_with("api_keys")
            && !key.starts_with("signers")
            && default != *stated
        {
            wrong.push(format!("`{key}` is {stated}, by default {default}"));
        }
    }
    assert!(wrong.is_empty(), "config/full.toml: {wrong:#?}");
}

#[test]
fn the_readme_lists_every_reason_with_its_status() {
    let readme = read("README.md");
    for reason in Reason::ALL {
        let row = format!("| `{}` | {} |", reason.code(), reason.status().as_u16());
        assert!(
            readme.contains(&row),
            "README.md has no row that starts {row}"
        );
    }
}

#[test]
fn the_readme_opens_with_the_two_commands() {
    let readme = read("README.md");
    let head: String = readme.lines().take(40).collect::<Vec<_>>().join("\n");
    assert!(head.contains("cargo run --release -- demo"));
    assert!(head.contains("./tests/run"));
}

#[test]
fn the_example_in_the_readme_passes_check() {
    let readme = read("README.md");
    let (_, rest) = readme.split_once("```toml\n").expect("an example");
    let (example, _) = rest.split_once("```").expect("its end");
    let desk = Desk::new();
    let gate = desk.path().join("gate.toml");
    std::fs::write(&gate, example).expect("our directory");
    let output = desk.check(&gate);
    assert!(output.status.success(), "{}", text(&output));
    assert!(!text(&output).contains("relaxation"), "{}", text(&output));
}

/// A copy of `config/` with a certificate, a key and the other files that full.toml names.
struct Desk {
    directory: TempDir,
}

impl Desk {
    fn new() -> Self {
        let directory = TempDir::new().expect("a directory");
        copy(&file("config"), directory.path());
        let tls = directory.path().join("tls");
        std::fs::create_dir(&tls).expect("a directory");
        let ca = Ca::named(&tls, "clients");
        ca.server("app", &["app.example", "*.app.example"]);
        for (name, text) in [
            ("robot.secret", "a secret of nobody\n"),
            ("shop.secret", "another secret of nobody\n"),
            (
                "session.key",
                "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n",
            ),
            (
                "partner.pem",
                include_str!("../vectors/rfc9421/test-key-ed25519.pem"),
            ),
        ] {
            std::fs::write(tls.join(name), text).expect("our directory");
        }
        Self { directory }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn check(&self, gate: &Path) -> Output {
        portcullis()
            .arg("check")
            .arg("-c")
            .arg(gate)
            .current_dir(self.path())
            .output()
            .expect("the built program starts")
    }

    fn expect_sound(&self, gate: &Path) {
        let output = self.check(gate);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{}:\n{}",
            gate.display(),
            text(&output)
        );
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            std::fs::create_dir_all(&target).expect("a directory");
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

/// The keys of `portcullis schema` with their defaults; `*` stands for a name that the user gives.
fn schema_keys() -> BTreeMap<String, Option<Value>> {
    let output = portcullis()
        .arg("schema")
        .output()
        .expect("the built program starts");
    assert!(output.status.success(), "{}", text(&output));
    let schema: Value = serde_json::from_slice(&output.stdout).expect("the schema is JSON");
    let mut keys = BTreeMap::new();
    let mut walk = Walk {
        root: &schema,
        inside: Vec::new(),
        keys: &mut keys,
    };
    walk.node(&schema, "");
    keys
}

/// A walk over a JSON Schema.
struct Walk<'a> {
    root: &'a Value,
    /// The references that the walk stands in: a section may contain itself.
    inside: Vec<&'a str>,
    keys: &'a mut BTreeMap<String, Option<Value>>,
}

impl<'a> Walk<'a> {
    fn node(&mut self, node: &'a Value, path: &str) {
        if let Some(link) = node["$ref"].as_str()
            && !self.inside.contains(&link)
        {
            let target = self
                .root
                .pointer(link.trim_start_matches('#'))
                .unwrap_or_else(|| panic!("`{link}` is in the schema"));
            self.inside.push(link);
            self.node(target, path);
            self.inside.pop();
        }
        for part in ["anyOf", "allOf"] {
            for branch in node[part].as_array().into_iter().flatten() {
                self.node(branch, path);
            }
        }
        // `{ env = … }` or `{ file = … }`: either will do.
        if node["oneOf"].is_array() {
            self.keys.insert(join(path, "*"), None);
        }
        for (name, child) in node["properties"].as_object().into_iter().flatten() {
            let below = join(path, name);
            let default = child.get("default").cloned();
            self.keys.entry(below.clone()).or_insert(default);
            self.node(child, &below);
        }
        if node["additionalProperties"].is_object() {
            let below = join(path, "*");
            self.keys.insert(below.clone(), None);
            self.node(&node["additionalProperties"], &below);
        }
        if node["items"].is_object() {
            self.node(&node["items"], path);
        }
    }
}

/// The value at a key path of a file; `*` takes the first name, a list of tables its first table.
fn at<'a>(document: &'a Value, key: &str) -> Option<&'a Value> {
    key.split('.').try_fold(document, |node, name| {
        let table = node.as_array().map_or(Some(node), |list| list.first())?;
        if name == "*" {
            table.as_object()?.values().next()
        } else {
            table.get(name)
        }
    })
}

/// The key paths of a TOML text, those of commented-out lines included; values stand on one line.
fn keys_named(text: &str) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    let mut section = String::new();
    for line in text.lines() {
        let line = line.trim();
        let line = line.strip_prefix("# ").unwrap_or(line);
        if line.starts_with('[')
            && let Some(header) = line.split('#').next().map(str::trim)
            && header.ends_with(']')
        {
            header.trim_matches(['[', ']']).clone_into(&mut section);
            // `[upstreams.legacy]` names `upstreams` as well.
            let ends = section.match_indices('.').map(|(end, _)| end);
            keys.extend(ends.map(|end| section[..end].to_owned()));
            keys.insert(section.clone());
        } else if let Ok(table) = line.parse::<toml::Table>() {
            flatten(&table, &section, &mut keys);
        }
    }
    keys
}

fn flatten(table: &toml::Table, path: &str, keys: &mut BTreeSet<String>) {
    for (name, value) in table {
        let below = join(path, name);
        keys.insert(below.clone());
        if let toml::Value::Table(inner) = value {
            flatten(inner, &below, keys);
        }
    }
}

/// Policies stand under `defaults`, a blueprint or a route alike: naming a key once is enough.
fn is_named(key: &str, named: &BTreeSet<String>) -> bool {
    named
        .iter()
        .any(|name| matches(&at_any_level(key), &at_any_level(name)))
}

fn is_known(name: &str, known: &BTreeMap<String, Option<Value>>) -> bool {
    let name = at_any_level(name);
    known.keys().any(|key| {
        let key = at_any_level(key);
        matches(&key, &name) || key.starts_with(&format!("{name}."))
    })
}

fn at_any_level(key: &str) -> String {
    for level in ["blueprints.routes.", "blueprints.", "defaults."] {
        if let Some(rest) = key.strip_prefix(level) {
            return format!("policy.{rest}");
        }
    }
    key.to_owned()
}

/// Whether `name` is an instance of `pattern`, whose `*` stands for one segment.
fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<&str> = pattern.split('.').collect();
    let name: Vec<&str> = name.split('.').collect();
    pattern.len() == name.len()
        && pattern
            .iter()
            .zip(&name)
            .all(|(wanted, found)| *wanted == "*" || wanted == found)
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// The documents of a YAML file, read by a parser that knows nothing of this project.
fn yaml(path: &str) -> Vec<Value> {
    const READ: &str = "import json, sys, yaml\n\
        print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1], encoding='utf-8')))))";
    let documents = run_json(
        Command::new(venv("python"))
            .args(["-c", READ])
            .arg(file(path)),
    );
    documents.as_array().cloned().expect("a list of documents")
}

/// `Key=value` lines of a unit, comments left out.
fn settings(unit: &str) -> BTreeMap<String, Vec<String>> {
    let mut settings: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in unit.lines().filter(|line| !line.starts_with('#')) {
        if let Some((key, value)) = line.split_once('=') {
            settings
                .entry(key.to_owned())
                .or_default()
                .push(value.to_owned());
        }
    }
    settings
}

/// The instructions of a Dockerfile, continued lines joined, comments left out.
fn instructions(dockerfile: &str) -> Vec<String> {
    dockerfile
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .collect::<Vec<_>>()
        .join("\n")
        .replace("\\\n", " ")
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|line| !line.is_empty())
        .collect()
}

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(file(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
