// Tells whether somebody is at work, so that only true inactivity ends the session; when it has ended, nothing stays on
// the screen.
"use strict";
(() => {
  let worked = false;
  const note = () => (worked = true);
  const listen = (target) => {
    for (const event of ["pointerdown", "pointermove", "wheel", "keydown"]) {
      target.addEventListener(event, note, { passive: true, capture: true });
    }
  };
  listen(window);
  for (const frame of document.querySelectorAll("iframe.viewer")) {
    frame.addEventListener("load", () => frame.contentWindow && listen(frame.contentWindow));
  }
  setInterval(async () => {
    const path = worked ? "/presence?actif=1" : "/presence";
    worked = false;
    try {
      const answer = await fetch(path, { method: "POST" });
      if (answer.status === 404 || answer.status === 401) location.reload();
    } catch {
      // The DRIMbox does not answer: nothing is known of the session, the next minute will tell.
    }
  }, 60_000);
})();
