"""A client for the tests that proves possession of its keys (RFC 9449), soundly or not.

It prints {"ready": true}, then answers each JSON instruction on standard input with one JSON line on standard output, and
ends when its input does. Keys and signatures come from PyJWT and cryptography: no code is shared with the proxy.
"""

import base64
import hashlib
import json
import sys
import time
import uuid

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

ALGORITHMS = get_default_algorithms()
MAKERS = {
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ES384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
    "PS256": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
}
KEYS = {}


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def key(name: str, alg: str):
    if (name, alg) not in KEYS:
        KEYS[name, alg] = MAKERS[alg]()
    return KEYS[name, alg]


def jwk(name: str, alg: str, private: bool = False) -> dict:
    secret = key(name, alg)
    found = ALGORITHMS[alg].to_jwk(secret if private else secret.public_key(), as_dict=True)
    found.pop("key_ops", None)
    return found


def thumbprint(name: str, alg: str) -> str:
    found = jwk(name, alg)
    needed = {"EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x"), "RSA": ("e", "kty", "n")}[found["kty"]]
    text = json.dumps({member: found[member] for member in sorted(needed)}, separators=(",", ":"))
    return b64(hashlib.sha256(text.encode()).digest())


def prove(name: str, signer: str, alg: str, method: str, url: str, token: str, header: dict, claims: dict, private: bool) -> str:
    fields = {"typ": "dpop+jwt", "alg": alg, "jwk": jwk(name, alg, private), **header}
    said = {
        "jti": str(uuid.uuid4()),
        "htm": method,
        "htu": url,
        "iat": int(time.time()),
        "ath": b64(hashlib.sha256(token.encode()).digest()),
        **claims,
    }
    def part(members):
        return b64(json.dumps({name: value for name, value in members.items() if value is not None}).encode())

    message = f"{part(fields)}.{part(said)}"
    return f"{message}.{b64(ALGORITHMS[alg].sign(message.encode(), key(signer, alg)))}"


print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    instruction = json.loads(line)
    match instruction.pop("do"):
        case "prove":
            answer = {"proof": prove(**instruction)}
        case "thumbprint":
            answer = {"thumbprint": thumbprint(**instruction)}
        case other:
            answer = {"error": f"unknown instruction {other}"}
    print(json.dumps(answer), flush=True)
