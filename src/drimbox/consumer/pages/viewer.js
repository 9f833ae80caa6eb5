// Shows how far the images have come, and why some cannot.
"use strict";
(() => {
  const box = document.getElementById("avancement");
  const bar = box.querySelector("progress");
  const figure = box.querySelector(".figure");
  const failures = document.getElementById("pannes");
  const frame = document.querySelector("iframe.viewer");
  const preview = document.getElementById("apercu");
  const words = { one: "image", many: "images" };
  let withdrawn = 0;
  let failuresTold = "[]";

  const left = (seconds) => (seconds < 60 ? `${Math.ceil(seconds)} s` : `${Math.ceil(seconds / 60)} min`);
  const plural = (count) => (count > 1 ? words.many : words.one);

  // The first image that came is seen at once; the viewer takes its place as soon as it shows one itself.
  const gone = () => preview?.remove();
  preview?.querySelector("img").addEventListener("error", gone);
  addEventListener("message", (event) => {
    if (event.origin === location.origin && event.source === frame.contentWindow && event.data?.drimbox === "image")
      gone();
  });

  // Weasis is started by an address; the page stays where it is.
  document.querySelector("form.weasis")?.addEventListener("submit", async (event) => {
    event.preventDefault();
    const form = event.target;
    const answer = await fetch(form.action, {
      method: "POST",
      body: new URLSearchParams(new FormData(form)),
      headers: { Accept: "application/json" },
    }).catch(() => null);
    if (answer?.ok) location.href = (await answer.json()).address;
    else figure.textContent = "Weasis n’a pas pu être ouvert : réessayez.";
  });

  // Who flagged an image, and when: said by the note itself, which is asked for when the list is opened.
  const notes = document.querySelector("details.keys");
  const value = (item, tag) => item?.[tag]?.Value?.[0];
  const spoken = (name) => (name ?? "").replaceAll("^", " ").trim();
  const observer = (note) => {
    const items = note["0040A730"]?.Value ?? [];
    const named = items.find((item) => value(value(item, "0040A043"), "00080100") === "121008");
    const told = value(named, "0040A123") ?? value(value(note, "0040A078"), "0040A123") ?? value(note, "00700084");
    return spoken(told?.Alphabetic ?? (typeof told === "string" ? told : ""));
  };
  const written = (note) => {
    const [, year, month, day] = /^(\d{4})(\d\d)(\d\d)$/.exec(value(note, "00080023") ?? "") ?? [];
    return year ? `le ${day}/${month}/${year}` : "";
  };
  const authors = async () => {
    const lines = [...notes.querySelectorAll("li")];
    const series = new Map(lines.map((line) => [line.dataset.noteSeries, line.dataset.study]));
    for (const [uid, study] of series) {
      const answer = await fetch(`${notes.dataset.base}/dicomweb/studies/${study}/series/${uid}/metadata`).catch(() => null);
      for (const note of answer?.ok ? await answer.json() : []) {
        const who = [observer(note), written(note)].filter(Boolean).join(", ");
        for (const line of lines.filter((one) => who && one.dataset.note === value(note, "00080018"))) {
          const place = line.querySelector(".who");
          place.textContent = `Signalée par ${who}`.replace("par le ", "le ");
          place.hidden = false;
        }
      }
    }
  };
  notes?.addEventListener("toggle", authors, { once: true });

  const show = (state) => {
    const total = { received: 0, expected: 0, seconds: 0, coming: 0 };
    for (const series of state.series) {
      total.received += series.received;
      total.expected += series.expected;
      if (series.state === "failed") continue;
      total.coming += series.expected - series.received;
      total.seconds = Math.max(total.seconds, series.seconds);
    }
    const percent = total.expected ? Math.floor((100 * total.received) / total.expected) : 0;
    bar.value = percent;
    const done = total.coming === 0;
    const speed = total.seconds > 1 ? total.received / total.seconds : 0;
    const rest = !done && speed > 0 ? `, encore ${left(total.coming / speed)}` : "";
    const count = `${total.received} / ${total.expected} ${plural(total.expected)}`;
    figure.textContent = total.expected ? `${percent} % – ${count}${rest}` : "";
    box.hidden = total.expected === 0;
    bar.hidden = done;
    const failed = state.series.filter((series) => series.state === "failed");
    failures.hidden = failed.length === 0;
    const missing = failed.length < state.series.length ? ` sur ${state.series.length}` : "";
    failures.querySelector(".count").textContent =
      failed.length > 1 ? `${failed.length} séries${missing} ne sont pas venues, ou pas en entier :` : "";
    failures.querySelector("form").hidden = !failed.some((series) => series.again);
    // A viewer that will never have anything to show must not look as if it were loading.
    const nothing = failed.length === state.series.length && failed.every((series) => series.received === 0);
    frame.hidden = nothing;
    if (nothing) gone();
    // Images that may not be shown any more leave the screen, wherever they are: the viewer begins again without them.
    const taken = state.series.reduce((sum, series) => sum + series.withdrawn, 0);
    if (taken > withdrawn) {
      gone();
      // One that was started ahead has an address that shows nothing.
      if (!nothing && frame.dataset.src) frame.src = frame.dataset.src;
      else if (!nothing) frame.contentWindow.location.reload();
      else frame.removeAttribute("src");
    }
    withdrawn = taken;
    // Only what is new is written: a list written again and again is read out again and again, and loses the focus.
    const told = JSON.stringify(failed);
    if (told === failuresTold) return;
    failuresTold = told;
    failures.querySelector("ul").replaceChildren(
      ...failed.map((series) => {
        const line = document.createElement("li");
        const part = series.received ? ` (${series.received} ${plural(series.received)} sur ${series.expected})` : "";
        line.textContent = `Série ${series.number ?? "sans numéro"}${part} : ${series.reason}.`;
        if (series.decide) {
          const link = document.createElement("a");
          link.href = series.decide;
          link.textContent = "Voir les différences et décider";
          line.append(" ", link);
        }
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
