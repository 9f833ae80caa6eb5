// Shows what is found as it comes: the list is asked for again whenever there is news of it. Without this the page
// reloads itself.
"use strict";
(() => {
  const list = document.getElementById("liste");
  const told = document.getElementById("etat");
  if (!list) return;
  const started = performance.now();

  const pause = (milliseconds) => new Promise((resume) => setTimeout(resume, milliseconds));

  const clock = () => {
    const seconds = Math.floor((performance.now() - started) / 1000);
    for (const place of list.querySelectorAll("[data-since]")) {
      if (seconds >= 3) place.textContent = `Depuis ${seconds} s ; vous pouvez continuer à travailler.`;
    }
  };

  // What the user is doing in the list survives its renewal: the focus, what is ticked, what is open.
  const renew = (text) => {
    const focus = list.contains(document.activeElement) ? document.activeElement.id : "";
    const ticked = [...list.querySelectorAll("input:checked[id]")].map((box) => box.id);
    const unfolded = [...list.querySelectorAll("details[open][id]")].map((part) => part.id);
    list.innerHTML = text;
    for (const id of unfolded) document.getElementById(id)?.setAttribute("open", "");
    for (const id of ticked) {
      const box = document.getElementById(id);
      if (box) box.checked = true;
    }
    const again = focus && document.getElementById(focus);
    if (again) again.focus({ preventScroll: true });
    clock();
  };

  const say = () => {
    const words = [...list.querySelectorAll(".count, .trouble strong")].map((one) => one.textContent.trim());
    const text = words.join(". ").replace(/\s+/g, " ");
    if (told && told.textContent !== text) told.textContent = text;
  };

  const follow = async () => {
    const source = list.dataset.source;
    if (!source) return;
    const ticking = setInterval(clock, 1000);
    let failures = 0;
    for (;;) {
      let answer;
      try {
        answer = await fetch(`${source}&vu=${list.dataset.version}`, {
          headers: { Accept: "text/html" },
          redirect: "manual",
        });
        failures = 0;
      } catch {
        if (!list.isConnected) break;
        if ((failures += 1) > 20) return location.reload();
        await pause(2000);
        continue;
      }
      // An exam has taken the place of the list.
      if (!list.isConnected) break;
      if (answer.headers.get("X-Drimbox-Go")) return location.replace(answer.headers.get("X-Drimbox-Go"));
      if (answer.status === 204) continue;
      if (answer.status !== 200) return location.reload();
      list.dataset.version = answer.headers.get("X-Drimbox-Version");
      renew(await answer.text());
      list.setAttribute("aria-busy", list.querySelector("[data-since]") ? "true" : "false");
      if (answer.headers.get("X-Drimbox-Busy") !== "1") break;
      // A burst of small news is one renewal.
      await pause(150);
    }
    clearInterval(ticking);
    say();
  };

  say();
  follow();
})();
