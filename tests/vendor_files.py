"""Acquisitions as the vendors' software writes them, for the tests of the readers.

Data are (T, C, P, Y, X) throughout.
"""

import json
import struct

import numpy as np
import tifffile
import zarr

SCANIMAGE_MAGIC = 117637889


def counts(shape=(3, 2, 4, 18, 20), seed=0, dtype=np.uint16):
    """Return an array of which every plane differs."""
    return np.random.default_rng(seed).integers(100, 4000, shape).astype(dtype)


def matlab(value):
    """Write a value as ScanImage does."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"'{value}'"
    if isinstance(value, (list, tuple, np.ndarray)):
        if len(value) and isinstance(value[0], str):
            return "{" + " ".join(map(matlab, value)) + "}"
        if len(value) and isinstance(value[0], (list, tuple)):
            return "[" + ";".join(" ".join(f"{v:g}" for v in row) for row in value) + "]"
        return "[" + " ".join(f"{v:g}" for v in value) + "]"
    return f"{value:g}"


def scanimage_header(slices, zs, channels=2, volumes=3, repeats=1, flyback=0, fov=None, **more):
    """Return the non-varying settings of a stack."""
    frames = slices * repeats
    half = 50.0 if fov is None else fov / 2
    corners = [[-half, -half], [half, -half], [half, half], [-half, half]]
    return {
        "SI.VERSION_MAJOR": 2020,
        "SI.VERSION_MINOR": 1,
        "SI.hChannels.channelName": ["Channel 1", "Channel 2", "Channel 3", "Channel 4"],
        "SI.hChannels.channelSave": list(range(1, channels + 1)) if channels > 1 else 1,
        "SI.hFastZ.enable": volumes > 1,
        "SI.hFastZ.discardFlybackFrames": flyback > 0,
        "SI.hFastZ.numDiscardFlybackFrames": flyback,
        "SI.hRoiManager.imagingFovUm": corners,
        "SI.hRoiManager.mroiEnable": False,
        "SI.hRoiManager.scanVolumeRate": 2.5,
        "SI.hScan2D.logAverageFactor": 1,
        "SI.hStackManager.enable": True,
        "SI.hStackManager.actualNumSlices": slices,
        "SI.hStackManager.actualNumVolumes": volumes,
        "SI.hStackManager.framesPerSlice": repeats,
        "SI.hStackManager.numFramesPerVolume": frames,
        "SI.hStackManager.numFramesPerVolumeWithFlyback": frames + flyback,
        # Left over from an earlier stack.
        "SI.hStackManager.numSlices": 11,
        "SI.hStackManager.zs": list(zs),
    } | more


def write_scanimage(path, pages, header, first=1, channels=2, version=4, regions=1):
    """Write a BigTIFF of ScanImage byte by byte: static block, then directories before their data.

    `pages` is (n, Y, X) in int16, channels fastest; `first` is the number of the first frame.
    """
    static = "\n".join(f"{key} = {matlab(value)}" for key, value in header.items()).encode() + b"\0"
    rois = [
        {"name": f"ROI {i}", "scanfields": {"pixelResolutionXY": [20, 18]}} for i in range(regions)
    ]
    groups = {"RoiGroups": {"imagingRoiGroup": {"rois": rois if regions > 1 else rois[0]}}}
    groups = json.dumps(groups).encode() + b"\0"
    out = bytearray(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
    out += struct.pack("<IIII", SCANIMAGE_MAGIC, version, len(static), len(groups))
    places = {"static": len(out)}
    out += static
    places["groups"] = len(out)
    out += groups
    pointer = 8
    for number, page in enumerate(pages):
        out += bytes(-len(out) % 8)
        text = describe_frame(first + number // channels).encode() + b"\0"
        start = len(out)
        description = start + 8 + 18 * 20 + 8
        data = description + len(text) + (-len(text) % 8)
        height, width = page.shape
        out[pointer : pointer + 8] = struct.pack("<Q", start)
        tags = [
            (254, 4, 1, 0),
            (256, 4, 1, width),
            (257, 4, 1, height),
            (258, 3, 1, 16),
            (259, 3, 1, 1),
            (262, 3, 1, 1),
            (270, 2, len(text), description),
            (273, 16, 1, data),
            (274, 3, 1, 1),
            (277, 3, 1, 1),
            (278, 4, 1, height),
            (279, 16, 1, page.nbytes),
            (284, 3, 1, 1),
            (296, 3, 1, 3),
            (305, 2, len(static), places["static"]),
            (315, 2, len(groups), places["groups"]),
            (339, 3, 1, 2),
            (65535, 4, 1, 0),
        ]
        out += struct.pack("<Q", len(tags))
        for tag, kind, count, value in tags:
            out += struct.pack("<HHQQ", tag, kind, count, value)
        pointer = len(out)
        out += bytes(8)
        out += bytes(description - len(out)) + text
        out += bytes(data - len(out)) + page.astype("<i2").tobytes()
    path.write_bytes(out)


def describe_frame(number):
    """Return the text that ScanImage notes at every page."""
    return (
        f"frameNumbers = {number}\nacquisitionNumbers = 1\nframeNumberAcquisition = {number}\n"
        f"frameTimestamps_sec = {0.033 * (number - 1):.9f}\nacqTriggerTimestamps_sec = -0.000019\n"
        f"nextFileMarkerTimestamps_sec = -1.000000\nendOfAcquisition = 0\n"
        f"endOfAcquisitionMode = 0\ndcOverVoltage = 0\nepoch = [2026 11 25 14 3 22.500]\n"
        f"auxTrigger0 = []\nauxTrigger1 = []\nI2CData = {{}}\n"
    )


def scanimage_pages(data, repeats=1, flyback=0):
    """Return (T, C, P, Y, X) as the pages of a stack: volume, slice, repetition, channel.

    Repetition r of a plane is brighter by r, so that their mean is known; flyback frames are -1.
    """
    volumes, channels, slices, *size = data.shape
    pages = []
    for t in range(volumes):
        for p in range(slices):
            for r in range(repeats):
                pages.extend(data[t, c, p].astype(int) + r for c in range(channels))
        pages.extend(np.full(size, -1) for _ in range(flyback * channels))
    return np.array(pages, np.int16)


def write_bruker(
    folder,
    data,
    focus,
    piezo=None,
    kind="TSeries ZSeries Element",
    turn=False,
    pixel_um=(0.6, 0.5),
    last=None,
    per_depth=False,
):
    """Write a Prairie View 5 scan: one sequence per time point, or per depth.

    `focus` and `piezo` are one depth per projection, or a constant. With `turn`, every second
    sequence runs backwards; `last` is the number of frames of the last one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    times, channels, planes = data.shape[:3]
    focus, piezo = (
        None if z is None else np.broadcast_to(np.asarray(z, float), planes) for z in (focus, piezo)
    )
    sequences = []
    outer, inner = (planes, times) if per_depth else (times, planes)
    for cycle in range(outer):
        frames = []
        order = list(range(inner))
        if turn and cycle % 2:
            order.reverse()
        for index, place in enumerate(order[: last if cycle == outer - 1 else None], start=1):
            t, p = (place, cycle) if per_depth else (cycle, place)
            files = []
            for c in range(channels):
                name = f"{folder.name}_Cycle{cycle + 1:05d}_Ch{c + 1}_{index:06d}.ome.tif"
                tifffile.imwrite(folder / name, data[t, c, p], photometric="minisblack")
                files.append(
                    f'<File channel="{c + 1}" channelName="Ch{c + 1} Grün" page="1" '
                    f'filename="{name}" />'
                )
            drives = f'<SubindexedValue subindex="0" value="{focus[p]}" description="Z Focus" />'
            if piezo is not None:
                drives += (
                    f'<SubindexedValue subindex="1" value="{piezo[p]}" '
                    f'description="Bruker 400 μm Piezo" />'
                )
            frames.append(
                f'<Frame relativeTime="{0.1 * index}" absoluteTime="{10 * cycle + 0.1 * index}" '
                f'index="{index}" parameterSet="CurrentSettings">{"".join(files)}'
                f'<ExtraParameters lastGoodFrame="0" /><PVStateShard>'
                f'<PVStateValue key="positionCurrent">'
                f'<SubindexedValues index="XAxis"><SubindexedValue subindex="0" value="330.78" />'
                f'</SubindexedValues><SubindexedValues index="ZAxis">{drives}</SubindexedValues>'
                f"</PVStateValue></PVStateShard></Frame>"
            )
        sequences.append(
            f'<Sequence type="{kind}" cycle="{cycle + 1}" time="15:17:18.1161356" '
            f'bidirectionalZ="{turn}">{"".join(frames)}</Sequence>'
        )
    head = (
        f'<PVStateShard><PVStateValue key="framePeriod" value="0.033" />'
        f'<PVStateValue key="micronsPerPixel">'
        f'<IndexedValue index="XAxis" value="{pixel_um[1]}" />'
        f'<IndexedValue index="YAxis" value="{pixel_um[0]}" />'
        f'<IndexedValue index="ZAxis" value="5" /></PVStateValue></PVStateShard>'
    )
    (folder / f"{folder.name}.xml").write_text(
        f'<?xml version="1.0" encoding="utf-8"?>\n'
        f'<PVScan version="5.5.64.100" date="11/25/2026 2:03:22 PM" notes="">'
        f'<SystemIDs SystemID="1"></SystemIDs>{head}{"".join(sequences)}</PVScan>',
        encoding="utf-8",
    )
    # Other XML files lie beside it.
    (folder / f"{folder.name}_Cycle00001_VoltageOutput_001.xml").write_text("<Experiment />")
    return folder


def write_thorlabs(
    folder,
    data,
    step_um=5.0,
    flyback=1,
    streaming=True,
    fast_z=True,
    raw="Image_0001_0001.raw",
    field_um=(9.0, 10.0),
    steps=None,
    start_stop=(0.2, 0.215),
):
    """Write a folder of ThorImage: Experiment.xml and little-endian numbers without a header."""
    folder.mkdir(parents=True, exist_ok=True)
    times, channels, planes, height, width = data.shape
    frames = times * (planes + flyback) if streaming else 0
    names = "".join(
        f'<Wavelength name="Chan{"ABCD"[c]}" exposuretimeMS="0" />' for c in range(channels)
    )
    # ThorImage 4 states a pixelSizeUM that is not the size of a pixel.
    (folder / "Experiment.xml").write_text(
        f'<?xml version="1.0"?>\n<ThorImageExperiment>\n'
        f'  <Name name="{folder.name}" path="C:\\data" />\n'
        f'  <Date date="11/25/2026 14:03:22" uTime="1795616602" />\n'
        f'  <Software version="4.1.2021.9131" />\n'
        f'  <Wavelengths nyquistExWavelengthNM="488" nyquistEmWavelengthNM="488">{names}'
        f'<ChannelEnable Set="{2**channels - 1}" /></Wavelengths>\n'
        f'  <ZStage name="ThorZPiezo" enable="1" steps="{steps or planes}" '
        f'stepSizeUM="{step_um}" startPos="{start_stop[0]}" stopPos="{start_stop[1]}" />\n'
        f'  <Timelapse timepoints="{1 if streaming else times}" intervalSec="30" />\n'
        f'  <LSM name="ResonanceGalvo" pixelX="{width}" pixelY="{height}" pixelSizeUM="2.93" '
        f'widthUM="{field_um[1]}" heightUM="{field_um[0]}" frameRate="30.2" averageMode="0" '
        f'averageNum="10" />\n'
        f'  <Streaming enable="{int(streaming)}" frames="{frames}" rawData="1" '
        f'zFastEnable="{int(fast_z)}" flybackFrames="{flyback}" />\n'
        f"</ThorImageExperiment>\n",
        encoding="utf-8",
    )
    if raw:
        padded = np.concatenate(
            [data, np.full((times, channels, flyback, height, width), 7, data.dtype)], axis=2
        )
        # Volume, slice and flyback frames, channel.
        (folder / raw).write_bytes(padded.transpose(0, 2, 1, 3, 4).astype("<u2").tobytes())
    return folder


def write_ome_zarr(
    path, data, version="0.5", step=5.0, first=2.5, unit="micrometer", pixel=(600.0, 500.0)
):
    """Write an OME-Zarr image whose lateral axes are in nanometres."""
    kind = 3 if version == "0.5" else 2
    group = zarr.open_group(str(path), mode="w", zarr_format=kind)
    separator = {} if kind == 3 else {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
    for level, array in enumerate((data, data[..., ::2, ::2])):
        stored = group.create_array(
            str(level),
            shape=array.shape,
            dtype=array.dtype,
            chunks=(1, 1, 2, 16, 16),
            **separator,
        )
        stored[:] = array
    axes = [
        {"name": "t", "type": "time", "unit": "second"},
        {"name": "c", "type": "channel"},
        {"name": "z", "type": "space"} | ({"unit": unit} if unit else {}),
        {"name": "y", "type": "space", "unit": "nanometer"},
        {"name": "x", "type": "space", "unit": "nanometer"},
    ]
    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": [
                {"type": "scale", "scale": [1, 1, step, *(2**level * p for p in pixel)]},
                {"type": "translation", "translation": [0, 0, first, 0, 0]},
            ],
        }
        for level in range(2)
    ]
    ome = {
        "multiscales": [
            {
                "axes": axes,
                "datasets": datasets,
                "name": "mouse",
                "coordinateTransformations": [{"type": "scale", "scale": [30, 1, 1, 1, 1]}],
            }
        ],
        "omero": {"channels": [{"label": f"GCaMP {c}"} for c in range(data.shape[1])]},
    }
    if version == "0.5":
        group.attrs["ome"] = {"version": version} | ome
    else:
        ome["multiscales"][0]["version"] = version
        group.attrs.update(ome)
    return path


def write_bioformats2raw(path, images, version="0.5", names=None):
    """Write images into folders of one, as bioformats2raw does."""
    names = names or [str(number) for number in range(len(images))]
    root = zarr.open_group(str(path), mode="w", zarr_format=3 if version == "0.5" else 2)
    layout = {"bioformats2raw.layout": 3}
    root.attrs.update({"ome": {"version": version} | layout} if version == "0.5" else layout)
    listed = root.create_group("OME")
    series = {"series": names}
    listed.attrs.update({"ome": {"version": version} | series} if version == "0.5" else series)
    (path / "OME" / "METADATA.ome.xml").write_text("<OME/>", encoding="utf-8")
    for name, data in zip(names, images, strict=True):
        write_ome_zarr(path / name, data, version)
    return path


def write_companion(
    folder,
    data,
    name="set",
    positions=None,
    uuid=True,
    stub=True,
    named=str,
    images=1,
    **options,
):
    """Write one TIFF per time point and the OME-XML of all in a companion; return its path.

    With `stub`, the TIFFs name the companion as the specification shows, else they are plain;
    `named` makes the FileName of a TIFF from its name. Planes are in nanometres and millimetres.
    Each of several `images` has TIFFs of its own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    times, channels, planes, height, width = data.shape
    schema = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    master = "urn:uuid:00000000-0000-0000-0000-000000000000"
    written = []
    for image in range(images):
        places, described = [], []
        for t in range(times):
            number = image * times + t + 1
            own = f"urn:uuid:00000000-0000-0000-0000-{number:012d}"
            file = f"{name}_t{number - 1}.ome.tif"
            xml = (
                f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="{schema}" UUID="{own}">'
                f'<BinaryOnly MetadataFile="{name}.companion.ome" UUID="{master}"/></OME>'
            )
            tifffile.imwrite(
                folder / file,
                data[t].reshape(-1, height, width),
                photometric="minisblack",
                description=xml.encode() if stub else None,
                metadata=None,
                ome=False,
                **options,
            )
            places.append(
                f'<TiffData FirstC="0" FirstT="{t}" FirstZ="0" IFD="0" '
                f'PlaneCount="{channels * planes}"><UUID FileName="{named(file)}">\n'
                f"  {own if uuid else ''}\n</UUID></TiffData>"
            )
            for c, z in np.ndindex(channels, planes if positions is not None else 0):
                described.append(
                    f'<Plane TheT="{t}" TheC="{c}" TheZ="{z}" DeltaT="{t / 2}" DeltaTUnit="min" '
                    f'PositionZ="{positions[z] / 1000:.9g}" PositionZUnit="mm"/>'
                )
        names = "".join(
            f'<Channel ID="Channel:{image}:{c}" Name="Ch {c}"/>' for c in range(channels)
        )
        written.append(
            f'<Image ID="Image:{image}" Name="field {image}">'
            f"<AcquisitionDate>2026-11-25T14:03:22</AcquisitionDate>"
            f'<Pixels ID="Pixels:{image}" DimensionOrder="XYZCT" Type="{data.dtype}" '
            f'SizeX="{width}" SizeY="{height}" SizeZ="{planes}" SizeC="{channels}" SizeT="{times}" '
            f'PhysicalSizeX="500" PhysicalSizeXUnit="nm" PhysicalSizeY="600" '
            f'PhysicalSizeYUnit="nm">{names}{"".join(places)}{"".join(described)}</Pixels></Image>'
        )
    path = folder / f"{name}.companion.ome"
    path.write_text(
        f'<?xml version="1.0" encoding="UTF-8"?>\n<OME xmlns="{schema}" UUID="{master}" '
        f'Creator="A microscope 1.2">{"".join(written)}</OME>\n',
        encoding="utf-8",
    )
    return path


def invert(path, *pages):
    """Let pages of a TIFF, all by default, say that zero is white; pixels stay as they are."""
    with tifffile.TiffFile(path, mode="r+b") as tif:
        tif.pages.useframes = False
        for number in pages or range(len(tif.pages)):
            tif.pages[number].tags["PhotometricInterpretation"].overwrite(0)


def write_handmade_tiff(path, pages, order="<", tags=None, pack=None):
    """Write a TIFF byte by byte: one uncompressed strip per page, before its directory.

    `tags` adds or replaces (type, value) by code; `pack` turns a page into bytes.
    """
    out = bytearray(struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 0))
    pointer = 4
    for page in pages:
        height, width = page.shape
        raw = pack(page) if pack else page.astype(page.dtype.newbyteorder(order)).tobytes()
        data = len(out)
        out += raw + bytes(len(raw) % 2)
        entries = {256: (4, width), 257: (4, height), 258: (3, 8 * page.itemsize), 259: (3, 1)}
        entries |= {262: (3, 1), 273: (4, data), 277: (3, 1), 278: (4, height)}
        entries |= {279: (4, len(raw))} | (tags or {})
        start, beyond = len(out), bytearray()
        out[pointer : pointer + 4] = struct.pack(f"{order}I", start)
        out += struct.pack(f"{order}H", len(entries))
        after = start + 2 + 12 * len(entries) + 4
        for code, (kind, value) in sorted(entries.items()):
            if kind == 3:
                out += struct.pack(f"{order}HHIHH", code, kind, 1, value, 0)
            elif kind == 4:
                out += struct.pack(f"{order}HHII", code, kind, 1, value)
            else:
                # Text, or a fraction.
                text = (
                    value.encode("latin-1") + b"\0"
                    if kind == 2
                    else struct.pack(order + "II", *value)
                )
                count = len(text) if kind == 2 else 1
                out += struct.pack(f"{order}HHII", code, kind, count, after + len(beyond))
                beyond += text + bytes(len(text) % 2)
        pointer = len(out)
        out += bytes(4) + beyond
    path.write_bytes(out)
    return path
