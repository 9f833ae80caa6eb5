// The settings of OHIF: images come from this exam's own address (of the consumer's viewer, or of a visit by the link in
// a report) and from nowhere else, in French, without study list.
// Started ahead, behind the list, it waits until the page tells it which exam it is to show, once.
"use strict";
(() => {
  const own = /^\/(?:visionneuse|visite)\/[A-Za-z0-9_-]+/;
  const place = own.exec(location.pathname)[0];
  const ahead = place === "/visionneuse/attente";
  let base = place;
  let query = new URLSearchParams(location.search);
  const opened = ahead
    ? new Promise((resolve) => {
        const told = (event) => {
          const asked = event.data;
          if (event.origin !== location.origin || event.source !== parent || asked?.drimbox !== "open") return;
          removeEventListener("message", told);
          base = own.exec(asked.base)[0];
          query = new URLSearchParams(asked.query);
          resolve();
        };
        addEventListener("message", told);
        parent.postMessage({ drimbox: "ahead" }, location.origin);
      })
    : Promise.resolve();
  window.PUBLIC_URL = "/";
  window.browserImportFunction = (name) => import(name);
  localStorage.setItem("i18nextLng", "fr");

  const pause = (milliseconds) => new Promise((resume) => setTimeout(resume, milliseconds));
  const arrival = window.drimboxArrival(() => base);
  const tools = window.drimboxTools();

  // The series start in the order of the exam, significant images first; OHIF would take the lowest series number.
  // What is shown first is the first series that comes at all; OHIF waits for every start before it shows anything, so
  // the others say at once that they have started, and are added to the list as they come.
  const patient = (order, begin) => (unordered) => {
    const rank = (load) => order.indexOf(load.metadata.SeriesInstanceUID);
    const loads = [...unordered].sort((one, other) => rank(one) - rank(other));
    const first = (async () => {
      for (const load of loads) {
        const instances = await begin(load).catch(() => []);
        if (instances.length) return [load, instances];
      }
      return [null, []];
    })();
    const later = (async () => {
      const [shown] = await first;
      await pause(0);
      const others = loads.filter((load) => load !== shown);
      // Two at a time, as they are fetched, and none that is not on its way: the browser has connections for the frames
      // too.
      const next = async () => {
        while (others.length) {
          const told = await arrival.state();
          if (told === null) return;
          const waiting = new Set(told.series.filter((each) => each.state === "waiting").map((each) => each.uid));
          const place = others.findIndex((load) => !waiting.has(load.metadata.SeriesInstanceUID));
          if (place < 0) await pause(400);
          else await begin(others.splice(place, 1)[0], true).catch(() => []);
        }
      };
      await Promise.all([next(), next()]);
    })();
    later.catch(() => {});
    return loads.map((load, index) => ({
      metadata: load.metadata,
      start: () => (index === 0 ? first.then(([, instances]) => instances) : Promise.resolve([])),
    }));
  };

  // The page around us takes its picture of the first image away once ours is there.
  const tell = () => {
    const events = window.cornerstone?.Enums?.Events;
    if (!events) return setTimeout(tell, 100);
    const told = (event) => {
      document.removeEventListener(events.IMAGE_RENDERED, told, true);
      arrival.drawn();
      requestAnimationFrame(() => parent.postMessage({ drimbox: "image" }, location.origin));
    };
    // These events do not bubble: they are caught on their way down.
    document.addEventListener(events.IMAGE_RENDERED, told, true);
  };
  tell();

  let begin = null;
  const images = {
    id: "drimbox",
    getHangingProtocolModule: tools.protocols,
    getDataSourcesModule: ({ extensionManager }) => [
      {
        name: "images",
        type: "webApi",
        createDataSource: (configuration, servicesManager, manager) => {
          const known = manager ?? extensionManager;
          const entry = known.getModuleEntry("@ohif/extension-default.dataSourcesModule.dicomweb");
          const makeSource = (name) => entry.createDataSource({ ...configuration, name }, servicesManager, known);
          const source = entry.createDataSource(configuration, servicesManager, known);
          if (ahead) {
            const initialize = source.initialize;
            source.initialize = async (options) => {
              // What draws is made now too: the first image then only has to be drawn.
              servicesManager.services.cornerstoneViewportService?.getRenderingEngine?.();
              await opened;
              return initialize(options);
            };
            source.getStudyInstanceUIDs = () => query.getAll("StudyInstanceUIDs");
          }
          const metadata = source.retrieve.series.metadata;
          source.retrieve.series.metadata = async (options = {}) => {
            // Fusion takes both volumes, each of them whole.
            if (location.pathname.endsWith("/tmtv")) return metadata(options);
            begin ??= arrival.beginning({ makeSource, servicesManager, manager: known });
            const asked = await Promise.all([fetch(`${base}/etat`), metadata({ ...options, returnPromises: true })]);
            const told = asked[0].ok ? await asked[0].json() : { series: [] };
            const order = told.series.map((series) => series.uid);
            // The series that the user asked for comes before all others.
            const wanted = query.get("serie");
            if (order.includes(wanted)) order.unshift(wanted);
            const loads = patient(order, begin)(asked[1]);
            if (options.returnPromises) return loads;
            await Promise.all(loads.map((load) => load.start()));
            return loads.map((load) => load.metadata);
          };
          return source;
        },
      },
    ],
  };

  window.config = {
    routerBasename: place,
    extensions: [images],
    modes: [],
    customizationService: [tools.customizations],
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
          // Read when the exam is known.
          onConfiguration: (set) => ({ ...set, qidoRoot: `${base}/dicomweb`, wadoRoot: `${base}/dicomweb` }),
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
      createLogoComponentFn: (React) => React.createElement("span", { className: "drimbox-mark" }, "DRIMbox"),
    },
  };
})();
