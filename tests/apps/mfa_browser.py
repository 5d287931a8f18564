"""A person with Chromium and an authenticator app: opens a page, types a wrong code and then the right one.

`mfa_browser.py INSTRUCTIONS`, JSON: `url`, `token` that the browser brings with each request, `wrong` and `right` codes. All by
the DevTools protocol, the keys included. Prints JSON: path, text and looks of each page, and what the browser complained of.
"""

import asyncio
import json
import os
import re
import sys
import tempfile

import websockets

FLAGS = """
--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update
--disable-sync --disable-dev-shm-usage --no-proxy-server --ignore-certificate-errors --remote-debugging-port=0
""".split()

SHOWN = """({
  path: location.pathname, text: document.body.innerText, focus: document.activeElement.id,
  font: getComputedStyle(document.body).maxWidth, ready: document.readyState,
})"""


# A form that is sent twice at once, and how many of them go to the gate.
TWICE = """(() => {
  let sent = 0;
  addEventListener("submit", (event) => { sent += event.defaultPrevented ? 0 : 1; });
  const form = document.querySelector("form");
  form.requestSubmit();
  form.requestSubmit();
  return sent;
})()"""


class Page:
    def __init__(self, socket):
        self.socket, self.number, self.session, self.complaints = socket, 0, None, []

    async def call(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        await self.socket.send(json.dumps(message))
        while True:
            answer = json.loads(await self.socket.recv())
            if answer.get("method") == "Log.entryAdded":
                self.complaints.append(answer["params"]["entry"]["text"])
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise SystemExit(f"{method}: {answer['error']}")
                return answer["result"]

    async def until(self, condition):
        """What is shown once it fulfils the condition; a page that is just being left has no answer."""
        shown = None
        for _ in range(300):
            answer = await self.call("Runtime.evaluate", expression=SHOWN, returnByValue=True)
            shown = answer["result"].get("value")
            if shown and shown["ready"] == "complete" and condition(shown):
                return shown
            await asyncio.sleep(0.1)
        raise SystemExit(f"not in time: {shown}")

    async def types(self, text):
        """As a person does, into whatever has the focus."""
        await self.call("Input.insertText", text=text)
        for kind in ("keyDown", "keyUp"):
            key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
            await self.call("Input.dispatchKeyEvent", type=kind, **key)


async def walk(socket, given):
    page = Page(socket)
    target = (await page.call("Target.createTarget", url="about:blank"))["targetId"]
    session = await page.call("Target.attachToTarget", targetId=target, flatten=True)
    page.session = session["sessionId"]
    await page.call("Page.enable")
    await page.call("Network.enable")
    await page.call("Log.enable")
    await page.call("Network.setExtraHTTPHeaders", headers={"Authorization": given["token"]})
    await page.call("Page.navigate", url=given["url"])
    asked = await page.until(lambda shown: "Second factor" in shown["text"] and shown["focus"] == "code")
    await page.types(given["wrong"])
    refused = await page.until(lambda shown: "not right" in shown["text"] and shown["focus"] == "code")
    await page.call("Input.insertText", text=given["right"])
    sent = await page.call("Runtime.evaluate", expression=TWICE, returnByValue=True)
    paid = await page.until(lambda shown: "paid" in shown["text"])
    cookie = await page.call("Runtime.evaluate", expression="document.cookie", returnByValue=True)
    return {
        "asked": asked, "refused": refused, "paid": paid,
        "cookie": cookie["result"]["value"], "complaints": page.complaints, "sent": sent["result"]["value"],
    }


async def main(given):
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = await asyncio.create_subprocess_exec(
            "chromium", *FLAGS, f"--user-data-dir={profile}", "--host-resolver-rules=MAP app.example 127.0.0.1",
            env=os.environ | {"HOME": profile}, stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL,
        )
        try:
            address = None
            while not address:
                line = await asyncio.wait_for(browser.stderr.readline(), 60)
                if not line:
                    raise SystemExit("chromium ended")
                address = re.search(rb"DevTools listening on (ws://\S+)", line)
            drain = asyncio.create_task(browser.stderr.read())
            async with websockets.connect(address[1].decode(), max_size=None) as socket:
                print(json.dumps(await asyncio.wait_for(walk(socket, given), 90)))
            drain.cancel()
        finally:
            if browser.returncode is None:
                browser.kill()
            await browser.wait()


asyncio.run(main(json.loads(sys.argv[1])))
