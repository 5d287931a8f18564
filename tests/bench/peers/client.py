"""One request at a time, to ask whether a system does what it should."""
import collections
import http.client
import ssl

from . import material

Answer = collections.namedtuple("Answer", "status headers body")
NOTHING = Answer(0, {}, b"")


def fields(keys, profile, token="tokens", origin=material.ORIGIN_ALLOWED):
    """What a request carries under this profile: a token where one is asked for, an origin."""
    carried = {"Origin": origin} if "CORS" in profile.carried and origin else {}
    if "TOKEN" in profile.carried and token:
        carried["Authorization"] = f"Bearer {material.token(keys, f'{profile.algorithm}.{token}')}"
    return carried


def trust(keys):
    context = ssl.create_default_context(cafile=keys / "cert.pem")
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def get(running, path, carried, clear=False):
    """The answer, or NOTHING where the connection fails."""
    if clear:
        link = http.client.HTTPConnection("localhost", running.plain, timeout=5)
    else:
        link = http.client.HTTPSConnection("localhost", running.tls, timeout=5, context=trust(running.rig.keys))
    try:
        link.request("GET", path, headers={"User-Agent": "bench", **carried})
        answer = link.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, headers, answer.read())
    except (OSError, http.client.HTTPException):
        return NOTHING
    finally:
        link.close()
