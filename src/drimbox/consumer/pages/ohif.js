// The settings of OHIF: images come from this exam's own address and from nowhere else, in French, without study list.
"use strict";
(() => {
  const base = /^\/visionneuse\/[A-Za-z0-9_-]+/.exec(location.pathname)[0];
  window.PUBLIC_URL = "/";
  window.browserImportFunction = (name) => import(name);
  localStorage.setItem("i18nextLng", "fr");

  const pause = (milliseconds) => new Promise((resume) => setTimeout(resume, milliseconds));

  // One question at a time for all series, however many wait: a browser opens few connections to one host.
  let asking = null;
  const state = () => {
    asking ??= fetch(`${base}/etat`)
      .then((answer) => (answer.ok ? answer.json() : null))
      .catch(() => ({ series: [] }))
      .finally(() => setTimeout(() => (asking = null), 400));
    return asking;
  };

  // True once the series is whole; false when it will not come, or the session is over.
  const arrived = async (uid) => {
    for (;;) {
      const now = await state();
      if (now === null) return false;
      const series = now.series.find((each) => each.uid === uid);
      if (series && series.state === "done") return true;
      if (series && series.state === "failed") return false;
      await pause(400);
    }
  };

  // The series start in the order of the exam, significant images first; OHIF would take the lowest series number.
  // What is shown first is the first series that comes at all: its headers are waited for where they are asked. OHIF
  // waits for every start before it shows anything, so the others say at once that they have started; each asks for its
  // headers once it is whole, lest they take all the connections of the browser, and is added to the list as it comes.
  const patient = async (unordered) => {
    const order = ((await state())?.series ?? []).map((series) => series.uid);
    const rank = (load) => order.indexOf(load.metadata.SeriesInstanceUID);
    const loads = [...unordered].sort((one, other) => rank(one) - rank(other));
    const first = (async () => {
      for (const load of loads) {
        const instances = await load.start().catch(() => []);
        if (instances.length) return instances;
      }
      return [];
    })();
    const later = async (load) => {
      await first;
      await pause(0);
      if (await arrived(load.metadata.SeriesInstanceUID)) await load.start();
    };
    return loads.map((load, index) => ({
      metadata: load.metadata,
      start: () => {
        if (index === 0) return first;
        later(load).catch(() => {});
        return Promise.resolve([]);
      },
    }));
  };

  const images = {
    id: "drimbox",
    getDataSourcesModule: ({ extensionManager }) => [
      {
        name: "images",
        type: "webApi",
        createDataSource: (configuration, servicesManager, manager) => {
          const name = "@ohif/extension-default.dataSourcesModule.dicomweb";
          const source = (manager ?? extensionManager)
            .getModuleEntry(name)
            .createDataSource(configuration, servicesManager, manager);
          const metadata = source.retrieve.series.metadata;
          source.retrieve.series.metadata = async (options = {}) => {
            const loads = await patient(await metadata({ ...options, returnPromises: true }));
            if (options.returnPromises) return loads;
            await Promise.all(loads.map((load) => load.start()));
            return loads.map((load) => load.metadata);
          };
          return source;
        },
      },
    ],
  };

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
  const overlays = {
    "viewportOverlay.topLeft": {
      $set: [
        overlay("drimbox.name", "Patient", (image, { formatPN }) => formatPN(image.PatientName)),
        overlay("drimbox.birth", "Date de naissance et sexe", (image) =>
          [date(image.PatientBirthDate), image.PatientSex].filter(Boolean).join(" "),
        ),
        overlay("drimbox.study", "Date de l'examen", (image) => date(image.StudyDate)),
        overlay("drimbox.series", "Série", (image) =>
          [image.Modality, image.SeriesNumber, image.SeriesDescription].filter((part) => part ?? false).join(" "),
        ),
      ],
    },
    "viewportOverlay.topRight": {
      $set: [overlay("drimbox.diagnosis", "Avertissement", () => "Ne pas utiliser pour le diagnostic")],
    },
  };

  window.config = {
    routerBasename: base,
    extensions: [images],
    modes: [],
    customizationService: [{ "ohif.tours": { $set: [] }, ...overlays }],
    showStudyList: false,
    showPatientInfo: "disabled",
    investigationalUseDialog: { option: "never" },
    maxNumberOfWebWorkers: 3,
    showLoadingIndicator: true,
    strictZSpacingForVolumeViewport: true,
    showErrorDetails: "production",
    maxNumRequests: { interaction: 100, thumbnail: 5, prefetch: 25 },
    defaultDataSourceName: "drimbox",
    dataSources: [
      {
        namespace: "drimbox.dataSourcesModule.images",
        sourceName: "drimbox",
        configuration: {
          friendlyName: "DRIMbox",
          name: "drimbox",
          qidoRoot: `${base}/dicomweb`,
          wadoRoot: `${base}/dicomweb`,
          qidoSupportsIncludeField: false,
          supportsReject: false,
          supportsFuzzyMatching: false,
          supportsWildcard: false,
          imageRendering: "wadors",
          thumbnailRendering: "wadors",
          enableStudyLazyLoad: true,
          singlepart: "bulkdata,video,pdf",
          bulkDataURI: { enabled: true, relativeResolution: "series" },
        },
      },
    ],
    httpErrorHandler: () => {},
    whiteLabeling: {
      createLogoComponentFn: (React) => React.createElement("span", { className: "text-foreground" }, "DRIMbox"),
    },
  };
})();
