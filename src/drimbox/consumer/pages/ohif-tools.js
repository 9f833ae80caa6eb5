// What our viewer adds to OHIF by its own extension points: exams side by side, volumes, what stands on each image.
"use strict";
window.drimboxTools = () => {
  const image = { attribute: "numImageFrames", constraint: { greaterThan: { value: 0 } } };
  const first = { attribute: "isDisplaySetFromUrl", weight: 20, constraint: { equals: true } };

  // Exams beside each other, scrolled and enlarged together; the newest is the one that was opened first.
  const beside = (count) => {
    const columns = count === 4 ? 2 : count;
    const places = [...Array(count).keys()];
    return {
      id: `drimbox-comparaison-${count}`,
      name: "Comparaison d’examens",
      description: "Examens côte à côte",
      numberOfPriorsReferenced: count - 1,
      protocolMatchingRules: [],
      toolGroupIds: ["default"],
      displaySetSelectors: Object.fromEntries(
        places.map((place) => [
          `exam${place}`,
          {
            studyMatchingRules: [
              {
                attribute: "studyInstanceUIDsIndex",
                from: "options",
                required: true,
                constraint: { equals: { value: place } },
              },
            ],
            seriesMatchingRules: [image, first],
          },
        ]),
      ),
      defaultViewport: {
        viewportOptions: { viewportType: "stack", toolGroupId: "default", allowUnmatchedView: true },
        displaySets: [{ id: "exam0", matchedDisplaySetsIndex: -1 }],
      },
      stages: [
        {
          name: "côte à côte",
          stageActivation: { enabled: { minViewportsMatched: 1 } },
          viewportStructure: { layoutType: "grid", properties: { rows: count / columns, columns } },
          viewports: places.map((place) => ({
            viewportOptions: { viewportType: "stack", toolGroupId: "default", allowUnmatchedView: true },
            displaySets: [{ id: `exam${place}` }],
          })),
        },
      ],
    };
  };

  // Maximum intensity projection, 30 mm thick, in the three planes.
  const projection = () => ({
    id: "drimbox-mip",
    name: "MIP",
    description: "Projection du maximum d’intensité",
    protocolMatchingRules: [],
    toolGroupIds: ["mpr"],
    displaySetSelectors: {
      volume: {
        seriesMatchingRules: [
          { weight: 1, attribute: "isReconstructable", constraint: { equals: { value: true } }, required: true },
          first,
        ],
      },
    },
    stages: [
      {
        name: "MIP",
        viewportStructure: { layoutType: "grid", properties: { rows: 1, columns: 3 } },
        viewports: ["axial", "sagittal", "coronal"].map((orientation) => ({
          viewportOptions: {
            viewportId: `mip-${orientation}`,
            viewportType: "volume",
            orientation,
            toolGroupId: "mpr",
            initialImageOptions: { preset: "middle" },
            syncGroups: [{ type: "voi", id: "mip", source: true, target: true, options: { syncColormap: true } }],
          },
          displaySets: [{ id: "volume", options: { blendMode: "MIP", slabThickness: 30 } }],
        })),
      },
    ],
  });

  const button = (id, icon, label, tooltip, commands) => ({
    id,
    uiType: "ohif.toolButton",
    props: { icon, label, tooltip, commands, evaluate: "evaluate.action" },
  });
  const toggle = (protocolId) => ({ commandName: "toggleHangingProtocol", commandOptions: { protocolId } });
  const ours = [
    button("drimboxMpr", "layout-advanced-mpr", "MPR", "Reconstruction dans les trois plans", toggle("mpr")),
    button("drimboxMip", "layout-advanced-3d-four-up", "MIP", "Projection du maximum d’intensité", toggle("drimbox-mip")),
  ];

  // The patient and the series on each image (DB.VI-CS.25), and what the images are not for (DB.VI-CS.26).
  const overlay = (id, title, text) => ({
    id,
    inheritsFrom: "ohif.overlayItem",
    label: "",
    title,
    condition: ({ referenceInstance }) => Boolean(referenceInstance),
    contentF: ({ referenceInstance, formatters }) => text(referenceInstance, formatters) || "",
  });
  const date = (value) => (/^\d{8}$/.test(value) ? `${value.slice(6)}/${value.slice(4, 6)}/${value.slice(0, 4)}` : "");
  // Why an image was flagged stands on it; the page around has the notes, with all that they say.
  const flagged = (one) =>
    [...parent.document.querySelectorAll(`[data-image="${CSS.escape(one.SOPInstanceUID ?? "")}"]`)]
      .map((line) => {
        const said = line.querySelector(".said")?.textContent.replace(/\s+/g, " ") ?? "";
        const why = line.querySelector(".why").textContent;
        return `Image clé : ${why}${said ? ` – ${said.length > 90 ? `${said.slice(0, 89)}…` : said}` : ""}`;
      })
      .join(" · ");
  const customizations = {
    "ohif.tours": { $set: [] },
    "cornerstone.toolbarButtons": { $push: ours },
    "cornerstone.toolbarSections": {
      primary: { $apply: (ids) => [...ids.slice(0, -1), "drimboxMpr", "drimboxMip", "ImageSliceSync", "Cine", ids.at(-1)] },
    },
    "viewportOverlay.topLeft": {
      $set: [
        overlay("drimbox.name", "Patient", (one, { formatPN }) => formatPN(one.PatientName)),
        overlay("drimbox.birth", "Date de naissance et sexe", (one) =>
          [date(one.PatientBirthDate), one.PatientSex].filter(Boolean).join(" "),
        ),
        overlay("drimbox.study", "Date de l'examen", (one) =>
          [date(one.StudyDate), one.InstitutionName].filter(Boolean).join(" · "),
        ),
        overlay("drimbox.series", "Série", (one) =>
          [one.Modality, one.SeriesNumber, one.SeriesDescription].filter((part) => part ?? false).join(" "),
        ),
      ],
    },
    "viewportOverlay.topRight": {
      $set: [
        overlay("drimbox.diagnosis", "Avertissement", () => "Non destiné au diagnostic"),
        {
          ...overlay("drimbox.key", "Image clé", flagged),
          condition: ({ instance }) => Boolean(instance),
          contentF: ({ instance }) => flagged(instance),
        },
      ],
    },
  };

  return {
    protocols: () => [2, 3, 4].map(beside).concat(projection()).map((protocol) => ({ name: protocol.id, protocol })),
    customizations,
  };
};
