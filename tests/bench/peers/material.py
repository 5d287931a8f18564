"""Keys, a certificate and tokens, made anew in the scratch folder of each run."""
import base64
import json
import subprocess
import time

ISSUER, AUDIENCE, ROLE = "https://issuer.example", "bench", "reader"
ORIGIN_ALLOWED = "https://app.example"
TOKENS = 10_000

# Every load client that uses OpenSSL is held to the same TLS as the tool: 1.3, AES-128-GCM, X25519.
CLIENT_TLS = """openssl_conf = all
[all]
ssl_conf = modules
[modules]
system_default = client
[client]
MinProtocol = TLSv1.3
Ciphersuites = TLS_AES_128_GCM_SHA256
Groups = X25519
"""

KINDS = {"RS256": ("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"),
         "ES256": ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")}


def openssl(folder, *arguments):
    return subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, check=True).stdout


def text_of(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def make(folder, tool):
    """Fills the folder: cert.pem, key.pem, combo.pem, and for each algorithm its key set, public key and tokens."""
    openssl(folder, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
            "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", "key.pem", "-out", "cert.pem")
    (folder / "combo.pem").write_bytes((folder / "cert.pem").read_bytes() + (folder / "key.pem").read_bytes())
    for name in ("key.pem", "combo.pem"):
        (folder / name).chmod(0o600)
    (folder / "client.cnf").write_text(CLIENT_TLS)
    for algorithm in KINDS:
        make_issuer(folder, algorithm)
        make_tokens(folder, algorithm, tool)


def make_issuer(folder, algorithm):
    """The issuer's key, another that is not its own, the key set and the public key."""
    for name in (algorithm, f"{algorithm}.foreign"):
        openssl(folder, "genpkey", *KINDS[algorithm], "-out", f"{name}.pem")
        openssl(folder, "pkcs8", "-topk8", "-nocrypt", "-in", f"{name}.pem", "-outform", "DER", "-out", f"{name}.der")
    openssl(folder, "pkey", "-in", f"{algorithm}.pem", "-pubout", "-out", f"{algorithm}.pub.pem")
    if algorithm == "RS256":
        told = openssl(folder, "rsa", "-pubin", "-in", "RS256.pub.pem", "-noout", "-modulus").decode()
        key = {"kty": "RSA", "n": text_of(bytes.fromhex(told.strip().split("=")[1])), "e": "AQAB"}
    else:
        point = openssl(folder, "pkey", "-pubin", "-in", "ES256.pub.pem", "-outform", "DER")[-64:]
        key = {"kty": "EC", "crv": "P-256", "x": text_of(point[:32]), "y": text_of(point[32:])}
    key.update(kid="1", use="sig", alg=algorithm)
    (folder / f"{algorithm}.jwks.json").write_text(json.dumps({"keys": [key]}))


def make_tokens(folder, algorithm, tool):
    """Good ones of different subjects, and one bad in each way that validation asks for."""
    now = int(time.time())

    def unsigned(number, **other):
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": f"user-{number}", "iat": now - 60, "exp": now + 86_000,
                  "role": ROLE, "scope": "read:items write:items", "jti": f"{number:032x}", **other}
        claims = {name: value for name, value in claims.items() if value is not None}
        parts = ({"alg": algorithm, "kid": "1", "typ": "JWT"}, claims)
        return ".".join(text_of(json.dumps(part, separators=(",", ":")).encode()) for part in parts)

    count = TOKENS if algorithm == "ES256" else 1
    bad = {"expired": unsigned(1, exp=now - 3600), "issuer": unsigned(1, iss="https://other.example"),
           "audience": unsigned(1, aud="other"), "norole": unsigned(1, role=None), "role": unsigned(1, role="nobody")}
    signed = sign(folder, tool, algorithm, algorithm, [unsigned(number) for number in range(count)] + list(bad.values()))
    (folder / f"{algorithm}.tokens").write_text("\n".join(signed[:count]) + "\n")
    for name, token in zip(bad, signed[count:]):
        (folder / f"{algorithm}.{name}").write_text(token + "\n")
    foreign = sign(folder, tool, algorithm, f"{algorithm}.foreign", [unsigned(1)])
    (folder / f"{algorithm}.signature").write_text(foreign[0] + "\n")


def sign(folder, tool, algorithm, key, lines):
    run = subprocess.run([tool, "sign", f"alg={algorithm}", f"key={folder / key}.der"], input="\n".join(lines) + "\n",
                         capture_output=True, text=True, check=True)
    return run.stdout.split()


def token(folder, name):
    """The first token of a file."""
    with (folder / name).open() as lines:
        return lines.readline().strip()
