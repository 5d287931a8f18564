"""A client that signs HTTP messages (RFC 9421) and webhooks, with http-message-signatures and the standard library.

It makes keys in the directory that it is given, prints {"ready": true}, then answers each JSON instruction on standard
input with one JSON line on standard output, and ends when its input does. It shares no code with the proxy.
"""

import base64
import datetime
import hashlib
import hmac
import json
import pathlib
import sys

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from http_message_signatures import HTTPMessageSigner, HTTPSignatureKeyResolver, algorithms
from http_message_signatures.digests import ContentDigest

ALGORITHMS = {
    "ed25519": algorithms.ED25519,
    "ecdsa-p256-sha256": algorithms.ECDSA_P256_SHA256,
    "rsa-pss-sha512": algorithms.RSA_PSS_SHA512,
    "hmac-sha256": algorithms.HMAC_SHA256,
}


def make_keys(directory: pathlib.Path) -> dict:
    """One key of each kind; the public half, or the secret, is written to the directory under the algorithm's name."""
    keys = {
        "ed25519": ed25519.Ed25519PrivateKey.generate(),
        "ecdsa-p256-sha256": ec.generate_private_key(ec.SECP256R1()),
        "rsa-pss-sha512": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    }
    for name, key in keys.items():
        pem = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        (directory / f"{name}.pem").write_bytes(pem)
    keys["hmac-sha256"] = b"an hmac secret of at least 32 bytes"
    secret = directory / "hmac-sha256.secret"
    secret.write_bytes(keys["hmac-sha256"])
    secret.chmod(0o600)
    return keys


class Resolver(HTTPSignatureKeyResolver):
    def __init__(self, key):
        self.key = key

    def resolve_private_key(self, key_id):
        return self.key

    def resolve_public_key(self, key_id):
        raise NotImplementedError


class AnyDigest(ContentDigest):
    """Signs whatever digest the message has, sound or not."""

    @classmethod
    def prepare(cls, headers, body, *, use_existing_digest=False):
        pass


class Signer(HTTPMessageSigner):
    content_digest_class = AnyDigest


class Message:
    def __init__(self, do: dict):
        self.method = do["method"]
        self.url = do["url"]
        self.headers = dict(do.get("headers", {}))


def digest(algorithm: str, body: bytes) -> str:
    name = algorithm.replace("-", "")
    return f"{algorithm}=:{base64.b64encode(hashlib.new(name, body).digest()).decode()}:"


def sign(keys: dict, do: dict) -> dict:
    """The fields of a signed message: those that it has and those of the signature."""
    message = Message(do)
    if "digest" in do:
        message.headers["Content-Digest"] = digest(do["digest"], do.get("body", "").encode())
    algorithm = ALGORITHMS[do["algorithm"]]
    signer = Signer(signature_algorithm=algorithm, key_resolver=Resolver(keys[do["algorithm"]]))
    moment = datetime.datetime.fromtimestamp
    signer.sign(
        message,
        key_id=do.get("keyid", do["algorithm"]),
        created=moment(do["created"]),
        expires=moment(do["expires"]) if "expires" in do else None,
        nonce=do.get("nonce"),
        tag=do.get("tag"),
        label=do.get("label", "sig"),
        include_alg=do.get("include_alg", True),
        covered_component_ids=do["components"],
    )
    return {"headers": message.headers}


def code(do: dict) -> dict:
    """An HMAC-SHA-256 over a text."""
    mac = hmac.new(do["secret"].encode(), do["text"].encode(), hashlib.sha256).digest()
    return {"hex": mac.hex(), "base64": base64.b64encode(mac).decode()}


def main():
    keys = make_keys(pathlib.Path(sys.argv[1]))
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        do = json.loads(line)
        answer = sign(keys, do) if do["do"] == "sign" else code(do)
        print(json.dumps(answer), flush=True)


main()
