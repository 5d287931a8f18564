"""A person with Chromium and an authenticator: enrols a passkey by an invitation, and shows it in a browser with no cookies.

`passkey_browser.py INSTRUCTIONS`, JSON: `url` of the page that wants the factor, `token` that the browser brings, `invitation`.
The authenticator is the virtual one of the DevTools protocol, all else is what a person's browser does. Prints JSON: the text of
the page after each of the walks, and that of a browser without passkeys, and what the authenticator has counted.
"""

import json

import chromium


async def open_page(socket, token):
    """A tab with cookies of its own, whose requests bring the token."""
    page = chromium.Page(socket)
    context = (await page.call("Target.createBrowserContext"))["browserContextId"]
    await page.attach(token, browserContextId=context)
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


chromium.run(walk)
