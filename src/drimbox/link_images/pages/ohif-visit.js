// What OHIF does more in a visit by the link in a report: series change by one click, here and on the page around.
"use strict";
(() => {
  const services = () => window.services;

  const show = (uid) => {
    const { displaySetService, viewportGridService, hangingProtocolService } = services() ?? {};
    const sets = displaySetService?.getDisplaySetsForSeries(uid) ?? [];
    if (!sets.length) return false;
    const viewportId = viewportGridService.getActiveViewportId();
    const viewportsToUpdate = hangingProtocolService.getViewportsRequireUpdate(
      viewportId,
      sets[0].displaySetInstanceUID,
      false,
    );
    window.commandsManager.run("setDisplaySetsForViewports", { viewportsToUpdate });
    return true;
  };

  // A series that has not begun to come yet is shown when it does, unless another one is chosen meanwhile.
  let wanted = null;
  const showWhenThere = () => {
    if (wanted === null) return;
    let shown = false;
    try {
      shown = show(wanted);
    } catch {
      // OHIF is still starting.
    }
    if (shown) wanted = null;
    else setTimeout(showWhenThere, 250);
  };
  addEventListener("message", (event) => {
    if (event.origin !== location.origin || event.source !== parent) return;
    if (event.data?.drimbox !== "series") return;
    const idle = wanted === null;
    wanted = event.data.uid;
    if (idle) showWhenThere();
  });

  // OHIF's own thumbnails want two clicks: one is enough. It stops clicks on their way up, so they are seen on their way
  // down.
  const once = (event) => {
    const thumbnail = event.target.closest?.('[data-cy^="study-browser-thumbnail"]');
    if (!thumbnail || event.target.closest("button")) return;
    const twice = new MouseEvent("dblclick", { bubbles: true, cancelable: true, view: window });
    setTimeout(() => thumbnail.dispatchEvent(twice));
  };
  document.addEventListener("click", once, true);

  const tell = () => {
    const { viewportGridService, displaySetService } = services() ?? {};
    if (!viewportGridService) return setTimeout(tell, 200);
    let told = null;
    const say = () => {
      const { viewports, activeViewportId } = viewportGridService.getState();
      const [set] = viewports.get(activeViewportId)?.displaySetInstanceUIDs ?? [];
      const uid = set && displaySetService.getDisplaySetByUID(set)?.SeriesInstanceUID;
      if (uid && uid !== told) parent.postMessage({ drimbox: "shown", uid: (told = uid) }, location.origin);
    };
    setInterval(() => {
      try {
        say();
      } catch {
        // Between two layouts there is none.
      }
    }, 300);
  };
  tell();
})();
