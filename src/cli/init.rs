//! `portcullis init --upstream URL`: a commented file to start from. It passes `check` as it is printed.

use std::process::ExitCode;

use clap::Args;

use super::{BAD_FILE, print, run::color};
use crate::{
    config::{load_str, render},
    snapshot::{compile::compile, survivors::Survivors},
};

/// `init`
#[derive(Clone, Debug, Args)]
pub struct InitArgs {
    /// The backend, such as `http://127.0.0.1:8000` or `unix:/run/app.sock`
    #[arg(long, value_name = "URL")]
    upstream: String,
}

/// Prints the file, unless the address of the backend makes it a bad one.
pub fn run(args: &InitArgs) -> ExitCode {
    let server = toml::Value::String(args.upstream.clone()).to_string();
    let text = TEXT.replace("SERVER", &server);
    let loaded = load_str("portcullis.toml", &text, &[]);
    if compile(&loaded, &loaded.problems, &Survivors::new(1)).is_none() {
        eprint!(
            "{}",
            render(&loaded.problems.sorted(), &loaded.sources, color())
        );
        return ExitCode::from(BAD_FILE);
    }
    print(text.as_bytes())
}

const TEXT: &str = r#"# A gate before one backend on this machine. What is not stated here has a safe default.
#
#   portcullis check -c portcullis.toml -v     what is wrong, what is relaxed, every value in force
#   portcullis run -c portcullis.toml          then open https://localhost:8443
#   portcullis explain -c portcullis.toml GET https://localhost/    what happens to a request, and why

[server]
https = ["127.0.0.1:8443"]         # "[::]:443" to be reached from elsewhere
http = ["127.0.0.1:8080"]          # answers 308 to https
redirect_port = 8443               # take it out when https is on 443
# trusted_proxies = ["10.0.0.0/8"] # a load balancer before this gate, whose X-Forwarded-For counts

[tls]
self_signed = ["localhost", "127.0.0.1"]  # for trials; take it out once there is a certificate:
# [[tls.certificates]]
# cert = "tls/app.crt"
# key = "tls/app.key"              # chmod 600

[admin]
listen = "127.0.0.1:9900"          # /livez /readyz /metrics; `portcullis healthcheck` asks here

[upstreams.app]
servers = [SERVER]
# profile = "php"                  # php, wsgi, servlet, iis, node: how this backend reads paths

[[blueprints]]
name = "app"
upstream = "app"
auth = "public"                    # everybody; to ask for tokens, see the end of this file
# hosts = ["app.example"]          # only these; any host where nothing is said

# Pages that inline scripts or frame themselves break under the strict policy. Until they are mended:
# [blueprints.headers]
# preset = "compatible"

# Another origin that may read answers:
# [blueprints.cors]
# origins = ["https://spa.example"]

# A sign-in form, slow enough to make guessing useless:
# [[blueprints.routes]]
# name = "sign-in"
# path = "/login"
# methods = ["POST"]
# rate_limits = [{ name = "sign-in", quota = 10, window = "5m", burst = 5 }]

# An API for holders of a token that your identity provider signed:
# [issuers.corp]
# issuer = "https://idp.example/realms/main"
# audience = ["portcullis"]
# jwks_url = "https://idp.example/realms/main/protocol/openid-connect/certs"
# roles = ["realm_access.roles"]
#
# [[blueprints]]
# name = "api"
# prefix = "/api"
# upstream = "app"
# auth = { require = ["bearer"], issuers = ["corp"], roles = { any = ["reader", "admin"] } }
# headers = { preset = "api" }
"#;
