// Starts the viewer behind the list, without any exam: the one that is opened then is on the screen sooner. Where
// anything is not as expected, the link does what links do.
"use strict";
(() => {
  const list = document.getElementById("liste");
  // A viewer takes some hundred megabytes: not where there is little memory, nor in tabs that nobody looks at.
  if (!list || (navigator.deviceMemory ?? 8) < 4) return;
  const LEFT_ALONE = 60_000;
  const links = 'a[id^="images-"]';
  let box = null;
  let frame = null;
  let ready = false;
  let opening = false;
  let leaving = 0;

  const start = () => {
    if (box || opening || document.hidden || !list.querySelector(links)) return;
    box = document.createElement("div");
    box.className = "ahead";
    box.inert = true;
    frame = document.createElement("iframe");
    frame.className = "viewer";
    frame.name = "images";
    frame.title = "Visionneuse d’images";
    frame.allow = "fullscreen";
    frame.src = "/visionneuse/attente/viewer";
    box.append(frame);
    document.body.append(box);
  };
  const stop = () => {
    if (opening) return;
    box?.remove();
    box = frame = null;
    ready = false;
  };

  addEventListener("message", (event) => {
    if (event.origin === location.origin && event.source === frame?.contentWindow && event.data?.drimbox === "ahead")
      ready = true;
  });
  document.addEventListener("visibilitychange", () => {
    clearTimeout(leaving);
    if (document.hidden) leaving = setTimeout(stop, LEFT_ALONE);
    else start();
  });
  // The list comes first.
  const idle = window.requestIdleCallback ?? ((work) => setTimeout(work, 300));
  const look = () => {
    if (list.getAttribute("aria-busy") !== "true") idle(start, { timeout: 2000 });
    else setTimeout(look, 300);
  };
  look();

  const heard = (target) => document.dispatchEvent(new CustomEvent("drimbox:frame", { detail: target }));

  // Put the page of the exam where the list was, around the viewer that is there already.
  const show = (page, place, address) => {
    const source = new URL(place.getAttribute("src"), location.href);
    const stand = page.createElement("div");
    stand.className = "stand";
    place.replaceWith(stand);
    const scripts = [...page.querySelectorAll("main script[src]")].map((script) => script.getAttribute("src"));
    history.pushState(null, "", address);
    addEventListener("popstate", () => location.reload());
    document.title = page.title;
    document.body.className = page.body.className;
    for (const child of [...document.body.childNodes]) if (child !== box) child.remove();
    box.before(...[...page.body.childNodes].map((child) => document.adoptNode(child)));
    box.classList.add("shown");
    box.inert = false;
    frame.dataset.src = `${source.pathname}${source.search}`;
    const fit = () => {
      const { left, top, width, height } = stand.getBoundingClientRect();
      Object.assign(box.style, { left: `${left}px`, top: `${top}px`, width: `${width}px`, height: `${height}px` });
    };
    new ResizeObserver(fit).observe(stand);
    addEventListener("resize", fit);
    fit();
    const base = /^\/visionneuse\/[^/]+/.exec(source.pathname)[0];
    frame.contentWindow.postMessage({ drimbox: "open", base, query: source.search }, location.origin);
    heard(frame.contentWindow);
    const report = document.querySelector("iframe.report");
    report?.addEventListener("load", () => report.contentWindow && heard(report.contentWindow));
    for (const name of scripts) {
      const script = document.createElement("script");
      script.src = name;
      document.body.append(script);
    }
    document.getElementById("contenu")?.focus({ preventScroll: true });
  };

  list.addEventListener("click", async (event) => {
    const link = event.target.closest(links);
    const plain = !event.button && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
    if (!link || !plain || !ready || opening || event.defaultPrevented) return;
    event.preventDefault();
    opening = true;
    clearTimeout(leaving);
    const answer = await fetch(link.href, { headers: { Accept: "text/html" } }).catch(() => null);
    const page = answer?.ok && !answer.redirected ? new DOMParser().parseFromString(await answer.text(), "text/html") : null;
    const place = page?.querySelector(".stage > iframe.viewer");
    // A warning, a question, an error, somebody else's page: that is shown as it is.
    if (!place || page.body.dataset.page !== document.body.dataset.page) return location.assign(link.href);
    show(page, place, link.href);
  });
  // Back from there, by the memory of the browser.
  addEventListener("pageshow", (event) => {
    if (event.persisted) opening = false;
  });
})();
