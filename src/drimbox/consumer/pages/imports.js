// Shows how imports go on while the page stays as it is; when one ends, the page is asked for again.
"use strict";
(() => {
  const place = document.getElementById("imports");
  if (!place || !("waiting" in place.dataset)) return;
  const look = async () => {
    let answer;
    try {
      answer = await fetch(place.dataset.source, { headers: { Accept: "application/json" }, redirect: "manual" });
    } catch {
      return setTimeout(look, 3000);
    }
    if (answer.status !== 200) return location.reload();
    for (const one of await answer.json()) {
      const row = document.querySelector(`[data-import="${one.id}"]`);
      if (!row) continue;
      if (!one.open && row.dataset.open !== "no" && row.querySelector('form[action$="/annuler"]')) return location.reload();
      row.querySelector("progress").value = one.percent;
      const told = row.querySelector(".told");
      if (told.textContent !== one.told) told.textContent = one.told;
      const why = row.querySelector(".why");
      why.hidden = !one.reason;
      if (why.textContent !== one.reason) why.textContent = one.reason;
    }
    setTimeout(look, 1000);
  };
  setTimeout(look, 700);
})();
