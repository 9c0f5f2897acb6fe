"""What is in COCO's images: a file of objects by image, or COCO's instances together with its reference captions."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from veridical.errors import UserError
from veridical.protocols.answer_files import read_json
from veridical.protocols.benchmarks.chair_words import Lemmas, SynonymReader, read_synonyms
from veridical.protocols.chair import ObjectReader


@dataclass(frozen=True, kw_only=True)
class ObjectSettings:
    """What is in the images, and how texts name it."""

    objects: Path | None = None
    """What is in the images: JSON {image_id: [names]}."""
    instances: tuple[Path, ...] = ()
    """Or COCO's instances files ..."""
    reference_captions: tuple[Path, ...] = ()
    """... together with COCO's captions files, whose objects count as present, too."""
    synonyms: Path | None = None
    """CHAIR's published list of synonyms; without it veridical's own lexicon of the 80 classes."""
    lemmas: Literal["auto", "official", "wordnet", "nouns"] = "auto"
    """How words become singular: official (CHAIR's own singulars), nouns (WordNet's lemma of each word as a noun, as
    RLAIF-V does), or wordnet (WordNet's lemma by part of speech, as lmms-eval does; needs NLTK's data). auto is what
    the benchmark's published scorer does: nouns for object-halbench and recall-coco, official for chair."""

    PUBLISHED_LEMMAS: ClassVar[Lemmas] = "official"
    """What auto means."""

    @property
    def words(self) -> str:
        """How texts are read, for the protocol's name: the kind of lemmas, or coco80 for veridical's own lexicon."""
        return "coco80" if self.synonyms is None else published_lemmas(self)


@dataclass(frozen=True)
class Truth:
    """The objects in each image, file names of images where they are known, and names that the list does not hold."""

    objects: Mapping[str, frozenset[str]]
    files: Mapping[str, str] = field(default_factory=dict)
    unknown: Sequence[str] = ()


def coco80_reader() -> ObjectReader:
    """Veridical's own words for COCO's 80 classes."""
    from veridical.judges.lexicon_sources import coco80

    return coco80().lexicon


def object_reader(settings: ObjectSettings) -> tuple[ObjectReader, Mapping[str, str]]:
    """How objects are found, and the words that are classes or mean one.

    Raises:
        UserError: settings that can't be.
    """
    if settings.synonyms is not None:
        synonyms, lemmas = read_synonyms(settings.synonyms), published_lemmas(settings)
        if lemmas == "nouns":
            # RLAIF-V strips the blanks that keep some of the published synonyms from ever matching.
            synonyms = {form.strip(): name.strip() for form, name in synonyms.items()}
        return SynonymReader(synonyms, lemmas), synonyms
    if settings.lemmas != "auto":
        raise UserError(f"--lemmas {settings.lemmas}: reads by CHAIR's list; give it with --synonyms.")
    from veridical.judges.lexicon_sources import coco80

    lexicon = coco80().lexicon
    return lexicon, lexicon.synonyms


def published_lemmas(settings: ObjectSettings) -> Lemmas:
    """How words become singular by these settings, with auto made out."""
    return settings.PUBLISHED_LEMMAS if settings.lemmas == "auto" else settings.lemmas


def object_truth(
    settings: ObjectSettings, classes: Mapping[str, str], reader: ObjectReader, images: set[str] | None
) -> Truth:
    """What is in the images (the only ones wanted, all if None). Raises UserError for files that can't be."""
    if (settings.objects is None) == (not settings.instances):
        raise UserError("give what is in the images: --objects FILE, or COCO's --instances with --reference-captions.")
    if settings.objects is not None:
        return read_objects(settings.objects, classes, reader)
    return read_coco(settings.instances, settings.reference_captions, classes, reader, images)


def image_key(value: Any) -> str:
    """An image's id as text: 42, "42" and "COCO_val2014_000000000042.jpg" are the same image."""
    text = str(value).strip()
    if text.isdecimal() and text.isascii():
        return str(int(text))
    coco = re.fullmatch(r"(?:.*[/\\])?(?:COCO_\w+_)?(\d+)(?:\.\w+)?", text)
    return str(int(coco.group(1))) if coco else text


def image_keys(names: Iterable[Any]) -> dict[str, str]:
    """The key of each image by its name as it stands; names that only differ in a folder keep it."""
    texts = [str(name).strip() for name in names]
    shared = Counter(map(image_key, texts))
    return {text: key if shared[key := image_key(text)] == 1 else text for text in texts}


def known_image(value: Any, known: Collection[str]) -> str:
    """The key of an image among those that are known."""
    text = str(value).strip()
    return text if text in known else image_key(text)


def read_objects(path: Path, classes: Mapping[str, str], reader: ObjectReader) -> Truth:
    """A JSON file {image_id: [names]}; a name may be a class or any word for it.

    Args:
        path: the file.
        classes: words to classes.
        reader: understands names that are not in `classes` as they stand, such as plurals.

    Raises:
        UserError: the file is something else.
    """
    keys, entries = _entries(path)
    objects, files, unknown = {}, {}, []
    shared: dict[frozenset[str], frozenset[str]] = {}
    for image, names in entries:
        found: set[str] = set()
        for name in map(str, names):
            node = classes.get(name.strip().lower()) or next((m.name for m in reader.mentions(name)), None)
            if node is None:
                unknown.append(f"{path}: image {image}: {name!r} is none of the list's objects")
            else:
                found.add(node)
        key, present = keys[image.strip()], frozenset(found)
        objects[key] = shared.setdefault(present, present)
        if image != key:
            files[key] = image
    return Truth(objects, files, unknown)


LARGE = 2**20
"""Bytes from which on a file of objects is gone through twice rather than kept in memory."""


def _entries(path: Path) -> tuple[dict[str, str], Iterable[tuple[str, Sequence[Any]]]]:
    """The key of each image in a file of objects, and the names by image. Raises UserError for anything else."""
    if path.is_file() and path.stat().st_size > LARGE:
        import ijson

        def entries() -> Iterator[tuple[str, Sequence[Any]]]:
            with path.open("rb") as file:
                yield from ijson.kvitems(file, "", use_float=True)

        try:
            images = [image if isinstance(names, list) else None for image, names in entries()]
        except (ijson.JSONError, ValueError):
            images = []  # damaged, zipped, or JSON as only Python writes it
        if images and None not in images:
            return image_keys(images), entries()
    content = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(names, list) for names in content.values()):
        raise UserError(f'{path}: objects are {{"image id": ["name", ...]}}.')
    return image_keys(content), content.items()


def read_coco(
    instances: Sequence[Path],
    captions: Sequence[Path],
    classes: Mapping[str, str],
    reader: ObjectReader,
    images: Collection[str] | None,
) -> Truth:
    """COCO's annotated instances, and the objects that its reference captions name; both belong to CHAIR's truth.

    Args:
        instances: instances_train2014.json, instances_val2014.json.
        captions: captions_train2014.json, captions_val2014.json; may be left out.
        classes: words to classes.
        reader: reads the captions.
        images: the only images wanted; all if None.

    Raises:
        UserError: a file is something else, or a category is not in the list.
    """
    objects: dict[str, set[str]] = defaultdict(set)
    files: dict[str, str] = {}
    for path in instances:
        content = _annotated(path, "categories")
        names = {category["id"]: _category(category["name"], classes, path) for category in content["categories"]}
        for image in content.get("images", ()):
            files[str(image["id"])] = image.get("file_name", "")
            objects[str(image["id"])]  # an image without instances is known to have none
        for annotation in content["annotations"]:
            objects[str(annotation["image_id"])].add(names[annotation["category_id"]])
    for path in captions:
        for annotation in _annotated(path)["annotations"]:
            key = str(annotation["image_id"])
            if images is None or key in images:
                objects[key] |= {mention.name for mention in reader.mentions(annotation["caption"])}
    return Truth({key: frozenset(names) for key, names in objects.items() if images is None or key in images}, files)


def _annotated(path: Path, *more: str) -> dict[str, Any]:
    content = read_json(path)
    for name in ("annotations", *more):
        if not isinstance(content, dict) or name not in content:
            raise UserError(f"{path}: no COCO annotations; it lacks {name!r}.")
    found: dict[str, Any] = content
    return found


def _category(name: str, classes: Mapping[str, str], path: Path) -> str:
    if name not in classes:
        raise UserError(f"{path}: the category {name!r} is not in the list of objects; use CHAIR's list of synonyms.")
    return classes[name]
