// A real OpenID provider for the tests: `oidc-provider` over plain HTTP on loopback.
//
// It prints {"ready": URL}, then answers each JSON instruction on standard input with one JSON line, and ends when its
// input does. Tokens come from its own token endpoint: client credentials, signed (RFC 9068) or opaque by the resource
// that they are for. Its keys are made anew from outside, as an operator would: signed with, the old ones still published, then those retired.

import { generateKeyPairSync } from "node:crypto";
import http from "node:http";
import readline from "node:readline";

// Node.js has it from version 22 on.
URL.parse ??= (text, base) => {
  try {
    return new URL(text, base);
  } catch {
    return null;
  }
};
// What the provider says at its start would be taken for an answer.
console.info = console.warn = (...words) => process.stderr.write(`${words.join(" ")}\n`);
const { Provider } = await import("oidc-provider");

const stored = new Map();

/** Everything in one map, so that a provider with other keys knows the tokens of the one before. */
class Store {
  constructor(model) {
    this.model = model;
  }
  async upsert(id, payload) {
    stored.set(`${this.model}:${id}`, payload);
  }
  async find(id) {
    return stored.get(`${this.model}:${id}`);
  }
  async destroy(id) {
    stored.delete(`${this.model}:${id}`);
  }
  async consume() {}
  async findByUid() {}
  async findByUserCode() {}
  async revokeByGrantId() {}
}

let made = 0;
function makeKey() {
  made += 1;
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  return { ...privateKey.export({ format: "jwk" }), kid: `key-${made}`, use: "sig", alg: "RS256" };
}

const fetches = new Map();
let keys = [makeKey()];
let answer;

const server = http.createServer((request, response) => {
  const path = request.url.split("?")[0];
  fetches.set(path, (fetches.get(path) ?? 0) + 1);
  answer(request, response);
});
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
const { port } = server.address();
const issuer = `http://127.0.0.1:${port}`;

function provide() {
  const provider = new Provider(issuer, {
    adapter: Store,
    jwks: { keys },
    cookies: { keys: ["not used"] },
    ttl: { ClientCredentials: 600 },
    clients: ["app", "gate"].map((client_id) => ({
      client_id,
      client_secret: `${client_id}-secret:%`,
      grant_types: ["client_credentials"],
      redirect_uris: [],
      response_types: [],
    })),
    scopes: ["api.read"],
    extraTokenClaims: () => ({ roles: ["reader"] }),
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      introspection: { enabled: true, allowedPolicy: () => true },
      revocation: { enabled: true, allowedPolicy: () => true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (context, resource) => ({
          scope: "api.read",
          audience: "portcullis",
          accessTokenFormat: resource.endsWith(":opaque") ? "opaque" : "jwt",
          jwt: { sign: { alg: "RS256" } },
        }),
      },
    },
  });
  answer = provider.callback();
}
provide();

async function post(path, form) {
  const credentials = ["app", "app-secret:%"].map(encodeURIComponent).join(":");
  const response = await fetch(issuer + path, {
    method: "POST",
    headers: { authorization: `Basic ${Buffer.from(credentials).toString("base64")}`, connection: "close" },
    body: new URLSearchParams(form),
  });
  const text = await response.text();
  if (!response.ok) {
    throw new Error(`${path} answered ${response.status}: ${text}`);
  }
  return text === "" ? {} : JSON.parse(text);
}

const instructions = {
  async token({ kind }) {
    const form = { grant_type: "client_credentials", scope: "api.read", resource: `urn:portcullis:${kind}` };
    return { token: (await post("/token", form)).access_token };
  },
  async revoke({ token }) {
    await post("/token/revocation", { token });
    return {};
  },
  /** Signs with a key that nobody has seen before; the old ones stay published. */
  rotate() {
    keys = [makeKey(), ...keys];
    provide();
    return {};
  },
  /** Leaves the newest key alone. */
  retire() {
    keys = keys.slice(0, 1);
    provide();
    return {};
  },
  async down() {
    const closed = new Promise((done) => server.close(done));
    server.closeAllConnections();
    await closed;
    return {};
  },
  async up() {
    await new Promise((listening) => server.listen(port, "127.0.0.1", listening));
    return {};
  },
  fetches({ path }) {
    return { fetches: fetches.get(path) ?? 0 };
  },
};

process.stdout.write(`${JSON.stringify({ ready: issuer })}\n`);
for await (const line of readline.createInterface({ input: process.stdin })) {
  const { do: name, ...rest } = JSON.parse(line);
  let told;
  try {
    told = await instructions[name](rest);
  } catch (error) {
    told = { error: String(error) };
  }
  process.stdout.write(`${JSON.stringify(told)}\n`);
}
process.exit(0);
