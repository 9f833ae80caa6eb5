// Waits for the confirmation on the professional's device, then goes on.
"use strict";
(() => {
  const place = document.getElementById("attente");
  const ask = async () => {
    let over = false;
    try {
      const answer = await fetch(place.dataset.state, { headers: { Accept: "application/json" } });
      over = !answer.ok || (await answer.json()).over;
    } catch {
      // The DRIMbox does not answer: the next question will tell.
    }
    if (over) location.replace(location.href);
    else setTimeout(ask, 1000);
  };
  setTimeout(ask, 1000);
})();
