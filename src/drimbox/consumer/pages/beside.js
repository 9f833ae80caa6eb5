// Shows a report beside the images, and takes it away again, in one click (DB.CO.59).
"use strict";
(() => {
  const frame = document.querySelector("iframe.report");
  if (!frame) return;
  const links = [...document.querySelectorAll("a[data-beside]")];
  const tell = (shown) => {
    for (const link of links) link.setAttribute("aria-expanded", String(link === shown));
  };
  for (const link of links) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      const again = !frame.hidden && frame.dataset.shows === link.href;
      frame.hidden = again;
      frame.dataset.shows = again ? "" : link.href;
      if (!again) frame.src = link.href;
      tell(again ? null : link);
    });
  }
})();
