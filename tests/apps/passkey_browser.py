"""A person with Chromium and an authenticator: enrols a passkey by an invitation, and shows it in a browser with no cookies.

`passkey_browser.py INSTRUCTIONS`, JSON: `url` of the page that wants the factor, `token` that the browser brings, `invitation`.
The authenticator is the virtual one of the DevTools protocol, all else is what a person's browser does. Prints JSON: the text of
the page after each of the walks, and that of a browser without passkeys, and what the authenticator has counted.
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


class Page:
    """A tab, by the DevTools protocol."""

    def __init__(self, socket):
        self.socket, self.number, self.session = socket, 0, None
        self.loads = 0

    async def call(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        await self.socket.send(json.dumps(message))
        while True:
            answer = json.loads(await self.socket.recv())
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise SystemExit(f"{method}: {answer['error']}")
                return answer["result"]

    async def ask(self, script):
        """The value of a script in the page."""
        answer = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        return answer["result"].get("value")

    async def until(self, script):
        """Waits until a script in the page is true; a page that is just being left has no answer."""
        for _ in range(300):
            if await self.ask(script):
                return
            await asyncio.sleep(0.1)
        raise SystemExit(f"{script}: never; the page: {await self.ask('document.documentElement.outerHTML')}")


async def open_page(socket, token):
    """A tab with cookies of its own, whose requests bring the token."""
    page = Page(socket)
    context = (await page.call("Target.createBrowserContext"))["browserContextId"]
    target = (await page.call("Target.createTarget", url="about:blank", browserContextId=context))["targetId"]
    session = await page.call("Target.attachToTarget", targetId=target, flatten=True)
    page.session = session["sessionId"]
    await page.call("Page.enable")
    await page.call("Network.enable")
    await page.call("Network.setExtraHTTPHeaders", headers={"Authorization": token})
    await page.call("WebAuthn.enable")
    options = {"protocol": "ctap2", "transport": "internal", "hasUserVerification": True, "isUserVerified": True}
    options |= {"hasResidentKey": True, "automaticPresenceSimulation": True}
    page.authenticator = (await page.call("WebAuthn.addVirtualAuthenticator", options=options))["authenticatorId"]
    return page


async def credentials(page):
    return (await page.call("WebAuthn.getCredentials", authenticatorId=page.authenticator))["credentials"]


async def walk(socket, given):
    first = await open_page(socket, given["token"])
    await first.call("Page.navigate", url=given["url"])
    await first.until("!!document.querySelector('#invitation')")
    code = json.dumps(given["invitation"])
    await first.ask(f"document.querySelector('#invitation').value = {code}; document.querySelector('button').click()")
    await first.until("!!document.querySelector('form[data-passkey=make]:not([hidden])')")
    await first.ask("document.querySelector('form[data-passkey=make] button').click()")
    await first.until("document.body.textContent.includes('paid')")
    enrolled = await first.ask("document.body.textContent")

    second = await open_page(socket, given["token"])
    (made,) = await credentials(first)
    await second.call("WebAuthn.addCredential", authenticatorId=second.authenticator, credential=made)
    await second.call("Page.navigate", url=given["url"])
    await second.until("!!document.querySelector('form[data-passkey=prove]:not([hidden])')")
    await second.ask("document.querySelector('form[data-passkey=prove] button').click()")
    await second.until("document.body.textContent.includes('paid')")
    shown = await second.ask("document.body.textContent")
    (used,) = await credentials(second)

    third = await open_page(socket, given["token"])
    await third.call("Page.addScriptToEvaluateOnNewDocument", source="delete window.PublicKeyCredential")
    await third.call("Page.navigate", url=given["url"])
    await third.until("document.body && document.body.textContent.includes('This browser')")
    without = await third.ask("document.body.textContent")
    return {"without": without, "enrolled": enrolled, "shown": shown, "counters": [made["signCount"], used["signCount"]]}


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
