// Tells whether somebody is at work, so that only true inactivity ends the session. When the session has ended, or has
// become somebody else's in another tab, nothing stays on the screen.
"use strict";
(() => {
  const mine = document.body.dataset.page;
  let worked = false;
  const note = () => (worked = true);
  const listen = (target) => {
    for (const event of ["pointerdown", "pointermove", "wheel", "keydown"]) {
      target.addEventListener(event, note, { passive: true, capture: true });
    }
  };
  listen(window);
  for (const frame of document.querySelectorAll("iframe.viewer, iframe.report")) {
    frame.addEventListener("load", () => frame.contentWindow && listen(frame.contentWindow));
  }
  // The viewer that was started behind the list, and what else came with it.
  document.addEventListener("drimbox:frame", (event) => listen(event.detail));
  const leave = () => {
    // What is on the screen goes at once, whatever the new page takes to come.
    document.body.replaceChildren();
    location.replace(location.href);
  };
  const ask = async () => {
    const query = new URLSearchParams({ page: mine });
    if (worked) query.set("actif", "1");
    worked = false;
    try {
      const answer = await fetch(`/presence?${query}`, { method: "POST" });
      if ([205, 401, 404].includes(answer.status)) leave();
    } catch {
      // The DRIMbox does not answer: nothing is known of the session, the next minute will tell.
    }
  };
  // A tab that loads tells the others whose session it found: those that show somebody else's look again.
  const tabs = new BroadcastChannel("drimbox");
  tabs.postMessage(mine);
  if (!mine) return;
  tabs.addEventListener("message", (told) => told.data !== mine && ask());
  setInterval(ask, 60_000);
  addEventListener("pageshow", (event) => event.persisted && ask());
})();
