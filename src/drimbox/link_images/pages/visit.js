// One click from series to series; and nothing stays on the screen once the visit is over, or nobody is there any more.
"use strict";
(() => {
  const IDLE_MINUTES = 15;
  const frame = document.querySelector("iframe.viewer");
  const buttons = [...document.querySelectorAll("button[data-series]")];

  const mark = (uid) => {
    for (const button of buttons) {
      if (button.dataset.series === uid) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    }
  };
  for (const button of buttons) {
    button.addEventListener("click", () => {
      frame.contentWindow.postMessage({ drimbox: "series", uid: button.dataset.series }, location.origin);
    });
  }
  // The viewer says which series it shows, however it was chosen.
  addEventListener("message", (event) => {
    if (event.origin !== location.origin || event.source !== frame.contentWindow) return;
    if (event.data?.drimbox === "shown") mark(event.data.uid);
  });

  let worked = Date.now();
  let active = true;
  const note = () => {
    worked = Date.now();
    active = true;
  };
  const listen = (target) => {
    for (const event of ["pointerdown", "pointermove", "wheel", "keydown", "touchstart"]) {
      target.addEventListener(event, note, { passive: true, capture: true });
    }
  };
  listen(window);
  frame.addEventListener("load", () => frame.contentWindow && listen(frame.contentWindow));

  const leave = () => {
    const closed = document.getElementById("fermee").content.cloneNode(true);
    document.body.className = "plain";
    document.body.replaceChildren(closed);
    document.querySelector("main").focus();
  };
  const watch = async () => {
    if (Date.now() - worked > IDLE_MINUTES * 60_000) return leave();
    try {
      const { presence, version } = document.body.dataset;
      const answer = await fetch(`${presence}?actif=${active ? 1 : 0}&version=${version}`);
      // Another version of the exam was published: what is on the screen may be shared no more.
      if (answer.status === 409) return location.reload();
      if (!answer.ok && answer.status < 500) return leave();
    } catch {
      // The network may come back; what is on the screen was shown to who is there.
    }
    active = false;
    setTimeout(watch, 20_000);
  };
  setTimeout(watch, 20_000);
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && Date.now() - worked > IDLE_MINUTES * 60_000) leave();
  });
})();
