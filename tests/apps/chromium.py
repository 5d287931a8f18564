"""A headless Chromium, driven by the DevTools protocol. For the programs beside this one that are a person with a browser."""

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
    """A tab, once it has a session; `complaints` is what the browser has logged."""

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

    async def ask(self, script):
        """The value of a script in the page; `None` while a page is being left."""
        answer = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        return answer["result"].get("value")

    async def until(self, script, holds=bool):
        """The value of a script in the page, as soon as it is as wanted."""
        for _ in range(300):
            value = await self.ask(script)
            if value is not None and holds(value):
                return value
            await asyncio.sleep(0.1)
        raise SystemExit(f"{script}: {value}; the page: {await self.ask('document.documentElement.outerHTML')}")

    async def attach(self, token, **options):
        """Opens the tab, whose requests bring the token."""
        target = (await self.call("Target.createTarget", url="about:blank", **options))["targetId"]
        session = await self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = session["sessionId"]
        for domain in ("Page", "Network", "Log"):
            await self.call(f"{domain}.enable")
        await self.call("Network.setExtraHTTPHeaders", headers={"Authorization": token})


async def drive(walk, given):
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


def run(walk):
    """Prints what the walk gives for the instructions of the command line."""
    asyncio.run(drive(walk, json.loads(sys.argv[1])))
