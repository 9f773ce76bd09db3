#!/usr/bin/env python3
"""Signs the tokens of vectors.json with PyJWT, an implementation that shares nothing with ours.

    python3 -m venv venv && venv/bin/pip install pyjwt cryptography
    venv/bin/python crates/gateway/src/auth/jwt/make_vectors.py >crates/gateway/src/auth/jwt/vectors.json

Keys are drawn anew each time: nothing is secret in what this writes. The matrix is every algorithm against every way in
which a token can be wrong; `fault` is what is expected of it, null for a good one.
"""

import base64
import hashlib
import hmac
import json
import logging
import warnings

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

NOW = 1767225600  # 2026-01-01T00:00:00Z
GOOD = {"sub": "ann", "iss": "issuer", "aud": "fanfare", "exp": NOW + 60, "nbf": NOW - 60}

warnings.simplefilter("ignore")
logging.disable()


def part(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def sign_anyhow(header, claims, secret):
    """HMAC over whatever the header says, as PyJWT rightly refuses to do it with a public key."""
    signed = part(json.dumps(header).encode()) + "." + part(json.dumps(claims).encode())
    digest = {"256": hashlib.sha256, "384": hashlib.sha384, "512": hashlib.sha512}[header["alg"][2:]]
    return signed + "." + part(hmac.new(secret, signed.encode(), digest).digest())


def pem(key, form=serialization.PublicFormat.SubjectPublicKeyInfo):
    return key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


def rsa_key(bits=2048):
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def tamper_claims(token):
    header, _, signature = token.split(".")
    return ".".join([header, part(json.dumps({**GOOD, "sub": "admin"}).encode()), signature])


def tamper_signature(token):
    signed, _, signature = token.rpartition(".")
    raw = bytearray(base64.urlsafe_b64decode(signature + "=="))
    raw[0] ^= 1
    return signed + "." + part(bytes(raw))


def without_signature(token):
    return token.rpartition(".")[0] + "."


KEYS = {
    "HS": ("a secret of thirty-two bytes and a few more", "another secret of thirty-two bytes, and more"),
    "RS": (rsa_key(), rsa_key()),
    "ES256": (ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())),
    "ES384": (ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP384R1())),
    "ES512": (ec.generate_private_key(ec.SECP521R1()), ec.generate_private_key(ec.SECP521R1())),
    "EdDSA": (ed25519.Ed25519PrivateKey.generate(), ed25519.Ed25519PrivateKey.generate()),
}
KEYS["PS"] = KEYS["RS"]
ALGORITHMS = ["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]


def trusted_key(algorithm):
    key, _ = KEYS.get(algorithm) or KEYS[algorithm[:2]]
    return key if isinstance(key, str) else pem(key)


TRUSTED = {algorithm: trusted_key(algorithm) for algorithm in ALGORITHMS}


def cases():
    for algorithm in ALGORITHMS:
        name = algorithm if algorithm in KEYS else algorithm[:2]
        key, other = KEYS[name]
        trusted = TRUSTED[algorithm]

        def signed(claims=None, by=key, **headers):
            return jwt.encode(claims or GOOD, by, algorithm=algorithm, headers=headers or None)

        good = signed()
        several = {**GOOD, "aud": ["elsewhere", "fanfare"]}
        rows = [
            ("valid", None, good),
            ("valid, for several audiences", None, signed(several)),
            ("valid, with a key id", None, signed(kid="k1", typ="at+jwt")),
            ("expired", "Expired", signed({**GOOD, "exp": NOW})),
            ("not yet valid", "NotYetValid", signed({**GOOD, "nbf": NOW + 1})),
            ("wrong key", "Signature", signed(by=other)),
            ("wrong audience", "Audience", signed({**GOOD, "aud": "elsewhere"})),
            ("no audience", "Audience", signed({name: it for name, it in GOOD.items() if name != "aud"})),
            ("wrong issuer", "Issuer", signed({**GOOD, "iss": "impostor"})),
            ("tampered claims", "Signature", tamper_claims(good)),
            ("tampered signature", "Signature", tamper_signature(good)),
            ("signature cut off", "Signature", without_signature(good)),
            ("none", "Algorithm", jwt.encode(GOOD, None, algorithm="none")),
            ("none, in capitals", "Algorithm", sign_none("None")),
            ("an extension that is critical", "Malformed", signed(crit=["b64"], b64=True)),
        ]
        if name != "HS":
            # The confusion that made this famous: the public key, which everybody knows, as the secret.
            for form in [trusted, trusted.strip()]:
                for confused in ["HS256", "HS384", "HS512"]:
                    token = sign_anyhow({"alg": confused, "typ": "JWT"}, GOOD, form.encode())
                    rows.append((f"public key as the secret of {confused}", "Algorithm", token))
        strangers = [("ES256", "RS256"), ("RS256", "EdDSA"), ("HS256", "ES256"), ("EdDSA", "HS256"), ("ES512", "ES256")]
        strangers += [("HS384", "RS384"), ("HS512", "ES512")]
        for elsewhere, stranger in strangers:
            if algorithm == elsewhere:
                by = KEYS.get(stranger) or KEYS[stranger[:2]]
                rows.append((f"signed with {stranger}", "Algorithm", jwt.encode(GOOD, by[0], algorithm=stranger)))
        for case, fault, token in rows:
            yield {"algorithm": algorithm, "case": case, "fault": fault, "token": token}


def sign_none(name):
    return part(json.dumps({"alg": name}).encode()) + "." + part(json.dumps(GOOD).encode()) + "."


forms = {
    "pkcs1": pem(KEYS["RS"][0], serialization.PublicFormat.PKCS1),
    "rsa_1024": pem(rsa_key(1024)),
    "secp256k1": pem(ec.generate_private_key(ec.SECP256K1())),
    "rsa_4096": pem(rsa_key(4096)),
}
rows = ",\n".join(json.dumps(row) for row in cases())
head = json.dumps({"now": NOW, "keys": forms, "trusted": TRUSTED}, indent=1)
print(head.removesuffix("\n}") + ',\n "matrix": [\n' + rows + "\n]}")
