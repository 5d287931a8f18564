"""The code of an authenticator app, by the `cryptography` package: `totp.py SECRET STEPS-FROM-NOW`."""

import base64
import sys
import time

from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP

secret, away = sys.argv[1], int(sys.argv[2])
key = base64.b32decode(secret + "=" * (-len(secret) % 8))
print(TOTP(key, 6, SHA1(), 30).generate(int(time.time()) + 30 * away).decode())
