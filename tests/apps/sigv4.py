"""Signs requests with botocore, the signer of AWS's own clients: no code is shared with the proxy.

Takes one JSON list of requests as its argument and prints the signed ones as a JSON list: method, target, headers, body.
"""

import base64
import datetime
import json
import sys
from urllib.parse import urlsplit

import botocore.auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

WAYS = {
    "header": botocore.auth.SigV4Auth,
    "s3": botocore.auth.S3SigV4Auth,
    "query": botocore.auth.SigV4QueryAuth,
    "s3-query": botocore.auth.S3SigV4QueryAuth,
}


def signed(do: dict) -> dict:
    moment = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=do.get("later", 0))
    botocore.auth.get_current_datetime = lambda *args, **kwargs: moment.replace(tzinfo=None)
    body = base64.b64decode(do["body"]) or b"x" * do.get("length", 0)
    request = AWSRequest(method=do["method"], url=do["url"], headers=do.get("headers", {}), data=body, params=do.get("params", {}))
    request.context["payload_signing_enabled"] = do.get("sign_payload", True)
    if do["way"].startswith("s3") and not do.get("sign_payload", True):
        request.headers["Content-MD5"] = "only its presence matters"
    credentials = Credentials(do["key_id"], do["secret"], do.get("token"))
    more = {"expires": do["expires"]} if do["way"].endswith("query") else {}
    WAYS[do["way"]](credentials, do["service"], do["region"], **more).add_auth(request)
    url = urlsplit(request.prepare().url)
    return {
        "method": do["method"],
        "target": (url.path or "/") + (f"?{url.query}" if url.query else ""),
        "headers": [[name, value.decode() if isinstance(value, bytes) else value] for name, value in request.headers.items()],
        "body": base64.b64encode(body).decode(),
    }


print(json.dumps([signed(request) for request in json.loads(sys.argv[1])]))
