"use strict";
// The viewer: unpacks the embedded volumes and draws every picture at one shared position.
(() => {
  const data = JSON.parse(document.getElementById("viewer-data").textContent);
  const [nz, ny, nx] = data.shape;
  const [dz, dy, dx] = data.voxel;
  const TURN_PIXELS = 112;
  const control = (name) => document.getElementById(name);
  const root = control("viewer");
  const figures = [...root.querySelectorAll("figure[data-panel]")];
  const state = { z: 0, y: 0, x: 0, place: 0, mode: "slices", windows: {} };
  let volumes = {}; // key of a layer, or "overlay/method" -> unpacked volume of the present place
  let scheduled = false, timer = null;

  const ramp = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const colourmaps = Object.fromEntries(Object.entries(data.colormaps).map(([k, v]) => [k, ramp(v)]));
  const depthColours = ramp(data.depth);
  const overlayColours = Object.fromEntries(
    Object.entries(data.overlays).map(([k, v]) => [k, ramp(v.colormap)]));
  const format = (value) => Number(value.toPrecision(3)).toString();

  // Codes are the square root of the share of the range; see besselflow.report.atlas.
  const valueOf = (code, [low, high]) => low + (high - low) * (code / 255) ** 2;
  const codeOf = (value, [low, high]) =>
    Math.round(255 * Math.sqrt(Math.min(1, Math.max(0, (value - low) / (high - low)))));

  async function unpack(layer, place) {
    const image = new Image();
    image.src = layer.images[place];
    await image.decode();
    const { naturalWidth: width, naturalHeight: height } = image;
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    const rgba = new Uint32Array(context.getImageData(0, 0, width, height).data.buffer);
    const columns = width / nx, count = columns * (height / ny);
    const codes = new Uint8Array(count * ny * nx);
    for (let slice = 0, to = 0; slice < count; slice++) {
      const from = Math.floor(slice / columns) * ny * width + (slice % columns) * nx;
      for (let row = 0; row < ny; row++) {
        for (let i = from + row * width, end = i + nx; i < end; i++) codes[to++] = rgba[i] & 255;
      }
    }
    return { codes, span: layer.spans[place], sliceOf: (z) => z, maxima: {} };
  }

  async function unpackAll() {
    const jobs = Object.entries(data.layers).map(([key, layer]) => [key, layer]);
    for (const [name, overlay] of Object.entries(data.overlays)) {
      for (const [method, layer] of Object.entries(overlay.of)) jobs.push([`${name}/${method}`, layer]);
    }
    const done = {};
    for (const [key, layer] of jobs) done[key] = await unpack(layer, state.place);
    done.projection.sliceOf = (z) => data.projections.of[z];
    volumes = done;
  }

  // The pictures of a side have y or z downwards; yz has z to the right.
  const sizes = { xy: [nx, ny], xz: [nx, nz], yz: [nz, ny] };

  function cut(volume, side) {
    const { codes, sliceOf } = volume;
    const start = (z, y) => (sliceOf(z) * ny + y) * nx;
    if (side === "xy") return codes.subarray(start(state.z, 0), start(state.z, 0) + ny * nx);
    const [width, height] = sizes[side];
    const result = new Uint8Array(width * height);
    for (let z = 0; z < nz; z++) {
      if (side === "xz") {
        result.set(codes.subarray(start(z, state.y), start(z, state.y) + nx), z * nx);
      } else {
        for (let y = 0; y < ny; y++) result[y * nz + z] = codes[start(z, y) + state.x];
      }
    }
    return result;
  }

  // The maximum along one axis, and the depth at which it lies.
  function maximum(volume, side) {
    if (volume.maxima[side]) return volume.maxima[side];
    const [width, height] = sizes[side];
    const codes = new Uint8Array(width * height), depth = new Uint16Array(width * height);
    for (let z = 0; z < nz; z++) {
      for (let y = 0; y < ny; y++) {
        const start = (volume.sliceOf(z) * ny + y) * nx;
        for (let x = 0; x < nx; x++) {
          const at = side === "xy" ? y * nx + x : side === "xz" ? z * nx + x : y * nz + z;
          if (volume.codes[start + x] > codes[at]) {
            codes[at] = volume.codes[start + x];
            depth[at] = z;
          }
        }
      }
    }
    volume.maxima[side] = { codes, depth };
    return volume.maxima[side];
  }

  // The brightest neighbour stands for several pixels, so that thin structures stay in the 3D view.
  function reduced(volume) {
    if (volume.reduced) return volume.reduced;
    const step = Math.max(1, Math.ceil(Math.max(nx, ny) / TURN_PIXELS));
    const width = Math.ceil(nx / step), height = Math.ceil(ny / step);
    const codes = new Uint8Array(nz * height * width);
    for (let z = 0, from = 0; z < nz; z++) {
      from = volume.sliceOf(z) * ny * nx;
      for (let y = 0; y < ny; y++) {
        const row = (z * height + Math.floor(y / step)) * width;
        for (let x = 0; x < nx; x++, from++) {
          const at = row + Math.floor(x / step);
          if (volume.codes[from] > codes[at]) codes[at] = volume.codes[from];
        }
      }
    }
    volume.reduced = { codes, width, height, step };
    return volume.reduced;
  }

  // Rays through the volume, turned around the y axis: for every column, the voxels that it crosses.
  function rays(width, height, step, degrees) {
    const pixel = dx * step, depth = nz * dz, across = nx * dx;
    const radius = Math.hypot(across, depth) / 2;
    const columns = Math.ceil(2 * radius / pixel), stride = Math.min(pixel, dz);
    const samples = Math.ceil(2 * radius / stride);
    const sine = Math.sin(degrees * Math.PI / 180), cosine = Math.cos(degrees * Math.PI / 180);
    const crossed = [];
    for (let column = 0; column < columns; column++) {
      const found = [], u = (column + 0.5) * pixel - radius;
      for (let sample = 0, last = -1; sample < samples; sample++) {
        const s = (sample + 0.5) * stride - radius;
        const x = Math.floor((u * cosine + s * sine + across / 2) / pixel);
        const z = Math.floor((s * cosine - u * sine + depth / 2) / dz);
        if (x < 0 || x >= width || z < 0 || z >= nz) continue;
        const offset = z * height * width + x;
        if (offset !== last) found.push(last = offset);
      }
      crossed.push(Int32Array.from(found));
    }
    return { crossed, columns, radius };
  }

  function turned(volume, view) {
    const { codes, width, height } = reduced(volume);
    const result = new Uint8Array(view.columns * height);
    view.crossed.forEach((offsets, column) => {
      for (let y = 0; y < height; y++) {
        let brightest = 0;
        for (let i = 0, row = y * width; i < offsets.length; i++) {
          if (codes[offsets[i] + row] > brightest) brightest = codes[offsets[i] + row];
        }
        result[y * view.columns + column] = brightest;
      }
    });
    return result;
  }

  const automatic = () =>
    data.windows[state.place][state.mode === "slices" ? "slices" : "maxima"];

  // The window of the sliders; projections, which average over the beam, have theirs in proportion.
  function windowOf(key) {
    const span = volumes[data.reference].span;
    const chosen = [valueOf(Number(control("black").value), span), valueOf(Number(control("white").value), span)];
    if (key !== "projection") return chosen;
    const [low, high] = automatic(), [own, top] = data.windows[state.place].projections;
    return chosen.map((value) => own + (value - low) / (high - low) * (top - own));
  }

  function shades(key) {
    const [black, white] = windowOf(key), span = volumes[key].span;
    return Uint8Array.from({ length: 256 }, (_, code) => {
      const share = (valueOf(code, span) - black) / Math.max(white - black, 1e-12);
      return Math.round(255 * Math.min(1, Math.max(0, share)));
    });
  }

  function paint(canvas, width, height, colourAt) {
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
    }
    const context = canvas.getContext("2d");
    const image = context.createImageData(width, height);
    for (let i = 0, to = 0; i < width * height; i++, to += 4) {
      colourAt(i, image.data, to);
      image.data[to + 3] = 255;
    }
    context.putImageData(image, 0, 0);
  }

  const plain = (codes, shade, colours) => (i, pixels, to) => {
    const from = 3 * shade[codes[i]];
    for (let part = 0; part < 3; part++) pixels[to + part] = colours[from + part];
  };
  const byDepth = ({ codes, depth }, shade) => (i, pixels, to) => {
    const from = 3 * Math.round(255 * depth[i] / Math.max(nz - 1, 1)), grey = shade[codes[i]] / 255;
    for (let part = 0; part < 3; part++) pixels[to + part] = grey * depthColours[from + part];
  };
  const mixed = (below, codes, colours, opacity) => (i, pixels, to) => {
    below(i, pixels, to);
    // Overlays are coded by the square root, their colours run evenly.
    const from = 3 * Math.round(codes[i] * codes[i] / 255);
    for (let part = 0; part < 3; part++) {
      pixels[to + part] = (1 - opacity) * pixels[to + part] + opacity * colours[from + part];
    }
  };

  function drawSides(figure, key, shade, colours) {
    const overlay = control("overlay")?.value, over = overlay && volumes[`${overlay}/${key}`];
    const opacity = Number(control("opacity")?.value);
    for (const frame of figure.querySelectorAll("[data-side]")) {
      const side = frame.dataset.side, volume = volumes[key];
      const codesOf = (one) => state.mode === "slices" ? cut(one, side) : maximum(one, side).codes;
      let colour = state.mode === "depth"
        ? byDepth(maximum(volume, side), shade)
        : plain(codesOf(volume), shade, colours);
      if (over && state.mode !== "depth") {
        colour = mixed(colour, codesOf(over), overlayColours[overlay], opacity);
      }
      paint(frame.querySelector("canvas"), ...sizes[side], colour);
      const across = side === "yz" ? (state.z + 0.5) / nz : (state.x + 0.5) / nx;
      const down = side === "xz" ? (state.z + 0.5) / nz : (state.y + 0.5) / ny;
      frame.querySelector(".cut-x").style.left = `${100 * across}%`;
      frame.querySelector(".cut-y").style.top = `${100 * down}%`;
    }
  }

  function drawTurned(figure, key, shade, colours, view) {
    const frame = figure.querySelector(".turning"), { height } = reduced(volumes[key]);
    paint(frame.querySelector("canvas"), view.columns, height, plain(turned(volumes[key], view), shade, colours));
    frame.style.aspectRatio = `${2 * view.radius} / ${ny * dy}`;
    frame.querySelector(".bar").style.width = `${100 * data.bar / (2 * view.radius)}%`;
  }

  function describe(figure, key) {
    const at = (volume) =>
      valueOf(volume.codes[(volume.sliceOf(state.z) * ny + state.y) * nx + state.x], volume.span);
    const parts = [`${format(at(volumes[key]))} ${data.unit}`];
    const overlay = control("overlay")?.value;
    const over = overlay && volumes[`${overlay}/${key}`];
    if (over) parts.push(`${control("overlay").selectedOptions[0].text} ${format(at(over))}`);
    figure.querySelector(".value").textContent = parts.join(", ");
    const score = data.psnr[key]?.[state.place]?.[state.z];
    const where = key === "projection" ? data.projections.texts[state.z] : "";
    figure.querySelector(".score").textContent =
      typeof score === "number" ? `PSNR ${score.toFixed(1)} dB in this slice` : where;
  }

  function draw() {
    scheduled = false;
    const colours = colourmaps[control("colormap").value];
    const turning = state.mode === "turn";
    let view = null;
    for (const figure of figures) {
      const key = figure.dataset.panel;
      figure.querySelector(".ortho").hidden = turning;
      figure.querySelector(".turning").hidden = !turning;
      if (figure.hidden) continue;
      if (turning) {
        const { width, height, step } = reduced(volumes[key]);
        view ??= rays(width, height, step, Number(control("angle").value));
        drawTurned(figure, key, shades(key), colours, view);
      } else {
        drawSides(figure, key, shades(key), colours);
      }
      describe(figure, key);
    }
    describeControls();
    root.dataset.drawn = Number(root.dataset.drawn ?? 0) + 1;
  }

  function describeControls() {
    const micrometres = { z: data.z[state.z], y: (state.y + 0.5) * dy, x: (state.x + 0.5) * dx };
    for (const axis of "zyx") {
      const text = `${axis} = ${Number(micrometres[axis].toFixed(3))} µm`;
      control(axis).value = state[axis];
      control(axis).setAttribute("aria-valuetext", text);
      control(`${axis}-text`).textContent = text;
    }
    const [black, white] = windowOf("");
    for (const [name, value] of [["black", black], ["white", white]]) {
      const text = `${format(value)} ${data.unit}`;
      control(name).setAttribute("aria-valuetext", text);
      control(`${name}-text`).textContent = text;
    }
    control("angle-text").textContent = `${control("angle").value}°`;
    describeOverlay();
  }

  function describeOverlay() {
    const overlay = control("overlay")?.value;
    if (control("opacity")) control("opacity-text").textContent = `${Math.round(100 * control("opacity").value)} %`;
    const inDepth = state.mode === "depth";
    const possible = state.mode === "slices" || state.mode === "maxima";
    if (control("overlay")) control("overlay").disabled = control("opacity").disabled = !possible;
    const legend = inDepth || (possible && Boolean(overlay));
    control("legend").hidden = !legend;
    if (!legend) return;
    const colours = inDepth ? depthColours : overlayColours[overlay];
    const stops = Array.from({ length: 17 }, (_, i) => {
      const from = 3 * Math.round(i * 255 / 16);
      return `rgb(${colours[from]} ${colours[from + 1]} ${colours[from + 2]})`;
    });
    control("legend-bar").style.background = `linear-gradient(to right, ${stops.join(", ")})`;
    let ends = [`z = ${data.z[0]}`, `${data.z[nz - 1]} µm`];
    if (!inDepth) {
      const method = Object.keys(data.overlays[overlay].of)[0];
      const high = format(volumes[`${overlay}/${method}`].span[1]);
      ends = [`${control("overlay").selectedOptions[0].text}: 0`, `${high} ${data.overlays[overlay].unit}`];
    }
    control("legend-low").textContent = ends[0];
    control("legend-high").textContent = ends[1];
  }

  // A projection has no depth to be coloured or turned.
  function arrange() {
    const hasDepth = state.mode === "depth" || state.mode === "turn";
    for (const box of root.querySelectorAll("[data-shows]")) {
      const key = box.dataset.shows, flat = hasDepth && key === "projection";
      box.disabled = flat;
      figures.find((figure) => figure.dataset.panel === key).hidden = flat || !box.checked;
    }
    schedule();
  }

  function schedule() {
    if (scheduled) return;
    scheduled = true;
    requestAnimationFrame(draw);
  }

  function resetContrast() {
    const span = volumes[data.reference].span, [low, high] = automatic();
    control("black").value = codeOf(low, span);
    control("white").value = codeOf(high, span);
    schedule();
  }

  const limits = { z: nz, y: ny, x: nx };
  function move(changes) {
    for (const [axis, index] of Object.entries(changes)) {
      state[axis] = Math.min(limits[axis] - 1, Math.max(0, Math.floor(index)));
    }
    schedule();
  }

  async function goTo(target) {
    if (state.place !== target.place) {
      control("place").value = target.place;
      await changePlace();
    }
    if (state.mode !== "slices") {
      control("mode").value = "slices";
      changeMode();
    }
    if (control("overlay")) control("overlay").value = target.overlay;
    move({ z: target.z, y: target.y, x: target.x });
  }

  async function changePlace() {
    state.place = Number(control("place").value);
    await unpackAll();
    resetContrast();
  }

  function changeMode() {
    state.mode = control("mode").value;
    for (const part of root.querySelectorAll(".turn-only")) part.hidden = state.mode !== "turn";
    if (state.mode !== "turn") play(false);
    root.dataset.mode = state.mode;
    arrange();
    resetContrast();
  }

  function play(on) {
    clearInterval(timer);
    control("play").setAttribute("aria-pressed", on);
    control("play").textContent = on ? "Stop" : "Turn";
    if (!on) return;
    timer = setInterval(() => {
      control("angle").value = (Number(control("angle").value) + 5) % 360;
      schedule();
    }, 120);
  }

  function listen() {
    for (const axis of "zyx") control(axis).addEventListener("input", () => move({ [axis]: control(axis).value }));
    for (const name of ["black", "white", "colormap", "overlay", "opacity", "angle"]) {
      control(name)?.addEventListener("input", schedule);
    }
    control("auto").addEventListener("click", resetContrast);
    control("mode").addEventListener("input", changeMode);
    control("place")?.addEventListener("input", changePlace);
    control("play").addEventListener("click", () => play(control("play").getAttribute("aria-pressed") !== "true"));
    control("size").addEventListener("input", () => root.style.setProperty("--pane", `${control("size").value}rem`));
    for (const box of root.querySelectorAll("[data-shows]")) {
      box.addEventListener("input", arrange);
    }
    for (const link of document.querySelectorAll("[data-target]")) {
      link.addEventListener("click", () => goTo(data.targets[link.dataset.target]));
    }
    const steps = {
      ArrowLeft: ["x", -1], ArrowRight: ["x", 1], ArrowUp: ["y", -1], ArrowDown: ["y", 1],
      PageUp: ["z", -1], PageDown: ["z", 1],
    };
    for (const figure of figures) {
      figure.querySelector(".ortho").addEventListener("keydown", (event) => {
        if (!(event.key in steps) || event.altKey || event.ctrlKey || event.metaKey) return;
        const [axis, step] = steps[event.key];
        event.preventDefault();
        move({ [axis]: state[axis] + step });
      });
      for (const frame of figure.querySelectorAll("[data-side]")) point(frame);
    }
  }

  function point(frame) {
    const follow = (event) => {
      const box = frame.getBoundingClientRect();
      const across = (event.clientX - box.left) / box.width, down = (event.clientY - box.top) / box.height;
      if (frame.dataset.side === "xy") move({ x: across * nx, y: down * ny });
      if (frame.dataset.side === "xz") move({ x: across * nx, z: down * nz });
      if (frame.dataset.side === "yz") move({ z: across * nz, y: down * ny });
    };
    frame.addEventListener("pointerdown", follow);
    frame.addEventListener("pointermove", (event) => {
      if (event.pointerType === "mouse" && event.buttons === 1) follow(event);
    });
  }

  async function start() {
    // Other pages may link to what is to be looked at, as report.html#look-error.
    const asked = data.targets.find((target) => location.hash === `#look-${target.key}`);
    const first = asked ?? data.targets[0];
    state.place = first.place;
    if (control("place")) control("place").value = first.place;
    try {
      await unpackAll();
    } catch (error) {
      control("viewer-status").textContent =
        `This browser could not unpack the volumes (${error.message}). The fixed pictures below show the same.`;
      return;
    }
    control("viewer-status").hidden = true;
    control("viewer-live").hidden = false;
    listen();
    root.dataset.mode = state.mode;
    resetContrast();
    move({ z: first.z, y: first.y, x: first.x });
    if (!asked) return;
    goTo(asked);
    root.scrollIntoView();
  }
  start();
})();
