"""A person with Chromium and an authenticator app: opens a page, types a wrong code and then the right one.

`mfa_browser.py INSTRUCTIONS`, JSON: `url`, `token` that the browser brings with each request, `wrong` and `right` codes. All by
the DevTools protocol, the keys included. Prints JSON: path, text and looks of each page, and what the browser complained of.
"""

import chromium

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


async def shows(page, condition):
    """What is shown once it fulfils the condition."""
    return await page.until(SHOWN, lambda shown: shown["ready"] == "complete" and condition(shown))


async def types(page, text):
    """As a person does, into whatever has the focus."""
    await page.call("Input.insertText", text=text)
    for kind in ("keyDown", "keyUp"):
        key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
        await page.call("Input.dispatchKeyEvent", type=kind, **key)


async def walk(socket, given):
    page = chromium.Page(socket)
    await page.attach(given["token"])
    await page.call("Page.navigate", url=given["url"])
    asked = await shows(page, lambda shown: "Second factor" in shown["text"] and shown["focus"] == "code")
    await types(page, given["wrong"])
    refused = await shows(page, lambda shown: "not right" in shown["text"] and shown["focus"] == "code")
    await page.call("Input.insertText", text=given["right"])
    sent = await page.ask(TWICE)
    paid = await shows(page, lambda shown: "paid" in shown["text"])
    cookie = await page.ask("document.cookie")
    return {
        "asked": asked, "refused": refused, "paid": paid,
        "cookie": cookie, "complaints": page.complaints, "sent": sent,
    }


chromium.run(walk)
