"""Clients that read answers to their end, over HTTP/2 or HTTP/1.1, in clear or within TLS.

Takes one JSON instruction as its argument and prints one JSON account.
"""

import json
import ssl
import sys

import httpx


def client(do: dict) -> httpx.Client:
    secure = "ca" in do
    return httpx.Client(
        http2=do.get("http2", True),
        http1=not do.get("http2", True),
        verify=ssl.create_default_context(cafile=do["ca"]) if secure else True,
        base_url=f"{'https' if secure else 'http'}://{do['address']}",
        headers={"Host": "app.example"},
        timeout=20,
        trust_env=False,
    )


SNI = {"sni_hostname": "app.example"}


def whole(do: dict) -> dict:
    """Asks for each path; says what came, or that it did not end well."""
    accounts = []
    with client(do) as http:
        for path in do["paths"]:
            try:
                response = http.get(path, extensions=SNI)
                accounts.append({"status": response.status_code, "version": response.http_version, "body": response.text})
            except httpx.HTTPError as error:
                accounts.append({"error": type(error).__name__})
    return {"answers": accounts}


def events(do: dict) -> dict:
    """Reads Server-Sent Events and acknowledges each as soon as it is there, on a connection of its own."""
    seen, text = [], ""
    with client(do) as http, client(do) as second:
        with http.stream("GET", "/events", extensions=SNI) as response:
            version = response.http_version
            for part in response.iter_text():
                text += part
                while "\n\n" in text:
                    event, text = text.split("\n\n", 1)
                    number = event.removeprefix("data: ")
                    seen.append(number)
                    second.get(f"/ack/{number}", extensions=SNI).raise_for_status()
    return {"version": version, "seen": seen, "rest": text}


def main():
    do = json.loads(sys.argv[1])
    actions = {function.__name__: function for function in (whole, events)}
    print(json.dumps(actions[do.pop("do")](do)), flush=True)


main()
