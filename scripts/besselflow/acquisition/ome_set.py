"""The files of an OME-TIFF: where its OME-XML lies, and which TIFFs hold the planes it describes.

The OME-XML of a set lies in each of its TIFFs, in one of them, or in a file of its own, whose name
ends in ``.companion.ome``. TIFFs without it name that file, in `BinaryOnly`; every `TiffData` of
it names a TIFF and the UUID that this should have
(https://ome-model.readthedocs.io/en/stable/ome-tiff/specification.html, "Multi-file OME-TIFF").
"""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import tifffile

from besselflow.acquisition.planes import check_files
from besselflow.acquisition.tiff import check_directories, check_pages, is_tiff, opened_tiff
from besselflow.acquisition.xml_files import parse_xml, root_tag
from besselflow.errors import InputError

_COMPANION = "*.companion.ome"
_ROOT = "OME"
_BEGIN = re.compile(r"<(\w+:)?OME[\s>]")
# Root and BinaryOnly stand at the beginning; what follows may have megabytes in every file.
_HEAD = 20_000


@dataclass(frozen=True)
class OmeSet:
    """An OME-XML and the TIFFs that hold its planes.

    Attributes
    ----------
    root : xml.etree.ElementTree.Element
        The OME-XML, in which every `TiffData` names its TIFF by the absolute path.
    source : pathlib.Path
        The file in which the OME-XML lies: one of the TIFFs, or a companion.
    identity : str
        UUID of the source; empty where it has none.
    tiffs : dict of pathlib.Path to set of str
        The TIFFs in the order in which they are named, and the UUID that each should have.
    """

    root: ElementTree.Element
    source: Path
    identity: str
    tiffs: dict[Path, set[str]]

    @property
    def first(self) -> Path:
        """The TIFF that is opened to read the set."""
        return self.source if self.source in self.tiffs else next(iter(self.tiffs))

    @property
    def files(self) -> tuple[Path, ...]:
        """All files, that with the OME-XML first."""
        return tuple(dict.fromkeys((self.source, *self.tiffs)))

    def xml(self) -> str:
        """Return the OME-XML in the form that tifffile takes."""
        self.root.set("UUID", _absolute(self.first))
        return ElementTree.tostring(self.root, encoding="unicode")


def local_name(node: ElementTree.Element) -> str:
    """Return the tag of an element without its namespace, which differs between versions."""
    return node.tag.rpartition("}")[2]


def children(node: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    """Return the child elements of a name."""
    return [child for child in node if local_name(child) == name]


def descendants(node: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    """Return the elements of a name at any depth."""
    return [inner for inner in node.iter() if local_name(inner) == name]


def ome_xml(tif: tifffile.TiffFile) -> str:
    """Return the OME-XML of a TIFF, also where it is damaged; empty where there is none."""
    text = tif.pages.first.description
    return text if _BEGIN.search(text[:_HEAD]) else ""


def companion_of(path: Path) -> Path | None:
    """Return the OME-XML file that a path stands for: itself, or the only companion in a folder."""
    if path.is_dir():
        found = companions_in(path)
        return found[0] if len(found) == 1 else None
    return path if not is_tiff(path) and root_tag(path) == _ROOT else None


def companions_in(folder: Path) -> list[Path]:
    """Return the files of a folder that are named like the OME-XML of a set."""
    return sorted(file for file in folder.glob(_COMPANION) if not file.name.startswith("."))


def find_set(path: Path) -> OmeSet:
    """Find the files of an OME-TIFF, whether they are there or not.

    Of several images, that which a TIFF belongs to is kept where it belongs to just one.

    Parameters
    ----------
    path : pathlib.Path
        One of the TIFFs, the companion, or a folder with a single companion.

    Raises
    ------
    InputError
        The OME-XML is damaged or not there, or does not describe one image in TIFFs.
    """
    source = companion_of(path) or path
    root = _read_root(source)
    elsewhere = descendants(root, "BinaryOnly")
    if elsewhere:
        name = elsewhere[0].get("MetadataFile", "")
        source = _beside(source, name)
        if source is None:
            raise InputError(
                f"{path}: its OME-XML lies in another file, {name}, which is not there; copy the "
                f"whole folder again from the microscope, or give the path of that file"
            )
        root = _read_root(source)
    if not descendants(root, "Pixels"):
        raise InputError(f"{source}: its OME-XML describes no pixels; export it again")
    identity = (root.get("UUID") or "").strip()
    tiffs = _resolve(root, source)
    _keep_image(root, path)
    named = {node.get("FileName") for node in descendants(root, "UUID")}
    tiffs = {file: uuids for file, uuids in tiffs.items() if _absolute(file) in named}
    if not tiffs:
        raise InputError(
            f"{source}: its OME-XML names no TIFFs that hold its pixels; export it as OME-TIFF"
        )
    return OmeSet(root, source, identity, tiffs)


def _absolute(path: Path) -> str:
    return str(path.absolute())


def _read_root(source: Path) -> ElementTree.Element:
    if not is_tiff(source):
        return parse_xml(source)
    with opened_tiff(source) as tif:
        text = ome_xml(tif)
    try:
        return ElementTree.fromstring(text or "<none/>")
    except ElementTree.ParseError as error:
        raise InputError(f"{source}: its OME-XML is damaged ({error}); export it again") from error


def _beside(source: Path, name: str) -> Path | None:
    """Return the file of a name that another one states: relative to that, or else beside it.

    The name may be that on the computer of the microscope, and the other one a link.
    """
    stated, folders = Path(name.replace("\\", "/")), _folders(source)
    candidates = (folder / part for part in (stated, stated.name) for folder in folders)
    # Copies from a Mac or to a server may spell letters with accents, or the case, in another way.
    alike = (
        file
        for folder in folders
        for file in sorted(folder.iterdir())
        if _spelt_alike(file.name) == _spelt_alike(stated.name)
    )
    return next((file for file in itertools.chain(candidates, alike) if file.is_file()), None)


def _spelt_alike(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _folders(source: Path) -> list[Path]:
    """Return where a file lies, and where it lies in truth."""
    return list(dict.fromkeys((source.parent, source.resolve().parent)))


def _resolve(root: ElementTree.Element, source: Path) -> dict[Path, set[str]]:
    """Let every `TiffData` name its file by the absolute path; return files and their UUIDs."""
    known: dict[tuple[str, str], Path] = {}
    found: dict[Path, set[str]] = {}
    renamed = functools.cache(lambda: _by_uuid(_folders(source)))
    stated = {(node.text or "").strip() for node in descendants(root, "UUID")}
    for place in descendants(root, "TiffData"):
        node = next(iter(children(place, "UUID")), None)
        if node is None:
            node = ElementTree.SubElement(place, place.tag.replace("TiffData", "UUID"))
        uuid, name = (node.text or "").strip(), node.get("FileName", "")
        if (uuid, name) not in known:
            known[uuid, name] = _find(uuid, name, root, source, renamed, alone=len(stated) == 1)
        file = known[uuid, name]
        found.setdefault(file, set()).update({uuid} - {""})
        node.text = _absolute(file)
        node.set("FileName", node.text)
    return found


def _find(
    uuid: str,
    name: str,
    root: ElementTree.Element,
    source: Path,
    renamed: Callable[[], dict[str, Path]],
    alone: bool,
) -> Path:
    """Return the TIFF with a UUID and a name, where it is or should be."""
    inside, own = is_tiff(source), (root.get("UUID") or "").strip()
    if inside and (uuid == own if uuid else not name):
        return source
    if not uuid and not name:
        raise InputError(
            f"{source}: its OME-XML does not say which files hold its planes (TiffData without "
            f"UUID); export the set again"
        )
    there = _beside(source, name) or renamed().get(uuid)
    if there is not None:
        return there
    if inside and alone and not own:
        # A single file that was renamed.
        return source
    if not name:
        raise InputError(
            f"{source}: no TIFF beside it has the UUID {uuid} that its OME-XML names; copy the "
            f"whole folder again from the microscope"
        )
    return source.parent / Path(name.replace("\\", "/")).name


def _by_uuid(folders: list[Path]) -> dict[str, Path]:
    """Return the TIFFs of some folders by their UUID, for those that were renamed."""
    found: dict[str, Path] = {}
    for file in (file for folder in folders for file in sorted(folder.iterdir())):
        try:
            if is_tiff(file) and not file.name.startswith("."):
                with tifffile.TiffFile(file) as tif:
                    uuid, _ = _identity(tif)
                if uuid:
                    found.setdefault(uuid, file)
        except Exception:
            # What is not readable is not what is looked for, or is missed.
            continue
    return found


def _identity(tif: tifffile.TiffFile) -> tuple[str, str]:
    """Return the UUID that a TIFF states of itself, and of the file with its OME-XML."""
    parser = ElementTree.XMLPullParser(("start",))
    try:
        parser.feed(ome_xml(tif)[:_HEAD])
        nodes = [node for _, node in parser.read_events()]
    except ElementTree.ParseError:
        nodes = []
    uuids = [node.get("UUID", "") for node in nodes[:1]]
    master = [node.get("UUID", "") for node in nodes if local_name(node) == "BinaryOnly"]
    return "".join(uuids).strip(), "".join(master).strip()


def _keep_image(root: ElementTree.Element, path: Path) -> None:
    """Of several images, keep that which a TIFF belongs to."""
    images = children(root, "Image")
    if len(images) < 2:
        return
    own = [
        image
        for image in images
        if any(
            Path(name).resolve() == path.resolve()
            for name in {node.get("FileName") for node in descendants(image, "UUID")}
        )
    ]
    if len(own) == 1:
        for image in set(images) - set(own):
            root.remove(image)
    elif not own:
        named = ", ".join(str(image.get("Name")) for image in images[:3])
        more = ", ..." if len(images) > 3 else ""
        raise InputError(
            f"{path}: its OME-XML describes {len(images)} images ({named}{more}); give one of the "
            f"TIFFs of a single image"
        )


def check_set(found: OmeSet, path: Path) -> None:
    """Look for what is missing, truncated, or from another set, without reading pixels.

    Parameters
    ----------
    found : OmeSet
    path : pathlib.Path
        What was asked for, for messages.

    Raises
    ------
    InputError
        Names the first file that is not as the OME-XML says.
    """
    check_files(list(found.tiffs), path)
    if found.files == (path,):
        # What there is to be said of a single file is found when it is read.
        return
    asked = _pages(found.root)
    first = None
    for file, uuids in found.tiffs.items():
        with opened_tiff(file) as tif:
            check_directories(tif, file)
            check_pages(tif, file)
            own, master = _identity(tif)
            pages, image = len(tif.pages), (tif.pages[0].shape, tif.pages[0].dtype)
        # Where a file does not state who it is, it may state which set it belongs to.
        stated, right = (own, uuids) if own and uuids else (master, {found.identity} - {""})
        if stated and right and stated not in right:
            raise InputError(
                f"{path}: {file.name} belongs to another set (it states the UUID {stated} instead "
                f"of {min(right)}); copy the whole folder again, or export it as one OME-TIFF"
            )
        if asked[_absolute(file)] > pages:
            raise InputError(
                f"{path}: {file.name} has {pages} pages, but the OME-XML names "
                f"{asked[_absolute(file)]} of it; copy the whole folder again from the microscope"
            )
        first = first or image
        if image != first:
            raise InputError(
                f"{path}: {file.name} holds {image[0]} pixels (y, x) of type {image[1]}, but "
                f"{next(iter(found.tiffs)).name} {first[0]} of type {first[1]}; export the set "
                f"again"
            )


def _pages(root: ElementTree.Element) -> dict[str, int]:
    """Return how many pages the OME-XML names, by file."""
    asked: dict[str, int] = {}
    for place in descendants(root, "TiffData"):
        name = children(place, "UUID")[0].get("FileName")
        last = int(place.get("IFD", 0)) + max(1, int(place.get("PlaneCount", 1)))
        asked[name] = max(asked.get(name, 0), last)
    return asked
