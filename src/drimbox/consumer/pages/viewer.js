// Shows how far the images have come, and why some cannot.
"use strict";
(() => {
  const box = document.getElementById("avancement");
  const bar = box.querySelector("progress");
  const figure = box.querySelector(".figure");
  const failures = document.getElementById("pannes");
  const frame = document.querySelector("iframe.viewer");
  const words = { one: "image", many: "images" };

  const left = (seconds) => (seconds < 60 ? `${Math.ceil(seconds)} s` : `${Math.ceil(seconds / 60)} min`);

  const show = (state) => {
    const total = { received: 0, expected: 0, seconds: 0 };
    for (const series of state.series) {
      if (series.state === "failed") continue;
      total.received += series.received;
      total.expected += series.expected;
      total.seconds = Math.max(total.seconds, series.seconds);
    }
    const percent = total.expected ? Math.floor((100 * total.received) / total.expected) : 0;
    bar.value = percent;
    const done = total.expected > 0 && total.received === total.expected;
    const speed = total.seconds > 1 ? total.received / total.seconds : 0;
    const rest = !done && speed > 0 ? `, encore ${left((total.expected - total.received) / speed)}` : "";
    const unit = total.expected > 1 ? words.many : words.one;
    figure.textContent = total.expected ? `${percent} % – ${total.received} / ${total.expected} ${unit}${rest}` : "";
    box.hidden = total.expected === 0;
    bar.hidden = done;
    const failed = state.series.filter((series) => series.state === "failed");
    failures.hidden = failed.length === 0;
    failures.querySelector("form").hidden = !failed.some((series) => series.again);
    // A viewer that will never have anything to show must not look as if it were loading.
    frame.hidden = failed.length === state.series.length;
    failures.querySelector("ul").replaceChildren(
      ...failed.map((series) => {
        const line = document.createElement("li");
        line.textContent = `Série ${series.number ?? "sans numéro"} : ${series.reason}.`;
        return line;
      }),
    );
  };

  const follow = async () => {
    try {
      const answer = await fetch(box.dataset.source, { headers: { Accept: "application/json" } });
      if (answer.status === 404 || answer.status === 401) return location.reload();
      if (answer.ok) {
        const state = await answer.json();
        show(state);
        if (state.over) return;
      }
    } catch {
      figure.textContent = "La DRIMbox ne répond pas : nouvel essai…";
    }
    setTimeout(follow, 1000);
  };
  follow();
})();
