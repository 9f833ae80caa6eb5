// OHIF in French: what its own translation leaves in English, or says badly, comes from ohif-words.js. What it asks its
// translation for is given to it by its own call for that (addLocales); what it writes without asking is put into
// French where it appears. Texts that are the images' own (names, descriptions, attributes) are left as they came.
"use strict";
window.drimboxFrench = (() => {
  const { namespaces, phrases, inDialogs } = window.drimboxWords;
  const state = { i18n: null };

  // OHIF's translation is a module of its bundle. It is given our words as soon as it has read its own, before anything
  // else has asked it: labels of tools are translated once.
  const FRENCH = [{ value: "fr", label: "Français" }];
  const taught = (i18n) => {
    i18n.addLocales({ fr: namespaces });
    // The language is ours to choose, whatever a former visit has left in the browser.
    i18n.availableLanguages = FRENCH;
    if (i18n.language !== "fr") i18n.changeLanguage("fr");
    state.i18n = i18n;
  };
  const isTranslation = (source) => source.includes("i18nextLng") && source.includes("addLocales");
  (globalThis.rspackChunk ??= []).push([
    ["drimbox-french"],
    {},
    (require) => {
      const id = Object.keys(require.m).find((each) => isTranslation(String(require.m[each])));
      const original = require.m[id];
      require.m[id] = function (module, exports, within) {
        original.call(this, module, exports, within);
        const found = Object.values(module.exports).find((one) => one?.addLocales);
        if (!found) throw new Error("OHIF's translation is not where it was");
        taught(found);
      };
    },
  ]);

  // What stands on screen without having been asked for. Numbers are written the French way with their units.
  const NUMBER = /(\d)\.(\d)/g;
  const figures = (text) => text.replace(NUMBER, "$1,$2").replace(/\bHU\b/g, "UH");
  const MEASURES = {
    Area: "Surface",
    Angle: "Angle",
    Length: "Longueur",
    L: "Longueur",
    W: "Largeur",
    Max: "Maximum",
    Mean: "Moyenne",
    Min: "Minimum",
    Perimeter: "Périmètre",
    Radius: "Rayon",
    "Std Dev": "Écart type",
    StdDev: "Écart type",
    Width: "Largeur",
  };
  const UNIT = "(?:mm|cm|px|pixels|HU|raw|SUV|°|º|deg|ml|s\\b|Hz|%)";
  const NAMED = new RegExp(`^(${Object.keys(MEASURES).join("|")}):? (-?[\\d.]+.*)$`);
  const WITH_UNIT = new RegExp(`^-?\\d+\\.\\d+ ?${UNIT}.*$`);
  const PATTERNS = [
    [NAMED, (_, name, value) => `${MEASURES[name]} : ${figures(value)}`],
    [WITH_UNIT, (text) => figures(text)],
    [/^-?\d+ HU$/, (text) => figures(text)],
    [/^Click (.+) to restore measurements\.$/, (_, what) => `Cliquez sur ${what} pour rétablir les mesures.`],
    [/^Search (.+)\.\.\.$/, (_, what) => `Chercher : ${what}…`],
    [/^Sort (.+)$/, (_, what) => `Trier : ${what}`],
    [/^Series #(\S+) ?(.*)$/, (_, number, text) => `Série ${number} ${text}`.trim()],
    [/^Cannot display SOPClassUID of (\S+) yet$/, (_, uid) => `La classe SOP ${uid} ne peut pas être affichée.`],
    [
      /^Each of the series in filter: .* are not part of the current study\..*$/,
      () => "La série demandée n’est pas de cet examen : il est montré entier.",
    ],
  ];
  // On each image the window and the number of the image are told by a letter.
  const LETTERS = { "W:": "F :", "L:": "N :", "I:": "Im. :", "Zoom:": "Zoom :" };

  const french = (text) => {
    const bare = text.trim();
    if (!bare) return text;
    let said = Object.hasOwn(phrases, bare) ? phrases[bare] : null;
    for (let index = 0; said === null && index < PATTERNS.length; index += 1) {
      const [pattern, say] = PATTERNS[index];
      const found = pattern.exec(bare);
      if (found) said = say(...found);
    }
    return said === null || said === bare ? text : text.replace(bare, () => said);
  };

  // What images carry is shown as it came.
  const THEIRS = "[data-cy='series-description-label']";
  const ATTRIBUTES = ["aria-label", "title", "placeholder", "alt"];
  const text = (node) => {
    const around = node.parentElement;
    if (!around || around.closest("script, style, textarea")) return;
    const overlay = around.closest(".overlay-item");
    if (!overlay && around.closest(THEIRS)) return;
    const bare = node.data.trim();
    const letter = overlay || (Object.hasOwn(inDialogs, bare) && around.closest("[role=dialog]"));
    const said = letter ? ((overlay ? LETTERS : inDialogs)[bare] ?? node.data) : french(node.data);
    if (said !== node.data) node.data = said;
  };
  const attribute = (element, name) => {
    const value = element.getAttribute(name);
    if (!value) return;
    const said = french(value);
    if (said !== value) element.setAttribute(name, said);
  };
  const SELECTOR = ATTRIBUTES.map((name) => `[${name}]`).join(",");
  const attributes = (element) => ATTRIBUTES.forEach((name) => attribute(element, name));
  const under = (node) => {
    if (node.nodeType === Node.TEXT_NODE) return text(node);
    if (node.nodeType !== Node.ELEMENT_NODE) return undefined;
    if (node.matches(SELECTOR)) attributes(node);
    node.querySelectorAll(SELECTOR).forEach(attributes);
    const walker = document.createTreeWalker(node, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) text(walker.currentNode);
    return undefined;
  };
  const seen = (changes) => {
    for (const { type, target, addedNodes, attributeName } of changes) {
      if (type === "attributes") attribute(target, attributeName);
      else if (type === "characterData") text(target);
      else addedNodes.forEach(under);
    }
  };
  new MutationObserver(seen).observe(document.documentElement, {
    subtree: true,
    childList: true,
    characterData: true,
    attributes: true,
    attributeFilter: ATTRIBUTES,
  });
  return state;
})();
