// Fills the list in when the DMP has answered; without it the page reloads itself.
"use strict";
(async () => {
  const list = document.getElementById("liste");
  const source = list && list.dataset.source;
  if (!source) return;
  for (let tries = 0; tries < 20; tries += 1) {
    let answer;
    try {
      answer = await fetch(source, { headers: { Accept: "text/html" }, redirect: "manual" });
    } catch {
      await new Promise((resume) => setTimeout(resume, 2000));
      continue;
    }
    if (answer.status === 202) continue;
    if (answer.status === 204) return location.replace(answer.headers.get("X-Drimbox-Go"));
    if (answer.status !== 200) return location.reload();
    list.innerHTML = await answer.text();
    list.setAttribute("aria-busy", "false");
    return;
  }
  location.reload();
})();
