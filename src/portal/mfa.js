// Sends each form once, and speaks with authenticators for those of passkeys (Web Authentication Level 3 §5.1): such a form says
// what to ask, is filled with the answer, and sent.
"use strict";

(() => {
  const bytes = (text) =>
    Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (sign) => sign.charCodeAt(0));
  const text = (buffer) =>
    btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  const words = (list) => list.split(" ").filter(Boolean);
  const credentials = (list) => words(list).map((id) => ({ type: "public-key", id: bytes(id) }));

  const prove = async (given) => {
    const { rawId, response } = await navigator.credentials.get({
      publicKey: {
        challenge: bytes(given.challenge),
        rpId: given.party,
        allowCredentials: credentials(given.credentials),
        userVerification: given.verification,
        timeout: 300000,
      },
    });
    return {
      credential: rawId,
      client: response.clientDataJSON,
      data: response.authenticatorData,
      signature: response.signature,
    };
  };

  const make = async (given) => {
    const { response } = await navigator.credentials.create({
      publicKey: {
        challenge: bytes(given.challenge),
        rp: { id: given.party, name: given.service },
        user: { id: bytes(given.user), name: given.name, displayName: given.name },
        pubKeyCredParams: words(given.algorithms).map((alg) => ({ type: "public-key", alg: Number(alg) })),
        excludeCredentials: credentials(given.credentials),
        authenticatorSelection: { residentKey: "discouraged", userVerification: given.verification },
        attestation: "none",
        timeout: 300000,
      },
    });
    return { client: response.clientDataJSON, attestation: response.attestationObject };
  };

  const ceremonies = { prove, make };

  // Of a form that is sent twice browsers throw the first answer away, and the session's new name with it.
  for (const form of document.querySelectorAll("form:not([data-passkey])")) {
    form.addEventListener("submit", (event) => {
      if (form.dataset.sent) event.preventDefault();
      form.dataset.sent = "yes";
    });
    // Whoever comes back to the page may send it again.
    window.addEventListener("pageshow", () => delete form.dataset.sent);
  }

  const forms = document.querySelectorAll("form[data-passkey]");
  if (!window.PublicKeyCredential) {
    for (const form of forms) {
      const sorry = document.createElement("p");
      sorry.textContent = "This browser has no passkeys. Try another one.";
      form.before(sorry);
    }
    return;
  }
  for (const form of forms) {
    const message = form.querySelector("[role=alert]");
    const button = form.querySelector("button");
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      button.disabled = true;
      message.hidden = true;
      try {
        const answer = await ceremonies[form.dataset.passkey](form.dataset);
        for (const [name, value] of Object.entries(answer)) form.elements[name].value = text(value);
        form.submit();
      } catch {
        message.hidden = false;
        button.disabled = false;
      }
    });
    form.hidden = false;
  }
})();
