// A series that is shown while it arrives: OHIF takes the headers of a series once, and shows it once they are all
// there. Here it gets them as the images come, and what it shows grows in the order of arrival; once the series is
// whole it is arranged as any other.
"use strict";
window.drimboxArrival = (place) => {
  // Where a viewer that was started ahead finds its images is known later.
  const base = typeof place === "function" ? place : () => place;
  const GROWING_FROM = 4;
  const IMAGES_APART = ["CR", "DX", "MG"];

  // What is on the screen comes before what is not: reading the headers of hundreds of images takes its time.
  const PATIENCE = 5000;
  let drawn = null;
  const first = new Promise((resolve) => (drawn = resolve));
  const something = () => Promise.race([first, new Promise((resolve) => setTimeout(resolve, PATIENCE))]);

  // One question at a time for all series, however many wait: a browser opens few connections to one host.
  let asking = null;
  const state = () => {
    asking ??= fetch(`${base()}/etat`)
      .then((answer) => (answer.ok ? answer.json() : null))
      .catch(() => ({ series: [] }))
      .finally(() => setTimeout(() => (asking = null), 300));
    return asking;
  };

  const of = async (uid) => {
    const now = await state();
    return now === null ? null : (now.series.find((each) => each.uid === uid) ?? null);
  };

  // The headers of the images that came after the first `from`; none once nothing more will come.
  const headers = async (study, uid, from) => {
    const answer = await fetch(`${base()}/dicomweb/studies/${study}/series/${uid}/arrivees?depuis=${from}`);
    if (!answer.ok) throw new Error(`the series cannot be had: ${answer.status}`);
    return answer.json();
  };

  const grouped = (instances) => {
    const groups = new Map();
    for (const instance of instances) {
      const key = instance["00080016"]?.Value?.[0] ?? "";
      groups.set(key, [...(groups.get(key) ?? []), instance]);
    }
    return [...groups.values()];
  };

  // Can it be one more slice of a stack? OHIF shows the others each by themselves.
  const stacks = (instance) => !(instance.NumberOfFrames > 1) && !IMAGES_APART.includes(instance.Modality);

  const beginning = ({ makeSource, servicesManager, manager }) => {
    const services = servicesManager.services;
    const { displaySetService, cornerstoneViewportService, viewportGridService } = services;
    const growing = new Set();

    // OHIF would throw away every image that it has of a set that has changed, and fetch them again.
    const invalidate = displaySetService.setDisplaySetMetadataInvalidated.bind(displaySetService);
    displaySetService.setDisplaySetMetadataInvalidated = (uid, renew = true) =>
      invalidate(uid, growing.has(uid) ? false : renew);

    // Any class with pixels is shown as images, by what is in it (DB.VI-CS.31): OHIF knows them by a list.
    const stack = manager.getModuleEntry("@ohif/extension-default.sopClassHandlerModule.stack");
    const listed = [...stack.sopClassUids];
    stack.sopClassUids.includes = (uid) => {
      if (listed.includes(uid)) return true;
      const handlers = displaySetService.SOPClassHandlerIds.map((id) => manager.getModuleEntry(id));
      return !handlers.some((handler) => handler && handler !== stack && handler.sopClassUids.includes(uid));
    };

    const viewportsOf = (set) => {
      const found = [];
      for (const [id] of viewportGridService.getState().viewports) {
        const info = cornerstoneViewportService.getViewportInfo(id);
        const viewport = cornerstoneViewportService.getCornerstoneViewport(id);
        const data = info?.getViewportData?.()?.data;
        const holds = Array.isArray(data) && data.some((one) => one.displaySetInstanceUID === set.displaySetInstanceUID);
        if (viewport?.setStack && holds) found.push([id, info, viewport]);
      }
      return found;
    };

    const source = () => manager.getActiveDataSource()[0];

    // Put the images of the set, in its order, where it is shown; what is on the screen stays there.
    const refresh = async (set) => {
      const ids = source().getImageIdsForDisplaySet(set);
      set.imageIds = ids;
      set.numImageFrames = ids.length;
      for (const [id, info, viewport] of viewportsOf(set)) {
        const data = info.getViewportData();
        const shown = viewport.getImageIds();
        const longer = shown.length <= ids.length && shown.every((one, index) => one === ids[index]);
        if (longer) {
          for (let index = shown.length; index < ids.length; index += 1) {
            shown.push(ids[index]);
            viewport.imageKeyToIndexMap.set(ids[index], index);
            viewport.imageKeyToIndexMap.set(ids[index].replace(/^wadors:/, ""), index);
          }
        } else {
          const properties = viewport.getProperties();
          const camera = viewport.getCamera();
          const current = ids.indexOf(viewport.getCurrentImageId());
          await viewport.setStack([...ids], Math.max(current, 0));
          viewport.setProperties(properties);
          viewport.setCamera(camera);
          viewport.render();
        }
        const [first, ...others] = data.data;
        const renewed = { ...data, data: [{ ...first, imageIds: viewport.getImageIds() }, ...others] };
        Object.assign(data.data[0], { imageIds: viewport.getImageIds() });
        cornerstoneViewportService._broadcastEvent(cornerstoneViewportService.EVENTS.VIEWPORT_DATA_CHANGED, {
          viewportData: renewed,
          viewportId: id,
        });
        // The slices that are fetched ahead are those of the stack as it is now.
        const tools = window.cornerstoneTools?.utilities?.stackContextPrefetch;
        if (longer && tools) {
          tools.disable(viewport.element);
          tools.enable(viewport.element);
        }
      }
    };

    // From now on this set takes what else comes of its series.
    const grow = (set) => {
      growing.add(set.displaySetInstanceUID);
      set.addInstances = (instances) => {
        const fitting = instances.filter((one) => stacks(one) && one.SOPClassUID === set.SOPClassUID);
        if (!fitting.length || !set.images.every(stacks)) return undefined;
        set.images.push(...fitting);
        if (set.instances !== set.images) set.instances = set.images;
        refresh(set);
        return set;
      };
    };

    // The series is whole: arranged in space, and known to be a volume if it is one.
    const settle = async (set) => {
      const handler = manager.getModuleEntry(set.SOPClassHandlerId);
      delete set.addInstances;
      if (handler?.getDisplaySetsFromSeries && set.images.length > 1 && set.images.every(stacks)) {
        const [arranged] = handler.getDisplaySetsFromSeries([...set.images]);
        const { displaySetInstanceUID, uid, images, instances, instance, ...told } = arranged;
        Object.assign(set, told);
        set.images.splice(0, set.images.length, ...arranged.images);
        await refresh(set);
      }
      displaySetService.setDisplaySetMetadataInvalidated(set.displaySetInstanceUID, false);
      growing.delete(set.displaySetInstanceUID);
    };

    const setsOf = (uid) => displaySetService.getDisplaySetsForSeries(uid) ?? [];

    // Give OHIF a few instances more, in the way in which it takes a series.
    const storing = async (study, series) => {
      const name = `drimbox-${series["0020000E"].Value[0]}`;
      const inner = makeSource(name);
      await inner.initialize({ params: {}, query: new URLSearchParams() });
      const client = inner.retrieve.getWadoDicomWebClient();
      client.searchForSeries = async () => [series];
      return async (instances) => {
        for (const group of grouped(instances)) {
          inner.deleteStudyMetadataPromise(`${name}:${study}`);
          client.retrieveSeriesMetadata = async () => group;
          const [load] = await inner.retrieve.series.metadata({ StudyInstanceUID: study, returnPromises: true });
          await load.start();
        }
      };
    };

    const follow = async (study, uid, store, from) => {
      let count = from;
      await something();
      for (;;) {
        const more = await headers(study, uid, count);
        if (!more.length) break;
        await store(more);
        count += more.length;
        for (const set of setsOf(uid)) if (!set.addInstances && set.images?.every(stacks)) grow(set);
      }
      for (const set of setsOf(uid)) if (growing.has(set.displaySetInstanceUID)) await settle(set);
    };

    // The first images of a series, as soon as there are any; the others follow by themselves, unless all are to be
    // waited for. OHIF shows what it has by then.
    return async (load, all = false) => {
      const study = load.metadata.StudyInstanceUID;
      const uid = load.metadata.SeriesInstanceUID;
      const told = await of(uid);
      if (told === null) return load.start();
      let first = await headers(study, uid, 0);
      if (told.expected < GROWING_FROM) {
        // A short one is waited for; of one that will never be whole, what came is shown all the same.
        for (let more = first; more.length && first.length < told.expected; first = [...first, ...more])
          more = await headers(study, uid, first.length);
        if (first.length === told.expected) return load.start();
      }
      const series = {
        "0020000E": { vr: "UI", Value: [uid] },
        "00080060": { vr: "CS", Value: load.metadata.Modality ? [load.metadata.Modality] : [] },
        "00200011": { vr: "IS", Value: load.metadata.SeriesNumber ? [Number(load.metadata.SeriesNumber)] : [] },
        "0008103E": { vr: "LO", Value: load.metadata.SeriesDescription ? [load.metadata.SeriesDescription] : [] },
        "0020000D": { vr: "UI", Value: [study] },
      };
      if (!first.length) return [];
      const store = await storing(study, series);
      await store(first);
      for (const set of setsOf(uid)) if (set.images?.every(stacks)) grow(set);
      const others = follow(study, uid, store, first.length).catch((error) => console.warn(error.message));
      if (all) await others;
      return first;
    };
  };

  return { state, beginning, drawn };
};
